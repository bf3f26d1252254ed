//! The command store: commands that were accepted, queued for stations that are away, being sent, or ended.
//!
//! Owns the state in memory and what its journal says. Every record of the journal is one command's whole state with a
//! revision, so the order of two writers does not matter: replay keeps the greatest. A change is made in memory first and
//! the record returned to the caller, who lets nothing follow from it until it is durable. Does not send, wait or decide.
//!
//! A command is *waiting* for its station's session, or *queued* while the station is away; *sending* from the moment before
//! it leaves; *ended* with its result event, which is *published* once that is durable. A restart ends what was waiting or
//! sending, keeps what was queued, and publishes again, with the same event id, what had ended and was not published.
//!
//! Bounded: queued commands by number for each station and by bytes for all, ended ones by number, bytes and age; those of
//! running batches come on top. The dispatcher's permits bound how many wait or are being sent.

mod ended;
mod journal;
mod state;
#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use ocpp_bus::Record;
use ocpp_bus::Snapshot;
use ocpp_protocol::IdentityKey;
use ocpp_station::Outcome;
use tokio::sync::oneshot;

use crate::batch::Batches;
use crate::command::Command;
use crate::limits::Limits;
use crate::time::{now_ms, unix_millis};

pub use self::ended::Ended;
pub use self::journal::Unfinished;
use self::state::{Entry, Inner, Phase, cost};

/// The store.
#[derive(Debug)]
pub struct CommandStore {
    /// The batches that commands are part of.
    pub batches: Batches,
    inner: Mutex<Inner>,
    limits: Limits,
}

/// What whoever waits for a command hears.
#[derive(Clone, Debug)]
pub enum Progress {
    /// It is queued for its station, durably.
    Queued,
    /// It has ended, and its result event is durable.
    Ended(Arc<Ended>),
}

/// What becomes of a command that comes in.
#[derive(Debug)]
pub enum Accepted {
    /// It is new. The record is for the journal; without one, whoever sent it brings it again after a crash.
    New(Arc<Command>, Option<Record>, oneshot::Receiver<Progress>),
    /// It is known and under way.
    Running(oneshot::Receiver<Progress>),
    /// It is known and queued for its station.
    Queued(Arc<str>),
    /// It is known and has ended.
    Ended(Arc<Ended>),
    /// Its id is another command's.
    Conflict(Box<Command>),
    /// Too many wait for it already.
    Crowded(Arc<str>),
}

/// Why a command cannot be cancelled.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TooLate {
    /// It is being sent.
    Sending,
    /// It has ended.
    Ended,
    /// There is none of this id, or it was forgotten.
    Unknown,
}

/// A command as people see it.
#[derive(Debug)]
pub enum Shown {
    /// Not ended: `waiting`, `kept` or `sending`.
    Running(&'static str, Arc<Command>),
    /// Ended.
    Ended(Arc<Ended>),
    /// It has an end, which is not durable yet.
    Ending(Arc<Ended>),
}

/// No more commands can be queued.
#[derive(Clone, Copy, Debug)]
pub struct Full;

impl CommandStore {
    /// An empty store.
    pub fn new(limits: Limits) -> Self {
        Self { batches: Batches::default(), inner: Mutex::default(), limits }
    }

    /// Takes a command in. `saved`: write it down at once.
    pub fn accept(&self, command: Command, saved: bool) -> Accepted {
        let mut inner = self.lock();
        let (waiter, progress) = oneshot::channel();
        if let Some(entry) = inner.entries.get_mut(&command.id) {
            let (station, action) = entry.phase.names();
            if !command.key.as_str().eq_ignore_ascii_case(station)
                || action.is_some_and(|action| action != command.action)
            {
                return Accepted::Conflict(Box::new(command));
            }
            let is_crowded = entry.is_crowded();
            return match &entry.phase {
                Phase::Ended { ended, published: true } => Accepted::Ended(Arc::clone(ended)),
                Phase::Queued { command } => Accepted::Queued(Arc::clone(&command.id)),
                phase if is_crowded => Accepted::Crowded(Arc::clone(phase.id())),
                _ => {
                    entry.waiters.push(waiter);
                    Accepted::Running(progress)
                }
            };
        }
        let revision = inner.next_revision();
        let command = Arc::new(Command { sequence: revision, ..command });
        let phase = Phase::Waiting { command: Arc::clone(&command), saved };
        let entry = Entry { revision, phase, waiters: vec![waiter] };
        let record = entry.record(&command.id);
        inner.entries.insert(Arc::clone(&command.id), entry);
        Accepted::New(command, record, progress)
    }

