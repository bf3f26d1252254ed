//! Where a command goes: to the session that serves its station, or into the station's offline queue, and its outcome back as
//! an event.
//!
//! Owns the order of the steps; the store (`store.rs`) owns what is remembered of them. What follows from a step waits until
//! the step is durable: a command leaves after the note that it leaves, its sender hears of its end after its result event.
//! Commands that are accepted one after the other for one station reach its session, or its offline queue, in that order,
//! because that much of the way never waits.

mod offline;
mod outcome;
mod pacing;
mod recovery;
mod unsendable;

use std::sync::Arc;
use std::time::SystemTime;

use ocpp_bus::{Bus, Journal};
use ocpp_station::events::Events;
use ocpp_station::inbox::Refused;
use ocpp_station::{Outcome, Status};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::outcome::cancelled;
use self::unsendable::action_of;
use crate::command::{Command, IfOffline};
use crate::dispatch::{Carried, Dispatched, Report, Session, Sessions, outbound_call};
use crate::limits::Limits;
use crate::metrics::CommandMetrics;
use crate::port::{Stations, Traces};
use crate::prepared_note::PreparedNote;
use crate::store::{Accepted, CommandStore, Ended, Progress, TooLate};

/// Takes commands to their stations.
#[derive(Debug)]
pub struct Dispatcher {
    /// What is remembered.
    pub store: Arc<CommandStore>,
    /// The store's journal.
    pub journal: Journal,
    /// The sessions.
    pub sessions: Arc<dyn Sessions>,
    /// Registered spellings.
    pub stations: Arc<dyn Stations>,
    /// Result events go here.
    pub bus: Bus,
    /// Writes them.
    pub events: Events,
    /// Counts outcomes.
    pub metrics: Arc<CommandMetrics>,
    /// Makes their spans.
    pub traces: Arc<dyn Traces>,
    /// Limits of a command.
    pub limits: Limits,
    /// One for each command in progress.
    pub permits: Arc<Semaphore>,
    /// One for each batch from Kafka that waits until fewer are running.
    pub batch_permits: Arc<Semaphore>,
    /// A command goes on when whoever sent it has gone.
    pub tasks: TaskTracker,
    /// Batches stop here, to go on at the next start.
    pub stop: CancellationToken,
}

/// What becomes of a command that was sent over HTTP.
#[derive(Debug)]
pub enum Submitted {
    /// It is taken in, durably once `saved` says so.
    New {
        /// The command.
        command: Arc<Command>,
        /// Says when it is durable that the command was taken in.
        saved: oneshot::Receiver<()>,
        /// How it goes on.
        progress: oneshot::Receiver<Progress>,
    },
    /// It was known.
    Known(Accepted),
    /// Too many commands are under way.
    Busy,
}

impl Dispatcher {
    /// Takes in a command that nobody brings again: it is written down before anything is done.
    pub fn submit(self: &Arc<Self>, command: Command) -> Submitted {
        let Ok(permit) = Arc::clone(&self.permits).try_acquire_owned() else { return Submitted::Busy };
        match self.store.accept(self.admitted(command), true) {
            Accepted::New(command, record, progress) => {
                let (tell, saved) = oneshot::channel();
                let (this, begun) = (Arc::clone(self), Arc::clone(&command));
                drop(self.tasks.spawn(async move {
                    this.save(record).await;
                    // Only `respond-async` waits for it.
                    tell.send(()).ok();
                    let step = this.dispatch(&begun);
                    this.follow(&begun, step, permit).await;
                }));
                Submitted::New { command, saved, progress }
            }
            known => Submitted::Known(known),
        }
    }

    /// Notes that a command is about to be sent. None if it may not be, because it has ended or is being sent elsewhere.
    pub fn prepare(&self, command: &Arc<Command>) -> Option<PreparedNote> {
        let note = self.store.sending(command)?;
        Some(PreparedNote::new(self.journal.publisher(), note))
    }

    /// Waits until it is durable that a command which is known is under way.
    pub async fn save_again(&self, id: &str) {
        self.save(self.store.again(id)).await;
    }

