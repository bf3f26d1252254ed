//! What a session holds back until its events are durable: answers to the station (P1).

use std::time::Instant;

use ocpp_protocol::{Action, ErrorCode};

use crate::replays::Milestone;

/// An answer held back.
#[derive(Debug)]
pub(super) struct Pending {
    /// This session's events up to this ordinal must be durable first …
    pub(super) events: u64,
    /// … and its station's state changes up to this one.
    pub(super) states: u64,
    /// … or, for the answer to a repeated CALL, what its first answer waited for, perhaps in an earlier session.
    pub(super) earlier: Option<Milestone>,
    /// What is held.
    pub(super) answer: Answer,
}

impl Pending {
    /// What the first answer waited for is not durable yet.
    pub(super) fn waits_for_earlier(&self) -> bool {
        self.earlier.as_ref().is_some_and(|milestone| !milestone.is_reached())
    }
}

/// An answer to the station.
#[derive(Debug)]
pub(super) struct Answer {
    /// The station's message id as a JSON string literal, to be echoed byte for byte.
    pub(super) id_json: String,
    /// The action answered: a name from the table, `None` if there is none.
    pub(super) action: Option<&'static str>,
    /// What is said.
    pub(super) content: Content,
    /// When the frame was read.
    pub(super) read_at: Instant,
    /// No event tells of it: the station is told again what it was told before, or the operator has called such messages
    /// expendable.
    pub(super) quiet: bool,
}

/// What an answer says.
#[derive(Clone, Debug)]
pub(crate) enum Content {
    /// CALLRESULT with this payload.
    Result(String),
    /// CALLRESULT that carries the time and nothing from the request: written when it leaves, so that a station that had
    /// to wait does not set its clock back by the wait.
    ResultWithTime(&'static Action),
    /// CALLERROR.
    Error(ErrorCode, String),
    /// CALLRESULTERROR (2.1).
    ResultError(ErrorCode, String),
}
