//! The spool: where records become durable while Kafka does not acknowledge, and from which they are sent when it does.
//!
//! Owns a local log, the watermark up to which Kafka has it (saved as the cursor), and the limits. Does not decide when to spool
//! or to drain, and does not send (`kafka/writer.rs`).
//!
//! A record is in the spool until Kafka has acknowledged it. The cursor is written now and then; after a crash, what Kafka has
//! acknowledged since is sent again, byte for byte the same. Nothing is ever removed because of a limit: a full spool takes
//! nothing more, and then the bus holds records back.

mod cursor;
mod rate;

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use ocpp_log::{Item, Log, LogError, LogOptions, LogReader};

use self::rate::DrainRate;
use crate::counters::Counters;
use crate::error::chain;
use crate::health::SpoolHealth;
use crate::queue::{InFlight, Receipt};
use crate::record::Record;
use crate::watermark::Watermark;

/// How large and how old a spool may become.
#[derive(Clone, Debug)]
pub struct SpoolOptions {
    /// Its folder.
    pub dir: PathBuf,
    /// The most bytes it may take on disk.
    pub max_bytes: u64,
    /// Nothing more is taken while the oldest record is older than this.
    pub max_age: Duration,
    /// The fill level (0 to 1) from which the alarm metric is 1.
    pub alarm_level: f64,
    /// The largest record, in bytes.
    pub max_record_bytes: u32,
    /// Without an acknowledgement for this long, records go to the spool.
    pub after: Duration,
}

/// Why the spool did not take records. They are where they were.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SpoolError {
    #[error("the spool in {dir} is full: {bytes} of {max_bytes} bytes", dir = dir.display())]
    Full { dir: PathBuf, bytes: u64, max_bytes: u64 },
    #[error("the oldest record of the spool in {dir} is older than {}", humantime::format_duration(*max_age), dir = dir.display())]
    TooOld { dir: PathBuf, max_age: Duration },
    #[error("{}", chain(.0))]
    Log(LogError),
}

/// The cursor is written this often while the spool drains.
const CURSOR_EVERY: Duration = Duration::from_secs(1);
/// The age of the oldest record is known to this much.
const AGE_STEP_MS: u64 = 10_000;

/// A spool.
pub(crate) struct Spool {
    log: Log,
    options: SpoolOptions,
    reader: LogReader,
    /// What Kafka has, or will never have.
    sent: Arc<Mutex<Watermark>>,
    cursor: u64,
    cursor_at: Instant,
    /// Positions with the times of their records, some seconds apart: the age of what is left.
    ages: VecDeque<(u64, u64)>,
    rate: DrainRate,
}

impl Spool {
    pub(crate) fn open(options: SpoolOptions, counters: &Counters) -> Result<Self, LogError> {
        // Room comes back a segment at a time, so a spool has at least a dozen.
        let segment_bytes =
            (options.max_bytes / 16).clamp(u64::from(options.max_record_bytes) + 4096, 64 << 20);
        let log = crate::storage::open(
            LogOptions {
                dir: options.dir.clone(),
                segment_bytes,
                max_bytes: 0,
                max_age: None,
                max_record_bytes: options.max_record_bytes,
            },
            counters,
        )?;
        let cursor = cursor::read(&options.dir).clamp(log.oldest_position(), log.next_position());
        let sent = Arc::new(Mutex::new(Watermark::at(cursor)));
        let reader = log.view().reader(cursor);
        let mut spool = Self {
            log,
            options,
            reader,
            sent,
            cursor,
            cursor_at: Instant::now(),
            ages: VecDeque::new(),
            rate: DrainRate::default(),
        };
        if let Some(Item::Record(first)) = spool.log.view().reader(cursor).read(1, 1)?.into_iter().next() {
            spool.ages.push_back((first.position, first.time_ms));
        }
        Ok(spool)
    }

    /// Kafka has everything.
    pub(crate) fn is_empty(&self) -> bool {
        self.remaining() == 0
    }

    /// Records that Kafka does not have.
    pub(crate) fn remaining(&self) -> u64 {
        self.log.next_position().saturating_sub(self.sent_below())
    }

    /// The first position that Kafka does not have.
    fn sent_below(&self) -> u64 {
        self.sent.lock().unwrap_or_else(PoisonError::into_inner).reached()
    }

    /// Everything has been read for sending.
    pub(crate) fn is_read(&self) -> bool {
        self.reader.position() >= self.log.next_position()
    }

    pub(crate) fn read_position(&self) -> u64 {
        self.reader.position()
    }

