//! Options of the bus: where events are stored, and under which topics.
//!
//! Owns the keys, their checks, and what the Kafka client is told because of them. Opens nothing.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use bytesize::ByteSize;
use ocpp_bus::kafka::{KafkaOptions, Topics};
use ocpp_bus::spool::SpoolOptions;
use ocpp_options::{DurationText, Problems, SizeText, word};
use ocpp_station::envelope::CONTENT_TYPE;
use schemars::JsonSchema;
use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use crate::driver::options::SheddableOptions;
use crate::kinds;
use crate::node::NodeOptions;

/// Where events are stored.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(default)]
pub struct BusOptions {
    /// Which storage.
    #[serde(deserialize_with = "word")]
    pub kind: BusKind,
    /// Events that may be accepted and not yet durable. When this many are, sockets are not read.
    #[schemars(extend("x-tuning" = true))]
    pub queue_events: usize,
    /// Bytes that events may take until they are durable; below 4 GiB. The Kafka client keeps a copy of what is in flight, so count
    /// twice with Kafka.
    #[serde(with = "SizeText")]
    pub queue_bytes: ByteSize,
    /// The local log.
    pub local: LocalBusOptions,
    /// Kafka.
    pub kafka: KafkaBusOptions,
    /// The spool beside Kafka.
    pub spool: SpoolBusOptions,
    /// When storage has not acknowledged for this long (Kafka unreachable without a spool, disk full), stations are closed
    /// (`busHolding`, 1013) and refused with 503 until it does: offline they keep their messages, while a connection that does not
    /// answer uses up their retries. `0s`: never.
    #[serde(with = "DurationText")]
    pub hold_limit: Duration,
    /// What may be dropped when the bus is too full.
    pub expendable: SheddableOptions,
}

impl Default for BusOptions {
    fn default() -> Self {
        Self {
            kind: BusKind::Local,
            queue_events: 100_000,
            queue_bytes: ByteSize::mib(256),
            local: LocalBusOptions::default(),
            kafka: KafkaBusOptions::default(),
            spool: SpoolBusOptions::default(),
            hold_limit: Duration::from_secs(120),
            expendable: SheddableOptions::default(),
        }
    }
}

impl BusOptions {
    /// What is wrong with these values, given the largest message of a station and the largest event.
    pub fn check(&self, max_message_bytes: u64, max_event_bytes: u64, problems: &mut Problems) {
        problems.demand_count("bus.queue_events", self.queue_events);
        problems.demand(self.queue_events >= 16, "bus.queue_events must be at least 16");
        let queue = self.queue_bytes.as_u64();
        problems.demand(queue < u64::from(u32::MAX), "bus.queue_bytes must be below 4 GiB");
        problems.demand(
            queue >= 2 * max_message_bytes,
            "bus.queue_bytes must be at least twice session.max_message_size",
        );
        self.local.check(max_event_bytes, problems);
        problems.demand(self.kafka.linger <= Duration::from_secs(1), "bus.kafka.linger must be at most 1s");
        self.spool.check(max_event_bytes, problems);
        problems.demand(
            self.kind == BusKind::Kafka || self.spool.dir.as_os_str().is_empty(),
            "bus.spool.dir is for bus.kind = \"kafka\": the local bus is a log already",
        );
        self.expendable.check(problems);
    }

    /// What the Kafka client and the spool beside it are told.
    pub fn kafka(&self, node: &NodeOptions, topics: &TopicOptions, max_event_bytes: usize) -> KafkaOptions {
        KafkaOptions {
            brokers: self.kafka.brokers.clone(),
            client_id: format!("ocpp-gateway-{}", node.id),
            compression: self.kafka.compression.clone(),
            linger: self.kafka.linger,
            unready_after: self.kafka.unready_after,
            max_record_bytes: max_event_bytes,
            topics: Topics {
                default: topics.events.clone(),
                of_kind: BTreeMap::from([(kinds::COMMAND_RESULT, topics.command_results.clone())]),
            },
            content_type: CONTENT_TYPE,
            dead_letter_dir: node.dead_letter_dir(),
            spool: self.spool.open(max_event_bytes),
            extra: self.kafka.options.0.clone(),
        }
    }
}

