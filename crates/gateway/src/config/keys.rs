//! Every configuration key with its type and its default. Owns no checks (`checks.rs`) and no reading (`config.rs`).

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytesize::ByteSize;
use ocpp_protocol::{Registration, Version};
use serde::{Deserialize, Serialize};

use super::answers::{Answers, Hooks};
use super::units::{DottedOptions, Subprotocols};
use crate::spans::export::Protocol;

/// Everything that can be configured. Durations are written `10s`, `5m`, `1h 30m`; sizes `64MiB`, `2MB`.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct Config {
    /// This node.
    pub node: Node,
    /// Where stations connect; by name.
    #[serde(default = "default_listeners")]
    pub listeners: BTreeMap<String, Listener>,
    /// The time before a connection is a session.
    pub handshake: Handshake,
    /// Who may connect.
    pub credentials: Credentials,
    /// A station's connection.
    pub session: Session,
    /// BootNotification.
    pub registration: RegistrationPolicy,
    /// Who answers the CALLs of stations.
    pub answers: Answers,
    /// How a backend's URLs are asked.
    pub hooks: Hooks,
    /// Payload validation.
    pub validation: Validation,
    /// Commands to stations.
    pub commands: Commands,
    /// Where events go.
    pub bus: Bus,
    /// Topic names.
    pub topics: Topics,
    /// The operators' listener.
    pub admin: Admin,
    /// Logs.
    pub log: Log,
    /// Spans.
    pub telemetry: Telemetry,
    /// SIGTERM.
    pub shutdown: Shutdown,
}

pub(super) fn default_listeners() -> BTreeMap<String, Listener> {
    BTreeMap::from([("main".to_owned(), Listener::default())])
}

/// This node.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default)]
pub struct Node {
    /// Names this node in events (`source`) and logs.
    pub id: String,
    /// Folder for everything kept on disk.
    pub data_dir: PathBuf,
    /// Worker threads; 0 means one for each core.
    pub worker_threads: usize,
}

impl Default for Node {
    fn default() -> Self {
        Self { id: "gw-1".into(), data_dir: PathBuf::from("data"), worker_threads: 0 }
    }
}

/// One place where stations connect.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default)]
pub struct Listener {
    /// Address and port.
    #[serde(deserialize_with = "super::units::address")]
    pub address: SocketAddr,
    /// What comes before the identity in the path.
    pub path_prefix: String,
    /// The enabled subprotocols. The station's order of preference decides, not this one.
    pub subprotocols: Subprotocols,
    /// Who may connect.
    #[serde(deserialize_with = "super::units::word")]
    pub auth: AuthMode,
    /// Accept what real stations get wrong: no subprotocol header (counts as 1.6), double slashes in the path, binary
    /// frames with text, a malformed offer of extensions.
    pub lenient: bool,
    /// Groups that the stations of this listener belong to from their first connection.
    #[serde(deserialize_with = "super::units::words")]
    pub tags: Arc<BTreeSet<String>>,
}

impl Default for Listener {
    fn default() -> Self {
        Self {
            address: SocketAddr::from(([0, 0, 0, 0], 9000)),
            path_prefix: "/ocpp".into(),
            subprotocols: Subprotocols(vec![Version::V21, Version::V201, Version::V16]),
            auth: AuthMode::Open,
            lenient: false,
            tags: Arc::default(),
        }
    }
}

/// How a listener knows its stations.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum AuthMode {
    /// Anybody is let in under any identity. For development.
    Open,
    /// HTTP Basic against the credentials file (security profile 1).
    Basic,
}

/// The time before a connection is a session.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default)]
pub struct Handshake {
    /// Connections that are not sessions yet, for each listener.
    pub max_arriving: usize,
    /// Requests of theirs being answered at once, for each listener.
    pub max_concurrent: usize,
    /// How long one may take.
    #[serde(with = "super::units::duration")]
    pub timeout: Duration,
    /// When `max_arriving` is reached, a connection older than this whose request has not come gives way to a new one.
    #[serde(with = "super::units::duration")]
    pub yield_after: Duration,
    /// Connections the kernel keeps until they are accepted.
    pub backlog: i32,
    /// Refused handshakes that are told as events, for each listener; the rest is only counted.
    pub rejected_events_per_second: u32,
}

impl Default for Handshake {
    fn default() -> Self {
        Self {
            max_arriving: 32_768,
            max_concurrent: 256,
            timeout: Duration::from_secs(10),
            yield_after: Duration::from_secs(1),
            backlog: 4096,
            rejected_events_per_second: 100,
        }
    }
}

