//! The pump of a Kafka bus: queue → Kafka, acknowledged by all in-sync replicas.
//!
//! The only file that names the Kafka client. Owns one OS thread that hands records to the client, and what happens to
//! the ones that come back. Order: one thread sends, the producer is idempotent, and after any failed record nothing
//! further is sent until everything that was in flight has come back and the order is restored. Two kinds of failure:
//!
//! * one that trying again cannot mend (too large, unknown topic, not allowed): the record is set aside on disk;
//! * any other: the record is sent again, for as long as it takes. The client itself never gives up on a record
//!   (`message.timeout.ms` = 0), so this is rare: it takes a fatal error of the client.

use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rdkafka::ClientContext;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::error::{KafkaError as ClientError, RDKafkaErrorCode};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{
    BaseRecord, DeliveryResult, Producer, ProducerContext, PurgeConfig, ThreadedProducer,
};

use crate::StartError;
use crate::event::CONTENT_TYPE;
use crate::feed::Feed;
use crate::health::HealthCell;
use crate::queue::{InFlight, Queue, QueueLimits, Taken};
use crate::record::{Class, Record};
use crate::set_aside::SetAside;

/// Records handed to the client between two looks at what came back.
const BATCH_RECORDS: usize = 1024;
/// How often the pump looks at what came back, and at the broker, when nothing is sent.
const TICK: Duration = Duration::from_millis(200);
/// How often an idle or unreachable broker is asked for a sign of life, and how long it may take to give it.
const PROBE_EVERY: Duration = Duration::from_secs(2);
const PROBE_TIMEOUT: Duration = Duration::from_secs(1);
/// Waiting before records that came back are sent again.
const RETRY: Duration = Duration::from_millis(500);

/// Client options that would break a promise, and therefore cannot be set.
const FIXED_OPTIONS: [(&str, &str); 4] = [
    ("acks", "all"),
    ("enable.idempotence", "true"),
    // The client keeps trying for as long as the gateway holds the answer back.
    ("message.timeout.ms", "0"),
    ("enable.gapless.guarantee", "false"),
];

/// How to reach Kafka and where records go.
#[derive(Clone, Debug)]
pub struct KafkaOptions {
    /// `host:port`, separated by commas.
    pub brokers: String,
    /// The name the broker sees.
    pub client_id: String,
    /// `none`, `gzip`, `snappy`, `lz4` or `zstd`.
    pub compression: String,
    /// How long the client gathers records for one request.
    pub linger: Duration,
    /// Not ready when nothing was acknowledged for this long while records wait.
    pub unready_after: Duration,
    /// The largest record, in bytes; the broker's own limit must not be lower.
    pub max_record_bytes: usize,
    /// Topic of station and message events.
    pub events_topic: String,
    /// Topic of command results.
    pub command_results_topic: String,
    /// Folder for records that Kafka can never take.
    pub set_aside_dir: PathBuf,
    /// Further client options (TLS, SASL and so on), passed through as they are.
    pub extra: BTreeMap<String, String>,
}

/// Why the client refuses its configuration.
#[derive(Debug, thiserror::Error)]
pub enum KafkaError {
    /// An option that the gateway fixes.
    #[error(
        "the Kafka option {0:?} is fixed to {1:?}: another value would break answer-after-durable or the order"
    )]
    Fixed(String, &'static str),
    /// An option that the client does not know, or a value that it does not take.
    #[error("the Kafka client refuses its options: {0}")]
    Refused(ClientError),
    /// The folder for what cannot be delivered.
    #[error("cannot open {path}: {source}", path = path.display())]
    SetAside {
        /// The folder.
        path: PathBuf,
        /// What the operating system says.
        source: std::io::Error,
    },
}

impl KafkaOptions {
    /// Checks the options without connecting.
    ///
    /// # Errors
    /// When an option is fixed, unknown, or has a value that the client does not take.
    pub fn check(&self) -> Result<(), KafkaError> {
        self.client_config(QueueLimits { records: 1, bytes: 1024 })?
            .create_native_config()
            .map(|_| ())
            .map_err(KafkaError::Refused)
    }

