//! What a session does with what the station says.
//!
//! Owns the decisions about inbound messages: which event they become, whether they are answered and with what. Writes
//! nothing: events go to the session's queue for the bus, answers wait in `pending` until the bus is durable (P1).

use std::time::{Instant, SystemTime};

use ocpp_bus::Record;
use ocpp_protocol::{
    Action, Answered, BootState, Call, CallError, CallResult, ErrorCode, Frame, InboundAction, Malformed,
    MalformedKind, Registration, ReplyKind, StartKey, Version, classify_call, classify_send, parse,
    station_may_send, validate_request,
};

use super::actor::{Actor, Outstanding};
use super::close::CloseReason;
use super::pending::{Answer, Content};
use crate::command::{CommandError, Outcome};
use crate::config::{BeforeBoot, ValidationMode};
use crate::events::{AnsweredBy, Body, Message};
use crate::replays::{CallKey, Said};
use crate::spans::{Kind, Span};

/// The action label of what is not in the table: a station must not be able to make metric series.
const UNKNOWN: &str = "unknown";

impl Actor {
    /// A text message came in.
    pub(super) fn on_text(&mut self, text: &str) {
        let version = self.session.admission.version;
        let read_at = Instant::now();
        let time = SystemTime::now();
        match parse(version, text) {
            Ok(Frame::Call(call)) => self.on_call(&call, read_at, time),
            Ok(Frame::Send(call)) => self.on_send(&call, time),
            Ok(Frame::CallResult(result)) => self.on_call_result(&result, read_at, time),
            Ok(Frame::CallError(error)) => self.on_call_error(&error, time),
            Ok(Frame::CallResultError(error)) => {
                self.shared.metrics.received("CALLRESULTERROR", UNKNOWN);
                let message = error_message("CALLRESULTERROR", &error, None);
                self.publish_received(time, &message);
            }
            Err(malformed) => self.on_malformed(&malformed, text, read_at, time),
        }
    }

    /// A binary message came in: text in disguise on a lenient listener, the end elsewhere (ocpp-j 1.8).
    pub(super) fn on_binary(&mut self, bytes: &[u8]) {
        match std::str::from_utf8(bytes) {
            Ok(text) if self.session.admission.lenient => {
                self.shared.metrics.leniency("binaryFrame");
                self.on_text(text);
            }
            _ => self.begin_end(CloseReason::BinaryFrame, None),
        }
    }

    fn on_call(&mut self, call: &Call<'_>, read_at: Instant, time: SystemTime) {
        let version = self.session.admission.version;
        let classified = classify_call(version, &call.action);
        let known = if let InboundAction::Known(action) = classified {
            Some(action)
        } else {
            Action::find(&call.action)
        };
        let label = known.map_or(UNKNOWN, |action| action.name);
        self.shared.metrics.received("CALL", label);
        self.note_null(call.payload_was_null);
        let key = CallKey::of(call);
        if self.answer_again(call, key, known, read_at) {
            return;
        }
        let quiet = self.is_dropped(label);
        let mut span =
            self.shared.tracer.begin(Kind::Server, None, (time, read_at), || format!("CALL {label}"));
        if let Some(span) = &mut span {
            self.describe(span, label, &call.id.decoded());
        }
        let judged = match classified {
            InboundAction::NotImplemented => {
                Err(refusal(ErrorCode::NotImplemented, "this action is not known"))
            }
            InboundAction::NotSupported => {
                Err(refusal(ErrorCode::NotSupported, "this action is not sent by a station in this version"))
            }
            InboundAction::Known(action) => self.refuse(action, call).map_or(Ok(action), Err),
        };
        // A backend never hears of a message that is dropped.
        if let Ok(action) = judged
            && !quiet
            && self.await_backend(call, key, action, (read_at, time), &mut span)
        {
            return;
        }
        if !quiet {
            let traceparent = span.as_ref().and_then(Span::context);
            let message = call_message("CALL", call, Some(AnsweredBy::Gateway));
            self.publish_received(time, &Message { traceparent, ..message });
        }
        let content = match judged {
            Ok(action) => self.answer(action, call),
            Err(refusal) => refusal,
        };
        let outcome = content.outcome(version);
        self.shared.metrics.call_ended(label, outcome);
        note_outcome(span.as_mut(), outcome);
        if matches!(content, Content::Result(_)) && !quiet {
            let said = Said::Given(content.clone());
            let milestone = self.milestone();
            self.shared.replays.remember(&self.key, key, self.session.id, milestone, said);
        }
        let id_json = call.id.as_json().to_owned();
        let action = known.map(|action| action.name);
        let settles_boot =
            matches!(&content, Content::ResultWithTime(action) if action.name == "BootNotification");
        let answer = Answer { id_json, action, content, read_at, quiet, by: None, settles_boot, span };
        if quiet {
            self.hold_quiet(answer, None);
        } else {
            self.hold_answer(answer);
        }
    }

