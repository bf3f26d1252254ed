//! The producer behind one seam: records go in, and each comes out once, acknowledged or returned.
//!
//! Owns the client library's producers and their callbacks. Does not decide what happens to a record that was returned, nor when
//! records are sent (`writer.rs`). The client itself never gives up on a record (`message.timeout.ms` = 0): a record is
//! returned when Kafka refuses it, when it is recalled, or when the client has failed for good.

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

use super::options::{KafkaOptions, refused};
use crate::counters::Counters;
use crate::error::KafkaError;
use crate::queue::{InFlight, QueueLimits};
use crate::record::Record;
use crate::tail::Tail;

/// Bytes of a batch: what the client's own default is, and what is left when the broker keeps refusing batches.
const LARGEST_BATCH: usize = 1_000_000;
const SMALLEST_BATCH: usize = 4096;

/// How long the broker may take to give a sign of life when asked.
const PROBE_TIMEOUT: Duration = Duration::from_secs(1);

/// A record that was not acknowledged, and why.
pub(crate) struct Returned {
    pub(crate) in_flight: InFlight,
    pub(crate) retry: Retry,
    pub(crate) reason: String,
}

/// How a returned record can still be sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Retry {
    /// As it was.
    Again,
    /// Alone: the broker refused a whole batch, perhaps for another record of it.
    Alone,
    /// Not at all.
    Never,
}

/// What the client's callbacks and its owner share.
struct Shared {
    counters: Counters,
    tail: Tail,
    /// Records that the client has.
    outstanding: AtomicUsize,
    returned: Mutex<Vec<Returned>>,
    started: Instant,
    /// When the broker last gave a sign of life, or when waiting for one began; milliseconds since `started`.
    last_sign: AtomicU64,
    last_error: Mutex<Option<String>>,
}

impl Shared {
    fn sign_of_life(&self) {
        self.last_sign.store(self.started.elapsed().as_millis() as u64, Ordering::Relaxed);
    }

    fn give_back(&self, in_flight: InFlight, error: &ClientError, retry: Retry) {
        let returned = Returned { in_flight, retry, reason: error.to_string() };
        self.returned.lock().unwrap_or_else(PoisonError::into_inner).push(returned);
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
        let code = error.rdkafka_error_code();
        let mut last = self.0.last_error.lock().unwrap_or_else(PoisonError::into_inner);
        if code == Some(RDKafkaErrorCode::Authentication) && last.as_deref() != Some(reason) {
            tracing::error!(reason, "Kafka refuses the gateway's credentials");
        }
        // That all brokers are down follows from what came before, and says less.
        if code != Some(RDKafkaErrorCode::AllBrokersDown) || last.is_none() {
            *last = Some(reason.to_owned());
        }
    }
}

impl ProducerContext for Callbacks {
    type DeliveryOpaque = Box<InFlight>;

    fn delivery(&self, result: &DeliveryResult<'_>, in_flight: Self::DeliveryOpaque) {
        let shared = &self.0;
        match result {
            Ok(_) => {
                shared.sign_of_life();
                if in_flight.is_spooled() {
                    shared.counters.drained.inc();
                } else {
                    shared.counters.durable.inc();
                    shared.counters.latency_seconds.observe(in_flight.accepted_at.elapsed().as_secs_f64());
                    shared.tail.publish(&in_flight.record);
                }
                in_flight.acknowledge();
            }
            Err((error, _)) => shared.give_back(*in_flight, error, retry_after(error)),
        }
        // Last, so that "nothing outstanding" means that everything that came back is in `returned`.
        shared.outstanding.fetch_sub(1, Ordering::AcqRel);
    }
}

/// The client.
pub(crate) struct KafkaClient {
    options: KafkaOptions,
    config: ClientConfig,
    shared: Arc<Shared>,
    producer: Arc<Producing>,
    /// Sends records alone. Not idempotent, so that a refusal does not end it; with one record on its way there is no order
    /// to keep.
    solo: Option<Arc<Producing>>,
    headers: OwnedHeaders,
    probe: Option<JoinHandle<Result<(), String>>>,
    batch_bytes: usize,
}

type Producing = ThreadedProducer<Callbacks>;

