//! What a session does about a CALL that a backend is to answer: its place in the queue of answers, the wait, its end.
//!
//! Owns when a wait begins, is joined by a repetition, and ends: by the first answer, by the fallback, with the session. The
//! answer takes the place of the wait, so that it leaves in the order of the CALLs and after its event is durable (P1).
//! Which answer is the first is decided in `waits.rs`.

use std::sync::Arc;
use std::time::{Instant, SystemTime};

use ocpp_protocol::{Action, Call, ErrorCode, Version, registration_in, start_key};
use serde_json::value::RawValue;

use super::actor::Actor;
use super::inbound::{call_message, note_outcome};
use super::pending::{Answer, Awaited, Content, Counted, Held, Pending, Prepared, Slot};
use super::waits::{Lapse, Question, Ticket, Verdict};
use crate::answers::{HookCall, Reply};
use crate::config::Fallback;
use crate::events::{AnsweredBy, Message};
use crate::replays::{Asked, CallKey, Milestone, Said};
use crate::spans::Span;

impl Actor {
    /// Publishes a CALL's event and begins to wait for a backend's answer, if this action is a backend's to answer.
    pub(super) fn await_backend(
        &mut self,
        call: &Call<'_>,
        key: CallKey,
        action: &'static Action,
        (read_at, time): (Instant, SystemTime),
        span: &mut Option<Span>,
    ) -> bool {
        let shared = Arc::clone(&self.shared);
        let Some(policy) = shared.backend.policy(action) else { return false };
        let (until, until_time) = (read_at + policy.deadline, time + policy.deadline);
        let by = AnsweredBy::Backend { until: Some(until_time) };
        let span = span.take();
        let traceparent = span.as_ref().and_then(Span::context);
        self.publish_received(time, &Message { traceparent, ..call_message("CALL", call, Some(by)) });
        let asked =
            Asked { asked_in: self.session.id, until, action, version: self.session.admission.version };
        let milestone = self.milestone();
        match action.name {
            "BootNotification" => {
                // A boot begins a new life, and is not remembered itself.
                self.shared.replays.forget(&self.key);
                self.boot_answers_held += 1;
            }
            "Heartbeat" => {}
            _ => {
                let said = Said::Awaited(asked);
                self.shared.replays.remember(&self.key, key, self.session.id, milestone.clone(), said);
            }
        }
        let awaited = Awaited { span, ..self.awaited(call, key, asked, policy.fallback, milestone, read_at) };
        let question = awaited.question.clone();
        self.pending.push(Pending {
            events: self.queued_events,
            states: self.queued_states,
            earlier: None,
            held: Held::Awaited(Box::new(awaited)),
        });
        shared.backend.ask(&HookCall {
            station: self.session.admission.identity.as_str(),
            question: &question,
            version: asked.version,
            id_json: call.id.as_json(),
            action,
            payload: call.payload,
            until: (until, until_time),
        });
        true
    }

    /// Deals with a CALL whose first copy, on an earlier connection, waits for a backend: it joins that wait, without an
    /// event. False when the wait is over, and the CALL is a new one.
    pub(super) fn join_wait(
        &mut self,
        call: &Call<'_>,
        key: CallKey,
        asked: Asked,
        first: &Milestone,
        read_at: Instant,
    ) -> bool {
        let Some(fallback) = self.shared.backend.policy(asked.action).map(|policy| policy.fallback) else {
            return false;
        };
        if asked.until <= read_at {
            return false;
        }
        self.shared.metrics.repeated("joined");
        let awaited = self.awaited(call, key, asked, fallback, first.clone(), read_at);
        let ticket = awaited.ticket;
        self.pending.push(Pending {
            events: 0,
            states: 0,
            earlier: Some(first.clone()),
            held: Held::Awaited(Box::new(awaited)),
        });
        // The wait is open before it is told of, so that an answer finds one or the other.
        if let Some(content) = self.shared.replays.join(&self.key, key, self.session.id)
            && self.session.waits.lapse(ticket)
        {
            // It came in this very moment.
            self.settle_with(ticket, content, "answered", AnsweredBy::Backend { until: None });
        }
        true
    }