/// Who may connect to a listener with `auth = "basic"`.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default)]
pub struct Credentials {
    /// One `identity:hash` a line.
    pub file: PathBuf,
    /// How often the file is looked at for a change.
    #[serde(with = "super::units::duration")]
    pub reload_interval: Duration,
    /// Answer 401 instead of 404 for an unknown identity, so that nobody learns which exist.
    pub hide_unknown_stations: bool,
    /// Threads that may compute slow hashes at the same time.
    pub slow_hash_threads: usize,
}

impl Default for Credentials {
    fn default() -> Self {
        Self {
            file: PathBuf::new(),
            reload_interval: Duration::from_secs(2),
            hide_unknown_stations: false,
            slow_hash_threads: 1,
        }
    }
}

/// A station's connection.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default)]
pub struct Session {
    /// The largest message; a larger one closes the connection with 1009.
    pub max_message_size: ByteSize,
    /// Bytes read at once, into a buffer that a worker thread lends to its connections.
    pub read_buffer_size: ByteSize,
    /// Agree to permessage-deflate when a station offers it.
    pub compression: bool,
    /// Where it was agreed on, larger messages to the station are compressed.
    pub compress_above: ByteSize,
    /// How often the gateway pings; `0s` means never.
    #[serde(with = "super::units::duration")]
    pub ping_interval: Duration,
    /// A connection without any inbound frame for this long is closed.
    #[serde(with = "super::units::duration")]
    pub idle_timeout: Duration,
    /// A station that takes nothing for this long is closed; also how long the kernel waits for an acknowledgement.
    #[serde(with = "super::units::duration")]
    pub write_timeout: Duration,
    /// How long the gateway waits for the station's close frame.
    #[serde(with = "super::units::duration")]
    pub close_timeout: Duration,
    /// Messages of one station that may wait for durability or for the socket; at this many the gateway stops reading.
    pub max_unacknowledged: usize,
    /// What its events may take on the bus until they are durable; one message more is taken in all the same.
    pub max_unacknowledged_size: ByteSize,
    /// Commands that may wait for one station.
    pub command_queue: usize,
    /// CALLs of a station that are remembered, so that a repeated one is answered again without a second event.
    pub remembered_calls: usize,
    /// For how long.
    #[serde(with = "super::units::duration")]
    pub remember_for: Duration,
}

impl Default for Session {
    fn default() -> Self {
        Self {
            max_message_size: ByteSize::mib(1),
            read_buffer_size: ByteSize::kib(16),
            compression: true,
            compress_above: ByteSize::b(256),
            ping_interval: Duration::from_secs(60),
            idle_timeout: Duration::from_secs(15 * 60),
            write_timeout: Duration::from_secs(60),
            close_timeout: Duration::from_secs(5),
            max_unacknowledged: 8,
            max_unacknowledged_size: ByteSize::kib(256),
            command_queue: 32,
            remembered_calls: 4,
            remember_for: Duration::from_secs(600),
        }
    }
}

/// What a BootNotification is answered with, and what may be said before one.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default)]
pub struct RegistrationPolicy {
    /// For a station about which the operator decided nothing: `Accepted`, `Pending` or `Rejected`.
    #[serde(with = "super::units::registration")]
    pub default: Registration,
    /// The `interval` of the answer: the heartbeat, or the wait before the next BootNotification.
    #[serde(with = "super::units::duration")]
    pub interval: Duration,
    /// CALLs of a station that was never registered.
    #[serde(deserialize_with = "super::units::word")]
    pub before_boot: BeforeBoot,
    /// Stations whose state is kept.
    pub max_stations: usize,
}

impl Default for RegistrationPolicy {
    fn default() -> Self {
        Self {
            default: Registration::Accepted,
            interval: Duration::from_secs(300),
            before_boot: BeforeBoot::Refuse,
            max_stations: 1_000_000,
        }
    }
}

/// What happens to CALLs of a station that was never registered.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum BeforeBoot {
    /// CALLERROR SecurityError (OCPP 2.x B01.FR.10; 1.6 errata 3.8).
    Refuse,
    /// Answered as if accepted: some stations never boot after a reconnect.
    Accept,
}

/// Payload validation.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default)]
pub struct Validation {
    /// What is done about a payload that violates its schema.
    #[serde(deserialize_with = "super::units::word")]
    pub mode: ValidationMode,
}