    /// Deals with a CALL that repeats one: the same answer again, and no second event. Says whether it was one.
    fn answer_again(
        &mut self,
        call: &Call<'_>,
        key: CallKey,
        known: Option<&'static Action>,
        read_at: Instant,
    ) -> bool {
        if self.is_awaited(key) {
            // The answer that is awaited satisfies both.
            self.shared.metrics.repeated("held");
            return true;
        }
        let Some(first) = self.shared.replays.find(&self.key, key, read_at) else { return false };
        let (content, is_told) = match first.answer {
            Said::Given(content) => (content, true),
            Said::Kept(content) => (content, false),
            Said::Awaited(asked) => return self.join_wait(call, key, asked, &first.milestone, read_at),
        };
        let is_held = first.session == self.session.id && !first.milestone.is_reached();
        self.shared.metrics.repeated(if is_held { "held" } else { "answered" });
        if !is_held {
            if !is_told {
                self.shared.replays.join(&self.key, key, self.session.id);
            }
            let answer = Answer {
                id_json: call.id.as_json().to_owned(),
                action: known.map(|action| action.name),
                content,
                read_at,
                quiet: is_told,
                by: (!is_told).then_some(AnsweredBy::Backend { until: None }),
                settles_boot: false,
                span: None,
            };
            self.hold_quiet(answer, Some(first.milestone));
        }
        // The answer that is held satisfies both.
        true
    }

    /// Whether the operator has called this action's messages expendable, and the bus is too full for them.
    fn is_dropped(&self, action: &str) -> bool {
        let expendable = &self.shared.expendable;
        let is_dropped =
            expendable.actions.iter().any(|one| one == action) && self.lane.fill() >= expendable.above;
        if is_dropped {
            self.shared.metrics.dropped(action, "busFull");
        }
        is_dropped
    }

    /// Why a CALL whose action is known is not answered with a result, if it is not.
    fn refuse(&self, action: &'static Action, call: &Call<'_>) -> Option<Content> {
        let version = self.session.admission.version;
        if !station_may_send(version, self.effective_boot_state(), action, &self.grants) {
            return Some(refusal(
                ErrorCode::SecurityError,
                "the station is not registered: BootNotification comes first",
            ));
        }
        self.violation(action, call)
    }

    /// The built-in answer to a CALL that is in order.
    fn answer(&mut self, action: &'static Action, call: &Call<'_>) -> Content {
        let version = self.session.admission.version;
        let mut transaction_id = None;
        match action.name {
            "BootNotification" => {
                self.shared.replays.forget(&self.key);
                self.boot();
                self.boot_answers_held += 1;
                return Content::ResultWithTime(action);
            }
            "Heartbeat" => return Content::ResultWithTime(action),
            "StartTransaction" if version == Version::V16 => {
                transaction_id = Some(self.transaction(&ocpp_protocol::start_key(call.payload)));
            }
            _ => {}
        }
        Content::Result(self.builtin_answer(action, call.payload, transaction_id))
    }