    fn awaited(
        &self,
        call: &Call<'_>,
        key: CallKey,
        asked: Asked,
        fallback: Fallback,
        milestone: Milestone,
        read_at: Instant,
    ) -> Awaited {
        let question = Question { message_id: call.id.decoded().into_owned(), asked_in: asked.asked_in };
        Awaited {
            ticket: self.session.waits.open(question.clone(), asked.action),
            question,
            until: asked.until,
            id_json: call.id.as_json().to_owned(),
            action: asked.action,
            read_at,
            key,
            milestone,
            fallback: self.prepared(fallback, asked.action, call.payload),
            span: None,
            _counted: Counted::on(&self.shared.metrics.answers.awaited),
        }
    }

    fn prepared(&self, fallback: Fallback, action: &'static Action, request: &RawValue) -> Prepared {
        match (fallback, action.name) {
            (Fallback::Silence, _) => Prepared::Silence,
            (Fallback::Error, _) => Prepared::Content(Content::Error(
                // Not the station's fault, and nothing that another payload would mend (ocpp-j 2.5).
                ErrorCode::InternalError,
                "the service that decides about this did not answer".to_owned(),
            )),
            (Fallback::Builtin, "BootNotification") => Prepared::Boot,
            (Fallback::Builtin, "Heartbeat") => Prepared::Content(Content::ResultWithTime(action)),
            (Fallback::Builtin, "StartTransaction") if self.session.admission.version == Version::V16 => {
                Prepared::Start(start_key(request))
            }
            (Fallback::Builtin, _) => {
                Prepared::Content(Content::Result(self.builtin_answer(action, request, None)))
            }
        }
    }

    /// Whether this CALL, by message id and content, is one that waits for a backend.
    pub(super) fn is_awaited(&self, key: CallKey) -> bool {
        self.pending.awaited().any(|awaited| awaited.key == key)
    }

    /// When the next fallback applies.
    pub(super) fn next_lapse(&self) -> Option<Instant> {
        self.pending.awaited().map(|awaited| awaited.until).min()
    }

    /// Verdicts have come.
    pub(super) fn on_backend(&mut self) {
        for (ticket, verdict) in self.session.waits.take_news() {
            self.settle(ticket, verdict);
        }
    }

    /// Applies the fallback where nobody answered in time.
    pub(super) fn lapse_overdue(&mut self, now: Instant) {
        let overdue: Vec<_> = self
            .pending
            .awaited()
            .filter(|awaited| awaited.until <= now)
            .map(|awaited| awaited.ticket)
            .collect();
        for ticket in overdue {
            if self.session.waits.lapse(ticket) {
                self.settle(ticket, Verdict::Lapsed(Lapse::Deadline));
            }
        }
        // What was decided in the same moment counts as in time.
        self.on_backend();
    }

    fn settle(&mut self, ticket: Ticket, verdict: Verdict) {
        match verdict {
            Verdict::Answered(reply) => {
                let call = self
                    .pending
                    .awaited()
                    .find(|awaited| awaited.ticket == ticket)
                    .map(|awaited| (awaited.action, awaited.read_at));
                let Some((action, read_at)) = call else { return };
                self.shared.metrics.answers.waited(read_at.elapsed());
                // Without a word that says whether the station is registered the answer would not have been taken.
                if action.name == "BootNotification"
                    && let Reply::Payload(payload) = &reply
                    && let Some(registration) = registration_in(payload)
                {
                    let identity = &self.session.admission.identity;
                    let record = self.shared.stations.registered(identity, registration);
                    self.register(registration, record);
                }
                let outcome = outcome_of(&reply);
                self.settle_with(ticket, reply.into(), outcome, AnsweredBy::Backend { until: None });
            }
            Verdict::Lapsed(lapse) => self.fall_back(ticket, lapse),
        }
    }

