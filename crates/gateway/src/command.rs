//! Commands: from a backend to the session that serves the station, and the outcome back.
//!
//! Owns what a command is, the closed set of outcomes, and the way to the right session. The session owns sending it,
//! one at a time (`session/outbound.rs`). Having been written to the socket is not an outcome.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use ocpp_bus::Bus;
use ocpp_bus::event::json_string;
use ocpp_protocol::{Action, IdentityKey, Version};
use serde_json::value::RawValue;
use tokio::sync::oneshot;
use tokio_util::task::TaskTracker;

use crate::config;
use crate::events::Events;
use crate::metrics::Metrics;
use crate::registry::Registry;
use crate::session::Session;
use crate::session::mailbox::Refused;

/// How a command ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Status {
    /// The station answered CALLRESULT.
    Answered,
    /// The station answered CALLERROR, or something that is no answer.
    Error,
    /// No answer in time.
    Timeout,
    /// The station is not connected, or its connection ended first.
    Offline,
    /// The command's own time was over before it could be sent.
    Expired,
    /// Too many commands wait for this station.
    QueueFull,
    /// It cannot be sent: unknown action, wrong direction, not allowed in the station's boot state.
    Invalid,
    /// A newer connection of the station took over first.
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

/// What went wrong, in the station's words or ours.
#[derive(Clone, Debug)]
pub struct CommandError {
    /// An OCPP error code, or the status again.
    pub code: String,
    /// For people.
    pub description: String,
    /// The station's `errorDetails`.
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
#[derive(Clone, Debug)]
pub struct Outcome {
    /// How it ended.
    pub status: Status,
    /// The station's answer, byte for byte.
    pub payload: Option<Box<RawValue>>,
    /// What went wrong.
    pub error: Option<CommandError>,
}

impl Outcome {
    /// The station's answer.
    pub fn answered(payload: Box<RawValue>) -> Self {
        Self { status: Status::Answered, payload: Some(payload), error: None }
    }

    /// The station's CALLERROR.
    pub fn error(error: CommandError) -> Self {
        Self { status: Status::Error, payload: None, error: Some(error) }
    }

    /// An end without a word from the station.
    pub fn failed(status: Status, description: impl Into<String>) -> Self {
        let error =
            CommandError { code: status.as_str().into(), description: description.into(), details: None };
        Self { status, payload: None, error: Some(error) }
    }
}

/// A command as a backend states it.
#[derive(Debug)]
pub struct Request {
    /// The backend's name for it.
    pub id: String,
    /// The OCPP action.
    pub action: String,
    /// A JSON object.
    pub payload: Box<RawValue>,
    /// How long it may take; the configured default if it does not say.
    pub timeout: Option<Duration>,
    /// Not to be sent after this.
    pub expires_at: Option<SystemTime>,
}

/// A command on its way to the socket.
#[derive(Debug)]
pub struct PendingCommand {
    /// The backend's name for it.
    pub id: String,
    /// The OCPP action.
    pub action: &'static Action,
    /// A JSON object.
    pub payload: Box<RawValue>,
    /// When the answer must be there.
    pub timeout_at: Instant,
    /// Not to be sent after this.
    pub expires_at: Option<Instant>,
    /// Where the outcome goes, once its event is durable.
    pub reply: oneshot::Sender<Outcome>,
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

    /// Whether it goes ahead of others.
    pub fn is_urgent(&self) -> bool {
        Self::URGENT.contains(&self.action.name)
    }

    /// When it need not be sent any more.
    pub fn deadline(&self) -> Instant {
        self.expires_at.map_or(self.timeout_at, |expires_at| expires_at.min(self.timeout_at))
    }

