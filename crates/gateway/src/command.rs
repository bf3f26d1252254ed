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
pub mod pacing;
pub mod request;
pub mod router;

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use ocpp_bus::event::json_string;
use ocpp_bus::kafka::consumer::RecordPlace;
use ocpp_bus::{Publisher, Record};
use ocpp_protocol::{Action, IdentityKey};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;
use tokio::sync::oneshot;
use utoipa::ToSchema;

use self::router::Step;
use crate::session::Untold;
use crate::spans::CommandTrace;

/// How a command ended.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Status {
    /// The station answered CALLRESULT.
    Answered,
    /// The station answered CALLERROR, or something that is no answer.
    Error,
    /// No answer in time.
    Timeout,
    /// The station is not connected, or its connection ended first.
    Offline,
    /// The command's own time was over before it could be sent, or its sender called it back.
    Expired,
    /// Too many commands wait for this station.
    QueueFull,
    /// It cannot be sent: not readable, unknown action, wrong direction, not allowed in the station's boot state.
    Invalid,
    /// A newer connection of the station took over before the station had answered.
    Replaced,
}

impl Status {
    /// Every status, for metrics.
    pub const ALL: [Self; 8] = [
        Self::Answered,
        Self::Error,
        Self::Timeout,
        Self::Offline,
        Self::Expired,
        Self::QueueFull,
        Self::Invalid,
        Self::Replaced,
    ];

    /// The word in events and over HTTP.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Answered => "answered",
            Self::Error => "error",
            Self::Timeout => "timeout",
            Self::Offline => "offline",
            Self::Expired => "expired",
            Self::QueueFull => "queueFull",
            Self::Invalid => "invalid",
            Self::Replaced => "replaced",
        }
    }
}

/// Whether a command went onto the wire. What a backend must know before it sends the like again.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Sent {
    /// It did not.
    No,
    /// It was handed to the station's connection, once.
    Yes,
    /// The gateway stopped at the moment of sending; it was handed over once or not at all.
    Unknown,
}

impl Sent {
    /// The word in events and over HTTP.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::No => "no",
            Self::Yes => "yes",
            Self::Unknown => "unknown",
        }
    }
}

/// What went wrong, in the station's words or ours.
#[derive(Clone, Debug, Deserialize)]
pub struct CommandError {
    /// An OCPP error code, or the status again.
    pub code: String,
    /// For people.
    pub description: String,
    /// The station's `errorDetails`.
    #[serde(default, deserialize_with = "whatever_is_there")]
    pub details: Option<Box<RawValue>>,
}

impl CommandError {
    /// As events and HTTP show it.
    pub fn to_json(&self) -> String {
        let details = self.details.as_ref().map_or("{}", |details| details.get());
        format!(
            r#"{{"code":{},"description":{},"details":{details}}}"#,
            json_string(&self.code),
            json_string(&self.description)
        )
    }
}

/// A command's end.
#[derive(Clone, Debug, Deserialize)]
pub struct Outcome {
    /// How it ended.
    pub status: Status,
    /// Whether it went onto the wire.
    pub sent: Sent,
    /// The station's answer, byte for byte.
    #[serde(default, deserialize_with = "whatever_is_there")]
    pub payload: Option<Box<RawValue>>,
    /// What went wrong.
    pub error: Option<CommandError>,
}

/// A station may have answered `null`, which is not the same as nothing.
pub(crate) fn whatever_is_there<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Box<RawValue>>, D::Error> {
    Box::<RawValue>::deserialize(deserializer).map(Some)
}

impl Outcome {
    /// The station's answer.
    pub fn answered(payload: Box<RawValue>) -> Self {
        Self { status: Status::Answered, sent: Sent::Yes, payload: Some(payload), error: None }
    }

    /// The station's CALLERROR.
    pub fn error(error: CommandError) -> Self {
        Self { status: Status::Error, sent: Sent::Yes, payload: None, error: Some(error) }
    }

    /// An end without a word from the station, before the command was sent.
    pub fn failed(status: Status, description: impl Into<String>) -> Self {
        let error =
            CommandError { code: status.as_str().into(), description: description.into(), details: None };
        Self { status, sent: Sent::No, payload: None, error: Some(error) }
    }

    /// The same for a command that was sent, or may have been.
    #[must_use]
    pub fn after(self, sent: Sent) -> Self {
        Self { sent, ..self }
    }
}

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
    pub payload: Box<RawValue>,
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
    pub fn overdue(&self) -> Outcome {
        if self.expires_at.is_some_and(|expires_at| expires_at <= self.send_by()) {
            Outcome::failed(Status::Expired, "expiresAt passed before the command could be sent")
        } else {
            Outcome::failed(Status::Timeout, "the command could not be sent within its timeout")
        }
    }
}

/// What a session says about a command that it was given.
#[derive(Debug)]
pub enum Report {
    /// The session ended first, and the command has gone on to its next step.
    Moved(Step),
    /// It ended. Its result is to be on the bus before the guard is dropped.
    Ended(Outcome, Untold),
    /// The session ended first, and the command, which is on its station's line, has not left.
    NotSent,
}

/// A command on its way to the socket.
#[derive(Debug)]
pub struct PendingCommand {
    /// The command.
    pub command: Arc<Command>,
    /// Its action.
    pub action: &'static Action,
    /// Not to be sent after this.
    pub send_by: Instant,
    /// It is the first of its station's line, and stays there until it has ended.
    pub in_line: bool,
    /// Where the report goes.
    pub reply: oneshot::Sender<Report>,
}

impl PendingCommand {
    /// Actions that a person or a contract is waiting for: they go ahead of configuration and reports.
    const URGENT: [&'static str; 8] = [
        "RemoteStopTransaction",
        "RequestStopTransaction",
        "RemoteStartTransaction",
        "RequestStartTransaction",
        "Reset",
        "UnlockConnector",
        "CancelReservation",
        "ReserveNow",
    ];

    /// Whether it goes ahead of others. Kept ones do not: they leave in the order in which they came.
    pub fn is_urgent(&self) -> bool {
        self.command.if_offline == IfOffline::Fail && Self::URGENT.contains(&self.action.name)
    }

    /// When the answer must be there, if it is sent now.
    pub fn answer_by(&self, now: Instant) -> Instant {
        match self.command.if_offline {
            IfOffline::Queue => now + self.command.timeout,
            IfOffline::Fail => {
                let passed = SystemTime::now().duration_since(self.command.taken_at).unwrap_or_default();
                now + self.command.timeout.saturating_sub(passed)
            }
        }
    }
}

/// A command that is about to be sent: the note that it is must be durable first, or a crash could make it go out twice.
#[derive(Debug)]
pub struct Departure {
    /// The command.
    pub pending: PendingCommand,
    lane: Publisher,
    note: Option<Record>,
}

impl Departure {
    /// A command with its note and the lane for it.
    pub fn new(pending: PendingCommand, lane: Publisher, note: Record) -> Self {
        Self { pending, lane, note: Some(note) }
    }

    /// Waits until the note is durable. Cancel-safe.
    pub async fn noted(&mut self) {
        while let Some(note) = self.note.take() {
            if let Err(note) = self.lane.try_publish(note) {
                let cost = note.cost();
                self.note = Some(note);
                self.lane.reserve(cost).await;
            }
        }
        self.lane.watermark().wait(self.lane.published()).await;
    }
}