impl Default for Validation {
    fn default() -> Self {
        Self { mode: ValidationMode::Off }
    }
}

/// What is done about a payload that violates its schema.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ValidationMode {
    /// Nothing is looked at.
    Off,
    /// Counted and logged; answered all the same.
    Warn,
    /// Answered with CALLERROR.
    Enforce,
}

/// Commands to stations.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default)]
pub struct Commands {
    /// How long a command may take when it does not say.
    #[serde(with = "super::units::duration")]
    pub default_timeout: Duration,
    /// The longest a command may ask for.
    #[serde(with = "super::units::duration")]
    pub max_timeout: Duration,
    /// After a connection no command is sent until the station's first CALL was answered or this time has passed.
    #[serde(with = "super::units::duration")]
    pub grace: Duration,
    /// Commands that may be under way at once.
    pub max_in_flight: usize,
    /// Commands that are kept for one station while it is away (`ifOffline: queue`).
    pub offline_queue: usize,
    /// How long a command is kept.
    #[serde(with = "super::units::duration")]
    pub offline_ttl: Duration,
    /// Bytes that are kept for all stations together.
    pub offline_bytes: ByteSize,
    /// Ended commands that are remembered, so that a repeated one gets the first outcome.
    pub remembered: usize,
    /// Their bytes, at most.
    pub remembered_bytes: ByteSize,
    /// For how long.
    #[serde(with = "super::units::duration")]
    pub remember_for: Duration,
    /// Commands a second that one batch sends, when it does not say.
    pub batch_rate: f64,
    /// Batches that may run at once.
    pub max_batches: usize,
    /// The consumer group that reads `topics.commands`.
    pub consumer_group: String,
}

impl Default for Commands {
    fn default() -> Self {
        Self {
            default_timeout: Duration::from_secs(30),
            max_timeout: Duration::from_secs(600),
            grace: Duration::from_secs(2),
            max_in_flight: 10_000,
            offline_queue: 100,
            offline_ttl: Duration::from_secs(30 * 60),
            offline_bytes: ByteSize::mib(256),
            remembered: 100_000,
            remembered_bytes: ByteSize::mib(128),
            remember_for: Duration::from_secs(24 * 60 * 60),
            batch_rate: 100.0,
            max_batches: 16,
            consumer_group: "ocpp-gateway".into(),
        }
    }
}

/// Where events go.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default)]
pub struct Bus {
    /// `local` or `kafka`.
    #[serde(deserialize_with = "super::units::word")]
    pub kind: BusKind,
    /// Events accepted and not yet durable, at most.
    pub queue_events: usize,
    /// Their bytes, at most.
    pub queue_bytes: ByteSize,
    /// The local log.
    pub local: LocalBus,
    /// Kafka.
    pub kafka: KafkaBus,
    /// The spool beside Kafka.
    pub spool: SpoolBus,
    /// When storage has not acknowledged for this long, stations are closed and refused until it does, so that they keep
    /// their messages as they do offline instead of using up their attempts. `0s` means never.
    #[serde(with = "super::units::duration")]
    pub hold_limit: Duration,
    /// What may be dropped when the bus is too full.
    pub expendable: Expendable,
}

impl Default for Bus {
    fn default() -> Self {
        Self {
            kind: BusKind::Local,
            queue_events: 100_000,
            queue_bytes: ByteSize::mib(256),
            local: LocalBus::default(),
            kafka: KafkaBus::default(),
            spool: SpoolBus::default(),
            hold_limit: Duration::from_secs(120),
            expendable: Expendable::default(),
        }
    }
}

/// Where events go.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum BusKind {
    /// The log on disk, readable through the admin API.
    Local,
    /// Kafka.
    Kafka,
}

/// The local log.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default)]
pub struct LocalBus {
    /// Its folder; empty means `events` in the node's data folder.
    pub dir: PathBuf,
    /// A segment file is closed at this size.
    pub segment_size: ByteSize,
    /// The oldest segments go when the log is larger.
    pub max_size: ByteSize,
    /// Segments go when everything in them is older; `0s` means never.
    #[serde(with = "super::units::duration")]
    pub max_age: Duration,
    /// Commits begin at least this far apart.
    #[serde(with = "super::units::duration")]
    pub linger: Duration,
}