    pub(crate) fn after(&self) -> Duration {
        self.options.after
    }

    /// Makes records durable, all or none.
    pub(crate) fn store<'a>(&mut self, records: impl Iterator<Item = &'a Record>) -> Result<(), SpoolError> {
        let first = self.log.next_position();
        let stored = self.append_and_commit(records);
        if stored.is_err() {
            // The batch stays with its owner, who will offer it again; the log must not count it.
            self.log.rollback();
        }
        let newest_ms = stored?;
        if self.ages.back().is_none_or(|(_, time_ms)| newest_ms >= time_ms + AGE_STEP_MS) {
            self.ages.push_back((first, newest_ms));
        }
        Ok(())
    }

    fn append_and_commit<'a>(
        &mut self,
        records: impl Iterator<Item = &'a Record>,
    ) -> Result<u64, SpoolError> {
        let SpoolOptions { dir, max_bytes, max_age, .. } = &self.options;
        if !max_age.is_zero() && self.oldest_age() > *max_age {
            return Err(SpoolError::TooOld { dir: dir.clone(), max_age: *max_age });
        }
        let mut bytes = self.log.bytes();
        let mut newest_ms = 0;
        for record in records {
            bytes += u64::from(record.cost());
            if bytes > *max_bytes {
                return Err(SpoolError::Full {
                    dir: dir.clone(),
                    bytes: self.log.bytes(),
                    max_bytes: *max_bytes,
                });
            }
            newest_ms = record.time_ms;
            self.log.append(&record.to_log()).map_err(SpoolError::Log)?;
        }
        self.log.commit().map_err(SpoolError::Log)?;
        Ok(newest_ms)
    }

    /// Whether the spool can take a record at all.
    pub(crate) fn takes(&self, record: &Record) -> bool {
        self.log.takes(&record.key, &record.value)
    }

    /// Reads the next records for sending. Damage is reported and passed over; the log keeps a copy of the bytes.
    pub(crate) fn read(&mut self, most_records: usize, most_bytes: usize) -> Result<Vec<InFlight>, LogError> {
        let items = self.reader.read(most_records, most_bytes)?;
        let mut records = Vec::with_capacity(items.len());
        for item in items {
            match item {
                Item::Record(record) => records.push(self.in_flight(record)),
                Item::Gap { from, to, reason } => {
                    tracing::error!(from, to, ?reason, dir = %self.options.dir.display(), "records of the spool are lost");
                    self.sent.lock().unwrap_or_else(PoisonError::into_inner).complete(from..to);
                }
            }
        }
        Ok(records)
    }

    fn in_flight(&self, stored: ocpp_log::Record) -> InFlight {
        InFlight {
            sequence: stored.position,
            accepted_at: Instant::now(),
            receipt: Receipt::Spool(Arc::clone(&self.sent)),
            record: Record::from_log(stored),
        }
    }

    /// Sends again from the first record that Kafka has not acknowledged.
    pub(crate) fn rewind(&mut self) {
        self.reader = self.log.view().reader(self.sent_below());
    }

    /// Writes the cursor if it is time or must be `now`, and frees the disk space of what Kafka has.
    pub(crate) fn settle(&mut self, now: bool) {
        let sent_below = self.sent_below();
        while self.ages.get(1).is_some_and(|(position, _)| *position <= sent_below) {
            self.ages.pop_front();
        }
        if self.is_empty() {
            self.ages.clear();
        }
        if sent_below == self.cursor || (self.cursor_at.elapsed() < CURSOR_EVERY && !now) {
            return;
        }
        self.cursor_at = Instant::now();
        if let Err(error) = cursor::write(&self.options.dir, sent_below) {
            // An old cursor only means that more is sent again after a crash. What Kafka has is removed all the same, or a full
            // disk would stay full; a cursor before the oldest record means the oldest record.
            tracing::warn!(%error, dir = %self.options.dir.display(), "the spool's cursor cannot be written");
        } else {
            self.cursor = sent_below;
        }
        let freed = if self.is_empty() {
            self.log.roll().and_then(|()| self.log.truncate_before(self.log.next_position()).map(|_| ()))
        } else {
            self.log.truncate_before(sent_below).map(|_| ())
        };
        if let Err(error) = freed {
            tracing::warn!(error = chain(&error), "the spool's sent segments cannot be removed");
        }
    }

    pub(crate) fn health(&mut self) -> SpoolHealth {
        let (records, bytes) = (self.remaining(), self.log.bytes());
        let fill = bytes as f64 / self.options.max_bytes as f64;
        SpoolHealth {
            records,
            bytes,
            capacity_bytes: self.options.max_bytes,
            oldest: self.oldest_age(),
            alarm: records > 0 && fill >= self.options.alarm_level,
            time_to_drain: self.rate.estimate(Instant::now(), records),
        }
    }

    fn oldest_age(&self) -> Duration {
        let Some((_, time_ms)) = self.ages.front().filter(|_| !self.is_empty()) else {
            return Duration::ZERO;
        };
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        now.saturating_sub(Duration::from_millis(*time_ms))
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::record::RecordKind;
    use crate::registrar::Registrar;

    fn options(dir: &Path) -> SpoolOptions {
        SpoolOptions {
            dir: dir.to_path_buf(),
            max_bytes: 1 << 20,
            max_age: Duration::from_secs(3600),
            alarm_level: 0.5,
            max_record_bytes: 64 * 1024,
            after: Duration::from_secs(5),
        }
    }

    fn open(dir: &Path) -> Spool {
        let counters = Counters::register(&Registrar::default()).unwrap();
        Spool::open(options(dir), &counters).unwrap()
    }

    fn record(number: usize, bytes: usize) -> Record {
        let time_ms = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64;
        let value = format!("{number:0bytes$}").into();
        Record { kind: RecordKind(0), time_ms, key: "CP-1".into(), value }
    }

    fn numbers(records: &[InFlight]) -> Vec<usize> {
        records
            .iter()
            .map(|in_flight| std::str::from_utf8(&in_flight.record.value).unwrap().parse().unwrap())
            .collect()
    }

    #[test]
    fn what_kafka_acknowledged_is_not_sent_again_and_the_rest_is() {
        let dir = tempfile::tempdir().unwrap();
        let mut spool = open(dir.path());
        let records: Vec<_> = (0..10).map(|number| record(number, 4)).collect();
        spool.store(records.iter()).unwrap();
        let mut read = spool.read(100, 1 << 20).unwrap();
        assert_eq!(numbers(&read), (0..10).collect::<Vec<_>>());
        // Acknowledged out of order, with a hole at 3.
        for index in [2, 0, 1, 4] {
            read[index].record.value = bytes::Bytes::new();
        }
        for in_flight in read {
            if in_flight.record.value.is_empty() {
                in_flight.acknowledge();
            }
        }
        assert_eq!(spool.remaining(), 7);
        spool.rewind();
        assert_eq!(numbers(&spool.read(100, 1 << 20).unwrap()), (3..10).collect::<Vec<_>>());
        spool.settle(true);
        drop(spool);
        let mut spool = open(dir.path());
        assert_eq!(spool.remaining(), 7, "the cursor survives");
        for in_flight in spool.read(100, 1 << 20).unwrap() {
            in_flight.acknowledge();
        }
        assert!(spool.is_empty());
        spool.settle(true);
        assert!(spool.health().bytes < 1024, "the room is given back");
    }

    #[test]
    fn a_damaged_cursor_means_that_everything_is_sent_again() {
        let dir = tempfile::tempdir().unwrap();
        let mut spool = open(dir.path());
        spool.store([record(0, 4), record(1, 4)].iter()).unwrap();
        drop(spool);
        std::fs::write(dir.path().join("cursor"), "1 00000000\n").unwrap();
        assert_eq!(open(dir.path()).remaining(), 2);
    }

    #[test]
    fn a_full_spool_takes_nothing_and_loses_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let mut spool = open(dir.path());
        let mut stored = 0;
        let error = loop {
            match spool.store(std::iter::once(&record(stored, 30_000))) {
                Ok(()) => stored += 1,
                Err(error) => break error,
            }
        };
        assert!(matches!(error, SpoolError::Full { .. }), "{error}");
        assert!(spool.health().alarm && stored > 20);
        let mut sent = 0;
        while let Some(in_flight) = spool.read(1, 1).unwrap().into_iter().next() {
            in_flight.acknowledge();
            sent += 1;
        }
        assert_eq!(sent, stored);
        spool.settle(true);
        spool.store(std::iter::once(&record(0, 30_000))).unwrap();
    }

    #[test]
    fn a_spool_that_is_too_old_takes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let mut spool = open(dir.path());
        let old = Record { time_ms: 1, ..record(0, 4) };
        spool.store(std::iter::once(&old)).unwrap();
        let refused = spool.store(std::iter::once(&record(1, 4)));
        assert!(matches!(refused, Err(SpoolError::TooOld { .. })), "{refused:?}");
    }
}
