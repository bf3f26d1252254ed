//! What a session sees that is worth counting or logging. Counts and logs nothing itself.

use std::time::Duration;

use ocpp_protocol::{Findings, Registration};

use crate::delegated_calls::FallbackReason;

/// The action of what is not in the table of actions: a station must not be able to make metric series.
pub const UNKNOWN_ACTION: &str = "unknown";

/// Something that happened in a session. Actions are names from the table or [`UNKNOWN_ACTION`], never a station's text.
#[derive(Clone, Copy, Debug)]
pub enum Observation<'a> {
    /// A message came in.
    Received {
        /// `CALL`, `CALLRESULT`, …
        message_type: &'static str,
        /// Its action.
        action: &'static str,
    },
    /// A message was handed to the socket's writer.
    Sent {
        /// `CALL`, `CALLRESULT`, …
        message_type: &'static str,
        /// Its action.
        action: &'static str,
    },
    /// A CALL of the station was dealt with: `answered`, or the error code given.
    CallEnded {
        /// Its action.
        action: &'static str,
        /// How.
        outcome: &'static str,
    },
    /// An answer left this long after its CALL was read, if the gateway gave it.
    AnswerSent {
        /// From the frame's being read to the answer's being handed to the socket's writer.
        latency: Duration,
    },
    /// A CALL repeats one: `answered` again, its answer is still `held`, or it `joined` the wait for a backend.
    Repeated(&'static str),
    /// A message was shed.
    Shed {
        /// Its action.
        action: &'static str,
    },
    /// A deviation was let through.
    Leniency(&'static str),
    /// A payload of the station violates its schema.
    Violations {
        /// `CALL`, `CALLRESULT` or `SEND`.
        message_type: &'static str,
        /// Its action.
        action: &'static str,
        /// Which members, and how; at least one.
        found: &'a Findings,
        /// The message is refused for it.
        is_refused: bool,
    },
    /// A message is not OCPP-J.
    Malformed(&'static str),
    /// An answer came that nobody waits for: `late`, or to an `unknown` CALL.
    UnmatchedAnswer(&'static str),
    /// A station took this long over a command.
    CommandAnswered(Duration),
    /// The wait for a backend ended: `answered`, `error`, why the fallback applied, or `abandoned` with the session.
    DelegationEnded {
        /// The action asked about.
        action: &'static str,
        /// How.
        outcome: &'static str,
    },
    /// A backend's response came this long after its CALL.
    BackendResponded(Duration),
    /// No backend responded, and the fallback applies.
    FellBack {
        /// The action asked about.
        action: &'static str,
        /// Why.
        reason: FallbackReason,
    },
    /// The station was asked to boot: that was `accepted`, `refused`, or not answered in time (`timeout`), or the connection
    /// ended first (`abandoned`).
    BootTriggered(&'static str),
    /// The station is registered.
    Registered(Registration),
    /// A ping came in.
    PingReceived,
    /// A pong came back after this long.
    PingRoundTrip(Duration),
    /// The session stopped reading.
    ReadPaused,
}