/// Where events are stored.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum BusKind {
    /// a durable log on disk, readable through the admin API; needs no other server
    Local,
    /// Apache Kafka
    Kafka,
}

/// The local log (`kind = "local"`).
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(default)]
pub struct LocalBusOptions {
    /// Its folder; empty means `events` in `node.data_dir`.
    pub dir: PathBuf,
    /// A segment file is closed at this size. Retention removes whole segments.
    #[serde(with = "SizeText")]
    #[schemars(extend("x-tuning" = true))]
    pub segment_size: ByteSize,
    /// The oldest segments are removed when the log is larger. `0 B`: no limit.
    #[serde(with = "SizeText")]
    pub max_size: ByteSize,
    /// A segment is removed when everything in it is older. `0s`: never.
    #[serde(with = "DurationText")]
    pub max_age: Duration,
    /// Commits start at least this far apart: under load more events share one sync, and an answer takes up to this much longer.
    /// After a pause the first event is committed at once.
    #[serde(with = "DurationText")]
    #[schemars(extend("x-tuning" = true))]
    pub linger: Duration,
}

impl Default for LocalBusOptions {
    fn default() -> Self {
        Self {
            dir: PathBuf::new(),
            segment_size: ByteSize::mib(64),
            max_size: ByteSize::gib(10),
            max_age: Duration::from_secs(7 * 24 * 3600),
            linger: Duration::from_millis(5),
        }
    }
}

impl LocalBusOptions {
    fn check(&self, max_event_bytes: u64, problems: &mut Problems) {
        problems.demand(
            self.segment_size.as_u64() >= 2 * max_event_bytes,
            "bus.local.segment_size must be at least twice the largest event (session.max_message_size, or 1 MiB)",
        );
        problems.demand(self.linger <= Duration::from_secs(1), "bus.local.linger must be at most 1s");
        let max_size = self.max_size.as_u64();
        problems.demand(
            max_size == 0 || max_size >= 2 * self.segment_size.as_u64(),
            "bus.local.max_size must be 0 (unlimited) or at least twice bus.local.segment_size",
        );
    }
}

/// Kafka (`kind = "kafka"`). Acknowledgement by all in-sync replicas and the idempotent producer are fixed.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(default)]
pub struct KafkaBusOptions {
    /// `host:port`, separated by commas.
    pub brokers: String,
    /// `none`, `gzip`, `snappy`, `lz4` or `zstd`.
    pub compression: String,
    /// Requests are sent at least this far apart: under load more events share one, and an answer takes up to this much longer.
    /// After a pause the first event is sent at once.
    #[serde(with = "DurationText")]
    #[schemars(extend("x-tuning" = true))]
    pub linger: Duration,
    /// The gateway is not ready when nothing was acknowledged for this long while records wait.
    #[serde(with = "DurationText")]
    #[schemars(extend("x-tuning" = true))]
    pub unready_after: Duration,
    /// Further options of the Kafka client (librdkafka), passed through: TLS, SASL and so on. `check-config` refuses unknown ones.
    /// In the environment a dot is written `__`: `OCPP_GATEWAY__BUS__KAFKA__OPTIONS__SASL__PASSWORD`. `acks`,
    /// `enable.idempotence` and `message.timeout.ms` cannot be changed: another value would break answer-after-durable or the
    /// order.
    ///
    /// ```toml
    /// [bus.kafka.options]
    /// "security.protocol" = "SASL_SSL"
    /// "ssl.ca.location" = "/etc/ssl/certs/ca-certificates.crt"
    /// "sasl.mechanisms" = "SCRAM-SHA-512"
    /// "sasl.username" = "ocpp-gateway"
    /// ```
    #[schemars(with = "BTreeMap<String, String>")]
    pub options: DottedOptions,
}

impl Default for KafkaBusOptions {
    fn default() -> Self {
        Self {
            brokers: "127.0.0.1:9092".into(),
            compression: "lz4".into(),
            linger: Duration::from_millis(5),
            unready_after: Duration::from_secs(10),
            options: DottedOptions::default(),
        }
    }
}

