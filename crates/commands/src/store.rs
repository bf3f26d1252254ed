//! The book of commands: what was taken in, what is kept for stations that are away, what is being sent, and how it ended.
//!
//! Owns the state in memory and what its journal says. Every record of the journal is one command's whole state with a
//! revision, so the order of two writers does not matter: replay keeps the greatest. A change is made in memory first and
//! the record given to the caller, who lets nothing follow from it until it is durable. Does not send, wait or decide.
//!
//! A command's way: *waiting* for its station's session, or *kept* while the station is away; *sending* from the moment
//! before it leaves; *ended* with its result event, which is *told* once that is durable. After a restart what was waiting or
//! sending has ended, what was kept is kept, and what had ended and was not told is told again, with the same event id.
//!
//! Bounded: kept commands by number for each station and by bytes for all, ended ones by number, bytes and age; those of batches
//! that go on come on top, for as long as they do. How many
//! wait or are being sent is bounded by whoever takes them in.

mod journal;
#[cfg(test)]
mod tests;

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use ocpp_bus::Record;
use ocpp_bus::Snapshot;
use ocpp_bus::kafka::consumer::RecordPlace;
use ocpp_protocol::IdentityKey;
use ocpp_station::Outcome;
use ocpp_station::time::millis;
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::sync::oneshot;

use crate::batch::Batches;
use crate::command::Command;
use crate::kinds;
use crate::limits::Limits;
use crate::time::{now_ms, since_epoch};

pub use journal::Unfinished;

/// Callers that may wait for the same command at once.
const MOST_WAITERS: usize = 64;

/// The book.
#[derive(Debug)]
pub struct Book {
    /// The batches that commands are part of.
    pub batches: Batches,
    inner: Mutex<Inner>,
    limits: Limits,
}

#[derive(Debug, Default)]
struct Inner {
    entries: HashMap<Arc<str>, Entry>,
    /// Stations for which commands are kept.
    away: HashMap<IdentityKey, Away>,
    /// Kept commands by the moment at which they expire, in milliseconds since 1970.
    due: BTreeSet<(u64, Arc<str>)>,
    kept_bytes: u64,
    /// Ended commands, the oldest first. One whose entry has another revision by now is skipped.
    ended: VecDeque<(Arc<str>, u64)>,
    ended_bytes: u64,
    revision: u64,
}

/// What is kept for one station, in the order in which it came.
#[derive(Debug, Default)]
struct Away {
    line: VecDeque<Arc<Command>>,
    /// Somebody takes the line to the station.
    is_draining: bool,
}

#[derive(Debug)]
struct Entry {
    revision: u64,
    phase: Phase,
    waiters: Vec<oneshot::Sender<Progress>>,
}

#[derive(Clone, Debug)]
enum Phase {
    /// Taken in. `saved`: the journal has it, for nobody else would bring it again after a crash.
    Waiting {
        command: Arc<Command>,
        saved: bool,
    },
    Kept {
        command: Arc<Command>,
    },
    Sending {
        command: Arc<Command>,
        in_line: bool,
    },
    Ended {
        ended: Arc<Ended>,
        told: bool,
    },
}

/// A command that has ended.
#[derive(Debug)]
pub struct Ended {
    /// The backend's name for it.
    pub id: Arc<str>,
    /// Its station, in the spelling of the result event.
    pub station: String,
    /// Where it was in Kafka.
    pub origin: Option<RecordPlace>,
    /// The batch that it was part of.
    pub batch: Option<Arc<str>>,
    /// Its result event, the same whenever it is told.
    pub event: Box<RawValue>,
    /// When it ended, in milliseconds since 1970.
    pub at_ms: u64,
}

impl Ended {
    /// How it ended.
    pub fn outcome(&self) -> Option<Outcome> {
        #[derive(Deserialize)]
        struct Event {
            data: Outcome,
        }
        serde_json::from_str::<Event>(self.event.get()).ok().map(|event| event.data)
    }

    /// Its result event as a record for the bus.
    pub fn record(&self) -> Record {
        Record {
            kind: kinds::COMMAND_RESULT,
            time_ms: self.at_ms,
            key: self.station.as_str().into(),
            value: self.event.get().to_owned().into(),
        }
    }

    fn cost(&self) -> u64 {
        (self.id.len() + self.station.len() + self.event.get().len() + 256) as u64
    }
}

/// What whoever waits for a command hears.
#[derive(Clone, Debug)]
pub enum Progress {
    /// It is kept for its station, durably.
    Kept,
    /// It has ended, and its result event is durable.
    Ended(Arc<Ended>),
}