    /// Queues a command for its station, behind those that came before it.
    ///
    /// # Errors
    /// When too many are queued for the station, or too much for all.
    pub fn queue(&self, command: &Arc<Command>) -> Result<Record, Full> {
        let mut inner = self.lock();
        let phase = inner.entries.get(&command.id).map(|entry| &entry.phase);
        if !matches!(phase, Some(Phase::Waiting { .. })) {
            // It was cancelled in this very moment: the first end counts.
            return Err(Full);
        }
        let cost = cost(command);
        let waiting = inner.offline.get(&command.key).map_or(0, |offline| offline.commands.len());
        if waiting >= self.limits.offline_queue || inner.queued_bytes + cost > self.limits.offline_bytes {
            return Err(Full);
        }
        inner.add_queued(command);
        inner.change(&command.id, Phase::Queued { command: Arc::clone(command) }).ok_or(Full)
    }

    /// A command's record for the journal once more: the first may not be durable yet. A command that its sender would bring
    /// again is in the journal from here on, too.
    pub fn again(&self, id: &str) -> Option<Record> {
        let mut inner = self.lock();
        let (id, entry) =
            inner.entries.get_key_value(id).map(|(id, _)| Arc::clone(id)).zip(inner.entries.get_mut(id))?;
        if let Phase::Waiting { saved, .. } = &mut entry.phase {
            *saved = true;
        }
        entry.record(&id)
    }

    /// Notifies those who wait that the command is queued, durably.
    pub fn notify_queued(&self, id: &str) {
        let waiters = self.lock().entries.get_mut(id).map(|entry| std::mem::take(&mut entry.waiters));
        for waiter in waiters.into_iter().flatten() {
            drop(waiter.send(Progress::Queued));
        }
    }

    /// Notes that a command is about to be sent.
    pub fn sending(&self, command: &Arc<Command>) -> Option<Record> {
        let mut inner = self.lock();
        let is_queued = match &inner.entries.get(&command.id)?.phase {
            // Whoever has it a second time must not send it.
            Phase::Ended { .. } | Phase::Sending { .. } => return None,
            phase => matches!(phase, Phase::Queued { .. }),
        };
        inner.change(&command.id, Phase::Sending { command: Arc::clone(command), is_queued })
    }

    /// Notes that a command which was about to be sent has not left: a queued one is the head of its queue again.
    pub fn not_sent(&self, command: &Arc<Command>) -> Option<Record> {
        let mut inner = self.lock();
        let Phase::Sending { is_queued, .. } = inner.entries.get(&command.id)?.phase else { return None };
        let command = Arc::clone(command);
        let phase = if is_queued {
            Phase::Queued { command }
        } else {
            Phase::Waiting { saved: command.origin.is_none(), command }
        };
        let id = Arc::clone(phase.id());
        inner.change(&id, phase)
    }

    /// Whether a command may have been sent.
    pub fn is_sending(&self, id: &str) -> bool {
        self.lock().entries.get(id).is_some_and(|entry| matches!(entry.phase, Phase::Sending { .. }))
    }

    /// Whether a command has ended.
    pub fn has_ended(&self, id: &str) -> bool {
        self.lock().entries.get(id).is_some_and(|entry| matches!(entry.phase, Phase::Ended { .. }))
    }

    /// Notes a command's end, with the record for the journal. Its result event is published from here on, and no other: a
    /// second end changes nothing and gives the first.
    pub fn end(&self, command: &Command, outcome: Outcome, event: &Record) -> (Arc<Ended>, Option<Record>) {
        let ended = Ended::new(command, outcome, event);
        let mut inner = self.lock();
        if let Some(Phase::Ended { ended, .. }) = inner.entries.get(&command.id).map(|entry| &entry.phase) {
            let ended = Arc::clone(ended);
            inner.remove_queued(command);
            return (ended, None);
        }
        let record = inner.end(command, &ended);
        drop(inner);
        self.count_in_batch(&ended);
        (ended, record)
    }

    /// The same for a command that has not been sent: it cannot be sent from here on.
    ///
    /// # Errors
    /// When it has been sent, has ended, or is not known.
    pub fn end_unsent(
        &self,
        command: &Command,
        outcome: Outcome,
        event: &Record,
    ) -> Result<(Arc<Ended>, Option<Record>), TooLate> {
        let ended = Ended::new(command, outcome, event);
        let mut inner = self.lock();
        inner.unsent(&command.id)?;
        let record = inner.end(command, &ended);
        drop(inner);
        self.count_in_batch(&ended);
        Ok((ended, record))
    }

    /// Notes that a command's result event is durable, and notifies those who wait.
    pub fn published(&self, ended: &Arc<Ended>) -> Option<Record> {
        let mut inner = self.lock();
        let record = inner.change(&ended.id, Phase::Ended { ended: Arc::clone(ended), published: true });
        let waiters = inner.entries.get_mut(&ended.id).map(|entry| std::mem::take(&mut entry.waiters));
        if !self.is_of_running_batch(ended) {
            inner.remember(ended);
            inner.forget(&self.limits, now_ms());
        }
        drop(inner);
        for waiter in waiters.into_iter().flatten() {
            drop(waiter.send(Progress::Ended(Arc::clone(ended))));
        }
        record
    }