impl KafkaClient {
    /// Creates the client; nothing is waited for, the broker need not be reachable.
    pub(crate) fn create(
        options: KafkaOptions,
        limits: QueueLimits,
        counters: Counters,
        tail: Tail,
    ) -> Result<Self, KafkaError> {
        let config = options.client_config(limits)?;
        let shared = Arc::new(Shared {
            counters,
            tail,
            outstanding: AtomicUsize::new(0),
            returned: Mutex::new(Vec::new()),
            started: Instant::now(),
            last_sign: AtomicU64::new(0),
            last_error: Mutex::new(None),
        });
        let producer = producer(&config, &shared)?;
        let content_type = Header { key: "content-type", value: Some(options.content_type) };
        let headers = OwnedHeaders::new().insert(content_type);
        Ok(Self {
            options,
            config,
            shared,
            producer,
            solo: None,
            headers,
            probe: None,
            batch_bytes: LARGEST_BATCH,
        })
    }

    pub(crate) fn options(&self) -> &KafkaOptions {
        &self.options
    }

    /// Hands a record over. Fails with the record when the client's own queue is full; after any other failure it is among the
    /// returned ones.
    // The record comes back whole; boxing it would cost every record.
    #[allow(clippy::result_large_err)]
    pub(crate) fn send(&mut self, in_flight: InFlight, alone: bool) -> Result<(), InFlight> {
        let producer = if alone { self.solo() } else { Arc::clone(&self.producer) };
        if self.shared.outstanding.fetch_add(1, Ordering::AcqRel) == 0 {
            self.shared.sign_of_life();
        }
        // The client copies key and value; the record itself stays with the opaque, to be sent again if need be.
        let Record { kind, key, value, .. } = in_flight.record.clone();
        let record = BaseRecord::with_opaque_to(self.options.topics.of(kind), Box::new(in_flight))
            .key(key.as_bytes())
            .payload(value.as_ref())
            .headers(self.headers.clone());
        let Err((error, record)) = producer.send(record) else { return Ok(()) };
        let in_flight = *record.delivery_opaque;
        let is_full = error.rdkafka_error_code() == Some(RDKafkaErrorCode::QueueFull);
        if !is_full {
            // The client itself looks at each record by itself.
            let retry = if retry_after(&error) == Retry::Again { Retry::Again } else { Retry::Never };
            self.shared.give_back(in_flight, &error, retry);
            self.shared.outstanding.fetch_sub(1, Ordering::AcqRel);
            return Ok(());
        }
        self.shared.outstanding.fetch_sub(1, Ordering::AcqRel);
        Err(in_flight)
    }

    fn solo(&mut self) -> Arc<Producing> {
        if let Some(solo) = &self.solo {
            return Arc::clone(solo);
        }
        let mut config = self.config.clone();
        for (name, value) in [
            ("enable.gapless.guarantee", "false"),
            ("enable.idempotence", "false"),
            ("max.in.flight.requests.per.connection", "1"),
            ("linger.ms", "0"),
        ] {
            config.set(name, value);
        }
        match producer(&config, &self.shared) {
            Ok(solo) => {
                self.solo = Some(Arc::clone(&solo));
                solo
            }
            Err(error) => {
                tracing::error!(%error, "the Kafka client for single records cannot be created");
                Arc::clone(&self.producer)
            }
        }
    }

    /// Records that the client has and that were neither acknowledged nor returned.
    pub(crate) fn outstanding(&self) -> usize {
        self.shared.outstanding.load(Ordering::Acquire)
    }

    /// Whether a record was returned since [`take_returned`](Self::take_returned) was last called.
    pub(crate) fn has_returned(&self) -> bool {
        !self.shared.returned.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }

