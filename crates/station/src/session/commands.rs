//! The CALLs that a session sends: commands, and its own request to boot, one at a time (ocpp-j 2.3).
//!
//! Owns that each leaves once, and which outcome ends it. Which may leave now is in `registration.rs`; where a command's result
//! goes is the host's affair.

use std::sync::Arc;
use std::time::Instant;

use ocpp_protocol::{Action, Answered, BootState, CallError, CallResult, csms_may_send, write_call};

use serde_json::value::RawValue;

use super::Session;
use super::latest::number;
use super::message::error_message;
use super::validation::Examined;
use crate::content::Content;
use crate::events::{Body, Message};
use crate::host::{Event, Host};
use crate::observation::{Observation, UNKNOWN_ACTION};
use crate::outbound_call::OutboundCall;
use crate::outcome::{CommandError, Outcome, Sent, Status};
use crate::time::Now;
use crate::trace::TraceParent;

/// A CALL that the station has and has not answered.
#[derive(Debug)]
pub(super) struct Outstanding<D> {
    /// None is the session's own request to boot.
    command: Option<OutboundCall<D>>,
    name: CommandName,
    sent_at: Instant,
    /// The number of its message id.
    message: u64,
}

/// What the events of a CALL and of its answer say of it.
#[derive(Clone, Debug)]
pub(super) struct CommandName {
    /// The command that it carries.
    pub(super) id: Option<Arc<str>>,
    pub(super) action: &'static Action,
    pub(super) traceparent: Option<TraceParent>,
}

/// A CALL about to leave.
pub(super) struct Leaving<'a> {
    pub(super) id: String,
    pub(super) name: CommandName,
    pub(super) payload: &'a RawValue,
    pub(super) answer_by: Instant,
}

impl<H: Host> Session<H> {
    /// Whether a command is about to be sent and waits for its note to be durable.
    pub fn is_preparing(&self) -> bool {
        self.preparing.is_some()
    }

    /// A command to send. It leaves once the host has noted that it does, or ends if it cannot be sent.
    pub fn on_command(&mut self, now: Now, call: OutboundCall<H::Dispatch>, host: &mut H) {
        if call.send_by <= now.monotonic {
            let outcome = call.overdue.outcome();
            host.finished(call, outcome);
            return;
        }
        let state = self.command_state(host);
        if !csms_may_send(host.subject().version, state, call.action) {
            if let Err(call) = host.defer(call) {
                let text = format!("{} may not be sent while the station is {state:?}", call.action.name);
                host.finished(call, Outcome::failed(Status::Invalid, text));
            }
            return;
        }
        // Of one that ended elsewhere, whoever follows it knows.
        if host.prepare(&call) {
            self.preparing = Some(Box::new(call));
        }
    }

    /// It is noted that the command leaves.
    pub fn on_prepared(&mut self, now: Now, host: &mut H) {
        let Some(call) = self.preparing.take() else { return };
        let mut call = *call;
        if self.station_state(host) == BootState::Pending {
            self.grants.record(host.subject().version, call.action, &call.payload);
        }
        let id = host.message_id();
        let traceparent = host.trace_command(now, &mut call, &id);
        let name = CommandName { id: Some(Arc::clone(&call.id)), action: call.action, traceparent };
        let (payload, answer_by) = (Arc::clone(&call.payload), call.answer_by(now));
        self.send_call(now, Leaving { id, name, payload: &payload, answer_by }, Some(call), host);
    }

    /// Sends a CALL, and begins to wait for its answer.
    pub(super) fn send_call(
        &mut self,
        now: Now,
        call: Leaving<'_>,
        command: Option<OutboundCall<H::Dispatch>>,
        host: &mut H,
    ) {
        let Leaving { id, name, payload, answer_by } = call;
        let action = name.action.name;
        let id_json = format!("\"{id}\"");
        let mut frame = String::with_capacity(payload.get().len() + 96);
        write_call(&mut frame, &id, action, payload.get());
        let message = Message {
            message_type: "CALL",
            id_json: Some(&id_json),
            action: Some(action),
            body: Body::Payload(payload.get()),
            answered_by: None,
            command_id: name.id.as_deref(),
            violation: None,
            traceparent: name.traceparent,
        };
        host.publish(Event::Sent(now.wall, &message));
        self.messages_out += 1;
        host.observe(Observation::Sent { message_type: "CALL", action });
        let outstanding = Outstanding { command, name, sent_at: now.monotonic, message: number(&id) };
        match self.exchange.begin(id, answer_by, Box::new(outstanding)) {
            Ok(()) => self.outbox.command(frame),
            // Only asked for while the exchange is idle; a command that comes all the same is not lost.
            Err(busy) => {
                let outcome = Outcome::failed(Status::QueueFull, "another command is outstanding");
                self.finish(now, busy.0.command, outcome, host);
            }
        }
    }

    /// A CALL has ended like this.
    fn finish(
        &mut self,
        now: Now,
        command: Option<OutboundCall<H::Dispatch>>,
        outcome: Outcome,
        host: &mut H,
    ) {
        match command {
            Some(call) => host.finished(call, outcome),
            None => self.end_trigger(now, &outcome, host),
        }
    }

