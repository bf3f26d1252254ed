//! What a session sends: held answers once they are free, and commands, one at a time (ocpp-j 2.3).

use std::time::{Instant, SystemTime};

use ocpp_bus::DurableWatermark;
use ocpp_protocol::{
    Action, AnswerContext, BootState, Registration, builtin, csms_may_send, write_call, write_call_error,
    write_call_error_with_details, write_call_result, write_call_result_error,
};
use serde_json::value::RawValue;
use uuid::Uuid;

use super::actor::{Actor, Outstanding};
use super::pending::{Answer, Content, Held, Pending};
use crate::command::{Departure, Outcome, PendingCommand, Report, Sent, Status};
use crate::events::{Body, Message};
use crate::replays::Milestone;
use crate::spans::Span;

impl Actor {
    /// Holds an answer back until everything published so far is durable.
    pub(super) fn hold_answer(&mut self, answer: Answer) {
        let (events, states) = (self.queued_events, self.queued_states);
        self.pending.push(Pending { events, states, earlier: None, held: Held::Answer(answer) });
    }

    /// Holds an answer that has no event of its own: it waits its turn, and for what its first one waited for.
    pub(super) fn hold_quiet(&mut self, answer: Answer, earlier: Option<Milestone>) {
        self.pending.push(Pending { events: 0, states: 0, earlier, held: Held::Answer(answer) });
    }

    /// What an answer to the CALL taken in last waits for.
    pub(super) fn milestone(&self) -> Milestone {
        Milestone {
            events: (self.lane.watermark(), self.queued_events),
            states: (self.states.watermark(), self.queued_states),
        }
    }

    /// Lets every answer go whose events are durable, in order, up to one that a backend owes.
    pub(super) fn release(&mut self, durable_events: u64, durable_states: u64) {
        while let Some(pending) = self.pending.front() {
            if pending.events > durable_events
                || pending.states > durable_states
                || pending.waits_for_earlier()
            {
                return;
            }
            let Some(answer) = self.pending.pop_answer() else { return };
            self.send_answer(answer);
        }
    }

    /// What must be durable for the next answer to be released, or for the station to be read again; none if that alone would
    /// change nothing.
    pub(super) fn next_to_be_durable(&self, events: &DurableWatermark) -> Option<(u64, u64)> {
        // What an earlier session published is looked for by the timer: its lane has a waiter of its own.
        let releases = |first: &&Pending| matches!(first.held, Held::Answer(_)) && !first.waits_for_earlier();
        let answer = self.pending.front().filter(releases).map(|first| (first.events, first.states));
        answer.or_else(|| self.has_too_much_under_way().then(|| (events.reached() + 1, 0)))
    }

    fn send_answer(&mut self, answer: Answer) {
        let version = self.session.admission.version;
        let Answer { id_json, action, content, read_at, quiet, by, settles_boot, span } = answer;
        let content = match content {
            Content::ResultWithTime(action) => {
                Content::Result(self.builtin_answer(action, RawValue::NULL, None))
            }
            other => other,
        };
        let mut frame = String::with_capacity(96);
        let (message_type, body) = match &content {
            Content::Result(payload) => {
                write_call_result(&mut frame, &id_json, payload);
                ("CALLRESULT", Body::Payload(payload))
            }
            Content::Error(code, description) => {
                write_call_error(&mut frame, version, &id_json, *code, description);
                ("CALLERROR", Body::Error { code: code.as_str(version), description, details: None })
            }
            Content::ErrorWithDetails(code, description, details) => {
                write_call_error_with_details(&mut frame, version, &id_json, *code, description, details);
                let details = Some(details.get());
                ("CALLERROR", Body::Error { code: code.as_str(version), description, details })
            }
            Content::ResultError(code, description) => {
                write_call_result_error(&mut frame, version, &id_json, *code, description);
                ("CALLRESULTERROR", Body::Error { code: code.as_str(version), description, details: None })
            }
            // Turned into a result above.
            Content::ResultWithTime(_) => return,
        };
        let traceparent = span.as_ref().and_then(Span::context);
        let message =
            Message { message_type, id_json: Some(&id_json), action, body, answered_by: by, traceparent };
        if !quiet {
            self.publish_sent(SystemTime::now(), &message);
        }
        self.messages_out += 1;
        self.shared.metrics.sent(message_type, action.unwrap_or("unknown"));
        if by.is_none() {
            // A backend's share has a histogram of its own; this one tells of storage.
            self.shared.metrics.answer_latency(read_at.elapsed());
        }
        self.outbox.answer(frame);
        drop(span);
        if settles_boot {
            self.boot_answers_held = self.boot_answers_held.saturating_sub(1);
        }
        let is_first = !std::mem::replace(&mut self.call_answered, true);
        if is_first || settles_boot {
            if self.effective_boot_state() == BootState::Accepted {
                self.shared.router.station_ready(&self.session);
            } else {
                self.session.mark_ready(false);
            }
        }
    }

