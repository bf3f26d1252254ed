//! The way of a command: to the session that serves its station, or onto the station's line while it is away, and its
//! outcome back as an event.
//!
//! Owns the order of the steps; the book (`book.rs`) owns what is remembered of them. What follows from a step waits until
//! the step is durable: a command leaves after the note that it leaves, its sender hears of its end after its result event.
//! Commands that are taken in one after the other for one station reach its session, or its line, in that order: that
//! much of the way is without a wait.

mod offline;
mod outcome;
mod pacing;

use std::sync::Arc;
use std::time::SystemTime;

use futures_util::StreamExt;
use ocpp_bus::{Bus, Journal};
use ocpp_protocol::{Action, Version};
use ocpp_station::events::Events;
use ocpp_station::inbox::Refused;
use ocpp_station::{Outcome, Sent, Status};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::outcome::called_back;
use crate::command::{Command, IfOffline};
use crate::dispatch::{Carried, Report, Session, Sessions, Step, outbound_call};
use crate::limits::Limits;
use crate::metrics::CommandMetrics;
use crate::port::{Stations, Traces};
use crate::store::{Begun, Book, Ended, Progress, TooLate, Unfinished};

/// Commands that are ended at the same time: those of before a restart, those whose time is over.
const FINISHED_TOGETHER: usize = 256;

/// Takes commands to their stations.
#[derive(Debug)]
pub struct Router {
    /// What is remembered.
    pub book: Arc<Book>,
    /// The book's journal.
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
    /// One for each command that is under way.
    pub places: Arc<Semaphore>,
    /// One for each batch from Kafka that waits until fewer are running.
    pub batch_places: Arc<Semaphore>,
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
    Known(Begun),
    /// Too many commands are under way.
    Busy,
}

impl Router {
    /// Takes in a command that nobody brings again: it is written down before anything is done.
    pub fn submit(self: &Arc<Self>, command: Command) -> Submitted {
        let Ok(place) = Arc::clone(&self.places).try_acquire_owned() else { return Submitted::Busy };
        match self.book.begin(self.admitted(command), true) {
            Begun::New(command, record, progress) => {
                let (tell, saved) = oneshot::channel();
                let (this, begun) = (Arc::clone(self), Arc::clone(&command));
                drop(self.tasks.spawn(async move {
                    this.save(record).await;
                    // Only `respond-async` waits for it.
                    tell.send(()).ok();
                    let step = this.hand_over(&begun);
                    this.follow(&begun, step, place).await;
                }));
                Submitted::New { command, saved, progress }
            }
            known => Submitted::Known(known),
        }
    }

    /// Waits until it is durable that a command which is known is under way.
    pub async fn note_again(&self, id: &str) {
        self.save(self.book.again(id)).await;
    }

    /// Takes in a command of a batch, when there is a place for it. One that is known is left as it is.
    pub(super) async fn submit_in_turn(self: &Arc<Self>, command: Command) {
        let Some(place) = self.place().await else { return };
        if let Begun::New(command, record, _) = self.book.begin(self.admitted(command), true) {
            let this = Arc::clone(self);
            drop(self.tasks.spawn(async move {
                this.save(record).await;
                let step = this.hand_over(&command);
                this.follow(&command, step, place).await;
            }));
        }
    }

    /// Ends a command of a batch that was called back, unless it has been sent or has ended.
    pub(super) async fn end_called_back(self: &Arc<Self>, command: Command) {
        let id = Arc::clone(&command.id);
        match self.book.begin(self.admitted(command), true) {
            Begun::New(command, ..) => drop(self.end(&command, called_back(), None).await),
            // What is being sent comes to its own end.
            _ => drop(self.call_back(&id).await),
        }
    }

