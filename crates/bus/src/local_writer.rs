//! The writer of a local bus and of a journal: queue → local log, with group commit.
//!
//! Owns one OS thread (fdatasync blocks) and the log's writer. While one group is synced the next one gathers in the queue, so
//! groups grow with the load by themselves: a single record waits for one sync, and under load thousands share it. Does not own
//! the log's format (`ocpp_log`).

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use ocpp_log::{Log, LogError};

use crate::dead_letter::DeadLetters;
use crate::error::chain;
use crate::health::{BusState, HealthCell};
use crate::queue::{Batches, InFlight, Queue, Taken};
use crate::record::Record;

/// The state that a journal describes.
pub trait Snapshot: Send + Sync {
    /// Returns the state to keep when the journal is compacted: the latest record of every key. Called on the writer's thread. A
    /// record published before the call may be written again after it, so a reader must be able to tell which of two records of
    /// a key is newer.
    fn records(&self) -> Vec<Record>;
}

/// When and how a journal is compacted: its latest records are written again, and everything before them is deleted.
#[derive(Clone)]
pub(crate) struct Compaction {
    pub(crate) snapshot: Arc<dyn Snapshot>,
    /// Compact when the log has more bytes than this, and eight times more than the last compaction left.
    pub(crate) above_bytes: u64,
}

/// The most records of one group; bounds how long one commit takes.
const GROUP_RECORDS: usize = 16_384;
/// How often retention looks when nothing else happens.
const TICK: Duration = Duration::from_secs(1);
/// Pause before a failed commit is tried again.
const RETRY: Duration = Duration::from_millis(500);

pub(crate) struct LocalWriter {
    pub(crate) log: Log,
    pub(crate) queue: Arc<Queue>,
    pub(crate) health: Arc<HealthCell>,
    pub(crate) compaction: Option<Compaction>,
    /// Where a record goes that the log can never take.
    pub(crate) dead_letters: DeadLetters,
    /// Commits begin at least this far apart.
    pub(crate) linger: Duration,
}

impl LocalWriter {
    pub(crate) fn run(mut self) {
        self.health.report(BusState::Direct, None);
        let mut batches = Batches::new(Arc::clone(&self.queue), self.linger);
        let mut looked_at_retention = Instant::now();
        let mut left_by_compaction = self.log.bytes();
        loop {
            match batches.take(GROUP_RECORDS, TICK) {
                Taken::Closed => break,
                Taken::Batch(group) if !group.is_empty() => self.store(group),
                Taken::Batch(_) => {}
            }
            if looked_at_retention.elapsed() >= TICK {
                looked_at_retention = Instant::now();
                self.retain();
                self.compact(&mut left_by_compaction);
            }
            self.queue.counters().log_bytes.set(i64::try_from(self.log.bytes()).unwrap_or(i64::MAX));
        }
        self.health.report_oldest(None);
    }

    /// Makes one group durable, however long it takes, and acknowledges it.
    fn store(&mut self, group: Vec<InFlight>) {
        let counters = self.queue.counters().clone();
        let (group, too_large): (Vec<_>, Vec<_>) = group
            .into_iter()
            .partition(|in_flight| self.log.takes(&in_flight.record.key, &in_flight.record.value));
        for in_flight in too_large {
            counters.failures.inc();
            self.dead_letters.store(
                &in_flight.record,
                "local log",
                "larger than the log's largest record",
                &self.health,
            );
            counters.dead_letters.inc();
            counters.durable.inc();
            in_flight.acknowledge();
        }
        self.health.report_oldest(group.first().map(|in_flight| in_flight.accepted_at));
        while let Err(error) = self.append_and_commit(group.iter().map(|in_flight| &in_flight.record)) {
            counters.failures.inc();
            self.health.report(BusState::Holding, Some(chain(&error)));
            std::thread::sleep(RETRY);
            // Expired records may be what the disk is full of.
            self.retain();
        }
        counters.batch_records.observe(group.len() as f64);
        counters.durable.inc_by(group.len() as u64);
        // Before anybody acts on it: who has been answered must not find the journal still holding.
        self.health.report_oldest(None);
        self.health.report(BusState::Direct, None);
        for in_flight in group {
            counters.latency_seconds.observe(in_flight.accepted_at.elapsed().as_secs_f64());
            in_flight.acknowledge();
        }
    }

