//! What a session does about a CALL that a backend is to answer: its place in the queue, the wait, its end.
//!
//! Owns when a wait begins, is joined by a repetition, and ends: by the first response, by the fallback, with the session.
//! The answer takes the place of the wait, so that it leaves in the order of the CALLs and after its event is durable
//! (P1). Which response is the first is decided in `delegated_calls.rs`.

use std::time::Instant;

use ocpp_protocol::{
    Action, ActionKind, Call, ErrorCode, is_unmistakable, nobody, registration_in, start_key,
};
use serde_json::value::RawValue;

use super::Session;
use super::message::call_message;
use crate::answer_queue::{After, Answer, Delegated, PreparedFallback, Queued, Ready};
use crate::content::Content;
use crate::delegated_calls::{CallId, CallRef, Decided, FallbackReason};
use crate::events::{AnsweredBy, Message};
use crate::host::{DelegatedCall, Delegation, Event, Fallback, Host, Position, RegisteredBy, Trace};
use crate::observation::Observation;
use crate::recent_calls::{CallKey, DurablePoint, Pending, Recorded};
use crate::response::Response;
use crate::time::Now;

impl<H: Host> Session<H> {
    /// Publishes a CALL's event and begins to wait for a backend's response.
    #[allow(clippy::too_many_arguments)]
    pub(super) fn delegate(
        &mut self,
        now: Now,
        call: &Call<'_>,
        key: CallKey,
        action: &'static Action,
        delegation: Delegation,
        violation: Option<&str>,
        trace: H::Trace,
        host: &mut H,
    ) {
        let until = (now.monotonic + delegation.deadline, now.wall + delegation.deadline);
        let by = AnsweredBy::Backend { until: Some(until.1) };
        let message = call_message("CALL", call, Some(by));
        let message = Message { violation, traceparent: trace.context(), ..message };
        host.publish(Event::Received(now.wall, &message));
        let (session, version) = (host.subject().session, host.subject().version);
        let outlives_session = is_unmistakable(action, call.payload);
        let pending = Pending { asked_in: session, until: until.0, action, version, outlives_session };
        match action.kind() {
            ActionKind::Boot => {
                self.begin_boot(host);
            }
            ActionKind::Heartbeat => {}
            _ => Self::remember(now, key, Recorded::Pending(pending), host),
        }
        let point = host.point();
        let delegated = self.delegated_call(now, call, key, pending, delegation, point, trace, host);
        let name = delegated.name.clone();
        let after = After { position: host.position(), earlier: None };
        self.answers.push(Queued { after, answer: Answer::Delegated(Box::new(delegated)) });
        host.delegate(&DelegatedCall {
            name: &name,
            version,
            id_json: call.id.as_json(),
            action,
            payload: call.payload,
            until,
        });
    }

    /// Deals with a CALL that cannot be a new one, whose first copy, on an earlier connection, waits for a backend: it joins
    /// that wait, without an event. False when the wait is over, and the CALL is a new one.
    pub(super) fn join_wait(
        &mut self,
        now: Now,
        call: &Call<'_>,
        key: CallKey,
        pending: Pending,
        first: &H::Point,
        host: &mut H,
    ) -> bool {
        let Some(delegation) = host.delegation(pending.action) else { return false };
        if pending.until <= now.monotonic {
            return false;
        }
        host.observe(Observation::Repeated("joined"));
        let trace = H::Trace::default();
        let delegated = self.delegated_call(now, call, key, pending, delegation, first.clone(), trace, host);
        let id = delegated.call;
        let after = After { position: Position::default(), earlier: Some(first.clone()) };
        self.answers.push(Queued { after, answer: Answer::Delegated(Box::new(delegated)) });
        // The wait is open before it is told of, so that a response finds one or the other.
        let joined = host.recent_calls().join(host.station(), key, host.subject().session);
        if let Some(content) = joined
            && host.delegated_calls().fall_back(id)
        {
            // It came in this very moment.
            self.settle_with(id, content, "answered", AnsweredBy::Backend { until: None }, host);
        }
        true
    }