    /// Takes in a command that comes again after a crash, as long as `done` was not called: when it has ended or is kept,
    /// durably.
    pub fn take(
        self: &Arc<Self>,
        command: Command,
        place: OwnedSemaphorePermit,
        done: impl FnOnce() + Send + 'static,
    ) {
        let origin = command.origin;
        let this = Arc::clone(self);
        match self.book.begin(self.admitted(command), false) {
            Begun::New(command, _, _) => {
                let step = self.hand_over(&command);
                drop(self.tasks.spawn(async move {
                    this.follow(&command, step, place).await;
                    done();
                }));
            }
            Begun::Running(progress) => {
                drop(self.tasks.spawn(async move {
                    // An error means that the process is leaving, and `done` must not be called.
                    if progress.await.is_ok() {
                        done();
                    }
                    drop(place);
                }));
            }
            // The same record once more: what it asks for was told.
            Begun::Ended(ended) if ended.origin.is_some() && ended.origin == origin => done(),
            Begun::Ended(ended) => {
                drop(self.tasks.spawn(async move {
                    this.publish(ended.record()).await;
                    done();
                    drop(place);
                }));
            }
            // Of one that is crowded, its own end is told to whoever listens.
            Begun::Kept(id) | Begun::Crowded(id) => {
                drop(self.tasks.spawn(async move {
                    this.note_again(&id).await;
                    done();
                    drop(place);
                }));
            }
            Begun::Conflict(command) => {
                drop(self.tasks.spawn(async move {
                    let text = "the commandId is another command's";
                    let outcome = Outcome::failed(Status::Invalid, text);
                    this.metrics.command_ended(outcome.status);
                    this.publish(this.result(&command, &outcome, None)).await;
                    done();
                    drop(place);
                }));
            }
        }
    }

