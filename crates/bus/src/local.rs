//! The pump of a local bus: queue → local log, with group commit.
//!
//! Owns one OS thread (fdatasync blocks) and the log's writer. While one group is being synced the next one gathers in
//! the queue, so the group's size follows the load by itself: alone a record waits for one sync, under load thousands
//! share it. A commit costs the same for one record as for forty, so commits keep a distance. Does not own the log's format (`log.rs`).

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::health::HealthCell;
use crate::queue::{InFlight, Queue, Taken};
use crate::record::Record;
use crate::set_aside::SetAside;
use ocpp_log::{Entry, Log, LogError};

/// Gives everything worth keeping, so that a journal can be rewritten in short.
pub trait Snapshot: Send + Sync {
    /// The latest record of every key. Called on the pump's thread; records published before the call may be written
    /// again after it, so a reader must be able to tell which of two records of a key is the newer.
    fn records(&self) -> Vec<Record>;
}

/// When and how a journal is rewritten.
#[derive(Clone)]
pub struct Compaction {
    /// Gives the state to keep.
    pub snapshot: Arc<dyn Snapshot>,
    /// Rewrite when the log is larger than this many bytes, and than eight times what the last rewrite left.
    pub above_bytes: u64,
}

/// Most records of one group; bounds how long one commit can take.
const GROUP_RECORDS: usize = 16_384;
/// How often retention looks when nothing else happens.
const TICK: Duration = Duration::from_secs(1);
/// Waiting before a failed commit is tried again.
const RETRY: Duration = Duration::from_millis(500);

pub(crate) struct LocalPump {
    pub(crate) log: Log,
    pub(crate) queue: Arc<Queue>,
    pub(crate) health: Arc<HealthCell>,
    pub(crate) compaction: Option<Compaction>,
    /// Where a record goes that the log can never take.
    pub(crate) set_aside: SetAside,
    /// Commits begin at least this far apart. What comes in between gathers; what comes after a pause does not wait.
    pub(crate) linger: Duration,
}

impl LocalPump {
    pub(crate) fn spawn(self, name: &str) -> std::io::Result<JoinHandle<()>> {
        std::thread::Builder::new().name(format!("bus-{name}")).spawn(move || self.run())
    }

    fn run(mut self) {
        self.health.direct();
        let mut looked_at_retention = Instant::now();
        let mut left_by_compaction = self.log.bytes();
        let mut next_commit = Instant::now();
        loop {
            std::thread::sleep(next_commit.saturating_duration_since(Instant::now()));
            match self.queue.take(GROUP_RECORDS, TICK) {
                Taken::Closed => break,
                Taken::Batch(group) if !group.is_empty() => {
                    next_commit = Instant::now() + self.linger;
                    self.store(group);
                }
                Taken::Batch(_) => {}
            }
            if looked_at_retention.elapsed() >= TICK {
                looked_at_retention = Instant::now();
                self.retain();
                self.compact(&mut left_by_compaction);
            }
            self.queue.metrics().log_bytes.set(i64::try_from(self.log.bytes()).unwrap_or(i64::MAX));
        }
        self.health.oldest(None);
    }

    /// Makes one group durable, however long it takes, and tells the lanes.
    fn store(&mut self, group: Vec<InFlight>) {
        let metrics = self.queue.metrics().clone();
        let (group, too_large): (Vec<_>, Vec<_>) = group
            .into_iter()
            .partition(|in_flight| self.log.takes(&in_flight.record.key, &in_flight.record.value));
        for in_flight in too_large {
            metrics.failures.inc();
            self.set_aside.keep(
                &in_flight.record,
                "local log",
                "larger than the log's largest record",
                &self.health,
            );
            metrics.set_aside.inc();
            metrics.durable.inc();
            in_flight.durable();
        }
        self.health.oldest(group.first().map(|in_flight| in_flight.accepted_at));
        while let Err(error) = self.append_and_commit(group.iter().map(|in_flight| &in_flight.record)) {
            metrics.failures.inc();
            self.health.holding(crate::chain(&error));
            std::thread::sleep(RETRY);
            // What is past its time may be what the disk is full of.
            self.retain();
        }
        metrics.batch_records.observe(group.len() as f64);
        metrics.durable.inc_by(group.len() as u64);
        for in_flight in group {
            metrics.latency_seconds.observe(in_flight.accepted_at.elapsed().as_secs_f64());
            in_flight.durable();
        }
        self.health.oldest(None);
        self.health.direct();
    }

    fn append_and_commit<'a>(&mut self, records: impl Iterator<Item = &'a Record>) -> Result<(), LogError> {
        self.log.rollback();
        for record in records {
            let entry = Entry {
                kind: record.class as u8,
                time_ms: record.time_ms,
                key: &record.key,
                value: &record.value,
            };
            self.log.append(&entry)?;
        }
        self.log.commit()?;
        Ok(())
    }

    fn retain(&mut self) {
        let now_ms = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64);
        if let Err(error) = self.log.retain(now_ms) {
            self.queue.metrics().failures.inc();
            tracing::warn!(
                error = crate::chain(&error),
                "old segments of the local log could not be removed"
            );
        }
    }

    fn compact(&mut self, left_before: &mut u64) {
        let Some(compaction) = self.compaction.clone() else { return };
        let size = self.log.bytes();
        if size <= compaction.above_bytes || size <= left_before.saturating_mul(8) {
            return;
        }
        let records = compaction.snapshot.records();
        let rewritten = self.log.roll().and_then(|()| {
            let first_kept = self.log.next_position();
            self.append_and_commit(records.iter())?;
            self.log.truncate_before(first_kept).map(|_| ())
        });
        match rewritten {
            Ok(()) => {
                *left_before = self.log.bytes();
                tracing::info!(
                    before = size,
                    after = *left_before,
                    records = records.len(),
                    "journal rewritten in short"
                );
            }
            Err(error) => {
                self.log.rollback();
                self.queue.metrics().failures.inc();
                tracing::warn!(error = crate::chain(&error), "the journal could not be rewritten in short");
            }
        }
    }
}