    /// Accepts a command of a batch as soon as a permit is free. One that is known is left as it is.
    pub(super) async fn submit_in_turn(self: &Arc<Self>, command: Command) {
        let Some(permit) = self.permit().await else { return };
        if let Accepted::New(command, record, _) = self.store.accept(self.admitted(command), true) {
            let this = Arc::clone(self);
            drop(self.tasks.spawn(async move {
                this.save(record).await;
                let step = this.dispatch(&command);
                this.follow(&command, step, permit).await;
            }));
        }
    }

    /// Ends a command of a cancelled batch, unless it has been sent or has ended.
    pub(super) async fn end_cancelled(self: &Arc<Self>, command: Command) {
        let id = Arc::clone(&command.id);
        match self.store.accept(self.admitted(command), true) {
            Accepted::New(command, ..) => drop(self.end(&command, cancelled(), None).await),
            // What is being sent comes to its own end.
            _ => drop(self.cancel(&id).await),
        }
    }

    /// Accepts a command that comes again after a crash, as long as `done` was not called: when it has ended or is queued,
    /// durably.
    pub fn take(
        self: &Arc<Self>,
        command: Command,
        permit: OwnedSemaphorePermit,
        done: impl FnOnce() + Send + 'static,
    ) {
        let origin = command.origin;
        let this = Arc::clone(self);
        match self.store.accept(self.admitted(command), false) {
            Accepted::New(command, _, _) => {
                let step = self.dispatch(&command);
                drop(self.tasks.spawn(async move {
                    this.follow(&command, step, permit).await;
                    done();
                }));
            }
            Accepted::Running(progress) => {
                drop(self.tasks.spawn(async move {
                    // An error means that the process is leaving, and `done` must not be called.
                    if progress.await.is_ok() {
                        done();
                    }
                    drop(permit);
                }));
            }
            // The same record once more: its result was published.
            Accepted::Ended(ended) if ended.origin.is_some() && ended.origin == origin => done(),
            Accepted::Ended(ended) => {
                drop(self.tasks.spawn(async move {
                    this.publish(ended.record()).await;
                    done();
                    drop(permit);
                }));
            }
            // The result of a crowded one is published all the same.
            Accepted::Queued(id) | Accepted::Crowded(id) => {
                drop(self.tasks.spawn(async move {
                    this.save_again(&id).await;
                    done();
                    drop(permit);
                }));
            }
            Accepted::Conflict(command) => {
                drop(self.tasks.spawn(async move {
                    let text = "the commandId is another command's";
                    let outcome = Outcome::failed(Status::Invalid, text);
                    this.metrics.command_ended(outcome.status);
                    this.publish(this.result(&command, &outcome, None)).await;
                    done();
                    drop(permit);
                }));
            }
        }
    }

