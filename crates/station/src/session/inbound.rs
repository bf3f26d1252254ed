//! What a session does with what the station says.
//!
//! Owns the decisions about inbound messages: which event they become, whether they are answered and with what. Writes
//! nothing: events go to the host, answers wait in the queue until they are durable (P1).

use ocpp_protocol::{
    Action, ActionKind, BootState, Call, CallError, ErrorCode, Frame, InboundAction, Malformed,
    MalformedKind, MessageId, Reply, ReplyKind, classify_call, classify_send, is_unmistakable, parse_with,
    start_key, station_may_send,
};

use super::Session;
use super::latest::number;
use super::message::{call_message, error_message};
use super::registration::refusal_text;
use super::validation::Examined;
use crate::answer_queue::Ready;
use crate::close::CloseReason;
use crate::content::Content;
use crate::events::{AnsweredBy, Body, Message};
use crate::host::{Delegation, Event, Host, RegisteredBy, Trace};
use crate::observation::{Observation, UNKNOWN_ACTION};
use crate::outcome::CommandError;
use crate::recent_calls::{CallKey, DurablePoint, Recorded};
use crate::record::StationModel;
use crate::time::Now;

impl<H: Host> Session<H> {
    /// A text message came in.
    pub fn on_text(&mut self, now: Now, text: &str, host: &mut H) {
        if self.takes_message(now) {
            self.take_text(now, text, host);
        }
    }

    /// A binary message came in: text in disguise where the options are lenient, the end elsewhere (ocpp-j 1.8).
    pub fn on_binary(&mut self, now: Now, bytes: &[u8], host: &mut H) {
        if !self.takes_message(now) {
            return;
        }
        match std::str::from_utf8(bytes) {
            Ok(text) if host.options().lenient => {
                host.observe(Observation::Leniency("binaryFrame"));
                self.take_text(now, text, host);
            }
            _ => self.end(now, CloseReason::BinaryFrame, host),
        }
    }

    /// Counts a message. What comes after our close frame was not read in time to be answered; the station keeps it.
    fn takes_message(&mut self, now: Now) -> bool {
        self.keepalive.seen(now.monotonic);
        let takes = !self.is_ending();
        self.messages_in += u64::from(takes);
        takes
    }

    fn take_text(&mut self, now: Now, text: &str, host: &mut H) {
        let parsed = parse_with(host.subject().version, host.options().validation.message_ids, text);
        if let Ok(frame) = &parsed {
            Self::observe_id(frame.id(), host);
        }
        match parsed {
            Ok(Frame::Call(call)) => self.on_call(now, &call, host),
            Ok(Frame::Send(call)) => Self::on_send(now, &call, host),
            Ok(Frame::CallResult(result)) => self.on_call_result(now, &result, host),
            Ok(Frame::CallError(error)) => self.on_call_error(now, &error, host),
            Ok(Frame::CallResultError(error)) => self.on_call_result_error(now, &error, host),
            Err(malformed) => self.on_malformed(now, &malformed, text, host),
        }
    }

    fn on_call(&mut self, now: Now, call: &Call<'_>, host: &mut H) {
        let version = host.subject().version;
        let classified = classify_call(version, &call.action);
        let known = if let InboundAction::Known(action) = classified {
            Some(action)
        } else {
            Action::find(&call.action)
        };
        let label = known.map_or(UNKNOWN_ACTION, |action| action.name);
        host.observe(Observation::Received { message_type: "CALL", action: label });
        Self::observe_null(call.payload_was_null, host);
        let key = CallKey::of(call);
        if self.answer_again(now, call, key, known, host) {
            return;
        }
        let is_shed = host.sheds(label);
        if is_shed {
            host.observe(Observation::Shed { action: label });
        }
        let mut trace = host.trace_call(now, label, &call.id.decoded());
        let mut examined = match classified {
            InboundAction::Known(action) => {
                if action.kind() == ActionKind::Boot
                    && let Some(model) = StationModel::in_boot(version, call.payload)
                {
                    host.introduce(model);
                }
                Self::examine("CALL", action, call.payload, host)
            }
            InboundAction::NotSupported | InboundAction::NotImplemented => Examined::default(),
        };
        let decided = self.decide(classified, call, &mut examined, host);
        let delegation = decided.as_ref().ok().and_then(|action| host.delegation(action));
        // A backend never hears of a message that is shed.
        if let Ok(action) = decided
            && !is_shed
            && let Some(delegation) = delegation
        {
            self.delegate(now, call, key, action, delegation, examined.told.as_deref(), trace, host);
            return;
        }
        if !is_shed {
            let message = call_message("CALL", call, Some(AnsweredBy::Gateway));
            let violation = examined.told.as_deref();
            let message = Message { violation, traceparent: trace.context(), ..message };
            host.publish(Event::Received(now.wall, &message));
        }
        let content = match decided {
            Ok(action) => self.answer(now, action, call, delegation, host),
            Err(refusal) => refusal,
        };
        let outcome = content.outcome(version);
        host.observe(Observation::CallEnded { action: label, outcome });
        trace.ended(outcome);
        if matches!(content, Content::Result(_)) && !is_shed {
            Self::remember(now, key, Recorded::Sent(content.clone()), host);
        }
        let settles_boot =
            matches!(&content, Content::ResultWithTime(action) if action.kind() == ActionKind::Boot);
        let ready = Ready {
            id_json: call.id.as_json().to_owned(),
            action: known.map(|action| action.name),
            content,
            read_at: now.monotonic,
            without_event: is_shed,
            by: None,
            settles_boot,
            trace,
        };
        if is_shed {
            self.hold_without_event(ready, None);
        } else {
            self.hold(ready, host);
        }
    }

