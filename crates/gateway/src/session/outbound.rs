//! What a session sends: held answers once they are free, and commands, one at a time (ocpp-j 2.3).

use std::time::{Instant, SystemTime};

use ocpp_protocol::{
    Action, AnswerContext, BootState, Registration, builtin, csms_may_send, write_call, write_call_error,
    write_call_result, write_call_result_error,
};
use serde_json::value::RawValue;
use uuid::Uuid;

use super::actor::{Actor, Outstanding};
use super::pending::{Answer, Content, Held, Pending};
use crate::command::{Outcome, PendingCommand, Status};
use crate::events::{Body, Message};
use crate::replays::Milestone;

impl Actor {
    /// Holds an answer back until everything published so far is durable.
    pub(super) fn hold_answer(&mut self, answer: Answer) {
        self.hold(Held::Answer(answer));
    }

    /// Holds an answer that has no event of its own: it waits its turn, and for what its first one waited for.
    pub(super) fn hold_quiet(&mut self, answer: Answer, earlier: Option<Milestone>) {
        self.pending.push_back(Pending { events: 0, states: 0, earlier, held: Held::Answer(answer) });
    }

    fn hold(&mut self, held: Held) {
        let pending = Pending { events: self.queued_events, states: self.queued_states, earlier: None, held };
        self.pending.push_back(pending);
    }

    /// What an answer to the CALL taken in last waits for.
    pub(super) fn milestone(&self) -> Milestone {
        Milestone {
            events: (self.lane.durability(), self.queued_events),
            states: (self.states.durability(), self.queued_states),
        }
    }

    /// Lets everything go whose events are durable, in order.
    pub(super) fn release(&mut self, durable_events: u64, durable_states: u64) {
        while let Some(pending) = self.pending.front() {
            if pending.events > durable_events
                || pending.states > durable_states
                || pending.waits_for_earlier()
            {
                return;
            }
            match self.pending.pop_front().map(|pending| pending.held) {
                Some(Held::Answer(answer)) => self.send_answer(answer),
                Some(Held::Outcome(reply, outcome)) => {
                    // The sender may have stopped waiting; the result event stands.
                    drop(reply.send(outcome));
                }
                None => return,
            }
        }
    }

    fn send_answer(&mut self, answer: Answer) {
        let version = self.session.admission.version;
        let Answer { id_json, action, content, read_at, quiet } = answer;
        let (content, is_boot) = match content {
            Content::ResultWithTime(action) => (
                Content::Result(self.builtin_answer(action, RawValue::NULL, None)),
                action.name == "BootNotification",
            ),
            other => (other, false),
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
            Content::ResultError(code, description) => {
                write_call_result_error(&mut frame, version, &id_json, *code, description);
                ("CALLRESULTERROR", Body::Error { code: code.as_str(version), description, details: None })
            }
            // Turned into a result above.
            Content::ResultWithTime(_) => return,
        };
        let message = Message { message_type, id_json: Some(&id_json), action, body, answered_by: None };
        if !quiet {
            self.publish_sent(SystemTime::now(), &message);
        }
        self.note_sent();
        self.shared.metrics.sent(message_type, action.unwrap_or("unknown"));
        self.shared.metrics.answer_latency(read_at.elapsed());
        self.outbox.answer(frame);
        self.call_answered = true;
        if is_boot {
            self.boot_answers_held = self.boot_answers_held.saturating_sub(1);
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
        let now = ocpp_bus::event::rfc3339(SystemTime::now());
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
            && self.unpublished.is_empty()
            && self.boot_answers_held == 0
            && self.effective_boot_state() != BootState::Unregistered
            && (self.call_answered || now >= self.grace_until)
    }

    /// Sends a command, or ends it if it cannot be sent.
    pub(super) fn send_command(&mut self, command: PendingCommand) {
        let now = Instant::now();
        let version = self.session.admission.version;
        let state = self.effective_boot_state();
        if command.deadline() <= now {
            let outcome = command.overdue();
            self.finish_command(command, outcome);
            return;
        }
        if !csms_may_send(version, state, command.action) {
            let text = format!("{} may not be sent while the station is {state:?}", command.action.name);
            self.finish_command(command, Outcome::failed(Status::Invalid, text));
            return;
        }
        self.grants.record(version, command.action, &command.payload);
        let id = Uuid::now_v7().to_string();
        let id_json = format!("\"{id}\"");
        let mut frame = String::with_capacity(command.payload.get().len() + 96);
        write_call(&mut frame, &id, command.action.name, command.payload.get());
        let message = Message {
            message_type: "CALL",
            id_json: Some(&id_json),
            action: Some(command.action.name),
            body: Body::Payload(command.payload.get()),
            answered_by: None,
        };
        self.publish_sent(SystemTime::now(), &message);
        self.note_sent();
        self.shared.metrics.sent("CALL", command.action.name);
        let deadline = command.timeout_at;
        match self.exchange.begin(id, deadline, Outstanding { command, sent_at: now }) {
            Ok(()) => self.outbox.command(frame),
            // Only asked for while the exchange is idle; a command that comes all the same is not lost.
            Err(busy) => self.finish_command(
                busy.0.command,
                Outcome::failed(Status::QueueFull, "another command is outstanding"),
            ),
        }
    }

    /// Ends a command: its result event goes out, and its sender hears of it when that is durable.
    pub(super) fn finish_command(&mut self, command: PendingCommand, outcome: Outcome) {
        self.shared.metrics.command_ended(outcome.status);
        let station = self.session.admission.identity.as_str();
        let record = self.shared.events.command_result(
            station,
            Some(&self.session),
            &command.id,
            command.action.name,
            &outcome,
        );
        self.publish_event(record);
        self.hold(Held::Outcome(command.reply, outcome));
    }

    /// Ends every command that this session has, because the session ends.
    pub(super) fn fail_commands(&mut self, status: Status) {
        let why = match status {
            Status::Replaced => "a newer connection of the station took over",
            _ => "the station's connection ended",
        };
        if let Some(outstanding) = self.exchange.abandon() {
            let text = format!("{why} before it answered; whether the station acted on it is not known");
            self.finish_command(outstanding.command, Outcome::failed(status, text));
        }
        for command in self.session.mailbox.shut() {
            self.finish_command(command, Outcome::failed(status, format!("{why} before it was sent")));
        }
    }
}