    fn client_config(&self, limits: QueueLimits) -> Result<ClientConfig, KafkaError> {
        let mut config = ClientConfig::new();
        config.set_log_level(RDKafkaLogLevel::Warning);
        for (name, value) in [
            ("bootstrap.servers", self.brokers.clone()),
            ("client.id", self.client_id.clone()),
            ("compression.type", self.compression.clone()),
            ("linger.ms", self.linger.as_millis().to_string()),
            ("message.max.bytes", (self.max_record_bytes + 4096).to_string()),
            // The bus's own limits rule; the client's are out of their way.
            ("queue.buffering.max.messages", limits.records.saturating_mul(2).min(10_000_000).to_string()),
            ("queue.buffering.max.kbytes", (limits.bytes / 512).clamp(1024, 2_097_151).to_string()),
            // The partition of a key must be the one that the Java clients choose for it.
            ("partitioner", "murmur2_random".into()),
            ("reconnect.backoff.ms", "100".into()),
            ("reconnect.backoff.max.ms", "2000".into()),
            ("socket.keepalive.enable", "true".into()),
        ] {
            config.set(name, value);
        }
        for (name, value) in FIXED_OPTIONS {
            config.set(name, value);
        }
        for (name, value) in &self.extra {
            if let Some((_, fixed)) = FIXED_OPTIONS.iter().find(|(fixed, _)| fixed == name)
                && value != fixed
            {
                return Err(KafkaError::Fixed(name.clone(), fixed));
            }
            config.set(name, value);
        }
        Ok(config)
    }

    fn topic(&self, class: Class) -> &str {
        match class {
            Class::CommandResult => &self.command_results_topic,
            Class::Event | Class::StationState => &self.events_topic,
        }
    }
}

/// What the client's callbacks and the pump's thread share.
struct Shared {
    queue: Arc<Queue>,
    health: Arc<HealthCell>,
    feed: Feed,
    /// Records that the client has.
    outstanding: AtomicUsize,
    /// Records that came back undelivered.
    returned: Mutex<Vec<Returned>>,
    started: Instant,
    /// When the broker last gave a sign of life, or when waiting for one began; milliseconds since `started`.
    last_sign: AtomicU64,
    last_error: Mutex<Option<String>>,
}

struct Returned {
    in_flight: InFlight,
    error: ClientError,
}

impl Shared {
    fn sign_of_life(&self) {
        self.last_sign.store(self.started.elapsed().as_millis() as u64, Ordering::Relaxed);
    }

    fn last_sign(&self) -> Instant {
        self.started + Duration::from_millis(self.last_sign.load(Ordering::Relaxed))
    }

    fn give_back(&self, in_flight: InFlight, error: ClientError) {
        self.queue.metrics().failures.inc();
        self.returned.lock().unwrap_or_else(PoisonError::into_inner).push(Returned { in_flight, error });
    }

    fn has_returned(&self) -> bool {
        !self.returned.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }

    fn last_error(&self) -> String {
        self.last_error
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
            .unwrap_or_else(|| "no acknowledgement".into())
    }
}

/// The client's callbacks.
struct Callbacks(Arc<Shared>);

impl ClientContext for Callbacks {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        tracing::debug!(?level, facility, message, "kafka client");
    }

    fn error(&self, error: ClientError, reason: &str) {
        tracing::debug!(%error, reason, "kafka client error");
        *self.0.last_error.lock().unwrap_or_else(PoisonError::into_inner) = Some(reason.to_owned());
    }
}

impl ProducerContext for Callbacks {
    type DeliveryOpaque = Box<InFlight>;

    fn delivery(&self, result: &DeliveryResult<'_>, in_flight: Self::DeliveryOpaque) {
        let shared = &self.0;
        match result {
            Ok(_) => {
                shared.sign_of_life();
                let metrics = shared.queue.metrics();
                metrics.durable.inc();
                metrics.latency_seconds.observe(in_flight.accepted_at.elapsed().as_secs_f64());
                shared.feed.show(&in_flight.record);
                in_flight.durable();
            }
            Err((error, _)) => shared.give_back(*in_flight, error.clone()),
        }
        // Last, so that "nothing outstanding" means that everything that came back is in `returned`.
        shared.outstanding.fetch_sub(1, Ordering::AcqRel);
    }
}

/// The thread that sends.
pub(crate) struct KafkaPump {
    options: KafkaOptions,
    limits: ClientConfig,
    shared: Arc<Shared>,
    producer: ThreadedProducer<Callbacks>,
    set_aside: SetAside,
    /// Records taken from the queue that are not with the client, in order.
    backlog: VecDeque<InFlight>,
    probed_at: Option<Instant>,
    headers: OwnedHeaders,
}