    fn append_and_commit<'a>(&mut self, records: impl Iterator<Item = &'a Record>) -> Result<(), LogError> {
        self.log.rollback();
        for record in records {
            self.log.append(&record.to_log())?;
        }
        self.log.commit()?;
        Ok(())
    }

    fn retain(&mut self) {
        let now_ms = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64);
        if let Err(error) = self.log.retain(now_ms) {
            self.queue.counters().failures.inc();
            tracing::warn!(error = chain(&error), "old segments of the local log could not be removed");
        }
    }

    fn compact(&mut self, left_before: &mut u64) {
        let Some(compaction) = self.compaction.clone() else { return };
        let size = self.log.bytes();
        if size <= compaction.above_bytes || size <= left_before.saturating_mul(8) {
            return;
        }
        let records = compaction.snapshot.records();
        let compacted = self.log.roll().and_then(|()| {
            let first_kept = self.log.next_position();
            self.append_and_commit(records.iter())?;
            self.log.truncate_before(first_kept).map(|_| ())
        });
        match compacted {
            Ok(()) => {
                *left_before = self.log.bytes();
                tracing::info!(
                    before = size,
                    after = *left_before,
                    records = records.len(),
                    "journal compacted"
                );
            }
            Err(error) => {
                self.log.rollback();
                self.queue.counters().failures.inc();
                tracing::warn!(error = chain(&error), "the journal could not be compacted");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::task::{Context, Wake, Waker};

    use ocpp_log::LogOptions;

    use super::*;
    use crate::metrics::BusMetrics;
    use crate::publisher::Publisher;
    use crate::queue::QueueLimits;
    use crate::record::RecordKind;
    use crate::registrar::Registrar;

    /// Looks at the health when it is woken.
    struct Look {
        health: Arc<HealthCell>,
        seen: Mutex<Option<BusState>>,
    }

    impl Wake for Look {
        fn wake(self: Arc<Self>) {
            *self.seen.lock().unwrap() = Some(self.health.read().state);
        }
    }

    #[test]
    fn who_learns_that_a_record_is_durable_finds_that_records_become_durable() {
        let dir = tempfile::tempdir().unwrap();
        let metrics = BusMetrics::register(&Registrar::default(), "events").unwrap();
        let queue = Arc::new(Queue::new(QueueLimits { records: 10, bytes: 10_000 }, metrics.counters));
        let health = Arc::new(HealthCell::new("events"));
        let mut writer = LocalWriter {
            log: Log::open(LogOptions::new(dir.path().join("log"))).unwrap().0,
            queue: Arc::clone(&queue),
            health: Arc::clone(&health),
            compaction: None,
            dead_letters: DeadLetters::new(dir.path().to_path_buf()),
            linger: Duration::ZERO,
        };
        health.report(BusState::Holding, Some("the disk is full".into()));

        let mut publisher = Publisher::new(Arc::clone(&queue));
        let record = Record { kind: RecordKind(0), time_ms: 0, key: "CP-1".into(), value: "{}".into() };
        publisher.try_publish(record).unwrap();
        let look = Arc::new(Look { health, seen: Mutex::default() });
        let waker = Waker::from(Arc::clone(&look));
        assert!(publisher.watermark().poll_reached(&Context::from_waker(&waker), 1).is_pending());
        let Taken::Batch(group) = queue.take(10, Duration::ZERO) else { panic!("closed") };
        writer.store(group);
        assert_eq!(*look.seen.lock().unwrap(), Some(BusState::Direct));
    }
}