    /// Remembers a CALL whose event has just been published.
    pub(super) fn remember(now: Now, key: CallKey, recorded: Recorded, host: &H) {
        let session = host.subject().session;
        host.recent_calls().remember(host.station(), key, now.monotonic, session, host.point(), recorded);
    }

    /// Deals with a CALL that repeats one: the same answer again, and no second event. Says whether it was one.
    fn answer_again(
        &mut self,
        now: Now,
        call: &Call<'_>,
        key: CallKey,
        known: Option<&'static Action>,
        host: &mut H,
    ) -> bool {
        if self.is_delegated(key) {
            // The response that is awaited satisfies both.
            host.observe(Observation::Repeated("held"));
            return true;
        }
        let session = host.subject().session;
        let is_unmistakable = || known.is_some_and(|action| is_unmistakable(action, call.payload));
        let recent = host.recent_calls();
        let Some(first) = recent.find(host.station(), key, now.monotonic, session, is_unmistakable) else {
            return false;
        };
        let (content, was_sent) = match first.recorded {
            Recorded::Sent(content) => (content, true),
            Recorded::Stored(content) => (content, false),
            Recorded::Pending(pending) => return self.join_wait(now, call, key, pending, &first.point, host),
        };
        let is_held = first.session == session && !first.point.is_reached();
        host.observe(Observation::Repeated(if is_held { "held" } else { "answered" }));
        if !is_held {
            if !was_sent {
                host.recent_calls().join(host.station(), key, session);
            }
            let ready = Ready {
                id_json: call.id.as_json().to_owned(),
                action: known.map(|action| action.name),
                content,
                read_at: now.monotonic,
                without_event: was_sent,
                by: (!was_sent).then_some(AnsweredBy::Backend { until: None }),
                settles_boot: false,
                trace: H::Trace::default(),
            };
            self.hold_without_event(ready, Some(first.point));
        }
        // The answer that is held satisfies both.
        true
    }