    /// The records that were returned.
    pub(crate) fn take_returned(&self) -> Vec<Returned> {
        std::mem::take(&mut *self.shared.returned.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Takes everything back that was not acknowledged, and starts anew. What the broker has received all the same is stored twice,
    /// byte for byte the same.
    ///
    /// With `smaller_batches`, because the broker refused one: its limit is for whole batches.
    pub(crate) fn recall(&mut self, smaller_batches: bool) -> Vec<Returned> {
        if smaller_batches && self.batch_bytes > SMALLEST_BATCH {
            self.batch_bytes = (self.batch_bytes / 4).max(SMALLEST_BATCH);
            self.config.set("batch.size", self.batch_bytes.to_string());
            tracing::warn!(bytes = self.batch_bytes, "Kafka refuses batches; smaller ones from here on");
        }
        self.producer.purge(PurgeConfig::default().queue().inflight());
        if let Some(solo) = &self.solo {
            solo.purge(PurgeConfig::default().queue().inflight());
        }
        while self.outstanding() > 0 {
            std::thread::sleep(Duration::from_millis(1));
        }
        // An idempotent client whose records were purged, or that failed for good, is not worth keeping.
        match producer(&self.config, &self.shared) {
            Ok(fresh) => self.producer = fresh,
            Err(error) => tracing::error!(%error, "the Kafka client cannot be created again"),
        }
        self.take_returned()
    }

    /// How long there was no acknowledgement, counted from when something first waited for one.
    pub(crate) fn silence(&self) -> Duration {
        self.last_sign().elapsed()
    }

    /// See [`KafkaClient::silence`].
    pub(crate) fn last_sign(&self) -> Instant {
        self.shared.started + Duration::from_millis(self.shared.last_sign.load(Ordering::Relaxed))
    }

    /// Asks the broker for a sign of life, without waiting: does it answer, and do the partitions have leaders? Returns the result
    /// of the question before this one, once there is one.
    pub(crate) fn probe(&mut self) -> Option<Result<(), String>> {
        match self.probe.take() {
            Some(running) if !running.is_finished() => {
                self.probe = Some(running);
                None
            }
            Some(finished) => Some(finished.join().unwrap_or_else(|_| Err("the probe failed to run".into()))),
            None => {
                let (producer, topic) = (Arc::clone(&self.producer), self.options.topics.default.clone());
                let asked = std::thread::Builder::new()
                    .name("bus-kafka-probe".into())
                    .spawn(move || ask_for_leaders(&producer, &topic));
                match asked {
                    Ok(running) => {
                        self.probe = Some(running);
                        None
                    }
                    Err(error) => Some(Err(error.to_string())),
                }
            }
        }
    }

    /// What went wrong last, for people.
    pub(crate) fn trouble(&self) -> String {
        let last = self.shared.last_error.lock().unwrap_or_else(PoisonError::into_inner).clone();
        format!("Kafka at {}: {}", self.options.brokers, last.unwrap_or_else(|| "no acknowledgement".into()))
    }
}

fn producer(config: &ClientConfig, shared: &Arc<Shared>) -> Result<Arc<Producing>, KafkaError> {
    config.create_with_context(Callbacks(Arc::clone(shared))).map(Arc::new).map_err(|error| refused(&error))
}

fn ask_for_leaders(producer: &Producing, topic: &str) -> Result<(), String> {
    let metadata =
        producer.client().fetch_metadata(Some(topic), PROBE_TIMEOUT).map_err(|error| error.to_string())?;
    if let Some(error) = metadata.topics().iter().find_map(|topic| topic.error()) {
        return Err(format!("topic {topic}: {}", ClientError::MetadataFetch(error.into())));
    }
    if metadata.topics().iter().all(|topic| topic.partitions().is_empty()) {
        return Err(format!("topic {topic} does not exist"));
    }
    let leaderless =
        metadata.topics().iter().flat_map(|topic| topic.partitions()).any(|one| one.leader() < 0);
    if leaderless { Err(format!("a partition of {topic} has no leader")) } else { Ok(()) }
}

/// What an error of the broker, which answers for a whole batch, means for one record.
fn retry_after(error: &ClientError) -> Retry {
    match error.rdkafka_error_code() {
        Some(
            RDKafkaErrorCode::MessageSizeTooLarge
            | RDKafkaErrorCode::MessageBatchTooLarge
            | RDKafkaErrorCode::InvalidMessage
            | RDKafkaErrorCode::InvalidRecord
            | RDKafkaErrorCode::PolicyViolation,
        ) => Retry::Alone,
        Some(
            RDKafkaErrorCode::UnknownTopic
            | RDKafkaErrorCode::UnknownTopicOrPartition
            | RDKafkaErrorCode::UnknownPartition
            | RDKafkaErrorCode::InvalidTopic
            | RDKafkaErrorCode::TopicAuthorizationFailed,
        ) => Retry::Never,
        _ => Retry::Again,
    }
}