impl KafkaPump {
    pub(crate) fn spawn(
        options: KafkaOptions,
        queue: Arc<Queue>,
        health: Arc<HealthCell>,
        feed: Feed,
    ) -> Result<JoinHandle<()>, StartError> {
        let config = options.client_config(queue.limits())?;
        let shared = Arc::new(Shared {
            queue,
            health,
            feed,
            outstanding: AtomicUsize::new(0),
            returned: Mutex::new(Vec::new()),
            started: Instant::now(),
            last_sign: AtomicU64::new(0),
            last_error: Mutex::new(None),
        });
        let producer = create(&config, &shared)?;
        let set_aside = SetAside::new(options.set_aside_dir.clone())
            .map_err(|source| KafkaError::SetAside { path: options.set_aside_dir.clone(), source })?;
        let headers = OwnedHeaders::new().insert(Header { key: "content-type", value: Some(CONTENT_TYPE) });
        let pump = Self {
            options,
            limits: config,
            shared,
            producer,
            set_aside,
            backlog: VecDeque::new(),
            probed_at: None,
            headers,
        };
        Ok(std::thread::Builder::new().name("bus-kafka".into()).spawn(move || pump.run())?)
    }

    fn run(mut self) {
        loop {
            self.settle();
            self.watch();
            if self.backlog.is_empty() {
                match self.shared.queue.take(BATCH_RECORDS, TICK) {
                    Taken::Closed if self.is_done() => return,
                    Taken::Closed => std::thread::sleep(Duration::from_millis(5)),
                    Taken::Batch(batch) => {
                        if !batch.is_empty() {
                            self.shared.queue.metrics().batch_records.observe(batch.len() as f64);
                        }
                        self.backlog.extend(batch);
                    }
                }
            }
            self.send_backlog();
        }
    }

    fn is_done(&self) -> bool {
        self.backlog.is_empty()
            && self.shared.outstanding.load(Ordering::Acquire) == 0
            && !self.shared.has_returned()
    }

    /// Hands the backlog to the client, until a record comes back or the client's own queue is full.
    fn send_backlog(&mut self) {
        while let Some(in_flight) = self.backlog.pop_front() {
            if self.shared.has_returned() {
                self.backlog.push_front(in_flight);
                return;
            }
            if self.shared.outstanding.fetch_add(1, Ordering::AcqRel) == 0 {
                self.shared.sign_of_life();
            }
            // The client copies key and value; the record itself stays with the opaque, to be sent again if need be.
            let Record { class, key, value, .. } = in_flight.record.clone();
            let record = BaseRecord::with_opaque_to(self.options.topic(class), Box::new(in_flight))
                .key(key.as_bytes())
                .payload(value.as_ref())
                .headers(self.headers.clone());
            if let Err((error, record)) = self.producer.send(record) {
                self.shared.outstanding.fetch_sub(1, Ordering::AcqRel);
                let in_flight = *record.delivery_opaque;
                if error.rdkafka_error_code() == Some(RDKafkaErrorCode::QueueFull) {
                    self.backlog.push_front(in_flight);
                    std::thread::sleep(Duration::from_millis(2));
                    return;
                }
                self.shared.give_back(in_flight, error);
            }
        }
    }

    /// Deals with the records that came back.
    fn settle(&mut self) {
        if !self.shared.has_returned() {
            return;
        }
        if !self.set_aside_hopeless() {
            return;
        }
        // Something can be mended by trying again. Get everything back first, so that the order can be restored.
        self.shared.health.holding(format!(
            "Kafka at {}: {}",
            self.options.brokers,
            self.shared.last_error()
        ));
        self.producer.purge(PurgeConfig::default().queue().inflight());
        while self.shared.outstanding.load(Ordering::Acquire) > 0 {
            std::thread::sleep(Duration::from_millis(1));
        }
        self.set_aside_hopeless();
        let mut again: Vec<InFlight> =
            self.take_returned().into_iter().map(|returned| returned.in_flight).collect();
        again.extend(self.backlog.drain(..));
        again.sort_by_key(|in_flight| in_flight.sequence);
        self.backlog = again.into();
        std::thread::sleep(RETRY);
        // A client that has failed for good stays so; a new one costs a connection.
        match create(&self.limits, &self.shared) {
            Ok(producer) => self.producer = producer,
            Err(error) => tracing::error!(%error, "the Kafka client cannot be created again"),
        }
    }

    /// Sets aside what trying again cannot mend; says whether anything else came back.
    fn set_aside_hopeless(&self) -> bool {
        let mut others = Vec::new();
        for returned in self.take_returned() {
            if is_hopeless(&returned.error) {
                self.store_aside(returned);
            } else {
                others.push(returned);
            }
        }
        let any = !others.is_empty();
        self.shared.returned.lock().unwrap_or_else(PoisonError::into_inner).extend(others);
        any
    }