    /// The action of a CALL that is in order, or the refusal of one that is not. Until the station is accepted, what it may
    /// not send yet is refused as such, whether the action is known or not (2.x B01.FR.10; 1.6-J errata 3.8).
    fn decide(
        &mut self,
        classified: InboundAction,
        call: &Call<'_>,
        examined: &mut Examined,
        host: &H,
    ) -> Result<&'static Action, Content> {
        let state = self.station_state(host);
        let grants = &mut self.grants;
        let may_send = match classified {
            InboundAction::Known(action) => {
                let take_grant = || grants.take(action, call.payload);
                station_may_send(host.subject().version, state, action, take_grant)
            }
            InboundAction::NotImplemented | InboundAction::NotSupported => state == BootState::Accepted,
        };
        if !may_send {
            return Err(refusal(ErrorCode::SecurityError, refusal_text(state)));
        }
        match classified {
            InboundAction::Known(action) => match examined.refusal.take() {
                Some(violation) => Err(Content::Error(violation.code(), violation.to_string())),
                None => Ok(action),
            },
            InboundAction::NotImplemented => {
                Err(refusal(ErrorCode::NotImplemented, "this action is not known"))
            }
            InboundAction::NotSupported => {
                Err(refusal(ErrorCode::NotSupported, "this action is not sent by a station in this version"))
            }
        }
    }

    /// The gateway's answer to a CALL that is in order. What is delegated and shed gets its fallback, as a result.
    fn answer(
        &mut self,
        now: Now,
        action: &'static Action,
        call: &Call<'_>,
        delegation: Option<Delegation>,
        host: &mut H,
    ) -> Content {
        let mut transaction_id = None;
        match action.kind() {
            ActionKind::Boot => {
                self.begin_boot(host);
                let by = delegation.map_or(RegisteredBy::Operator, |one| one.registers(self.standing.told));
                self.register(by, host);
                return Content::ResultWithTime(action);
            }
            ActionKind::Heartbeat => return Content::ResultWithTime(action),
            ActionKind::StartTransaction => {
                transaction_id = Some(host.start_transaction(now, &start_key(call.payload)));
            }
            _ => {}
        }
        let version = host.subject().version;
        let status = delegation.and_then(|one| one.refusal(version, action, call.payload));
        Content::Result(self.builtin_answer(now, action, call.payload, transaction_id, status, host))
    }

    fn on_send(now: Now, send: &Call<'_>, host: &mut H) {
        let known = match classify_send(host.subject().version, &send.action) {
            InboundAction::Known(action) => Some(action),
            InboundAction::NotSupported | InboundAction::NotImplemented => None,
        };
        let action = known.map_or(UNKNOWN_ACTION, |action| action.name);
        host.observe(Observation::Received { message_type: "SEND", action });
        Self::observe_null(send.payload_was_null, host);
        let examined =
            known.map_or_else(Examined::default, |action| Self::examine("SEND", action, send.payload, host));
        let message = call_message("SEND", send, None);
        let message = Message { violation: examined.told.as_deref(), ..message };
        host.publish(Event::Received(now.wall, &message));
    }

    /// The station cannot use a result that it was given. It is never answered.
    fn on_call_result_error(&self, now: Now, error: &CallError<'_>, host: &mut H) {
        let (message_type, action) =
            ("CALLRESULTERROR", self.answered.find(number(error.id.as_json())).copied());
        host.observe(Observation::Received { message_type, action: action.unwrap_or(UNKNOWN_ACTION) });
        host.publish(Event::Received(now.wall, &error_message(message_type, error, action)));
    }

    fn on_malformed(&mut self, now: Now, malformed: &Malformed<'_>, text: &str, host: &mut H) {
        if malformed.kind() == MalformedKind::Empty {
            // Some stations send empty texts as a keep-alive (steve issue 66).
            host.observe(Observation::Leniency("emptyText"));
            return;
        }
        let version = host.subject().version;
        let reason = malformed.kind().as_str();
        host.observe(Observation::Received { message_type: "MALFORMED", action: UNKNOWN_ACTION });
        host.observe(Observation::Malformed(reason));
        let message = Message {
            message_type: "MALFORMED",
            id_json: malformed.id.as_ref().map(MessageId::as_json),
            action: None,
            body: Body::Malformed { reason, raw: text },
            answered_by: None,
            command_id: None,
            violation: None,
            traceparent: None,
        };
        host.publish(Event::Received(now.wall, &message));
        if let Some(id) = malformed.answers_our_call() {
            let error = CommandError {
                code: ErrorCode::FormatViolation.as_str(version).to_owned(),
                description: format!("the station's answer is malformed: {reason}"),
                details: None,
            };
            self.on_malformed_answer(now, &id.decoded(), error, host);
        }
        if let Some(reply) = malformed.reply(version) {
            self.refuse_malformed(now, &reply, host);
        }
    }

    fn refuse_malformed(&mut self, now: Now, reply: &Reply<'_>, host: &H) {
        let description = reply.description.to_owned();
        let content = match reply.kind {
            ReplyKind::CallError => Content::Error(reply.code, description),
            ReplyKind::CallResultError => Content::ResultError(reply.code, description),
        };
        self.refuse_message(now, reply.id_json, None, content, host);
    }

    /// Answers a message that cannot be used.
    pub(super) fn refuse_message(
        &mut self,
        now: Now,
        id_json: &str,
        action: Option<&'static str>,
        content: Content,
        host: &H,
    ) {
        let ready = Ready {
            id_json: id_json.to_owned(),
            action,
            content,
            read_at: now.monotonic,
            without_event: false,
            by: None,
            settles_boot: false,
            trace: H::Trace::default(),
        };
        self.hold(ready, host);
    }

    fn observe_id(id: &MessageId<'_>, host: &mut H) {
        if id.is_numeric() {
            host.observe(Observation::Leniency("numericIds"));
        }
        if id.is_long() {
            host.observe(Observation::Leniency("longIds"));
        }
    }

    pub(super) fn observe_null(was_null: bool, host: &mut H) {
        if was_null {
            host.observe(Observation::Leniency("nullPayload"));
        }
    }
}

fn refusal(code: ErrorCode, description: &str) -> Content {
    Content::Error(code, description.to_owned())
}