    fn fall_back(&mut self, ticket: Ticket, lapse: Lapse) {
        let Some(awaited) = self.pending.awaited_mut(ticket) else { return };
        let action = awaited.action;
        let fallback = std::mem::replace(&mut awaited.fallback, Prepared::Silence);
        self.session
            .log(|| tracing::debug!(action = action.name, why = lapse.as_str(), "no answer by a backend"));
        let content = match fallback {
            Prepared::Content(content) => content,
            Prepared::Boot => {
                self.boot();
                Content::ResultWithTime(action)
            }
            Prepared::Start(start) => {
                let id = self.transaction(&start);
                Content::Result(self.builtin_answer(action, RawValue::NULL, Some(id)))
            }
            Prepared::Silence => {
                self.settle_silently(ticket, lapse.as_str());
                return;
            }
        };
        self.settle_with(ticket, content, lapse.as_str(), AnsweredBy::Gateway);
    }

    /// Puts the answer in the place of the wait. It waits for the CALL's event and for every state change up to now.
    fn settle_with(&mut self, ticket: Ticket, content: Content, outcome: &str, by: AnsweredBy) {
        let Some((at, slot, mut awaited)) = self.pending.take_awaited(ticket) else { return };
        let version = self.session.admission.version;
        self.shared.metrics.answers.ended(awaited.action.name, outcome);
        self.shared.metrics.call_ended(awaited.action.name, content.outcome(version));
        note_outcome(awaited.span.as_mut(), content.outcome(version));
        // After a CALLERROR the station's next try is a new question.
        let said = matches!(content, Content::Result(_)).then(|| {
            let states = (self.states.watermark(), self.queued_states);
            (Said::Given(content.clone()), Milestone { states, ..awaited.milestone.clone() })
        });
        self.shared.replays.settle(&self.key, awaited.key, self.session.id, said);
        let answer = Answer {
            id_json: awaited.id_json,
            action: Some(awaited.action.name),
            content,
            read_at: awaited.read_at,
            quiet: false,
            by: Some(by),
            settles_boot: awaited.action.name == "BootNotification",
            span: awaited.span,
        };
        let Slot { events, earlier } = slot;
        let pending = Pending { events, states: self.queued_states, earlier, held: Held::Answer(answer) };
        self.pending.insert(at, pending);
    }

    /// Ends a wait without an answer. The station may ask again, and that is a new question.
    fn settle_silently(&mut self, ticket: Ticket, outcome: &str) {
        let Some((_, _, awaited)) = self.pending.take_awaited(ticket) else { return };
        self.shared.metrics.answers.ended(awaited.action.name, outcome);
        self.shared.metrics.call_ended(awaited.action.name, "silence");
        self.shared.replays.settle(&self.key, awaited.key, self.session.id, None);
        if awaited.action.name == "BootNotification" {
            self.boot_answers_held = self.boot_answers_held.saturating_sub(1);
        }
    }

    /// Ends every wait because the session ends. What a backend said in the last moment is kept for the station's next
    /// connection; what it says from here on finds its way there by itself.
    pub(super) fn stop_awaiting(&mut self) {
        for (ticket, verdict) in self.session.waits.shut() {
            let Some((_, _, awaited)) = self.pending.take_awaited(ticket) else { continue };
            let (outcome, said) = match verdict {
                Verdict::Answered(reply) => {
                    (outcome_of(&reply), Some((Said::Kept(reply.into()), awaited.milestone)))
                }
                Verdict::Lapsed(lapse) => (lapse.as_str(), None),
            };
            self.shared.metrics.answers.ended(awaited.action.name, outcome);
            self.shared.replays.settle(&self.key, awaited.key, self.session.id, said);
        }
        for awaited in self.pending.awaited() {
            self.shared.metrics.answers.ended(awaited.action.name, "abandoned");
        }
        self.pending.drop_awaited();
    }
}

/// How a wait ended that a backend's answer ended, for its metric.
fn outcome_of(reply: &Reply) -> &'static str {
    match reply {
        Reply::Payload(_) => "answered",
        Reply::Error { .. } => "error",
    }
}
