//! The consumer: records from a Kafka topic, each with a receipt. The committed offset moves on only when everything before it is
//! acknowledged.
//!
//! Owns one OS thread with the client library's consumer, and for each partition what was handed out and not acknowledged.
//! Records of one partition may be acknowledged in any order, so a slow one holds up nobody; what is committed is the offset below
//! which all are. Does not know what a record says.
//!
//! Delivery is at least once: after a crash or a rebalance everything above the committed offset comes again, so whoever
//! takes records must know what it has seen. Bounded: at most `most_open` records are out at a time, and at most `widest` behind
//! the oldest of a partition; then the partitions are paused, and the group is kept alive meanwhile.

mod callbacks;
mod unacknowledged;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use prometheus::{IntCounter, IntGauge};
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _};
use rdkafka::message::{BorrowedMessage, Headers, Message};
use tokio::sync::mpsc;

use self::callbacks::Context;
use self::unacknowledged::{Ticket, Unacknowledged};
use super::options::{KafkaOptions, refused};
use crate::computed::ComputedGauge;
use crate::error::{KafkaError, StartError};
use crate::registrar::Registrar;
use crate::thread::Worker;

/// How long the thread waits for a record before it looks at everything else.
const POLL: Duration = Duration::from_millis(50);
/// How long the last commit may take when the thread ends.
const LAST_COMMIT: Duration = Duration::from_secs(2);

/// Where to read.
#[derive(Clone, Debug)]
pub struct ConsumerOptions {
    /// The topic.
    pub topic: String,
    /// The consumer group.
    pub group: String,
    /// The most records that are handed out and not acknowledged.
    pub most_open: usize,
    /// The most records of one partition from the oldest on that is not acknowledged: what comes again after a crash.
    pub widest: usize,
    /// Values longer than this are handed out cut to nothing, with [`Delivery::is_too_large`] set.
    pub max_value_bytes: usize,
}

/// Where a record is in Kafka: the same record has the same place whenever it comes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct RecordPlace {
    /// The partition.
    pub partition: i32,
    /// The offset.
    pub offset: i64,
}

/// A record that was handed out.
#[derive(Debug)]
pub struct Delivery {
    /// Where it is.
    pub place: RecordPlace,
    /// Its key, if it is UTF-8.
    pub key: Option<String>,
    /// Its value; empty if there is none.
    pub value: Bytes,
    /// The value was longer than allowed and is not here.
    pub is_too_large: bool,
    /// When it was produced, in milliseconds since 1970, if Kafka knows.
    pub produced_ms: Option<u64>,
    /// The `traceparent` header (W3C Trace Context).
    pub traceparent: Option<String>,
    /// Acknowledges the record.
    pub receipt: Receipt,
}

/// Acknowledges one record. If it is dropped instead, the offset stays where it is and the record comes again at the next start:
/// right when the process is ending, and wrong at any other time.
#[derive(Debug)]
#[must_use]
pub struct Receipt {
    unacknowledged: Arc<Unacknowledged>,
    ticket: Ticket,
}

impl Receipt {
    /// The record need not come again.
    pub fn ack(self) {
        self.unacknowledged.acknowledge(self.ticket);
    }
}

/// What a consumer counts.
#[derive(Clone, Debug)]
pub struct ConsumerMetrics {
    records: IntCounter,
    failures: IntCounter,
    pauses: IntCounter,
    open: ComputedGauge,
    partitions: IntGauge,
}

impl ConsumerMetrics {
    /// Registers the metrics of the consumer of commands.
    ///
    /// # Errors
    /// When they are registered already.
    pub fn register(registrar: &Registrar) -> Result<Self, prometheus::Error> {
        let registrar = registrar.within("commands_consumer_");
        let counter = |name, help| registrar.counter(name, help);
        let gauge = |name, help| registrar.gauge(name, help);
        Ok(Self {
            records: counter("records_total", "Records read from the topic of commands")?,
            failures: counter("failures_total", "Errors of the consumer of commands")?,
            pauses: counter("pauses_total", "Times the consumer paused because too many records were open")?,
            open: registrar.computed("open_records", "Records read and not acknowledged yet")?,
            partitions: gauge("partitions", "Partitions of the topic of commands that this node reads")?,
        })
    }
}

