//! Commands: from a backend to the session that serves the station, and the outcome back, exactly once.
//!
//! Owns what a command is and the closed set of outcomes. The rest of the way is in `command/`: `request.rs` reads a
//! command, `book.rs` remembers it over restarts, `router.rs` takes it to the right session and tells its outcome,
//! `intake.rs` reads the topic of commands, `batch.rs` and `pacing.rs` send one command to many stations. The session owns sending it, one at a time (`session/outbound.rs`). Having been
//! written to the socket is not an outcome.

pub mod batch;
pub mod book;
pub mod intake;
pub mod metrics;
pub mod options;
pub mod pacing;
pub mod request;
pub mod router;

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use ocpp_bus::kafka::consumer::RecordPlace;
use ocpp_protocol::{Action, IdentityKey};
use ocpp_station::OutboundCall;
use ocpp_station::outbound_call::{Overdue, Patience};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tokio::sync::oneshot;
use utoipa::ToSchema;

use self::router::Step;
pub use ocpp_station::{CommandError, Outcome, Sent, Status};

use crate::driver::Dispatch;
use crate::session::ResultGuard;
use crate::spans::CommandTrace;

/// What becomes of a command while its station is away.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum IfOffline {
    /// It ends at once.
    #[default]
    Fail,
    /// It is kept and sent when the station is back.
    Queue,
}

/// A command as it was taken in.
#[derive(Debug)]
pub struct Command {
    /// The backend's name for it.
    pub id: Arc<str>,
    /// The station, as the backend spells it.
    pub station: String,
    /// The station.
    pub key: IdentityKey,
    /// The OCPP action.
    pub action: String,
    /// A JSON object.
    pub payload: Arc<RawValue>,
    /// How long it may take: from when it was taken in, or, if it was kept for a station that was away, from when it
    /// was sent.
    pub timeout: Duration,
    /// When it was taken in, or written to Kafka.
    pub taken_at: SystemTime,
    /// Not to be sent after this.
    pub expires_at: Option<SystemTime>,
    /// What becomes of it while its station is away.
    pub if_offline: IfOffline,
    /// Its place in the order in which commands were taken in; the book gives it.
    pub sequence: u64,
    /// Where it is in Kafka, if it came from there.
    pub origin: Option<RecordPlace>,
    /// The batch that it is part of.
    pub batch: Option<Arc<str>>,
    /// Why it cannot be sent whatever the station says: it was not readable as a command.
    pub flaw: Option<String>,
    /// Its place in a trace.
    pub trace: CommandTrace,
}

impl Command {
    /// When it need not be sent any more.
    pub fn send_by(&self) -> SystemTime {
        let own = match self.if_offline {
            IfOffline::Fail => Some(self.taken_at + self.timeout),
            IfOffline::Queue => None,
        };
        match (own, self.expires_at) {
            (Some(own), Some(expires_at)) => own.min(expires_at),
            (Some(one), None) | (None, Some(one)) => one,
            // `request.rs` and the router give every command that may be kept a time.
            (None, None) => self.taken_at + self.timeout,
        }
    }

    /// How it ends when it was not sent in time.
    pub fn overdue(&self) -> Overdue {
        if self.expires_at.is_some_and(|expires_at| expires_at <= self.send_by()) {
            Overdue::Expired
        } else {
            Overdue::TimedOut
        }
    }

    /// The CALL that carries it.
    fn outbound(
        self: &Arc<Self>,
        action: &'static Action,
        is_queued: bool,
        reply: oneshot::Sender<Report>,
    ) -> OutboundCall<Dispatch> {
        let left = self.send_by().duration_since(SystemTime::now()).unwrap_or_default();
        // Queued commands leave in the order in which they came.
        let is_urgent = self.if_offline == IfOffline::Fail && action.is_urgent();
        OutboundCall {
            id: Arc::clone(&self.id),
            action,
            payload: Arc::clone(&self.payload),
            sequence: self.sequence,
            is_urgent,
            send_by: Instant::now() + left,
            patience: match self.if_offline {
                IfOffline::Queue => Patience::FromSending(self.timeout),
                IfOffline::Fail => Patience::Since(self.taken_at, self.timeout),
            },
            overdue: self.overdue(),
            dispatch: Dispatch { command: Arc::clone(self), is_queued, reply, trace: None },
        }
    }
}

/// What a session says about a command that it was given.
#[derive(Debug)]
pub enum Report {
    /// The session ended first, and the command has gone on to its next step.
    Moved(Step),
    /// It ended. Its result is to be on the bus before the guard is dropped.
    Ended(Outcome, ResultGuard),
    /// The session ended first, and the command, which is in its station's offline queue, has not left.
    NotSent,
}
