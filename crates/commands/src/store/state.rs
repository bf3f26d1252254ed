//! The state of the store: each command's phase, the offline queues, and which ended commands are remembered.
//!
//! Owns the bounds and the changes that one lock covers. Whoever changes a phase gets the record that says so.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

use ocpp_bus::Record;
use ocpp_protocol::IdentityKey;
use ocpp_station::time::millis;
use tokio::sync::oneshot;

use super::{Ended, Progress, TooLate};
use crate::command::Command;
use crate::limits::Limits;
use crate::time::unix_millis;

/// Callers that may wait for the same command at once.
const MOST_WAITERS: usize = 64;

#[derive(Debug, Default)]
pub(super) struct Inner {
    pub(super) entries: HashMap<Arc<str>, Entry>,
    /// The offline queues.
    pub(super) offline: HashMap<IdentityKey, OfflineQueue>,
    /// Queued commands by the moment at which they expire, in milliseconds since 1970.
    pub(super) due: BTreeSet<(u64, Arc<str>)>,
    pub(super) queued_bytes: u64,
    /// Ended commands, the oldest first. One whose entry has another revision by now is skipped.
    pub(super) ended: VecDeque<(Arc<str>, u64)>,
    pub(super) ended_bytes: u64,
    pub(super) revision: u64,
}

/// The commands queued for one station, in the order in which they came.
#[derive(Debug, Default)]
pub(super) struct OfflineQueue {
    pub(super) commands: VecDeque<Arc<Command>>,
    /// Somebody is sending it to the station.
    pub(super) is_draining: bool,
}

#[derive(Debug)]
pub(super) struct Entry {
    pub(super) revision: u64,
    pub(super) phase: Phase,
    pub(super) waiters: Vec<oneshot::Sender<Progress>>,
}

#[derive(Clone, Debug)]
pub(super) enum Phase {
    /// Taken in. `saved`: the journal has it, for nobody else would bring it again after a crash.
    Waiting {
        command: Arc<Command>,
        saved: bool,
    },
    Queued {
        command: Arc<Command>,
    },
    Sending {
        command: Arc<Command>,
        is_queued: bool,
    },
    Ended {
        ended: Arc<Ended>,
        published: bool,
    },
}

impl Inner {
    pub(super) fn next_revision(&mut self) -> u64 {
        self.revision += 1;
        self.revision
    }

    /// Changes a command's phase, and gives the record for the journal.
    pub(super) fn change(&mut self, id: &Arc<str>, phase: Phase) -> Option<Record> {
        let revision = self.next_revision();
        let entry = self.entries.get_mut(id)?;
        entry.revision = revision;
        entry.phase = phase;
        entry.record(id)
    }

    /// A command that has not been sent.
    pub(super) fn unsent(&self, id: &str) -> Result<&Arc<Command>, TooLate> {
        match self.entries.get(id).map(|entry| &entry.phase) {
            None => Err(TooLate::Unknown),
            Some(Phase::Ended { .. }) => Err(TooLate::Ended),
            Some(Phase::Sending { .. }) => Err(TooLate::Sending),
            Some(Phase::Waiting { command, .. } | Phase::Queued { command }) => Ok(command),
        }
    }

    pub(super) fn end(&mut self, command: &Command, ended: &Arc<Ended>) -> Option<Record> {
        self.remove_queued(command);
        self.change(&command.id, Phase::Ended { ended: Arc::clone(ended), published: false })
    }

    pub(super) fn add_queued(&mut self, command: &Arc<Command>) {
        self.queued_bytes += cost(command);
        self.due.insert((unix_millis(command.send_by()), Arc::clone(&command.id)));
        let offline = self.offline.entry(command.key.clone()).or_default();
        // Nearly always the end of the queue. The head of one that is being sent is on its way.
        let first = usize::from(offline.is_draining).min(offline.commands.len());
        let after = offline
            .commands
            .iter()
            .rposition(|queued| queued.sequence < command.sequence)
            .map_or(0, |at| at + 1);
        offline.commands.insert(after.max(first), Arc::clone(command));
    }

    pub(super) fn remove_queued(&mut self, command: &Command) {
        if !self.due.remove(&(unix_millis(command.send_by()), Arc::clone(&command.id))) {
            return;
        }
        self.queued_bytes = self.queued_bytes.saturating_sub(cost(command));
        if let Some(offline) = self.offline.get_mut(&command.key) {
            offline.commands.retain(|queued| queued.id != command.id);
            // Whoever is sending the queue removes it: nobody else may begin meanwhile.
            if offline.commands.is_empty() && !offline.is_draining {
                self.offline.remove(&command.key);
            }
        }
    }

    pub(super) fn remember(&mut self, ended: &Arc<Ended>) {
        if let Some(entry) = self.entries.get(&ended.id) {
            self.ended_bytes += ended.cost();
            self.ended.push_back((Arc::clone(&ended.id), entry.revision));
        }
    }

    pub(super) fn forget(&mut self, limits: &Limits, now_ms: u64) {
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
    pub(super) fn is_crowded(&mut self) -> bool {
        self.waiters.retain(|waiter| !waiter.is_closed());
        self.waiters.len() >= MOST_WAITERS
    }
}

impl Phase {
    pub(super) fn id(&self) -> &Arc<str> {
        match self {
            Self::Waiting { command, .. } | Self::Queued { command, .. } | Self::Sending { command, .. } => {
                &command.id
            }
            Self::Ended { ended, .. } => &ended.id,
        }
    }

    /// The station and, as long as it matters, the action.
    pub(super) fn names(&self) -> (&str, Option<&str>) {
        match self {
            Self::Waiting { command, .. } | Self::Queued { command, .. } | Self::Sending { command, .. } => {
                (command.key.as_str(), Some(&command.action))
            }
            Self::Ended { ended, .. } => (&ended.station, None),
        }
    }
}

/// What a queued command counts against `commands.offline_bytes`.
pub(super) fn cost(command: &Command) -> u64 {
    (command.payload.get().len() + command.id.len() + command.station.len() + command.action.len() + 256)
        as u64
}