impl Default for LocalBus {
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

/// Kafka.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default)]
pub struct KafkaBus {
    /// `host:port`, separated by commas.
    pub brokers: String,
    /// `none`, `gzip`, `snappy`, `lz4` or `zstd`.
    pub compression: String,
    /// How long records are gathered for one request.
    #[serde(with = "super::units::duration")]
    pub linger: Duration,
    /// Not ready when nothing was acknowledged for this long while records wait.
    #[serde(with = "super::units::duration")]
    pub unready_after: Duration,
    /// Further options of the Kafka client: TLS, SASL and so on.
    pub options: DottedOptions,
}

impl Default for KafkaBus {
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

/// Messages that may be dropped.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default)]
pub struct Expendable {
    /// Their actions; none unless the operator says so. A dropped CALL is answered all the same.
    pub actions: Vec<String>,
    /// The fill level of the bus, 0 to 1, from which they are dropped.
    pub above: f64,
}

impl Default for Expendable {
    fn default() -> Self {
        Self { actions: Vec::new(), above: 0.8 }
    }
}

/// Where events become durable while Kafka does not acknowledge.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default)]
pub struct SpoolBus {
    /// Its folder; empty means no spool.
    pub dir: PathBuf,
    /// Bytes on disk, at most. A full spool holds events back; nothing is removed.
    pub max_size: ByteSize,
    /// Nothing more is taken while the oldest event is older than this.
    #[serde(with = "super::units::duration")]
    pub max_age: Duration,
    /// The fill level, 0 to 1, from which the alarm metric is 1.
    pub alarm_level: f64,
    /// Without an acknowledgement by Kafka for this long, events go to the spool.
    #[serde(with = "super::units::duration")]
    pub after: Duration,
}

impl Default for SpoolBus {
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

/// Topic names. Several classes may share one.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default)]
pub struct Topics {
    /// Station and message events.
    pub events: String,
    /// Outcomes of commands.
    pub command_results: String,
    /// Commands, read; empty for none.
    pub commands: String,
}

impl Default for Topics {
    fn default() -> Self {
        Self {
            events: "ocpp.events".into(),
            command_results: "ocpp.command-results".into(),
            commands: "ocpp.commands".into(),
        }
    }
}

/// The operators' listener.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default)]
pub struct Admin {
    /// Address and port; never a station listener's.
    #[serde(deserialize_with = "super::units::address")]
    pub address: SocketAddr,
    /// Connections at once.
    pub max_connections: usize,
}

impl Default for Admin {
    fn default() -> Self {
        Self { address: SocketAddr::from(([127, 0, 0, 1], 9100)), max_connections: 256 }
    }
}

/// Logs.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default)]
pub struct Log {
    /// `human` or `json`.
    #[serde(deserialize_with = "super::units::word")]
    pub format: LogFormat,
    /// `error`, `warn`, `info`, `debug`, `trace`, or directives such as `info,ocpp_gateway::session=debug`.
    pub level: String,
}

impl Default for Log {
    fn default() -> Self {
        Self { format: LogFormat::Human, level: "info".into() }
    }
}

/// How a log line looks.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    Human,
    /// One JSON object a line.
    Json,
}

/// Spans, for a collector of OpenTelemetry's.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default)]
pub struct Telemetry {
    /// Where they go: `http://HOST:4318`; empty: nowhere.
    pub otlp_endpoint: String,
    /// How they are encoded and carried.
    #[serde(deserialize_with = "super::units::word")]
    pub protocol: Protocol,
    /// The share of traces that begin here and are recorded, from 0 to 1.
    pub sampling: f64,
    /// Spans that may wait to be sent; the rest is dropped and counted.
    pub queue_spans: usize,
    /// How long they are gathered.
    #[serde(with = "super::units::duration")]
    pub export_interval: Duration,
    /// How long the collector may take.
    #[serde(with = "super::units::duration")]
    pub export_timeout: Duration,
}

impl Default for Telemetry {
    fn default() -> Self {
        Self {
            otlp_endpoint: String::new(),
            protocol: Protocol::default(),
            sampling: 0.01,
            queue_spans: 8192,
            export_interval: Duration::from_secs(1),
            export_timeout: Duration::from_secs(10),
        }
    }
}

/// What SIGTERM does.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default)]
pub struct Shutdown {
    /// The process is gone by then.
    #[serde(with = "super::units::duration")]
    pub deadline: Duration,
    /// Stations are closed evenly over this time.
    #[serde(with = "super::units::duration")]
    pub close_spread: Duration,
}

impl Default for Shutdown {
    fn default() -> Self {
        Self { deadline: Duration::from_secs(30), close_spread: Duration::from_secs(10) }
    }
}