    /// The built-in answer to a CALL, as the station's boot state and the clock are now.
    pub(super) fn builtin_answer(
        &self,
        action: &'static Action,
        request: &RawValue,
        transaction_id: Option<i32>,
    ) -> String {
        let registration = match self.boot_state {
            BootState::Pending => Registration::Pending,
            BootState::Rejected => Registration::Rejected,
            BootState::Accepted | BootState::Unregistered => Registration::Accepted,
        };
        let now = || ocpp_bus::event::rfc3339(SystemTime::now());
        let context = AnswerContext {
            now: &now,
            registration,
            interval_seconds: u32::try_from(self.shared.registration.interval.as_secs()).unwrap_or(u32::MAX),
            transaction_id,
            authorization: self.shared.answers.authorization.as_str(),
        };
        builtin(self.session.admission.version, action, request, &context)
    }

    /// Whether a command may leave now: none is outstanding, the station has booted and had its answer, and the first
    /// instants of the connection are over (ocpp-j 4.2, pitfalls 2 and 3).
    pub(super) fn wants_commands(&self, now: Instant) -> bool {
        self.ending.is_none()
            && self.exchange.is_idle()
            && self.departing.is_none()
            && self.unpublished.is_empty()
            && self.boot_answers_held == 0
            && self.effective_boot_state() != BootState::Unregistered
            && (self.call_answered || now >= self.grace_until)
    }

    /// Writes down that a command is about to be sent, or ends it if it cannot be.
    pub(super) fn prepare_command(&mut self, pending: PendingCommand) {
        if pending.send_by <= Instant::now() {
            let outcome = pending.command.overdue();
            self.finish_command(pending, outcome);
            return;
        }
        let state = self.effective_boot_state();
        if !csms_may_send(self.session.admission.version, state, pending.action) {
            if let Err(pending) = self.shared.router.keep_for_later(pending) {
                let text = format!("{} may not be sent while the station is {state:?}", pending.action.name);
                self.finish_command(pending, Outcome::failed(Status::Invalid, text));
            }
            return;
        }
        let router = &self.shared.router;
        match router.book.sending(&pending.command) {
            Some(note) => {
                self.departing = Some(Box::new(Departure::new(pending, router.journal.publisher(), note)));
            }
            // It was ended by somebody else; whoever follows it knows.
            None => drop(pending),
        }
    }

    /// Sends the command for which everything is written down.
    pub(super) fn send_command(&mut self) {
        let Some(departure) = self.departing.take() else { return };
        let pending = departure.pending;
        let now = Instant::now();
        let version = self.session.admission.version;
        let (action, payload) = (pending.action, &pending.command.payload);
        self.grants.record(version, action, payload);
        let id = Uuid::now_v7().to_string();
        let id_json = format!("\"{id}\"");
        let mut frame = String::with_capacity(payload.get().len() + 96);
        write_call(&mut frame, &id, action.name, payload.get());
        let mut trace = self.shared.tracer.call(pending.command.trace, action.name);
        if let Some(span) = trace.span_mut() {
            self.describe(span, action.name, &id);
        }
        let message = Message {
            message_type: "CALL",
            id_json: Some(&id_json),
            action: Some(action.name),
            body: Body::Payload(payload.get()),
            answered_by: None,
            traceparent: trace.context(),
        };
        self.publish_sent(SystemTime::now(), &message);
        self.messages_out += 1;
        self.shared.metrics.sent("CALL", action.name);
        let answer_by = pending.answer_by(now);
        match self.exchange.begin(
            id,
            answer_by,
            Box::new(Outstanding { command: pending, trace, sent_at: now }),
        ) {
            Ok(()) => self.outbox.command(frame),
            // Only asked for while the exchange is idle; a command that comes all the same is not lost.
            Err(busy) => self.finish_outstanding(
                *busy.0,
                Outcome::failed(Status::QueueFull, "another command is outstanding"),
            ),
        }
    }

    /// Says in a span of whom and what it is.
    pub(super) fn describe(&self, span: &mut Span, action: &'static str, message_id: &str) {
        let admission = &self.session.admission;
        span.set("ocpp.station.id", admission.identity.as_str().to_owned());
        span.set("ocpp.action", action);
        span.set("ocpp.version", admission.version.as_str());
        span.set("ocpp.session.id", self.session.id.to_string());
        span.set("ocpp.message.id", message_id.to_owned());
    }

    /// Ends a command that the station had.
    pub(super) fn finish_outstanding(&mut self, outstanding: Outstanding, outcome: Outcome) {
        outstanding.trace.end(&outcome);
        self.finish_command(outstanding.command, outcome);
    }

    /// Reports a command's end, as soon as everything that the station said is on the bus.
    pub(super) fn finish_command(&mut self, pending: PendingCommand, outcome: Outcome) {
        let report = Report::Ended(outcome, self.session.untold());
        self.reports.push_back((pending.reply, report));
        self.publish_what_fits();
    }

    /// Gives up every command that this session has, because the session ends.
    pub(super) fn give_up_commands(&mut self, status: Status) {
        let why = match status {
            Status::Replaced => "a newer connection of the station took over",
            _ => "the station's connection ended",
        };
        if let Some(outstanding) = self.exchange.abandon() {
            let text = format!("{why} before it answered; whether the station acted on it is not known");
            self.finish_outstanding(*outstanding, Outcome::failed(status, text).after(Sent::Yes));
        }
        let departing = self.departing.take().map(|departure| departure.pending);
        let waiting = departing.into_iter().chain(self.session.mailbox.shut()).collect();
        self.shared.router.move_on(waiting, status);
    }
}
