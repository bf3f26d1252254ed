//! A command as a session carries it: one CALL to the station, at most once on the wire.
//!
//! Owns when it may leave and until when its answer is awaited. What is remembered of the command, and who follows it, is
//! the dispatcher's: it travels along as `D` and is never looked at here.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use ocpp_protocol::Action;
use serde_json::value::RawValue;

use crate::outcome::{Outcome, Status};
use crate::time::Now;

/// A command on its way to the socket.
#[derive(Debug)]
pub struct OutboundCall<D> {
    /// The backend's name for the command.
    pub id: Arc<str>,
    /// Its action, which the gateway may call in the station's version.
    pub action: &'static Action,
    /// A JSON object, sent byte for byte.
    pub payload: Arc<RawValue>,
    /// Its place in the order in which commands were taken in.
    pub sequence: u64,
    /// It goes ahead of others.
    pub is_urgent: bool,
    /// Not to be sent after this.
    pub send_by: Instant,
    /// How long the station may take.
    pub patience: Patience,
    /// How it ends if it could not be sent in time.
    pub overdue: Overdue,
    /// What the dispatcher needs to know again.
    pub dispatch: D,
}

/// How long a station may take over its answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Patience {
    /// So long from when the CALL leaves: the command was queued while its station was away.
    FromSending(Duration),
    /// So long from when the command was taken in.
    Since(SystemTime, Duration),
}

/// Which of a command's limits ends it before it is sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Overdue {
    /// Its own `expiresAt`.
    Expired,
    /// Its timeout.
    TimedOut,
}

impl Overdue {
    /// How a command ends that could not be sent in time.
    pub fn outcome(self) -> Outcome {
        match self {
            Self::Expired => {
                Outcome::failed(Status::Expired, "expiresAt passed before the command could be sent")
            }
            Self::TimedOut => {
                Outcome::failed(Status::Timeout, "the command could not be sent within its timeout")
            }
        }
    }
}

impl<D> OutboundCall<D> {
    /// When the answer must be there, if the CALL leaves now.
    pub fn answer_by(&self, now: Now) -> Instant {
        match self.patience {
            Patience::FromSending(patience) => now.monotonic + patience,
            Patience::Since(taken_in, patience) => {
                let passed = now.wall.duration_since(taken_in).unwrap_or_default();
                now.monotonic + patience.saturating_sub(passed)
            }
        }
    }
}