/// What becomes of a command that comes in.
#[derive(Debug)]
pub enum Begun {
    /// It is new. The record is for the journal; without one, whoever sent it brings it again after a crash.
    New(Arc<Command>, Option<Record>, oneshot::Receiver<Progress>),
    /// It is known and under way.
    Running(oneshot::Receiver<Progress>),
    /// It is known and kept for its station.
    Kept(Arc<str>),
    /// It is known and has ended.
    Ended(Arc<Ended>),
    /// Its id is another command's.
    Conflict(Box<Command>),
    /// Too many wait for it already.
    Crowded(Arc<str>),
}

/// Why a command cannot be called back.
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

/// No more commands can be kept.
#[derive(Clone, Copy, Debug)]
pub struct Full;

impl Book {
    /// An empty book.
    pub fn new(limits: Limits) -> Self {
        Self { batches: Batches::default(), inner: Mutex::default(), limits }
    }

    /// Takes a command in. `saved`: write it down at once.
    pub fn begin(&self, command: Command, saved: bool) -> Begun {
        let mut inner = self.lock();
        let (waiter, progress) = oneshot::channel();
        if let Some(entry) = inner.entries.get_mut(&command.id) {
            let (station, action) = entry.phase.names();
            if !command.key.as_str().eq_ignore_ascii_case(station)
                || action.is_some_and(|action| action != command.action)
            {
                return Begun::Conflict(Box::new(command));
            }
            let is_crowded = entry.is_crowded();
            return match &entry.phase {
                Phase::Ended { ended, told: true } => Begun::Ended(Arc::clone(ended)),
                Phase::Kept { command } => Begun::Kept(Arc::clone(&command.id)),
                phase if is_crowded => Begun::Crowded(Arc::clone(phase.id())),
                _ => {
                    entry.waiters.push(waiter);
                    Begun::Running(progress)
                }
            };
        }
        let revision = inner.next_revision();
        let command = Arc::new(Command { sequence: revision, ..command });
        let phase = Phase::Waiting { command: Arc::clone(&command), saved };
        let entry = Entry { revision, phase, waiters: vec![waiter] };
        let record = entry.record(&command.id);
        inner.entries.insert(Arc::clone(&command.id), entry);
        Begun::New(command, record, progress)
    }

    /// Keeps a command for its station, behind those that are kept already.
    ///
    /// # Errors
    /// When too many are kept for the station, or too much for all.
    pub fn keep(&self, command: &Arc<Command>) -> Result<Record, Full> {
        let mut inner = self.lock();
        let phase = inner.entries.get(&command.id).map(|entry| &entry.phase);
        if !matches!(phase, Some(Phase::Waiting { .. })) {
            // It was called back in this very moment: the first end counts.
            return Err(Full);
        }
        let cost = cost(command);
        let waiting = inner.away.get(&command.key).map_or(0, |away| away.line.len());
        if waiting >= self.limits.offline_queue || inner.kept_bytes + cost > self.limits.offline_bytes {
            return Err(Full);
        }
        inner.add_kept(command);
        inner.change(&command.id, Phase::Kept { command: Arc::clone(command) }).ok_or(Full)
    }

    /// What the journal is told of a command, once more: a first note of it may not be durable yet. Of one that somebody would
    /// bring again, from here on, too.
    pub fn again(&self, id: &str) -> Option<Record> {
        let mut inner = self.lock();
        let (id, entry) =
            inner.entries.get_key_value(id).map(|(id, _)| Arc::clone(id)).zip(inner.entries.get_mut(id))?;
        if let Phase::Waiting { saved, .. } = &mut entry.phase {
            *saved = true;
        }
        entry.record(&id)
    }

    /// Tells those who wait that the command is kept, durably.
    pub fn tell_kept(&self, id: &str) {
        let waiters = self.lock().entries.get_mut(id).map(|entry| std::mem::take(&mut entry.waiters));
        for waiter in waiters.into_iter().flatten() {
            drop(waiter.send(Progress::Kept));
        }
    }

    /// Notes that a command is about to be sent.
    pub fn sending(&self, command: &Arc<Command>) -> Option<Record> {
        let mut inner = self.lock();
        let in_line = match &inner.entries.get(&command.id)?.phase {
            // Whoever has it a second time must not send it.
            Phase::Ended { .. } | Phase::Sending { .. } => return None,
            phase => matches!(phase, Phase::Kept { .. }),
        };
        inner.change(&command.id, Phase::Sending { command: Arc::clone(command), in_line })
    }

