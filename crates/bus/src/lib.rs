//! Events from the gateway to durable storage.
//!
//! ```text
//!  session ── Lane ──┐                                   ┌─ local log (group commit)
//!  session ── Lane ──┼─ Queue (bounded, counted) ── pump ┤
//!  session ── Lane ──┘                                   ├─ Kafka (acks=all, idempotent)
//!      ▲                                                 └─ spool, while Kafka does not acknowledge
//!      └───────────── durable up to ordinal n ────────────────┘
//! ```
//!
//! # The delivery contract
//!
//! * A record accepted by [`Lane::try_publish`] is kept in memory until storage acknowledged it, and then the lane says
//!   so. Nothing accepted is ever dropped by the bus; a record that storage can never take is set aside on disk, which
//!   counts as durable.
//! * When the queue is full nothing is accepted: the publisher waits, and so does whoever feeds the publisher (P2).
//! * Records of one lane reach storage in the order of the calls. Delivery is at least once: a record may be stored
//!   twice after a failure, with the same event `id`.
//! * What a crash loses is what no lane was told to be durable.
//!
//! The path through the files: [`event`] (the envelope) → [`record`] → [`lane`] → `queue` → `local`, or `pump` with `kafka` and `spool` →
//! `ocpp_log`; [`feed`] is the way back out for people who watch; [`metrics`] and [`health`] tell how it goes.

pub mod event;
pub mod feed;
pub mod health;
pub mod kafka;
pub mod lane;
pub mod local;
pub mod metrics;
mod pump;
pub mod queue;
pub mod record;
pub mod registrar;
mod set_aside;
pub mod spool;

use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::feed::Feed;
use crate::health::{BusHealth, HealthCell};
use crate::kafka::{KafkaError, KafkaOptions};
use crate::local::{Compaction, LocalPump};
use crate::metrics::BusMetrics;
use crate::pump::Pump;
use crate::queue::{Queue, QueueLimits, Taken};
use crate::set_aside::SetAside;
use ocpp_log::{Log, LogError, LogOptions, Recovery};

pub use crate::lane::{Durability, Lane};
pub use crate::record::{Class, Record};
pub use crate::registrar::Registrar;