    fn store_aside(&self, returned: Returned) {
        let record = &returned.in_flight.record;
        let topic = self.options.topic(record.class);
        let reason = returned.error.to_string();
        loop {
            match self.set_aside.store(record, topic, &reason) {
                Ok(path) => {
                    self.shared.queue.metrics().set_aside.inc();
                    tracing::error!(
                        station = %record.key, topic, reason, bytes = record.value.len(), file = %path.display(),
                        "Kafka can never take this event; it is set aside on disk"
                    );
                    break;
                }
                Err(error) => {
                    let dir = self.options.set_aside_dir.display();
                    self.shared
                        .health
                        .holding(format!("an undeliverable event cannot be set aside in {dir}: {error}"));
                    std::thread::sleep(RETRY);
                }
            }
        }
        returned.in_flight.durable();
    }

    fn take_returned(&self) -> Vec<Returned> {
        std::mem::take(&mut *self.shared.returned.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Keeps the state: acknowledgements are the sign of life while records wait, and a question to the broker while
    /// none do.
    fn watch(&mut self) {
        let waiting = self.shared.outstanding.load(Ordering::Acquire) > 0 || !self.backlog.is_empty();
        let last_sign = self.shared.last_sign();
        if waiting {
            self.shared.health.oldest(Some(last_sign));
            if last_sign.elapsed() < self.options.unready_after {
                if self.shared.queue.metrics().durable.get() > 0 {
                    self.shared.health.direct();
                }
            } else {
                let detail = format!("Kafka at {}: {}", self.options.brokers, self.shared.last_error());
                self.shared.health.holding(detail);
            }
            return;
        }
        self.shared.health.oldest(None);
        if self.probed_at.is_some_and(|at| at.elapsed() < PROBE_EVERY) {
            return;
        }
        match self.producer.client().fetch_metadata(Some(&self.options.events_topic), PROBE_TIMEOUT) {
            Ok(_) => self.shared.health.direct(),
            Err(error) => {
                let detail =
                    format!("Kafka at {}: {error} ({})", self.options.brokers, self.shared.last_error());
                self.shared.health.holding(detail);
            }
        }
        self.probed_at = Some(Instant::now());
    }
}

fn create(config: &ClientConfig, shared: &Arc<Shared>) -> Result<ThreadedProducer<Callbacks>, KafkaError> {
    config.create_with_context(Callbacks(Arc::clone(shared))).map_err(KafkaError::Refused)
}

/// Whether sending the same record again cannot end differently.
fn is_hopeless(error: &ClientError) -> bool {
    matches!(
        error.rdkafka_error_code(),
        Some(
            RDKafkaErrorCode::MessageSizeTooLarge
                | RDKafkaErrorCode::InvalidMessage
                | RDKafkaErrorCode::InvalidRecord
                | RDKafkaErrorCode::MessageBatchTooLarge
                | RDKafkaErrorCode::UnknownTopic
                | RDKafkaErrorCode::UnknownTopicOrPartition
                | RDKafkaErrorCode::UnknownPartition
                | RDKafkaErrorCode::InvalidTopic
                | RDKafkaErrorCode::TopicAuthorizationFailed
                | RDKafkaErrorCode::PolicyViolation
        )
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(extra: &[(&str, &str)]) -> KafkaOptions {
        KafkaOptions {
            brokers: "127.0.0.1:1".into(),
            client_id: "gw-1".into(),
            compression: "lz4".into(),
            linger: Duration::from_millis(2),
            unready_after: Duration::from_secs(10),
            max_record_bytes: 1 << 21,
            events_topic: "e".into(),
            command_results_topic: "r".into(),
            set_aside_dir: PathBuf::from("/nonexistent"),
            extra: extra.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect(),
        }
    }

    #[test]
    fn options_that_would_break_a_promise_are_refused() {
        assert!(matches!(options(&[("acks", "1")]).check(), Err(KafkaError::Fixed(..))));
        assert!(matches!(options(&[("enable.idempotence", "false")]).check(), Err(KafkaError::Fixed(..))));
        assert!(options(&[("acks", "all")]).check().is_ok());
    }

    #[test]
    fn unknown_options_are_named() {
        let error = options(&[("linger.sm", "5")]).check().unwrap_err().to_string();
        assert!(error.contains("linger.sm"), "{error}");
        let error = options(&[("security.protocol", "nonsense")]).check().unwrap_err().to_string();
        assert!(error.contains("security.protocol"), "{error}");
        assert!(options(&[("security.protocol", "SASL_SSL"), ("sasl.mechanisms", "PLAIN")]).check().is_ok());
    }
}