    /// Notes that a command which was about to be sent has not left: a kept one is kept again, where it was.
    pub fn not_sent(&self, command: &Arc<Command>) -> Option<Record> {
        let mut inner = self.lock();
        let Phase::Sending { in_line, .. } = inner.entries.get(&command.id)?.phase else { return None };
        let command = Arc::clone(command);
        let phase = if in_line {
            Phase::Kept { command }
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

    /// Notes a command's end, with the record for the journal. Its result event is told from here on, and no other: a
    /// second end changes nothing and gives the first.
    pub fn end(&self, command: &Command, event: &Record) -> (Arc<Ended>, Option<Record>) {
        let ended = ended(command, event);
        let mut inner = self.lock();
        if let Some(Phase::Ended { ended, .. }) = inner.entries.get(&command.id).map(|entry| &entry.phase) {
            let ended = Arc::clone(ended);
            inner.remove_kept(command);
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
        event: &Record,
    ) -> Result<(Arc<Ended>, Option<Record>), TooLate> {
        let ended = ended(command, event);
        let mut inner = self.lock();
        inner.unsent(&command.id)?;
        let record = inner.end(command, &ended);
        drop(inner);
        self.count_in_batch(&ended);
        Ok((ended, record))
    }

    /// Notes that a command's result event is durable, and tells those who wait.
    pub fn told(&self, ended: &Arc<Ended>) -> Option<Record> {
        let mut inner = self.lock();
        let record = inner.change(&ended.id, Phase::Ended { ended: Arc::clone(ended), told: true });
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
    pub fn until_told(&self, id: &str) -> Option<oneshot::Receiver<Progress>> {
        let mut inner = self.lock();
        let entry = inner.entries.get_mut(id)?;
        let Phase::Ended { told: false, .. } = entry.phase else { return None };
        let (waiter, told) = oneshot::channel();
        entry.waiters.push(waiter);
        Some(told)
    }

    /// The commands of a batch may be forgotten from here on: it has ended, and begins none of them anew.
    pub fn release(&self, batch: &str) {
        let mut inner = self.lock();
        let of_batch: Vec<Arc<Ended>> = inner
            .entries
            .values()
            .filter_map(|entry| match &entry.phase {
                Phase::Ended { ended, told: true } if ended.batch.as_deref() == Some(batch) => {
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

    /// Whether commands are kept for a station.
    pub fn keeps(&self, key: &IdentityKey) -> bool {
        self.lock().away.get(key).is_some_and(|away| !away.line.is_empty())
    }

    /// Begins to take a station's line to it; false if there is none or somebody does so already.
    pub fn start_draining(&self, key: &IdentityKey) -> bool {
        let mut inner = self.lock();
        inner.away.get_mut(key).is_some_and(|away| !std::mem::replace(&mut away.is_draining, true))
    }

    /// Stops.
    pub fn stop_draining(&self, key: &IdentityKey) {
        let mut inner = self.lock();
        if let Some(away) = inner.away.get_mut(key) {
            away.is_draining = false;
            if away.line.is_empty() {
                inner.away.remove(key);
            }
        }
    }

    /// The first of a station's line.
    pub fn head(&self, key: &IdentityKey) -> Option<Arc<Command>> {
        self.lock().away.get(key)?.line.front().cloned()
    }

    /// Kept commands whose time is over. The first of a line that is being taken to its station is not among them: the
    /// session that has it looks at its time.
    pub fn overdue(&self, now: SystemTime) -> Vec<Arc<Command>> {
        let now = since_epoch(now);
        let inner = self.lock();
        let due = inner.due.iter().take_while(|(due, _)| *due <= now);
        due.filter_map(|(_, id)| match &inner.entries.get(id)?.phase {
            Phase::Kept { command, .. } => Some(command),
            _ => None,
        })
        .filter(|command| {
            let away = inner.away.get(&command.key);
            !away.is_some_and(|away| {
                away.is_draining && away.line.front().is_some_and(|head| head.id == command.id)
            })
        })
        .cloned()
        .collect()
    }

    /// Forgets ended commands that are past their time.
    pub fn sweep(&self) {
        self.lock().forget(&self.limits, now_ms());
    }

    /// A command that has not been sent, to be called back: see [`Book::end_unsent`].
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
            Phase::Kept { command } => Shown::Running("kept", Arc::clone(command)),
            Phase::Sending { command, .. } => Shown::Running("sending", Arc::clone(command)),
            Phase::Ended { ended, told: true } => Shown::Ended(Arc::clone(ended)),
            Phase::Ended { ended, told: false } => Shown::Ending(Arc::clone(ended)),
        })
    }

    /// Commands kept for one station.
    pub fn kept_for(&self, key: &IdentityKey) -> usize {
        self.lock().away.get(key).map_or(0, |away| away.line.len())
    }

    /// Commands kept for stations that are away, and ended ones that are remembered.
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
            && let Some(outcome) = ended.outcome()
        {
            self.batches.count(batch, outcome.status);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn next_revision(&mut self) -> u64 {
        self.revision += 1;
        self.revision
    }

    /// Changes a command's phase, and gives the record for the journal.
    fn change(&mut self, id: &Arc<str>, phase: Phase) -> Option<Record> {
        let revision = self.next_revision();
        let entry = self.entries.get_mut(id)?;
        entry.revision = revision;
        entry.phase = phase;
        entry.record(id)
    }

    /// A command that has not been sent.
    fn unsent(&self, id: &str) -> Result<&Arc<Command>, TooLate> {
        match self.entries.get(id).map(|entry| &entry.phase) {
            None => Err(TooLate::Unknown),
            Some(Phase::Ended { .. }) => Err(TooLate::Ended),
            Some(Phase::Sending { .. }) => Err(TooLate::Sending),
            Some(Phase::Waiting { command, .. } | Phase::Kept { command }) => Ok(command),
        }
    }

    fn end(&mut self, command: &Command, ended: &Arc<Ended>) -> Option<Record> {
        self.remove_kept(command);
        self.change(&command.id, Phase::Ended { ended: Arc::clone(ended), told: false })
    }

    fn add_kept(&mut self, command: &Arc<Command>) {
        self.kept_bytes += cost(command);
        self.due.insert((since_epoch(command.send_by()), Arc::clone(&command.id)));
        let away = self.away.entry(command.key.clone()).or_default();
        // Nearly always the end of the line. The first of one that is being taken to its station is on its way.
        let first = usize::from(away.is_draining).min(away.line.len());
        let after =
            away.line.iter().rposition(|kept| kept.sequence < command.sequence).map_or(0, |at| at + 1);
        away.line.insert(after.max(first), Arc::clone(command));
    }

    fn remove_kept(&mut self, command: &Command) {
        if !self.due.remove(&(since_epoch(command.send_by()), Arc::clone(&command.id))) {
            return;
        }
        self.kept_bytes = self.kept_bytes.saturating_sub(cost(command));
        if let Some(away) = self.away.get_mut(&command.key) {
            away.line.retain(|kept| kept.id != command.id);
            // Whoever takes the line to its station takes the place down with it: nobody else may begin meanwhile.
            if away.line.is_empty() && !away.is_draining {
                self.away.remove(&command.key);
            }
        }
    }

    fn remember(&mut self, ended: &Arc<Ended>) {
        if let Some(entry) = self.entries.get(&ended.id) {
            self.ended_bytes += ended.cost();
            self.ended.push_back((Arc::clone(&ended.id), entry.revision));
        }
    }

    fn forget(&mut self, limits: &Limits, now_ms: u64) {
        let oldest_ms = now_ms.saturating_sub(millis(limits.remember_for));
        while let Some((id, revision)) = self.ended.front() {
            let too_many = self.ended.len() > limits.remembered || self.ended_bytes > limits.remembered_bytes;
            let found = self.entries.get(id).filter(|entry| entry.revision == *revision);
            let Some(Phase::Ended { ended, .. }) = found.map(|entry| &entry.phase) else {
                self.ended.pop_front();
                continue;
            };
            if !too_many && ended.at_ms > oldest_ms {
                return;
            }
            self.ended_bytes = self.ended_bytes.saturating_sub(ended.cost());
            let id = Arc::clone(id);
            self.ended.pop_front();
            self.entries.remove(&id);
        }
    }
}

impl Entry {
    /// Those who have gone do not count.
    fn is_crowded(&mut self) -> bool {
        self.waiters.retain(|waiter| !waiter.is_closed());
        self.waiters.len() >= MOST_WAITERS
    }
}

impl Phase {
    fn id(&self) -> &Arc<str> {
        match self {
            Self::Waiting { command, .. } | Self::Kept { command, .. } | Self::Sending { command, .. } => {
                &command.id
            }
            Self::Ended { ended, .. } => &ended.id,
        }
    }

    /// The station and, as long as it matters, the action.
    fn names(&self) -> (&str, Option<&str>) {
        match self {
            Self::Waiting { command, .. } | Self::Kept { command, .. } | Self::Sending { command, .. } => {
                (command.key.as_str(), Some(&command.action))
            }
            Self::Ended { ended, .. } => (&ended.station, None),
        }
    }
}

impl Snapshot for Book {
    fn records(&self) -> Vec<Record> {
        let mut records = self.batches.records();
        records.extend(self.lock().entries.iter().filter_map(|(id, entry)| entry.record(id)));
        records
    }
}

fn ended(command: &Command, event: &Record) -> Arc<Ended> {
    let text = String::from_utf8(event.value.to_vec()).unwrap_or_default();
    Arc::new(Ended {
        id: Arc::clone(&command.id),
        station: event.key.as_ref().to_owned(),
        origin: command.origin,
        batch: command.batch.clone(),
        event: RawValue::from_string(text).unwrap_or_else(|_| RawValue::NULL.to_owned()),
        at_ms: event.time_ms,
    })
}

/// What a kept command counts against `commands.offline_bytes`.
fn cost(command: &Command) -> u64 {
    (command.payload.get().len() + command.id.len() + command.station.len() + command.action.len() + 256)
        as u64
}