/// Why a bus cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The local log cannot be opened.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The Kafka client refuses its configuration.
    #[error(transparent)]
    Kafka(#[from] KafkaError),
    /// The operating system refuses a thread.
    #[error("cannot start the bus's thread")]
    Thread(#[from] std::io::Error),
}

/// A running bus. Clones share it.
#[derive(Clone, Debug)]
pub struct Bus {
    queue: Arc<Queue>,
    health: Arc<HealthCell>,
    feed: Feed,
    pump: Arc<std::sync::Mutex<Option<JoinHandle<()>>>>,
}

impl Bus {
    /// Starts a bus that stores into a local log, already opened by the caller (who may have replayed it). Commits begin
    /// at least `linger` apart. A record that the log can never take is kept in the folder for what is set aside.
    ///
    /// # Errors
    /// When the operating system refuses a thread.
    pub fn start_local(
        name: &'static str,
        log: Log,
        limits: QueueLimits,
        linger: Duration,
        compaction: Option<Compaction>,
        set_aside_dir: PathBuf,
        metrics: BusMetrics,
    ) -> Result<Self, StartError> {
        let feed = Feed::log(log.view());
        let health = Arc::new(HealthCell::new(name, metrics.clone()));
        let queue = Arc::new(Queue::new(limits, metrics));
        let set_aside = SetAside::new(set_aside_dir);
        let pump = LocalPump {
            log,
            queue: Arc::clone(&queue),
            health: Arc::clone(&health),
            compaction,
            set_aside,
            linger,
        };
        let thread = pump.spawn(name)?;
        Ok(Self { queue, health, feed, pump: Arc::new(std::sync::Mutex::new(Some(thread))) })
    }

    /// Starts a bus that sends to Kafka. Kafka need not be reachable: the bus is `Starting` until it is.
    ///
    /// # Errors
    /// When the client refuses its options, when the folder for what cannot be delivered cannot be opened, or when the
    /// operating system refuses a thread.
    pub fn start_kafka(
        name: &'static str,
        options: KafkaOptions,
        limits: QueueLimits,
        metrics: BusMetrics,
    ) -> Result<Self, StartError> {
        let feed = Feed::live();
        let health = Arc::new(HealthCell::new(name, metrics.clone()));
        let queue = Arc::new(Queue::new(limits, metrics));
        let thread = Pump::spawn(options, Arc::clone(&queue), Arc::clone(&health), feed.clone())?;
        Ok(Self { queue, health, feed, pump: Arc::new(std::sync::Mutex::new(Some(thread))) })
    }

    /// A bus that calls every record durable at once and stores nothing: what the guarantee costs is measured against it.
    /// Nothing in the gateway's configuration leads here.
    ///
    /// # Errors
    /// When the operating system refuses a thread.
    pub fn start_forgetful(limits: QueueLimits, metrics: BusMetrics) -> Result<Self, StartError> {
        let health = Arc::new(HealthCell::new("forgetful", metrics.clone()));
        let queue = Arc::new(Queue::new(limits, metrics));
        let taken = Arc::clone(&queue);
        health.direct();
        let thread = std::thread::Builder::new().name("bus-forgetful".into()).spawn(move || {
            while let Taken::Batch(batch) = taken.take(usize::MAX, Duration::from_secs(1)) {
                batch.into_iter().for_each(queue::InFlight::durable);
            }
        })?;
        Ok(Self { queue, health, feed: Feed::live(), pump: Arc::new(std::sync::Mutex::new(Some(thread))) })
    }

    /// A new lane.
    pub fn lane(&self) -> Lane {
        Lane::new(Arc::clone(&self.queue))
    }

    /// Stores one record that stands in no order with others, and waits until it is durable. Cancelling the wait may or may not
    /// have stored it.
    pub async fn store(&self, record: Record) {
        let mut lane = self.lane();
        let ordinal = lane.publish(record).await;
        lane.durability().wait(ordinal).await;
    }

    /// How the bus is doing; also brings its gauges up to date.
    pub fn health(&self) -> BusHealth {
        let pump = self.pump.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if pump.as_ref().is_some_and(JoinHandle::is_finished) && !self.queue.is_closed() {
            self.health.holding("the bus's thread has ended; only a restart helps".into());
        }
        drop(pump);
        self.health.read(&self.queue)
    }

    /// The way to watch what became durable.
    pub fn feed(&self) -> &Feed {
        &self.feed
    }

    /// Accepts what is still coming for no longer, makes everything accepted durable and ends the pump. Blocks.
    ///
    /// Gives the number of records that were not durable at the deadline: nothing was answered for them.
    pub fn close(&self, deadline: Instant) -> usize {
        self.queue.close();
        let thread = self.pump.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take();
        if let Some(thread) = thread {
            while !thread.is_finished() && Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(5));
            }
            if thread.is_finished() && thread.join().is_err() {
                tracing::error!("the bus's thread ended with a panic");
            }
        }
        self.queue.in_flight().0
    }
}

/// An error with everything behind it, in one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

/// Opens a local log and says in the log what recovery found.
///
/// # Errors
/// When the log cannot be opened: no access, no space, or another process holds it.
pub fn open_log(options: LogOptions, metrics: &BusMetrics) -> Result<Log, LogError> {
    let dir = options.dir.clone();
    let (log, recovery) = Log::open(options)?;
    report(&dir, &recovery, metrics);
    prove_writable(&dir)?;
    Ok(log)
}

/// Writes something, so that a disk that is full or cannot be written shows at the start and not at the first event.
fn prove_writable(dir: &std::path::Path) -> Result<(), LogError> {
    const BYTES: usize = 64 * 1024;
    let path = dir.join("room.tmp");
    let written = std::fs::File::create(&path).and_then(|mut file| {
        std::io::Write::write_all(&mut file, &[0; BYTES])?;
        file.sync_all()
    });
    let removed = std::fs::remove_file(&path);
    written.and(removed).map_err(|source| LogError::Io { action: "write", path, source })
}

fn report(dir: &std::path::Path, recovery: &Recovery, metrics: &BusMetrics) {
    let damaged = recovery.damaged.len() as u64;
    metrics.log_damaged.inc_by(damaged);
    if damaged > 0 {
        tracing::error!(dir = %dir.display(), damaged, ?recovery, "the local log was damaged; the damage is set aside beside it");
    } else {
        tracing::info!(dir = %dir.display(), ?recovery, "local log opened");
    }
}