    #[allow(clippy::too_many_arguments)]
    fn delegated_call(
        &self,
        now: Now,
        call: &Call<'_>,
        key: CallKey,
        pending: Pending,
        delegation: Delegation,
        point: H::Point,
        trace: H::Trace,
        host: &H,
    ) -> Delegated<H::Point, H::Trace> {
        let name = CallRef { message_id: call.id.decoded().into_owned(), asked_in: pending.asked_in };
        Delegated {
            call: host.delegated_calls().open(name.clone(), pending.action),
            name,
            until: pending.until,
            id_json: call.id.as_json().to_owned(),
            action: pending.action,
            read_at: now.monotonic,
            key,
            point,
            fallback: self.prepare_fallback(now, delegation, pending.action, call.payload, host),
            trace,
        }
    }

    fn prepare_fallback(
        &self,
        now: Now,
        delegation: Delegation,
        action: &'static Action,
        request: &RawValue,
        host: &H,
    ) -> PreparedFallback {
        let version = host.subject().version;
        let status = delegation.refusal(version, action, request);
        match (delegation.fallback, action.kind()) {
            (Fallback::Silence, _) => PreparedFallback::Silence,
            (Fallback::Error, _) => PreparedFallback::Content(Content::Error(
                // Not the station's fault, and nothing that another payload would mend (ocpp-j 2.5).
                ErrorCode::InternalError,
                "the service that decides about this did not answer".to_owned(),
            )),
            (_, ActionKind::Boot) => PreparedFallback::Boot(delegation),
            (_, ActionKind::Heartbeat) => PreparedFallback::Content(Content::ResultWithTime(action)),
            (_, ActionKind::StartTransaction) => PreparedFallback::Start(
                start_key(request),
                status.or_else(|| nobody(version, action, request)),
            ),
            _ => PreparedFallback::Content(Content::Result(
                self.builtin_answer(now, action, request, None, status, host),
            )),
        }
    }

    /// Whether this CALL, by message id and content, is one that waits for a backend.
    pub(super) fn is_delegated(&self, key: CallKey) -> bool {
        self.answers.delegated().any(|delegated| delegated.key == key)
    }

    /// When the next fallback applies.
    pub(super) fn next_fallback(&self) -> Option<Instant> {
        self.answers.delegated().map(|delegated| delegated.until).min()
    }

    /// Something was decided about delegated CALLs.
    pub fn on_decided(&mut self, now: Now, host: &mut H) {
        for (call, decided) in host.delegated_calls().take_decided() {
            self.settle(now, call, decided, host);
        }
    }

    /// Applies the fallback where nobody responded in time.
    pub(super) fn fall_back_overdue(&mut self, now: Now, host: &mut H) {
        let overdue: Vec<_> = self
            .answers
            .delegated()
            .filter(|delegated| delegated.until <= now.monotonic)
            .map(|delegated| delegated.call)
            .collect();
        for call in overdue {
            if host.delegated_calls().fall_back(call) {
                self.settle(now, call, Decided::Fallback(FallbackReason::Deadline), host);
            }
        }
        // What was decided in the same moment counts as in time.
        self.on_decided(now, host);
    }

    fn settle(&mut self, now: Now, call: CallId, decided: Decided, host: &mut H) {
        match decided {
            Decided::Response(response) => self.respond(now, call, response, host),
            Decided::Fallback(reason) => self.fall_back(now, call, reason, host),
        }
    }

    fn respond(&mut self, now: Now, call: CallId, response: Response, host: &mut H) {
        let waiting = self.answers.delegated().find(|delegated| delegated.call == call);
        let Some((action, read_at)) = waiting.map(|delegated| (delegated.action, delegated.read_at)) else {
            return;
        };
        let wait = now.monotonic.saturating_duration_since(read_at);
        host.observe(Observation::BackendResponded(wait));
        // Without a word that says whether the station is registered the response would not have been taken.
        if action.kind() == ActionKind::Boot
            && let Response::Payload(payload) = &response
            && let Some(registration) = registration_in(payload)
        {
            self.register(RegisteredBy::Backend(registration), host);
        }
        let outcome = outcome_of(&response);
        self.settle_with(call, response.into(), outcome, AnsweredBy::Backend { until: None }, host);
    }