    /// For whoever must not go on before a command's result event is durable; none if it is, or the command is not known.
    pub fn until_published(&self, id: &str) -> Option<oneshot::Receiver<Progress>> {
        let mut inner = self.lock();
        let entry = inner.entries.get_mut(id)?;
        let Phase::Ended { published: false, .. } = entry.phase else { return None };
        let (waiter, published) = oneshot::channel();
        entry.waiters.push(waiter);
        Some(published)
    }

    /// The commands of a batch may be forgotten from here on: it has ended, and begins none of them anew.
    pub fn release(&self, batch: &str) {
        let mut inner = self.lock();
        let of_batch: Vec<Arc<Ended>> = inner
            .entries
            .values()
            .filter_map(|entry| match &entry.phase {
                Phase::Ended { ended, published: true } if ended.batch.as_deref() == Some(batch) => {
                    Some(Arc::clone(ended))
                }
                _ => None,
            })
            .collect();
        for ended in &of_batch {
            inner.remember(ended);
        }
        inner.forget(&self.limits, now_ms());
    }

    /// Whether commands are queued for a station.
    pub fn has_queued(&self, key: &IdentityKey) -> bool {
        self.lock().offline.get(key).is_some_and(|offline| !offline.commands.is_empty())
    }

    /// Begins to send a station's offline queue; false if it is empty or somebody does so already.
    pub fn start_draining(&self, key: &IdentityKey) -> bool {
        let mut inner = self.lock();
        inner.offline.get_mut(key).is_some_and(|offline| !std::mem::replace(&mut offline.is_draining, true))
    }

    /// Stops.
    pub fn stop_draining(&self, key: &IdentityKey) {
        let mut inner = self.lock();
        if let Some(offline) = inner.offline.get_mut(key) {
            offline.is_draining = false;
            if offline.commands.is_empty() {
                inner.offline.remove(key);
            }
        }
    }

    /// The head of a station's offline queue.
    pub fn head(&self, key: &IdentityKey) -> Option<Arc<Command>> {
        self.lock().offline.get(key)?.commands.front().cloned()
    }

    /// Queued commands whose time is over. The head of a queue that is being sent is not among them: the session that has it
    /// looks at its time.
    pub fn overdue(&self, now: SystemTime) -> Vec<Arc<Command>> {
        let now = unix_millis(now);
        let inner = self.lock();
        let due = inner.due.iter().take_while(|(due, _)| *due <= now);
        due.filter_map(|(_, id)| match &inner.entries.get(id)?.phase {
            Phase::Queued { command, .. } => Some(command),
            _ => None,
        })
        .filter(|command| {
            let offline = inner.offline.get(&command.key);
            !offline.is_some_and(|offline| {
                offline.is_draining && offline.commands.front().is_some_and(|head| head.id == command.id)
            })
        })
        .cloned()
        .collect()
    }

    /// Forgets ended commands that are past their time.
    pub fn sweep(&self) {
        self.lock().forget(&self.limits, now_ms());
    }

    /// A command that has not been sent, to be cancelled: see [`CommandStore::end_unsent`].
    ///
    /// # Errors
    /// When it has been sent, has ended, or is not known.
    pub fn unsent(&self, id: &str) -> Result<Arc<Command>, TooLate> {
        self.lock().unsent(id).cloned()
    }

    /// A command, for people.
    pub fn show(&self, id: &str) -> Option<Shown> {
        Some(match &self.lock().entries.get(id)?.phase {
            Phase::Waiting { command, .. } => Shown::Running("waiting", Arc::clone(command)),
            Phase::Queued { command } => Shown::Running("kept", Arc::clone(command)),
            Phase::Sending { command, .. } => Shown::Running("sending", Arc::clone(command)),
            Phase::Ended { ended, published: true } => Shown::Ended(Arc::clone(ended)),
            Phase::Ended { ended, published: false } => Shown::Ending(Arc::clone(ended)),
        })
    }

    /// Commands queued for one station.
    pub fn queued_for(&self, key: &IdentityKey) -> usize {
        self.lock().offline.get(key).map_or(0, |offline| offline.commands.len())
    }

    /// Commands queued for stations that are away, and ended ones that are remembered.
    pub fn counts(&self) -> (usize, usize) {
        let inner = self.lock();
        (inner.due.len(), inner.ended.len())
    }

    /// A batch that goes on must know its commands, whatever else is forgotten.
    fn is_of_running_batch(&self, ended: &Ended) -> bool {
        ended.batch.as_ref().is_some_and(|batch| self.batches.running(batch).is_some())
    }

    fn count_in_batch(&self, ended: &Ended) {
        if let Some(batch) = &ended.batch
            && let Some(outcome) = &ended.outcome
        {
            self.batches.count(batch, outcome.status);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Snapshot for CommandStore {
    fn records(&self) -> Vec<Record> {
        let mut records = self.batches.records();
        records.extend(self.lock().entries.iter().filter_map(|(id, entry)| entry.record(id)));
        records
    }
}
