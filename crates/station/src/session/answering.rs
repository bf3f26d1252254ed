//! What a session answers, and when it leaves: held answers are released once they are durable, in the order of their
//! CALLs (P1).

use ocpp_protocol::{
    Action, AnswerContext, BootState, Registration, Version, builtin, write_call_error,
    write_call_error_with_details, write_call_result, write_call_result_error,
};
use serde_json::value::RawValue;

use super::Session;
use super::latest::number;
use crate::answer_queue::{After, Answer, Queued, Ready};
use crate::content::Content;
use crate::envelope::{rfc3339, rfc3339_seconds};
use crate::events::{Body, Message};
use crate::host::{Event, Host, Position, Trace};
use crate::observation::{Observation, UNKNOWN_ACTION};
use crate::time::Now;

impl<H: Host> Session<H> {
    /// Holds an answer back until everything published so far is durable.
    pub(super) fn hold(&mut self, ready: Ready<H::Trace>, host: &H) {
        let after = After { position: host.position(), earlier: None };
        self.answers.push(Queued { after, answer: Answer::Ready(ready) });
    }

    /// Holds an answer whose CALL has no event of its own: it waits its turn, and for what its first one waited for.
    pub(super) fn hold_without_event(&mut self, ready: Ready<H::Trace>, earlier: Option<H::Point>) {
        let after = After { position: Position::default(), earlier };
        self.answers.push(Queued { after, answer: Answer::Ready(ready) });
    }

    /// Lets every answer go whose events are durable, in order, up to one that a backend owes.
    pub(super) fn release(&mut self, now: Now, durable: Position, host: &mut H) {
        while self.answers.front().is_some_and(|first| first.after.is_over(durable)) {
            let Some(ready) = self.answers.pop_ready() else { return };
            self.send_answer(now, ready, host);
        }
    }

    fn send_answer(&mut self, now: Now, ready: Ready<H::Trace>, host: &mut H) {
        let version = host.subject().version;
        let Ready { id_json, action, content, read_at, without_event, by, settles_boot, trace } = ready;
        let content = match content {
            Content::ResultWithTime(action) => {
                Content::Result(self.builtin_answer(now, action, RawValue::NULL, None, None, host))
            }
            other => other,
        };
        let mut frame = String::with_capacity(96);
        let (message_type, body) = match &content {
            Content::Result(payload) => {
                write_call_result(&mut frame, &id_json, payload);
                if let (Some(action), Version::V21) = (action, version) {
                    self.answered.insert(number(&id_json), action);
                }
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
        if !without_event {
            let traceparent = trace.context();
            let message = Message {
                message_type,
                id_json: Some(&id_json),
                action,
                body,
                answered_by: by,
                command_id: None,
                violation: None,
                traceparent,
            };
            host.publish(Event::Sent(now.wall, &message));
        }
        self.messages_out += 1;
        host.observe(Observation::Sent { message_type, action: action.unwrap_or(UNKNOWN_ACTION) });
        if by.is_none() {
            // A backend's share has a histogram of its own; this one tells of storage.
            let latency = now.monotonic.saturating_duration_since(read_at);
            host.observe(Observation::AnswerSent { latency });
        }
        self.outbox.answer(frame);
        drop(trace);
        if settles_boot {
            self.boot_answers_held = self.boot_answers_held.saturating_sub(1);
        }
        let is_first = !std::mem::replace(&mut self.call_answered, true);
        if is_first || settles_boot {
            host.station_ready(self.command_state(host) == BootState::Accepted);
        }
    }

    /// The built-in answer to a CALL, as the station's boot state and the time are now, or one with this status.
    pub(super) fn builtin_answer(
        &self,
        now: Now,
        action: &'static Action,
        request: &RawValue,
        transaction_id: Option<i32>,
        status: Option<&str>,
        host: &H,
    ) -> String {
        let options = host.options();
        let context = AnswerContext {
            now: &|| if options.fractional_seconds { rfc3339(now.wall) } else { rfc3339_seconds(now.wall) },
            registration: self.standing.told.registration().unwrap_or(Registration::Accepted),
            interval_seconds: u32::try_from(options.boot_interval.as_secs()).unwrap_or(u32::MAX),
            transaction_id,
            authorization: options.authorization.as_str(),
            status,
        };
        builtin(host.subject().version, action, request, &context)
    }
}