    fn fall_back(&mut self, now: Now, call: CallId, reason: FallbackReason, host: &mut H) {
        let Some(delegated) = self.answers.delegated_mut(call) else { return };
        let action = delegated.action;
        let fallback = std::mem::replace(&mut delegated.fallback, PreparedFallback::Silence);
        host.observe(Observation::FellBack { action: action.name, reason });
        let content = match fallback {
            PreparedFallback::Content(content) => content,
            PreparedFallback::Boot(delegation) => {
                self.register(delegation.registers(self.standing.told), host);
                Content::ResultWithTime(action)
            }
            PreparedFallback::Start(start, refusal) => {
                let id = host.start_transaction(now, &start);
                // The request, which may name nobody, has been looked at when it was read.
                let status = Some(refusal.unwrap_or_else(|| host.options().authorization.as_str()));
                Content::Result(self.builtin_answer(now, action, RawValue::NULL, Some(id), status, host))
            }
            PreparedFallback::Silence => {
                self.settle_silently(call, reason.as_str(), host);
                return;
            }
        };
        self.settle_with(call, content, reason.as_str(), AnsweredBy::Gateway, host);
    }

    /// Puts the answer in the place of the wait. It waits for the CALL's event and for every state change up to now.
    fn settle_with(
        &mut self,
        call: CallId,
        content: Content,
        outcome: &'static str,
        by: AnsweredBy,
        host: &mut H,
    ) {
        let Some((at, after, mut delegated)) = self.answers.take_delegated(call) else { return };
        let action = delegated.action;
        let ended = content.outcome(host.subject().version);
        host.observe(Observation::DelegationEnded { action: action.name, outcome });
        host.observe(Observation::CallEnded { action: action.name, outcome: ended });
        delegated.trace.ended(ended);
        // After a CALLERROR the station's next try is a new CALL.
        let recorded = matches!(content, Content::Result(_))
            .then(|| (Recorded::Sent(content.clone()), delegated.point.with_states_of(&host.point())));
        Self::settle_remembered(delegated.key, recorded, host);
        let ready = Ready {
            id_json: delegated.id_json,
            action: Some(action.name),
            content,
            read_at: delegated.read_at,
            without_event: false,
            by: Some(by),
            settles_boot: action.kind() == ActionKind::Boot,
            trace: delegated.trace,
        };
        let position = Position { events: after.position.events, states: host.position().states };
        let after = After { position, earlier: after.earlier };
        self.answers.insert(at, Queued { after, answer: Answer::Ready(ready) });
    }

    /// Ends a wait without an answer. The station may ask again, and that is a new CALL.
    fn settle_silently(&mut self, call: CallId, outcome: &'static str, host: &mut H) {
        let Some((_, _, delegated)) = self.answers.take_delegated(call) else { return };
        let action = delegated.action;
        host.observe(Observation::DelegationEnded { action: action.name, outcome });
        host.observe(Observation::CallEnded { action: action.name, outcome: "silence" });
        Self::settle_remembered(delegated.key, None, host);
        if action.kind() == ActionKind::Boot {
            self.boot_answers_held = self.boot_answers_held.saturating_sub(1);
        }
    }

    /// Ends every wait because the session ends. What a backend said in the last moment is stored for the station's next
    /// connection; what it says from here on finds its way there by itself.
    pub(super) fn stop_delegating(&mut self, host: &mut H) {
        for (call, decided) in host.delegated_calls().close() {
            let Some((_, _, delegated)) = self.answers.take_delegated(call) else { continue };
            let (outcome, recorded) = match decided {
                Decided::Response(response) => {
                    (outcome_of(&response), Some((Recorded::Stored(response.into()), delegated.point)))
                }
                Decided::Fallback(reason) => (reason.as_str(), None),
            };
            host.observe(Observation::DelegationEnded { action: delegated.action.name, outcome });
            Self::settle_remembered(delegated.key, recorded, host);
        }
        for delegated in self.answers.delegated() {
            let action = delegated.action.name;
            host.observe(Observation::DelegationEnded { action, outcome: "abandoned" });
        }
        self.answers.drop_delegated();
    }

    fn settle_remembered(key: CallKey, recorded: Option<(Recorded, H::Point)>, host: &H) {
        host.recent_calls().settle(host.station(), key, host.subject().session, recorded);
    }
}

/// How a wait ended that a backend's response ended, for its metric.
fn outcome_of(response: &Response) -> &'static str {
    match response {
        Response::Payload(_) => "answered",
        Response::Error { .. } => "error",
    }
}