    /// A transaction's id; the answer waits until it is durable.
    pub(super) fn transaction(&mut self, start: &StartKey) -> i32 {
        let (id, record) = self.shared.stations.transaction(&self.session.admission.identity, start);
        self.publish_state(record);
        id
    }

    /// Registers the station, as the operator or the default decides.
    pub(super) fn boot(&mut self) {
        let identity = &self.session.admission.identity;
        let (registration, record) = self.shared.stations.boot(identity, self.shared.registration.default);
        self.register(registration, record);
    }

    /// Registers the station.
    pub(super) fn register(&mut self, registration: Registration, record: Record) {
        self.session.log(|| tracing::info!(registration = registration.as_str(), "station registered"));
        self.publish_state(record);
        self.boot_state = match registration {
            Registration::Accepted => BootState::Accepted,
            Registration::Pending => BootState::Pending,
            Registration::Rejected => BootState::Rejected,
        };
        if registration != Registration::Pending {
            self.grants.clear();
        }
    }

    /// The boot state, with the operator's leniency for stations that never boot.
    pub(super) fn effective_boot_state(&self) -> BootState {
        match (self.boot_state, self.shared.registration.before_boot) {
            (BootState::Unregistered, BeforeBoot::Accept) => BootState::Accepted,
            (state, _) => state,
        }
    }

    fn violation(&self, action: &'static Action, call: &Call<'_>) -> Option<Content> {
        let mode = self.shared.validation.mode;
        if mode == ValidationMode::Off {
            return None;
        }
        let version = self.session.admission.version;
        let violation = validate_request(version, action, call.payload).err()?;
        self.shared.metrics.violation(action.name, violation.code.as_str(version));
        let (action, field, description) = (action.name, &violation.field, &violation.description);
        self.session.log(|| tracing::debug!(action, ?field, ?description, "payload violates its schema"));
        (mode == ValidationMode::Enforce).then(|| Content::Error(violation.code, violation.to_string()))
    }

    fn on_send(&mut self, send: &Call<'_>, time: SystemTime) {
        let known = match classify_send(self.session.admission.version, &send.action) {
            InboundAction::Known(action) => Some(action),
            InboundAction::NotSupported | InboundAction::NotImplemented => None,
        };
        self.shared.metrics.received("SEND", known.map_or(UNKNOWN, |action| action.name));
        self.note_null(send.payload_was_null);
        self.publish_received(time, &call_message("SEND", send, None));
    }

    fn on_call_result(&mut self, result: &CallResult<'_>, read_at: Instant, time: SystemTime) {
        let outstanding = self.match_answer(&result.id.decoded());
        let action = outstanding.as_ref().map(|outstanding| outstanding.command.action.name);
        let traceparent = outstanding.as_ref().and_then(|outstanding| outstanding.trace.context());
        self.shared.metrics.received("CALLRESULT", action.unwrap_or(UNKNOWN));
        self.note_null(result.payload_was_null);
        self.publish_received(
            time,
            &Message {
                message_type: "CALLRESULT",
                id_json: Some(result.id.as_json()),
                action,
                body: Body::Payload(result.payload.get()),
                answered_by: None,
                traceparent,
            },
        );
        if let Some(outstanding) = outstanding {
            self.shared.metrics.command_wait(read_at - outstanding.sent_at);
            self.finish_outstanding(*outstanding, Outcome::answered(result.payload.to_owned()));
        }
    }

    fn on_call_error(&mut self, error: &CallError<'_>, time: SystemTime) {
        let id = error.id.decoded();
        let outstanding = if id == "-1" {
            // The station could not read an id; what it could not read is most likely the one CALL it has of ours.
            self.exchange.on_uncorrelated_error()
        } else {
            self.match_answer(&id)
        };
        let action = outstanding.as_ref().map(|outstanding| outstanding.command.action.name);
        self.shared.metrics.received("CALLERROR", action.unwrap_or(UNKNOWN));
        let traceparent = outstanding.as_ref().and_then(|outstanding| outstanding.trace.context());
        self.publish_received(time, &Message { traceparent, ..error_message("CALLERROR", error, action) });
        if let Some(outstanding) = outstanding {
            let outcome = Outcome::error(CommandError {
                code: error.code.clone().into_owned(),
                description: error.description.clone().into_owned(),
                details: error.details.map(ToOwned::to_owned),
            });
            self.finish_outstanding(*outstanding, outcome);
        }
    }