    /// A place for one more command.
    pub async fn place(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.places).acquire_owned().await.ok()
    }

    /// Ends what a restart has found without an end, and tells what was not told.
    pub async fn recover(self: Arc<Self>, unfinished: Vec<Unfinished>) {
        if !unfinished.is_empty() {
            tracing::info!(commands = unfinished.len(), "commands from before the restart come to their end");
        }
        // Before anything is waited for: what is to be kept is on its line, in order, when a station comes.
        let steps: Vec<_> = unfinished
            .into_iter()
            .map(|one| {
                let step = match &one {
                    Unfinished::Waiting(command) => Some(match command.if_offline {
                        IfOffline::Queue => self.keep(command),
                        IfOffline::Fail => {
                            let text = "the gateway stopped before the command could be sent";
                            Step::Over(Outcome::failed(Status::Offline, text), None)
                        }
                    }),
                    Unfinished::Sending(_) => {
                        let text = "the gateway stopped while the command was being sent; whether the station has it is \
                                    not known";
                        let outcome = Outcome::failed(Status::Offline, text).after(Sent::Unknown);
                        Some(Step::Over(outcome, None))
                    }
                    Unfinished::Untold(_) => None,
                };
                (one, step)
            })
            .collect();
        futures_util::stream::iter(steps)
            .for_each_concurrent(FINISHED_TOGETHER, |(one, step)| {
                let this = Arc::clone(&self);
                async move {
                    match (one, step) {
                        (Unfinished::Waiting(command) | Unfinished::Sending(command), Some(step)) => {
                            this.settle(&command, step).await;
                            this.drain_if_ready(&command.key);
                        }
                        (Unfinished::Untold(ended), _) => this.tell(&ended, None).await,
                        // Every other one has its step.
                        (_, None) => {}
                    }
                }
            })
            .await;
        for batch in self.book.batches.unfinished() {
            self.go_on(&batch);
        }
    }

    /// Ends what was kept for too long, and forgets what ended long ago.
    pub async fn sweep(&self) {
        futures_util::stream::iter(self.book.overdue(SystemTime::now()))
            .for_each_concurrent(FINISHED_TOGETHER, |command| async move {
                self.end(&command, command.overdue().outcome(), None).await;
            })
            .await;
        self.book.sweep();
        let (kept, remembered) = self.book.counts();
        self.metrics.commands_known(kept, remembered);
    }

    /// Calls a command back that has not left. Gives its end.
    ///
    /// # Errors
    /// When it has been sent, has ended, or is not known.
    pub async fn call_back(self: &Arc<Self>, id: &str) -> Result<Arc<Ended>, TooLate> {
        let command = self.book.unsent(id)?;
        let outcome = called_back();
        // From here on no session can send it, wherever it is.
        let (ended, record) = self.book.end_unsent(&command, &self.result(&command, &outcome, None))?;
        if let Some(session) = self.sessions.session(&command.key) {
            // Whoever follows it finds that it has ended.
            drop(session.inbox().withdraw(id));
        }
        self.metrics.command_ended(outcome.status);
        self.traces.ended(&command, &outcome);
        // In a task of its own: whoever asked may go.
        let (this, told) = (Arc::clone(self), Arc::clone(&ended));
        let telling = self.tasks.spawn(async move {
            this.save(record).await;
            this.tell(&told, None).await;
        });
        if let Err(error) = telling.await {
            tracing::error!(%error, "a command's result was not told");
        }
        Ok(ended)
    }

    /// A command with its place in a trace, as it is taken in.
    fn admitted(&self, command: Command) -> Command {
        Command { trace: self.traces.admitted(command.trace), ..command }
    }

    /// Where a command goes. No wait: the order of the calls is the order at the station.
    fn hand_over(&self, command: &Arc<Command>) -> Step {
        if let Some(flaw) = &command.flaw {
            return Step::Over(Outcome::failed(Status::Invalid, flaw.as_str()), None);
        }
        if self.book.has_ended(&command.id) {
            // Called back meanwhile: the first end counts.
            return Step::Over(called_back(), None);
        }
        if command.send_by() <= SystemTime::now() {
            return Step::Over(command.overdue().outcome(), None);
        }
        let session = self.sessions.session(&command.key);
        match session {
            Some(_) if command.if_offline == IfOffline::Queue && self.book.keeps(&command.key) => {
                self.keep(command)
            }
            Some(session) => match self.to_session(command, session, false) {
                Step::Over(outcome, _) if outcome.status == Status::Offline => self.away(command),
                Step::Over(outcome, _)
                    if outcome.status == Status::QueueFull && command.if_offline == IfOffline::Queue =>
                {
                    self.keep(command)
                }
                step => step,
            },
            None if !Action::find(&command.action).is_some_and(is_for_stations) => Step::Over(
                Outcome::failed(
                    Status::Invalid,
                    format!("{:?} is not an action that a backend may send", command.action),
                ),
                None,
            ),
            None => self.away(command),
        }
    }

    fn to_session(&self, command: &Arc<Command>, session: Arc<dyn Session>, is_queued: bool) -> Step {
        let version = session.subject().version;
        let Some(action) = Action::find(&command.action).filter(|action| action.csms_may_call(version))
        else {
            let text = format!(
                "{:?} is not an action that a backend may send on OCPP {}",
                command.action,
                version.as_str()
            );
            return Step::Over(Outcome::failed(Status::Invalid, text), None);
        };
        let (reply, report) = oneshot::channel();
        match session.inbox().submit(outbound_call(command, action, is_queued, reply)) {
            Ok(()) => Step::Handed(report, session),
            Err(Refused::Full(_)) => {
                let text = "too many commands wait for this station";
                Step::Over(Outcome::failed(Status::QueueFull, text), None)
            }
            Err(Refused::Ended(_)) => {
                let text = "the station's connection has just ended";
                Step::Over(Outcome::failed(Status::Offline, text), None)
            }
        }
    }

    fn away(&self, command: &Arc<Command>) -> Step {
        match command.if_offline {
            IfOffline::Fail => {
                Step::Over(Outcome::failed(Status::Offline, "the station is not connected"), None)
            }
            IfOffline::Queue => self.keep(command),
        }
    }

    fn keep(&self, command: &Arc<Command>) -> Step {
        match self.book.keep(command) {
            Ok(record) => Step::Kept(record),
            Err(_) => {
                let text = "too many commands are kept for stations that are away";
                Step::Over(Outcome::failed(Status::QueueFull, text), None)
            }
        }
    }

    /// Follows a command until it has ended or is kept, durably.
    async fn follow(self: &Arc<Self>, command: &Arc<Command>, mut step: Step, place: OwnedSemaphorePermit) {
        while let Step::Handed(report, session) = step {
            step = match report.await {
                Ok(Report::Ended(outcome, guard)) => Step::Over(outcome, Some(Carried { session, guard })),
                Ok(Report::Redirected(step)) => step,
                Ok(Report::NotSent) | Err(_) => return self.lost(command).await,
            };
        }
        self.settle(command, step).await;
        self.drain_if_ready(&command.key);
        drop(place);
    }

    async fn settle(&self, command: &Arc<Command>, step: Step) {
        match step {
            Step::Kept(record) => {
                self.save(Some(record)).await;
                self.book.tell_kept(&command.id);
            }
            Step::Over(outcome, carried) => drop(self.end(command, outcome, carried).await),
            // Followed before.
            Step::Handed(..) => {}
        }
    }
}

fn is_for_stations(action: &'static Action) -> bool {
    Version::ALL.iter().any(|version| action.csms_may_call(*version))
}