    /// How it ends when it was not sent by its deadline.
    pub fn overdue(&self) -> Outcome {
        match self.expires_at {
            Some(expires_at) if expires_at <= self.timeout_at => {
                Outcome::failed(Status::Expired, "expiresAt passed before the command could be sent")
            }
            _ => Outcome::failed(Status::Timeout, "the command could not be sent in time"),
        }
    }
}

/// Finds the session for a command.
#[derive(Clone, Debug)]
pub struct CommandRouter {
    /// The sessions.
    pub registry: Arc<Registry>,
    /// For the result events of commands that reach no session.
    pub bus: Bus,
    /// Writes them.
    pub events: Events,
    /// Counts outcomes.
    pub metrics: Arc<Metrics>,
    /// Time limits.
    pub limits: config::Commands,
    /// Reports go on when whoever asked has gone.
    pub tasks: TaskTracker,
}

impl CommandRouter {
    /// Sends a command and waits for its outcome. Its result event is durable by then. Dropping the wait does not call
    /// the command back.
    pub async fn send(&self, station: &str, request: Request) -> Outcome {
        let Request { id, action, payload, timeout, expires_at } = request;
        let session = self.registry.get(&IdentityKey::of(station));
        let now = Instant::now();
        let expires_at = expires_at.map(|at| now + at.duration_since(SystemTime::now()).unwrap_or_default());
        let timeout = timeout.unwrap_or(self.limits.default_timeout).min(self.limits.max_timeout);
        let (reply, outcome) = oneshot::channel();
        let submitted =
            sendable(session.as_deref(), &action, expires_at, now).and_then(|(session, known)| {
                let command = PendingCommand {
                    id: id.clone(),
                    action: known,
                    payload,
                    timeout_at: now + timeout,
                    expires_at,
                    reply,
                };
                session.mailbox.submit(command).map_err(|refused| match refused {
                    Refused::Full(_) => {
                        Outcome::failed(Status::QueueFull, "too many commands wait for this station")
                    }
                    Refused::Ended(_) => {
                        Outcome::failed(Status::Offline, "the station's connection has just ended")
                    }
                })
            });
        match submitted {
            // The session answers every command it has taken, when it ends at the latest; an error would mean that its
            // task is gone, and the station with it.
            Ok(()) => {
                outcome.await.unwrap_or_else(|_| Outcome::failed(Status::Offline, "the session has ended"))
            }
            Err(refusal) => {
                self.report(station, session.as_deref(), &id, &action, &refusal).await;
                refusal
            }
        }
    }

    async fn report(
        &self,
        station: &str,
        session: Option<&Session>,
        id: &str,
        action: &str,
        outcome: &Outcome,
    ) {
        self.metrics.command_ended(outcome.status);
        let record = self.events.command_result(station, session, id, action, outcome);
        let mut lane = self.bus.lane();
        let told = self.tasks.spawn(async move {
            let ordinal = lane.publish(record).await;
            lane.durability().wait(ordinal).await;
        });
        if let Err(error) = told.await {
            tracing::error!(%error, "a command's result was not told");
        }
    }
}

/// What can be said about a command before it waits in a queue.
fn sendable<'a>(
    session: Option<&'a Session>,
    action: &str,
    expires_at: Option<Instant>,
    now: Instant,
) -> Result<(&'a Session, &'static Action), Outcome> {
    if expires_at.is_some_and(|at| at <= now) {
        return Err(Outcome::failed(Status::Expired, "expiresAt has passed"));
    }
    let known = Action::find(action);
    let Some(session) = session else {
        let any_version =
            |action: &'static Action| Version::ALL.iter().any(|version| action.csms_may_call(*version));
        return Err(if known.is_some_and(any_version) {
            Outcome::failed(Status::Offline, "the station is not connected")
        } else {
            Outcome::failed(Status::Invalid, format!("{action:?} is not an action that a backend may send"))
        });
    };
    let version = session.admission.version;
    match known.filter(|known| known.csms_may_call(version)) {
        Some(known) => Ok((session, known)),
        None => Err(Outcome::failed(
            Status::Invalid,
            format!("{action:?} is not an action that a backend may send on OCPP {}", version.as_str()),
        )),
    }
}