/// Options whose names have dots in them (`security.protocol`). Written quoted, as nested tables, or in the environment with `__`
/// for the dot: all mean the same.
#[derive(Clone, Default, Serialize)]
pub struct DottedOptions(pub BTreeMap<String, String>);

/// Values may be passwords: only the names show.
impl std::fmt::Debug for DottedOptions {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_set().entries(self.0.keys()).finish()
    }
}

impl<'de> Deserialize<'de> for DottedOptions {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let tree = Value::deserialize(deserializer)?;
        let mut options = BTreeMap::new();
        flatten(String::new(), &tree, &mut options).map_err(D::Error::custom)?;
        Ok(Self(options))
    }
}

fn flatten(name: String, tree: &Value, options: &mut BTreeMap<String, String>) -> Result<(), String> {
    match tree {
        Value::Object(members) => {
            for (member, value) in members {
                let name = if name.is_empty() { member.clone() } else { format!("{name}.{member}") };
                flatten(name, value, options)?;
            }
            Ok(())
        }
        Value::String(text) => {
            options.insert(name, text.clone());
            Ok(())
        }
        Value::Number(_) | Value::Bool(_) => {
            options.insert(name, tree.to_string());
            Ok(())
        }
        Value::Null | Value::Array(_) => {
            Err(format!("the option {name:?} must be a string, a number or a boolean"))
        }
    }
}

/// The spool (`kind = "kafka"`): while Kafka does not acknowledge, events become durable on disk and stations are still answered.
/// When Kafka is back, the spool is sent first.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(default)]
pub struct SpoolBusOptions {
    /// Its folder; empty means no spool, and answers are held while Kafka is away.
    pub dir: PathBuf,
    /// Bytes that the spool may take on disk. A full spool accepts nothing more and events are held back; nothing is removed.
    #[serde(with = "SizeText")]
    pub max_size: ByteSize,
    /// The spool accepts nothing more while its oldest event is older than this. `0s`: no limit.
    #[serde(with = "DurationText")]
    pub max_age: Duration,
    /// The fill level, 0 to 1, from which `ocpp_gateway_bus_spool_alarm` is 1.
    #[schemars(extend("x-tuning" = true))]
    pub alarm_level: f64,
    /// Without an acknowledgement from Kafka for this long, events go to the spool.
    #[serde(with = "DurationText")]
    #[schemars(extend("x-tuning" = true))]
    pub after: Duration,
}

impl Default for SpoolBusOptions {
    fn default() -> Self {
        Self {
            dir: PathBuf::new(),
            max_size: ByteSize::gib(10),
            max_age: Duration::from_secs(7 * 24 * 3600),
            alarm_level: 0.5,
            after: Duration::from_secs(5),
        }
    }
}

impl SpoolBusOptions {
    /// None without a folder.
    fn open(&self, max_event_bytes: usize) -> Option<SpoolOptions> {
        (!self.dir.as_os_str().is_empty()).then(|| SpoolOptions {
            dir: self.dir.clone(),
            max_bytes: self.max_size.as_u64(),
            max_age: self.max_age,
            alarm_level: self.alarm_level,
            max_record_bytes: u32::try_from(max_event_bytes).unwrap_or(u32::MAX),
            after: self.after,
        })
    }

    fn check(&self, max_event_bytes: u64, problems: &mut Problems) {
        problems.demand(
            self.max_size.as_u64() >= 16 * max_event_bytes,
            "bus.spool.max_size must be at least sixteen times the largest event",
        );
        problems.demand_share("bus.spool.alarm_level", self.alarm_level);
        problems.demand_positive("bus.spool.after", self.after);
    }
}

/// Topic names. Several classes of events may share one.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(default)]
pub struct TopicOptions {
    /// Station and message events.
    pub events: String,
    /// Outcomes of commands.
    pub command_results: String,
    /// Commands, read while `bus.kind = "kafka"`. Empty: only HTTP accepts commands.
    pub commands: String,
}

impl Default for TopicOptions {
    fn default() -> Self {
        Self {
            events: "ocpp.events".into(),
            command_results: "ocpp.command-results".into(),
            commands: "ocpp.commands".into(),
        }
    }
}