    /// Waits for a permit to have one more command in progress. None once the gateway stops.
    pub async fn permit(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.permits).acquire_owned().await.ok()
    }

    /// Cancels a command that has not left. Returns its end.
    ///
    /// # Errors
    /// When it has been sent, has ended, or is not known.
    pub async fn cancel(self: &Arc<Self>, id: &str) -> Result<Arc<Ended>, TooLate> {
        let command = self.store.unsent(id)?;
        let outcome = cancelled();
        // From here on no session can send it, wherever it is.
        let event = self.result(&command, &outcome, None);
        let (ended, record) = self.store.end_unsent(&command, outcome, &event)?;
        if let Some(session) = self.sessions.session(&command.key) {
            // Whoever follows it finds that it has ended.
            drop(session.inbox().withdraw(id));
        }
        self.count(&command, &ended);
        // In a task of its own: whoever asked may go.
        let (this, cancelled) = (Arc::clone(self), Arc::clone(&ended));
        let telling = self.tasks.spawn(async move {
            this.save(record).await;
            this.publish_result(&cancelled, None).await;
        });
        if let Err(error) = telling.await {
            tracing::error!(%error, "a command's result was not published");
        }
        Ok(ended)
    }

    /// A command with its place in a trace, as it is taken in.
    fn admitted(&self, command: Command) -> Command {
        Command { trace: self.traces.admitted(command.trace), ..command }
    }

    /// Where a command goes. No wait: the order of the calls is the order at the station.
    fn dispatch(&self, command: &Arc<Command>) -> Dispatched {
        if let Some(reason) = &command.invalid {
            return Dispatched::Ended(Outcome::failed(Status::Invalid, reason.as_str()), None);
        }
        if self.store.has_ended(&command.id) {
            // Cancelled meanwhile: the first end counts.
            return Dispatched::Ended(cancelled(), None);
        }
        if command.send_by() <= SystemTime::now() {
            return Dispatched::Ended(command.overdue().outcome(), None);
        }
        let session = self.sessions.session(&command.key);
        match session {
            Some(_) if command.if_offline == IfOffline::Queue && self.store.has_queued(&command.key) => {
                self.queue(command)
            }
            Some(session) => match self.to_session(command, session, false) {
                Dispatched::Ended(outcome, _) if outcome.status == Status::Offline => self.away(command),
                Dispatched::Ended(outcome, _)
                    if outcome.status == Status::QueueFull && command.if_offline == IfOffline::Queue =>
                {
                    self.queue(command)
                }
                step => step,
            },
            None => match action_of(command, None) {
                Ok(_) => self.away(command),
                Err(reason) => Dispatched::Ended(Outcome::failed(Status::Invalid, reason), None),
            },
        }
    }

    fn to_session(&self, command: &Arc<Command>, session: Arc<dyn Session>, is_queued: bool) -> Dispatched {
        let action = match self.callable(command, &*session) {
            Ok(action) => action,
            Err(reason) => return Dispatched::Ended(Outcome::failed(Status::Invalid, reason), None),
        };
        let (reply, report) = oneshot::channel();
        match session.inbox().submit(outbound_call(command, action, is_queued, reply)) {
            Ok(()) => Dispatched::Handed(report, session),
            Err(Refused::Full(_)) => {
                let text = "too many commands wait for this station";
                Dispatched::Ended(Outcome::failed(Status::QueueFull, text), None)
            }
            Err(Refused::Ended(_)) => {
                let text = "the station's connection has just ended";
                Dispatched::Ended(Outcome::failed(Status::Offline, text), None)
            }
        }
    }

    fn away(&self, command: &Arc<Command>) -> Dispatched {
        match command.if_offline {
            IfOffline::Fail => Dispatched::Ended(self.not_connected(command), None),
            IfOffline::Queue => self.queue(command),
        }
    }

    fn queue(&self, command: &Arc<Command>) -> Dispatched {
        match self.store.queue(command) {
            Ok(record) => Dispatched::Queued(record),
            Err(_) => {
                let text = "too many commands are kept for stations that are away";
                Dispatched::Ended(Outcome::failed(Status::QueueFull, text), None)
            }
        }
    }

    /// Follows a command until it has ended or is queued, durably.
    async fn follow(
        self: &Arc<Self>,
        command: &Arc<Command>,
        mut step: Dispatched,
        permit: OwnedSemaphorePermit,
    ) {
        while let Dispatched::Handed(report, session) = step {
            step = match report.await {
                Ok(Report::Ended(outcome, guard)) => {
                    Dispatched::Ended(outcome, Some(Carried { session, guard }))
                }
                Ok(Report::Redirected(step)) => step,
                Ok(Report::NotSent) | Err(_) => return self.lost(command).await,
            };
        }
        self.settle(command, step).await;
        self.drain_if_ready(&command.key);
        drop(permit);
    }

    async fn settle(&self, command: &Arc<Command>, step: Dispatched) {
        match step {
            Dispatched::Queued(record) => {
                self.save(Some(record)).await;
                self.store.notify_queued(&command.id);
            }
            Dispatched::Ended(outcome, carried) => drop(self.end(command, outcome, carried).await),
            // Followed before.
            Dispatched::Handed(..) => {}
        }
    }
}