/// A running consumer.
#[derive(Debug)]
pub struct Consumer {
    stop: Arc<AtomicBool>,
    leave: Arc<AtomicBool>,
    worker: Worker,
}

impl Consumer {
    /// Starts to read. Kafka need not be reachable.
    ///
    /// # Errors
    /// When the client refuses its options or the operating system a thread.
    pub fn start(
        kafka: &KafkaOptions,
        options: ConsumerOptions,
        metrics: ConsumerMetrics,
    ) -> Result<(Self, mpsc::Receiver<Delivery>), StartError> {
        let unacknowledged = Arc::<Unacknowledged>::default();
        let shown = Arc::clone(&unacknowledged);
        metrics.open.show(move || shown.open());
        let context =
            Context { topic: options.topic.clone(), unacknowledged, metrics, logged: Mutex::default() };
        let consumer: BaseConsumer<Context> =
            kafka.consumer_config(&options)?.create_with_context(context).map_err(|error| refused(&error))?;
        consumer.subscribe(&[&options.topic]).map_err(|error| refused(&error))?;
        // As long as what may be open, so that handing over never waits.
        let (deliver, deliveries) = mpsc::channel(options.most_open);
        let (stop, leave) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let reader = Reader {
            consumer,
            options,
            deliver,
            stop: Arc::clone(&stop),
            leave: Arc::clone(&leave),
            assignment: 0,
            paused: false,
        };
        let worker = Worker::spawn("bus-consumer", move || reader.run(), || ())?;
        Ok((Self { stop, leave, worker }, deliveries))
    }

    /// Hands out nothing more. What is out may still be acknowledged, and is committed, until [`close`](Self::close).
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Release);
    }

    /// Commits what was acknowledged and leaves the group. Blocks, until the deadline at the latest.
    pub fn close(self, deadline: Instant) {
        self.stop();
        self.leave.store(true, Ordering::Release);
        self.worker.join(deadline);
    }
}

struct Reader {
    consumer: BaseConsumer<Context>,
    options: ConsumerOptions,
    deliver: mpsc::Sender<Delivery>,
    stop: Arc<AtomicBool>,
    leave: Arc<AtomicBool>,
    /// Counts the records, so that each could begin a new assignment of its partition.
    assignment: u64,
    paused: bool,
}

impl Reader {
    fn run(mut self) {
        let context = Arc::clone(self.consumer.context());
        let mut leave_by = None;
        loop {
            let open = context.unacknowledged.open();
            if self.leave.load(Ordering::Acquire) {
                // What is out may be acknowledged in the next moments; it need not come again then.
                let leave_by = *leave_by.get_or_insert_with(|| Instant::now() + LAST_COMMIT);
                if open == 0 || Instant::now() >= leave_by {
                    break;
                }
            }
            self.pause_or_resume(open, &context);
            context.store(&self.consumer);
            match self.consumer.poll(POLL) {
                None => {}
                // Read after the last moment, and read again at the next start.
                Some(Ok(_)) if self.stop.load(Ordering::Acquire) => {}
                Some(Ok(message)) => {
                    self.assignment += 1;
                    let delivery = self.delivery(&message, &context);
                    context.metrics.records.inc();
                    // The channel is as long as what may be open, so it is never full; without a reader the process is ending.
                    drop(self.deliver.try_send(delivery));
                }
                Some(Err(error)) => context.trouble(&error.to_string()),
            }
        }
        context.store(&self.consumer);
        if let Err(error) = self.consumer.commit_consumer_state(CommitMode::Sync) {
            tracing::debug!(%error, "nothing was committed at the end");
        }
    }

