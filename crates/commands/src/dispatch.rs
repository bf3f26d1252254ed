//! Handing a command to the session that serves its station: the port to sessions, what travels with the command, and what
//! whoever follows it hears.
//!
//! A session says one of three things of a command: it has ended ([`Dispatch::finish`]), it may not be sent now, or the
//! session ended first. In the last two cases it gives the call back, and the dispatcher decides what is next.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use ocpp_bus::Record;
use ocpp_protocol::{Action, IdentityKey};
use ocpp_station::inbox::Inbox;
use ocpp_station::options::Validation;
use ocpp_station::outbound_call::Patience;
use ocpp_station::{OutboundCall, Outcome, Subject};
use tokio::sync::oneshot;

use crate::command::{Command, IfOffline};
use crate::port::{CallSpan, ResultGuard};

/// The sessions by which stations are connected.
pub trait Sessions: Debug + Send + Sync {
    /// The session that serves a station; none while the station is away.
    fn session(&self, station: &IdentityKey) -> Option<Arc<dyn Session>>;
    /// The identities of all stations that are connected, in no order.
    fn connected(&self) -> Vec<String>;
}

/// A session as commands see it.
pub trait Session: Debug + Send + Sync {
    /// Who it is, for events.
    fn subject(&self) -> Subject<'_>;
    /// What is done about commands that violate their schemas.
    fn validation(&self) -> Validation;
    /// Where its commands go.
    fn inbox(&self) -> &Inbox<Dispatch>;
    /// Whether its station's offline queue may go: the station has booted or spoken on this connection, and is accepted.
    fn is_ready(&self) -> bool;
}

/// What travels with a command through a session.
#[derive(Debug)]
pub struct Dispatch {
    /// The command.
    pub command: Arc<Command>,
    /// The span of the CALL that carries it, once it has left.
    pub span: Option<Box<dyn CallSpan>>,
    /// It is the head of its station's offline queue, and stays there until it has ended.
    pub(crate) is_queued: bool,
    pub(crate) follower: oneshot::Sender<Report>,
}

/// What whoever follows a command hears of it.
#[derive(Debug)]
pub(crate) enum Report {
    /// It ended in its session. Its result is to be on the bus before the guard is dropped.
    Ended(Outcome, ResultGuard),
    /// Its session gave it back, and the dispatcher has found the next step.
    Redirected(Dispatched),
    /// Its session gave it back, and it keeps its place in its station's offline queue.
    NotSent,
}

/// The next step of a command.
#[derive(Debug)]
pub(crate) enum Dispatched {
    /// Its session has it.
    Handed(oneshot::Receiver<Report>, Arc<dyn Session>),
    /// It is in its station's offline queue; the record is for the journal.
    Queued(Record),
    /// It has ended.
    Ended(Outcome, Option<Carried>),
}

/// The session in which a command ended.
#[derive(Debug)]
pub(crate) struct Carried {
    pub(crate) session: Arc<dyn Session>,
    pub(crate) guard: ResultGuard,
}

impl Dispatch {
    /// Tells whoever follows the command that it has ended in its session.
    pub fn finish(self, outcome: Outcome, guard: ResultGuard) {
        self.tell(Report::Ended(outcome, guard));
    }

    pub(crate) fn tell(self, report: Report) {
        // Whoever followed it has gone only if it was cancelled, or the process is leaving.
        drop(self.follower.send(report));
    }
}

/// The CALL that carries a command.
pub(crate) fn outbound_call(
    command: &Arc<Command>,
    action: &'static Action,
    is_queued: bool,
    follower: oneshot::Sender<Report>,
) -> OutboundCall<Dispatch> {
    let left = command.send_by().duration_since(SystemTime::now()).unwrap_or_default();
    // Queued commands leave in the order in which they came.
    let is_urgent = command.if_offline == IfOffline::Fail && action.is_urgent();
    OutboundCall {
        id: Arc::clone(&command.id),
        action,
        payload: Arc::clone(&command.payload),
        sequence: command.sequence,
        is_urgent,
        send_by: Instant::now() + left,
        patience: match command.if_offline {
            IfOffline::Queue => Patience::FromSending(command.timeout),
            IfOffline::Fail => Patience::Since(command.taken_at, command.timeout),
        },
        overdue: command.overdue(),
        dispatch: Dispatch { command: Arc::clone(command), span: None, is_queued, follower },
    }
}
