//! A journal: the latest state of many keys, in a local log that is compacted from time to time.
//!
//! Owns nothing but the way there; the state itself belongs to whoever publishes it. A journal is not followed and not sent
//! anywhere: it is replayed when the gateway starts.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ocpp_log::{Item, Log, LogError, LogView};

use crate::dead_letter::DeadLetters;
use crate::error::StartError;
use crate::local_writer::{Compaction, LocalWriter, Snapshot};
use crate::metrics::BusMetrics;
use crate::publisher::Publisher;
use crate::queue::QueueLimits;
use crate::record::Record;
use crate::status::Status;
use crate::store::Store;

/// How a journal is written.
#[derive(Clone, Debug)]
pub struct JournalOptions {
    /// How many changes may wait for the disk.
    pub limits: QueueLimits,
    /// Commits begin at least this far apart.
    pub linger: Duration,
    /// Compact when the log has more bytes than this, and eight times more than the last compaction left.
    pub compact_above_bytes: u64,
    /// Folder for records that the log can never take.
    pub dead_letter_dir: PathBuf,
}

/// A running journal. Clones share it.
#[derive(Clone, Debug)]
pub struct Journal {
    store: Store,
}

/// Reads a journal from its beginning. Damaged regions are logged, as a lack of `what`; what is behind them is read.
///
/// # Errors
/// When a segment cannot be read at all.
pub fn replay(journal: &LogView, what: &str, mut each: impl FnMut(ocpp_log::Record)) -> Result<(), LogError> {
    const RECORDS: usize = 4096;
    const BYTES: usize = 4 << 20;
    let mut reader = journal.reader(journal.oldest());
    loop {
        let items = reader.read(RECORDS, BYTES)?;
        if items.is_empty() {
            return Ok(());
        }
        for item in items {
            match item {
                Item::Record(record) => each(record),
                Item::Gap { from, to, reason } => {
                    tracing::error!(from, to, ?reason, "{what} are missing from the journal");
                }
            }
        }
    }
}

impl Journal {
    /// Starts to write into a log that the caller has opened and replayed. `snapshot` says what to keep when it is compacted.
    ///
    /// # Errors
    /// When the operating system refuses a thread.
    pub fn start(
        log: Log,
        snapshot: Arc<dyn Snapshot>,
        options: JournalOptions,
        metrics: &BusMetrics,
    ) -> Result<Self, StartError> {
        let JournalOptions { limits, linger, compact_above_bytes, dead_letter_dir } = options;
        let store = Store::start(limits, metrics, |queue, health| {
            let compaction = Some(Compaction { snapshot, above_bytes: compact_above_bytes });
            let dead_letters = DeadLetters::new(dead_letter_dir);
            let writer = LocalWriter { log, queue, health, compaction, dead_letters, linger };
            Ok(move || writer.run())
        })?;
        Ok(Self { store })
    }

    /// Starts a journal that calls every record durable at once and stores nothing: for tests of what publishes into one.
    ///
    /// # Errors
    /// When the operating system refuses a thread.
    pub fn start_forgetful(limits: QueueLimits, metrics: &BusMetrics) -> Result<Self, StartError> {
        Ok(Self { store: Store::start_forgetful(limits, metrics)? })
    }

    /// A new publisher, with an order of its own.
    pub fn publisher(&self) -> Publisher {
        self.store.publisher()
    }

    /// Stores one record that needs no order among others, and waits until it is durable. If the wait is cancelled, the record may
    /// or may not be stored.
    pub async fn store(&self, record: Record) {
        self.store.store(record).await;
    }

    /// Where its health is read; valid after it is closed.
    pub fn status(&self) -> &Status {
        self.store.status()
    }

    /// Makes everything accepted durable and ends the writer. Nothing may be published any more. Blocks.
    ///
    /// Returns how many records were not durable at the deadline: nothing was answered for them.
    pub fn close(&self, deadline: Instant) -> usize {
        self.store.close(deadline)
    }
}