    fn delivery(&self, message: &BorrowedMessage<'_>, context: &Context) -> Delivery {
        let place = RecordPlace { partition: message.partition(), offset: message.offset() };
        let ticket = context.unacknowledged.hand_out(place, self.assignment);
        let value = message.payload().unwrap_or_default();
        let is_too_large = value.len() > self.options.max_value_bytes;
        let header = |name: &str| {
            let found = message.headers()?.iter().find(|header| header.key.eq_ignore_ascii_case(name))?;
            std::str::from_utf8(found.value?).ok().map(str::to_owned)
        };
        Delivery {
            place,
            key: message.key().and_then(|key| std::str::from_utf8(key).ok()).map(str::to_owned),
            value: if is_too_large { Bytes::new() } else { Bytes::copy_from_slice(value) },
            is_too_large,
            produced_ms: message.timestamp().to_millis().and_then(|millis| u64::try_from(millis).ok()),
            traceparent: header("traceparent"),
            receipt: Receipt { unacknowledged: Arc::clone(&context.unacknowledged), ticket },
        }
    }

    /// Pauses when too much is open, until a quarter of it is acknowledged. A partition that is assigned meanwhile is paused, too.
    fn pause_or_resume(&mut self, open: usize, context: &Context) {
        let most = self.options.most_open;
        let stopping = self.stop.load(Ordering::Acquire);
        let is_wide = context.unacknowledged.widest() >= self.options.widest;
        let pause = stopping || is_wide || open >= most || (self.paused && open > most - most / 4);
        if !pause && !self.paused {
            return;
        }
        let Ok(assignment) = self.consumer.assignment() else { return };
        let result = if pause { self.consumer.pause(&assignment) } else { self.consumer.resume(&assignment) };
        if let Err(error) = result {
            context.trouble(&error.to_string());
            return;
        }
        if pause && !self.paused {
            context.metrics.pauses.inc();
        }
        self.paused = pause;
    }
}

impl KafkaOptions {
    /// The consumer's options: those of the producer that also concern a consumer, and what receipts need.
    fn consumer_config(&self, consumer: &ConsumerOptions) -> Result<ClientConfig, KafkaError> {
        let mut config = ClientConfig::new();
        config.set_log_level(RDKafkaLogLevel::Warning);
        for (name, value) in &self.extra {
            if CONSUMER_TAKES.iter().any(|prefix| name.starts_with(prefix)) {
                config.set(name, value);
            }
        }
        let fetch = consumer.max_value_bytes.saturating_add(64 * 1024).clamp(1 << 20, 256 << 20).to_string();
        for (name, value) in [
            ("bootstrap.servers", self.brokers.as_str()),
            ("client.id", self.client_id.as_str()),
            ("group.id", consumer.group.as_str()),
            ("enable.auto.commit", "true"),
            ("auto.commit.interval.ms", "500"),
            // Only what was acknowledged.
            ("enable.auto.offset.store", "false"),
            // A new group begins with what is there, so nothing is lost. What is too old to be sent ends as expired.
            ("auto.offset.reset", "earliest"),
            // The other members keep their partitions while one joins or leaves.
            ("partition.assignment.strategy", "cooperative-sticky"),
            ("fetch.message.max.bytes", fetch.as_str()),
            ("queued.max.messages.kbytes", "65536"),
            ("fetch.wait.max.ms", "100"),
            // A topic that is made after the start is found within this time.
            ("topic.metadata.refresh.interval.ms", "10000"),
            // How long a node that was killed keeps its partitions: the shortest that brokers allow.
            ("session.timeout.ms", "6000"),
            ("heartbeat.interval.ms", "2000"),
            ("reconnect.backoff.ms", "100"),
            ("reconnect.backoff.max.ms", "2000"),
            ("socket.keepalive.enable", "true"),
        ] {
            config.set(name, value);
        }
        Ok(config)
    }
}

/// Options of `[bus.kafka.options]` that say how to reach Kafka, not how to produce.
const CONSUMER_TAKES: [&str; 12] = [
    "security.",
    "ssl.",
    "sasl.",
    "socket.",
    "broker.",
    "metadata.",
    "topic.metadata.",
    "enable.ssl",
    "enable.sasl",
    "client.",
    "reconnect.",
    "debug",
];
