//! Records from the gateway to durable storage.
//!
//! ```text
//!  session ── Publisher ──┐                                       ┌─ local log (group commit)
//!  session ── Publisher ──┼─ Queue (bounded, counted) ── writer ──┤
//!  session ── Publisher ──┘                                       ├─ Kafka (acks=all, idempotent)
//!      ▲                                                          └─ spool, while Kafka does not acknowledge
//!      └───────────── durable up to sequence number n ───────────────┘
//! ```
//!
//! A [`Bus`] carries records to consumers elsewhere: through Kafka, or through a local log that can be followed. A [`Journal`]
//! keeps the latest state of many keys for the gateway itself. Neither knows what a record says.
//!
//! # The delivery contract
//!
//! * A record accepted by [`Publisher::try_publish`] stays in memory until storage has acknowledged it, and then the publisher's
//!   [`DurableWatermark`] says so. Nothing accepted is ever dropped; a record that storage can never take becomes a dead letter
//!   on disk, which counts as durable.
//! * When the queue is full nothing is accepted: the publisher waits, and so does whoever feeds the publisher (P2).
//! * Records of one publisher reach storage in the order of the calls. Delivery is at least once: after a failure a record may
//!   be stored twice, byte for byte the same.
//! * A crash loses only records that no watermark has reached.
//!
//! # The order of the files
//!
//! `tools/layering/layers.txt` holds it: [`record`], `watermark`, [`health`] and the like at the bottom, then [`queue`], `publisher` and
//! `status`, then the writers with [`spool`], then [`journal`], [`kafka`] and the [`Bus`] itself.

mod computed;
mod counters;
mod dead_letter;
mod durable;
mod error;
pub mod health;
pub mod journal;
pub mod kafka;
mod local_writer;
pub mod metrics;
mod publisher;
pub mod queue;
pub mod record;
pub mod registrar;
pub mod spool;
mod status;
mod storage;
mod store;
pub mod tail;
mod thread;
mod watermark;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use ocpp_log::Log;

use crate::dead_letter::DeadLetters;
use crate::kafka::{KafkaOptions, KafkaWriter};
use crate::local_writer::LocalWriter;
use crate::metrics::BusMetrics;
use crate::queue::QueueLimits;
use crate::store::Store;
use crate::tail::Tail;

pub use crate::computed::ComputedGauge;
pub use crate::durable::DurableWatermark;
pub use crate::error::{KafkaError, StartError, chain};
pub use crate::journal::{Journal, JournalOptions, replay};
pub use crate::local_writer::Snapshot;
pub use crate::publisher::Publisher;
pub use crate::record::{Record, RecordKind};
pub use crate::registrar::Registrar;
pub use crate::status::Status;
pub use crate::storage::open_log;

/// How a bus with a local log is written.
#[derive(Clone, Debug)]
pub struct LocalOptions {
    /// How many records may wait for the disk.
    pub limits: QueueLimits,
    /// Commits begin at least this far apart.
    pub linger: Duration,
    /// Folder for records that the log can never take.
    pub dead_letter_dir: PathBuf,
}

/// A running bus. Clones share it.
#[derive(Clone, Debug)]
pub struct Bus {
    store: Store,
    tail: Tail,
}

impl Bus {
    /// Starts a bus that stores into a local log, which the caller has opened.
    ///
    /// # Errors
    /// When the operating system refuses a thread.
    pub fn start_local(log: Log, options: LocalOptions, metrics: &BusMetrics) -> Result<Self, StartError> {
        let LocalOptions { limits, linger, dead_letter_dir } = options;
        let tail = Tail::Log(log.view());
        let store = Store::start(limits, metrics, |queue, health| {
            let dead_letters = DeadLetters::new(dead_letter_dir);
            let writer = LocalWriter { log, queue, health, compaction: None, dead_letters, linger };
            Ok(move || writer.run())
        })?;
        Ok(Self { store, tail })
    }

    /// Starts a bus that sends to Kafka. Kafka need not be reachable: the bus is `Starting` until it is.
    ///
    /// # Errors
    /// When the client refuses its options, when the spool cannot be opened, or when the operating system refuses a thread.
    pub fn start_kafka(
        options: KafkaOptions,
        limits: QueueLimits,
        metrics: &BusMetrics,
    ) -> Result<Self, StartError> {
        let tail = Tail::live();
        let store = Store::start(limits, metrics, |queue, health| {
            let writer = KafkaWriter::open(options, queue, health, tail.clone())?;
            Ok(move || writer.run())
        })?;
        Ok(Self { store, tail })
    }

    /// Starts a bus that calls every record durable at once and stores nothing: the cost of the guarantee is measured against it.
    /// Nothing in the gateway's configuration leads here.
    ///
    /// # Errors
    /// When the operating system refuses a thread.
    pub fn start_forgetful(limits: QueueLimits, metrics: &BusMetrics) -> Result<Self, StartError> {
        Ok(Self { store: Store::start_forgetful(limits, metrics)?, tail: Tail::live() })
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

    /// How to follow what becomes durable.
    pub fn tail(&self) -> &Tail {
        &self.tail
    }

    /// Makes everything accepted durable and ends the writer. Nothing may be published any more. Blocks.
    ///
    /// Returns how many records were not durable at the deadline: nothing was answered for them.
    pub fn close(&self, deadline: Instant) -> usize {
        self.store.close(deadline)
    }
}