    pub(super) fn on_call_result(&mut self, now: Now, result: &CallResult<'_>, host: &mut H) {
        let id = result.id.decoded();
        let outstanding = self.match_answer(&id, host);
        let command = self.command_of(&id, outstanding.as_deref());
        Self::observe_answer("CALLRESULT", command.as_ref(), host);
        Self::observe_null(result.payload_was_null, host);
        let examined = outstanding.as_ref().map_or_else(Examined::default, |outstanding| {
            Self::examine_result(outstanding.name.action, result.payload, host)
        });
        let message = Message {
            message_type: "CALLRESULT",
            id_json: Some(result.id.as_json()),
            action: command.as_ref().map(|command| command.action.name),
            body: Body::Payload(result.payload.get()),
            answered_by: None,
            command_id: command.as_ref().and_then(|command| command.id.as_deref()),
            violation: examined.told.as_deref(),
            traceparent: command.as_ref().and_then(|command| command.traceparent),
        };
        host.publish(Event::Received(now.wall, &message));
        if let Some(violation) = examined.refusal {
            // 2.1 Part 2, FR.06. The backend has the answer all the same.
            let content = Content::ResultError(violation.code(), violation.to_string());
            let action = command.as_ref().map(|command| command.action.name);
            self.refuse_message(now, result.id.as_json(), action, content, host);
        }
        if let Some(outstanding) = outstanding {
            host.observe(Observation::CommandAnswered(now.monotonic - outstanding.sent_at));
            let outcome = Outcome::answered(result.payload.to_owned());
            let outcome = Outcome { violation: examined.told, ..outcome };
            self.finish(now, outstanding.command, outcome, host);
        }
    }

    pub(super) fn on_call_error(&mut self, now: Now, error: &CallError<'_>, host: &mut H) {
        let id = error.id.decoded();
        let outstanding = if id == "-1" {
            // The station could not read an id; what it could not read is most likely the one CALL it has of ours.
            self.timeouts = 0;
            self.exchange.on_uncorrelated_error()
        } else {
            self.match_answer(&id, host)
        };
        let command = self.command_of(&id, outstanding.as_deref());
        Self::observe_answer("CALLERROR", command.as_ref(), host);
        let message = Message {
            command_id: command.as_ref().and_then(|command| command.id.as_deref()),
            traceparent: command.as_ref().and_then(|command| command.traceparent),
            ..error_message("CALLERROR", error, command.as_ref().map(|command| command.action.name))
        };
        host.publish(Event::Received(now.wall, &message));
        if let Some(outstanding) = outstanding {
            if id == "-1" {
                self.unanswered.insert(outstanding.message, outstanding.name);
            }
            let outcome = Outcome::error(CommandError {
                code: error.code.clone().into_owned(),
                description: error.description.clone().into_owned(),
                details: error.details.map(ToOwned::to_owned),
            });
            self.finish(now, outstanding.command, outcome, host);
        }
    }

    /// A message that is not OCPP-J ends the command whose answer it was meant to be.
    pub(super) fn on_malformed_answer(&mut self, now: Now, id: &str, error: CommandError, host: &mut H) {
        if let Some(outstanding) = self.match_answer(id, host) {
            self.finish(now, outstanding.command, Outcome::error(error), host);
        }
    }

    /// Ends the commands whose time has run out: the one that the station has not answered, the one about to be sent, and
    /// those that wait.
    pub(super) fn end_overdue_commands(&mut self, now: Now, host: &mut H) {
        if let Some(outstanding) = self.exchange.on_timeout(now.monotonic) {
            self.timeouts = self.timeouts.saturating_add(1);
            // One that waits for a station which takes nothing must not reach it after its end, beside the next.
            let (text, sent) = if self.outbox.withdraw_command() {
                ("the station did not take the command in time", Sent::No)
            } else {
                self.unanswered.insert(outstanding.message, outstanding.name);
                ("the station did not answer in time", Sent::Yes)
            };
            let outcome = Outcome::failed(Status::Timeout, text).after(sent);
            self.finish(now, outstanding.command, outcome, host);
        }
        let preparing = self.preparing.take_if(|call| call.send_by <= now.monotonic).map(|call| *call);
        let overdue = host.inbox().take_overdue(now.monotonic);
        for call in preparing.into_iter().chain(overdue) {
            let outcome = call.overdue.outcome();
            host.finished(call, outcome);
        }
    }

    /// Gives up every command that this session has, because it ends.
    pub(super) fn give_up_commands(&mut self, now: Now, status: Status, host: &mut H) {
        let why = match status {
            Status::Replaced => "a newer connection of the station took over",
            _ => "the station's connection ended",
        };
        if let Some(outstanding) = self.exchange.abandon() {
            let text = format!("{why} before it answered; whether the station acted on it is not known");
            let outcome = Outcome::failed(status, text).after(Sent::Yes);
            self.finish(now, outstanding.command, outcome, host);
        }
        let preparing = self.preparing.take().map(|call| *call);
        let waiting = host.inbox().close();
        host.hand_back(preparing.into_iter().chain(waiting).collect(), status);
    }

    fn match_answer(&mut self, id: &str, host: &mut H) -> Option<Box<Outstanding<H::Dispatch>>> {
        let kind = match self.exchange.on_answer(id) {
            Answered::Matched(outstanding) => {
                self.timeouts = 0;
                return Some(outstanding);
            }
            Answered::Late => {
                self.timeouts = 0;
                "late"
            }
            Answered::Unknown => "unknown",
        };
        host.observe(Observation::UnmatchedAnswer(kind));
        None
    }

    /// What an answer with this id belongs to: the outstanding CALL, or one that ended without its answer.
    fn command_of(&self, id: &str, outstanding: Option<&Outstanding<H::Dispatch>>) -> Option<CommandName> {
        outstanding.map(|one| &one.name).or_else(|| self.unanswered.find(number(id))).cloned()
    }

    fn observe_answer(message_type: &'static str, command: Option<&CommandName>, host: &mut H) {
        let action = command.map_or(UNKNOWN_ACTION, |command| command.action.name);
        host.observe(Observation::Received { message_type, action });
    }
}
