//! What a session holds back until its events are durable: answers to the station (P1).
//!
//! One queue in the order of what came. Answers leave in the order of the CALLs they answer, so one that a backend has still
//! to give holds up those behind it.

use std::time::Instant;

use ocpp_protocol::{Action, ErrorCode, StartKey, Version};
use prometheus::IntGauge;
use serde_json::value::RawValue;

use super::waits::{Question, Ticket};
use crate::answers::Reply;
use crate::events::AnsweredBy;
use crate::replays::{CallKey, Milestone};
use crate::spans::Span;

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
    pub(super) held: Held,
}

impl Pending {
    /// What the first answer waited for is not durable yet.
    pub(super) fn waits_for_earlier(&self) -> bool {
        self.earlier.as_ref().is_some_and(|milestone| !milestone.is_reached())
    }
}

/// What is held.
#[derive(Debug)]
pub(super) enum Held {
    /// An answer to the station.
    Answer(Answer),
    /// The place of an answer that a backend is to give.
    Awaited(Box<Awaited>),
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
    /// Who answers, where the CALL's event said that a backend would.
    pub(super) by: Option<AnsweredBy>,
    /// It answers a BootNotification for which commands wait.
    pub(super) settles_boot: bool,
    /// Ends when the answer is handed to the socket's writer.
    pub(super) span: Option<Span>,
}

/// A CALL that a backend is to answer.
#[derive(Debug)]
pub(super) struct Awaited {
    pub(super) ticket: Ticket,
    pub(super) question: Question,
    /// When the fallback applies.
    pub(super) until: Instant,
    /// The station's message id as a JSON string literal.
    pub(super) id_json: String,
    pub(super) action: &'static Action,
    pub(super) read_at: Instant,
    pub(super) key: CallKey,
    /// What the CALL's event must reach, in this session or in the one that published it.
    pub(super) milestone: Milestone,
    pub(super) fallback: Prepared,
    /// Goes on with the answer.
    pub(super) span: Option<Span>,
    /// Counts it as awaited for as long as it exists.
    pub(super) _counted: Counted,
}

/// What a station gets if no backend answers. Made ready when the CALL is read, so that its payload need not be kept.
#[derive(Debug)]
pub(super) enum Prepared {
    /// This.
    Content(Content),
    /// The built-in answer to BootNotification.
    Boot,
    /// The built-in answer to a 1.6 StartTransaction, with a transaction id that is given out only then.
    Start(StartKey),
    /// Nothing.
    Silence,
}

/// One on a gauge until it is dropped.
#[derive(Debug)]
pub(super) struct Counted(IntGauge);

impl Counted {
    /// One more.
    pub(super) fn on(gauge: &IntGauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.dec();
    }
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
    /// CALLERROR with details, a JSON object.
    ErrorWithDetails(ErrorCode, String, Box<RawValue>),
    /// CALLRESULTERROR (2.1).
    ResultError(ErrorCode, String),
}

impl Content {
    /// How the CALL ended, for its metric: `answered`, or the error code.
    pub(super) fn outcome(&self, version: Version) -> &'static str {
        match self {
            Self::Result(_) | Self::ResultWithTime(_) => "answered",
            Self::Error(code, _) | Self::ErrorWithDetails(code, ..) | Self::ResultError(code, _) => {
                code.as_str(version)
            }
        }
    }
}

impl From<Reply> for Content {
    fn from(reply: Reply) -> Self {
        match reply {
            Reply::Payload(payload) => Self::Result(Box::<str>::from(payload).into_string()),
            Reply::Error { code, description, details: Some(details) } => {
                Self::ErrorWithDetails(code, description, details)
            }
            Reply::Error { code, description, details: None } => Self::Error(code, description),
        }
    }
}