    fn match_answer(&mut self, id: &str) -> Option<Box<Outstanding>> {
        match self.exchange.on_answer(id) {
            Answered::Matched(outstanding) => Some(outstanding),
            Answered::Late => {
                self.shared.metrics.unmatched_answer("late");
                None
            }
            Answered::Unknown => {
                self.shared.metrics.unmatched_answer("unknown");
                None
            }
        }
    }

    fn on_malformed(&mut self, malformed: &Malformed<'_>, text: &str, read_at: Instant, time: SystemTime) {
        if malformed.kind() == MalformedKind::Empty {
            // Some stations send empty texts as a keep-alive (steve issue 66).
            self.shared.metrics.leniency("emptyText");
            return;
        }
        let version = self.session.admission.version;
        let reason = malformed.kind().as_str();
        self.shared.metrics.received("MALFORMED", UNKNOWN);
        self.shared.metrics.malformed(reason);
        self.session.log(|| tracing::debug!(reason, "malformed message"));
        self.publish_received(
            time,
            &Message {
                message_type: "MALFORMED",
                id_json: malformed.id.as_ref().map(ocpp_protocol::MessageId::as_json),
                action: None,
                body: Body::Malformed { reason, raw: text },
                answered_by: None,
                traceparent: None,
            },
        );
        if let Some(id) = malformed.answers_our_call()
            && let Some(outstanding) = self.match_answer(&id.decoded())
        {
            let description = format!("the station's answer is malformed: {reason}");
            let code = ErrorCode::FormatViolation.as_str(version).to_owned();
            let error = CommandError { code, description, details: None };
            self.finish_outstanding(*outstanding, Outcome::error(error));
        }
        if let Some(reply) = malformed.reply(version) {
            let description = reply.description.to_owned();
            let content = match reply.kind {
                ReplyKind::CallError => Content::Error(reply.code, description),
                ReplyKind::CallResultError => Content::ResultError(reply.code, description),
            };
            self.hold_answer(Answer {
                id_json: reply.id_json.to_owned(),
                action: None,
                content,
                read_at,
                quiet: false,
                by: None,
                settles_boot: false,
                span: None,
            });
        }
    }

    fn note_null(&self, was_null: bool) {
        if was_null {
            self.shared.metrics.leniency("nullPayload");
        }
    }
}

/// Notes how a CALL of the station ended.
pub(super) fn note_outcome(span: Option<&mut Span>, outcome: &'static str) {
    let Some(span) = span else { return };
    span.set("ocpp.outcome", outcome);
    if outcome != "answered" {
        span.failed();
    }
}

fn refusal(code: ErrorCode, description: &str) -> Content {
    Content::Error(code, description.to_owned())
}

pub(super) fn call_message<'a>(
    message_type: &'static str,
    call: &'a Call<'_>,
    answered_by: Option<AnsweredBy>,
) -> Message<'a> {
    Message {
        message_type,
        id_json: Some(call.id.as_json()),
        action: Some(&call.action),
        body: Body::Payload(call.payload.get()),
        answered_by,
        traceparent: None,
    }
}

fn error_message<'a>(
    message_type: &'static str,
    error: &'a CallError<'_>,
    action: Option<&'a str>,
) -> Message<'a> {
    Message {
        message_type,
        id_json: Some(error.id.as_json()),
        action,
        body: Body::Error {
            code: &error.code,
            description: &error.description,
            details: error.details.map(serde_json::value::RawValue::get),
        },
        answered_by: None,
        traceparent: None,
    }
}
