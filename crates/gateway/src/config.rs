//! The configuration: what the operator may set, its defaults, and whether it makes sense.
//!
//! Owns every key, the order of sources (built-in default, TOML file, environment, `--set`), and the checks. The only
//! file that reads the environment. Does not open anything: that a file exists or a port is free shows when `app.rs`
//! builds the parts. Every key is documented in `docs/configuration.md`; a test compares.

mod units;
mod unknown;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytesize::ByteSize;
use ocpp_protocol::{Registration, Version};
use serde::{Deserialize, Serialize};

pub use units::{DottedOptions, Subprotocols};

/// The environment prefix: `OCPP_GATEWAY__SECTION__KEY`.
const ENVIRONMENT_PREFIX: &str = "OCPP_GATEWAY";

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
    /// Built-in answers.
    pub answers: Answers,
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
    /// SIGTERM.
    pub shutdown: Shutdown,
}

fn default_listeners() -> BTreeMap<String, Listener> {
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
    #[serde(deserialize_with = "units::address")]
    pub address: SocketAddr,
    /// What comes before the identity in the path.
    pub path_prefix: String,
    /// The enabled subprotocols. The station's order of preference decides, not this one.
    pub subprotocols: Subprotocols,
    /// Who may connect.
    #[serde(deserialize_with = "units::word")]
    pub auth: AuthMode,
    /// Accept what real stations get wrong: no subprotocol header (counts as 1.6), double slashes in the path, binary
    /// frames with text.
    pub lenient: bool,
}

impl Default for Listener {
    fn default() -> Self {
        Self {
            address: SocketAddr::from(([0, 0, 0, 0], 9000)),
            path_prefix: "/ocpp".into(),
            subprotocols: Subprotocols(vec![Version::V21, Version::V201, Version::V16]),
            auth: AuthMode::Open,
            lenient: false,
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
    /// Handshakes in progress at once, for each listener.
    pub max_concurrent: usize,
    /// How long one may take.
    #[serde(with = "units::duration")]
    pub timeout: Duration,
    /// When all places are taken, a handshake older than this gives way to a new one.
    #[serde(with = "units::duration")]
    pub yield_after: Duration,
    /// Connections the kernel keeps until they are accepted.
    pub backlog: i32,
    /// Refused handshakes that are told as events, for each listener; the rest is only counted.
    pub rejected_events_per_second: u32,
}

impl Default for Handshake {
    fn default() -> Self {
        Self {
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
    #[serde(with = "units::duration")]
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
    /// Bytes read at once; held by every connection.
    pub read_buffer_size: ByteSize,
    /// How often the gateway pings; `0s` means never.
    #[serde(with = "units::duration")]
    pub ping_interval: Duration,
    /// A connection without any inbound frame for this long is closed.
    #[serde(with = "units::duration")]
    pub idle_timeout: Duration,
    /// A station that takes nothing for this long is closed; also how long the kernel waits for an acknowledgement.
    #[serde(with = "units::duration")]
    pub write_timeout: Duration,
    /// How long the gateway waits for the station's close frame.
    #[serde(with = "units::duration")]
    pub close_timeout: Duration,
    /// Messages of one station that may wait for durability or for the socket; at this many the gateway stops reading.
    pub max_unacknowledged: usize,
    /// Commands that may wait for one station.
    pub command_queue: usize,
    /// CALLs of a station that are remembered, so that a repeated one is answered again without a second event.
    pub remembered_calls: usize,
    /// For how long.
    #[serde(with = "units::duration")]
    pub remember_for: Duration,
}

impl Default for Session {
    fn default() -> Self {
        Self {
            max_message_size: ByteSize::mib(1),
            read_buffer_size: ByteSize::kib(4),
            ping_interval: Duration::from_secs(60),
            idle_timeout: Duration::from_secs(15 * 60),
            write_timeout: Duration::from_secs(60),
            close_timeout: Duration::from_secs(5),
            max_unacknowledged: 8,
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
    #[serde(with = "units::registration")]
    pub default: Registration,
    /// The `interval` of the answer: the heartbeat, or the wait before the next BootNotification.
    #[serde(with = "units::duration")]
    pub interval: Duration,
    /// CALLs of a station that was never registered.
    #[serde(deserialize_with = "units::word")]
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

/// What the gateway answers by itself.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default)]
pub struct Answers {
    /// The status given to every idTag and idToken: `Accepted` or `Invalid`.
    #[serde(deserialize_with = "units::word")]
    pub authorization: Authorization,
}

impl Default for Answers {
    fn default() -> Self {
        Self { authorization: Authorization::Accepted }
    }
}

/// The status given to every idTag and idToken.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize, Serialize)]
pub enum Authorization {
    /// Everybody may charge.
    Accepted,
    /// Nobody may charge.
    Invalid,
}

impl Authorization {
    /// The OCPP word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Accepted => "Accepted",
            Self::Invalid => "Invalid",
        }
    }
}

/// Payload validation.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default)]
pub struct Validation {
    /// What is done about a payload that violates its schema.
    #[serde(deserialize_with = "units::word")]
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
    #[serde(with = "units::duration")]
    pub default_timeout: Duration,
    /// The longest a command may ask for.
    #[serde(with = "units::duration")]
    pub max_timeout: Duration,
    /// After a connection no command is sent until the station's first CALL was answered or this time has passed.
    #[serde(with = "units::duration")]
    pub grace: Duration,
}

impl Default for Commands {
    fn default() -> Self {
        Self {
            default_timeout: Duration::from_secs(30),
            max_timeout: Duration::from_secs(600),
            grace: Duration::from_secs(2),
        }
    }
}

/// Where events go.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default)]
pub struct Bus {
    /// `local` or `kafka`.
    #[serde(deserialize_with = "units::word")]
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
    #[serde(with = "units::duration")]
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
    #[serde(with = "units::duration")]
    pub max_age: Duration,
}

impl Default for LocalBus {
    fn default() -> Self {
        Self {
            dir: PathBuf::new(),
            segment_size: ByteSize::mib(64),
            max_size: ByteSize::gib(10),
            max_age: Duration::from_secs(7 * 24 * 3600),
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
    #[serde(with = "units::duration")]
    pub linger: Duration,
    /// Not ready when nothing was acknowledged for this long while records wait.
    #[serde(with = "units::duration")]
    pub unready_after: Duration,
    /// Further options of the Kafka client: TLS, SASL and so on.
    pub options: DottedOptions,
}

impl Default for KafkaBus {
    fn default() -> Self {
        Self {
            brokers: "127.0.0.1:9092".into(),
            compression: "lz4".into(),
            linger: Duration::from_millis(2),
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
    #[serde(with = "units::duration")]
    pub max_age: Duration,
    /// The fill level, 0 to 1, from which the alarm metric is 1.
    pub alarm_level: f64,
    /// Without an acknowledgement by Kafka for this long, events go to the spool.
    #[serde(with = "units::duration")]
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
}

impl Default for Topics {
    fn default() -> Self {
        Self { events: "ocpp.events".into(), command_results: "ocpp.command-results".into() }
    }
}

/// The operators' listener.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default)]
pub struct Admin {
    /// Address and port; never a station listener's.
    #[serde(deserialize_with = "units::address")]
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
    #[serde(deserialize_with = "units::word")]
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

/// What SIGTERM does.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default)]
pub struct Shutdown {
    /// The process is gone by then.
    #[serde(with = "units::duration")]
    pub deadline: Duration,
    /// Stations are closed evenly over this time.
    #[serde(with = "units::duration")]
    pub close_spread: Duration,
}

impl Default for Shutdown {
    fn default() -> Self {
        Self { deadline: Duration::from_secs(30), close_spread: Duration::from_secs(10) }
    }
}

/// Why a configuration cannot be used. One line, for people.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read or is not TOML, or a value has the wrong type.
    #[error("configuration{}: {message}", origin(.file))]
    Unreadable {
        /// The file, if there is one.
        file: Option<PathBuf>,
        /// What is wrong, with the key.
        message: String,
    },
    /// A key that nothing reads.
    #[error("configuration{}: unknown key `{key}`{}", origin(.file), suggestion(.nearest))]
    UnknownKey {
        /// The file, if there is one.
        file: Option<PathBuf>,
        /// The key, as a dotted path.
        key: String,
        /// The nearest key that exists.
        nearest: Option<String>,
    },
    /// Values that make no sense together.
    #[error("configuration{}: {}", origin(.file), .problems.join("; "))]
    Senseless {
        /// The file, if there is one.
        file: Option<PathBuf>,
        /// Everything that is wrong.
        problems: Vec<String>,
    },
}

fn origin(file: &Option<PathBuf>) -> String {
    file.as_ref().map_or_else(String::new, |file| format!(" {}", file.display()))
}

fn suggestion(nearest: &Option<String>) -> String {
    nearest.as_ref().map_or_else(String::new, |nearest| format!("; did you mean `{nearest}`?"))
}

impl Config {
    /// Reads, merges and checks: built-in defaults, then the file, then the environment, then `key=value` overrides.
    ///
    /// # Errors
    /// One line that says what is wrong and where.
    pub fn load(file: Option<&Path>, overrides: &[(String, String)]) -> Result<Self, ConfigError> {
        let origin = file.map(Path::to_path_buf);
        let unreadable = |error: config::ConfigError| ConfigError::Unreadable {
            file: origin.clone(),
            message: error.to_string().replace('\n', " "),
        };
        let mut builder = config::Config::builder();
        if let Some(file) = file {
            builder = builder.add_source(config::File::from(file).format(config::FileFormat::Toml));
        }
        builder = builder.add_source(
            config::Environment::with_prefix(ENVIRONMENT_PREFIX)
                .prefix_separator("__")
                .separator("__")
                .ignore_empty(true)
                .try_parsing(true),
        );
        for (key, value) in overrides {
            builder = builder.set_override(key, value.as_str()).map_err(unreadable)?;
        }
        let merged = builder.build().map_err(unreadable)?;
        let tree: serde_json::Value = merged.clone().try_deserialize().map_err(unreadable)?;
        if let Some((key, nearest)) = unknown::first_unknown(&tree, &Self::key_tree()) {
            return Err(ConfigError::UnknownKey { file: origin, key, nearest });
        }
        let config: Self = merged.try_deserialize().map_err(unreadable)?;
        let problems = config.problems();
        if problems.is_empty() { Ok(config) } else { Err(ConfigError::Senseless { file: origin, problems }) }
    }

    /// Every key with its default, as a tree; what is not in it is unknown.
    pub fn key_tree() -> serde_json::Value {
        let defaults = Self { listeners: default_listeners(), ..Self::default() };
        // Serializing plain structs to a tree cannot fail; an empty tree would make every key unknown, which shows.
        serde_json::to_value(defaults).unwrap_or_default()
    }

    /// Folder of the local event log.
    pub fn events_dir(&self) -> PathBuf {
        if self.bus.local.dir.as_os_str().is_empty() {
            self.node.data_dir.join("events")
        } else {
            self.bus.local.dir.clone()
        }
    }

    /// Folder of the stations' state.
    pub fn stations_dir(&self) -> PathBuf {
        self.node.data_dir.join("stations")
    }

    /// Folder of the events that Kafka can never take.
    pub fn set_aside_dir(&self) -> PathBuf {
        self.node.data_dir.join("undelivered")
    }

    /// The largest event: a message with its envelope, or the raw text of a malformed one.
    pub fn max_event_bytes(&self) -> usize {
        usize::try_from(self.session.max_message_size.as_u64())
            .unwrap_or(usize::MAX)
            .saturating_add(64 * 1024)
    }

    fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        let mut demand = |holds: bool, text: &str| {
            if !holds {
                problems.push(text.to_owned());
            }
        };
        demand(!self.node.id.is_empty() && self.node.id.len() <= 64, "node.id must have 1 to 64 characters");
        demand(!self.listeners.is_empty(), "listeners: at least one is needed");
        let counts = [
            ("handshake.max_concurrent", self.handshake.max_concurrent),
            ("session.max_unacknowledged", self.session.max_unacknowledged),
            ("session.command_queue", self.session.command_queue),
            ("credentials.slow_hash_threads", self.credentials.slow_hash_threads),
            ("registration.max_stations", self.registration.max_stations),
            ("admin.max_connections", self.admin.max_connections),
            ("bus.queue_events", self.bus.queue_events),
        ];
        for (key, count) in counts {
            demand((1..=100_000_000).contains(&count), &format!("{key} must be between 1 and 100 million"));
        }
        demand(
            self.session.ping_interval.is_zero() || self.session.ping_interval >= Duration::from_millis(10),
            "session.ping_interval must be 0s or at least 10ms",
        );
        demand(!self.handshake.timeout.is_zero(), "handshake.timeout must be positive");
        demand(self.handshake.backlog > 0, "handshake.backlog must be positive");
        demand(!self.credentials.reload_interval.is_zero(), "credentials.reload_interval must be positive");
        let message = self.session.max_message_size.as_u64();
        demand(
            (1024..=64 << 20).contains(&message),
            "session.max_message_size must be between 1 KiB and 64 MiB",
        );
        let buffer = self.session.read_buffer_size.as_u64();
        demand((512..=1 << 20).contains(&buffer), "session.read_buffer_size must be between 512 B and 1 MiB");
        demand(!self.session.idle_timeout.is_zero(), "session.idle_timeout must be positive");
        demand(!self.session.write_timeout.is_zero(), "session.write_timeout must be positive");
        demand(
            self.session.ping_interval.is_zero() || self.session.ping_interval < self.session.idle_timeout,
            "session.ping_interval must be shorter than session.idle_timeout",
        );
        demand(
            (1..=86_400 * 365).contains(&self.registration.interval.as_secs()),
            "registration.interval must be between 1s and a year: 0 would leave the station to choose",
        );
        demand(
            !self.commands.default_timeout.is_zero()
                && self.commands.default_timeout <= self.commands.max_timeout,
            "commands.default_timeout must be positive and not above commands.max_timeout",
        );
        demand(self.bus.queue_events >= 16, "bus.queue_events must be at least 16");
        let queue = self.bus.queue_bytes.as_u64();
        demand(queue < u64::from(u32::MAX), "bus.queue_bytes must be below 4 GiB");
        demand(queue >= 2 * message, "bus.queue_bytes must be at least twice session.max_message_size");
        let event = u64::try_from(self.max_event_bytes()).unwrap_or(u64::MAX);
        demand(
            self.bus.local.segment_size.as_u64() >= 2 * event,
            "bus.local.segment_size must be at least twice the largest event (session.max_message_size, or 1 MiB)",
        );
        let max_size = self.bus.local.max_size.as_u64();
        demand(
            max_size == 0 || max_size >= 2 * self.bus.local.segment_size.as_u64(),
            "bus.local.max_size must be 0 (unlimited) or at least twice bus.local.segment_size",
        );
        demand(
            self.bus.spool.max_size.as_u64() >= 16 * event,
            "bus.spool.max_size must be at least sixteen times the largest event",
        );
        demand(
            (0.0..=1.0).contains(&self.bus.spool.alarm_level),
            "bus.spool.alarm_level must be between 0 and 1",
        );
        demand(!self.bus.spool.after.is_zero(), "bus.spool.after must be positive");
        demand(
            self.bus.kind == BusKind::Kafka || self.bus.spool.dir.as_os_str().is_empty(),
            "bus.spool.dir is for bus.kind = \"kafka\": the local bus is a log already",
        );
        demand(
            (0.0..=1.0).contains(&self.bus.expendable.above),
            "bus.expendable.above must be between 0 and 1",
        );
        demand(
            self.bus.expendable.actions.iter().all(|action| ocpp_protocol::Action::find(action).is_some()),
            "bus.expendable.actions must be OCPP actions",
        );
        demand(!self.shutdown.deadline.is_zero(), "shutdown.deadline must be positive");
        demand(
            self.shutdown.close_spread < self.shutdown.deadline,
            "shutdown.close_spread must be shorter than shutdown.deadline",
        );
        let mut addresses = vec![("admin.address".to_owned(), self.admin.address)];
        for (name, listener) in &self.listeners {
            if listener.auth == AuthMode::Basic && self.credentials.file.as_os_str().is_empty() {
                problems.push(format!("listeners.{name}.auth = \"basic\" needs credentials.file"));
            }
            if listener.subprotocols.0.is_empty() {
                problems.push(format!("listeners.{name}.subprotocols must not be empty"));
            }
            if !listener.path_prefix.is_empty()
                && (!listener.path_prefix.starts_with('/') || listener.path_prefix.ends_with('/'))
            {
                problems.push(format!("listeners.{name}.path_prefix must start with / and not end with it"));
            }
            let key = format!("listeners.{name}.address");
            if listener.address.port() != 0
                && let Some((other, _)) = addresses.iter().find(|(_, address)| *address == listener.address)
            {
                problems.push(format!("{key} and {other} are the same"));
            }
            addresses.push((key, listener.address));
        }
        if let Err(error) = self.log.level.parse::<tracing_subscriber::EnvFilter>() {
            problems.push(format!("log.level: {error}"));
        }
        if self.bus.kind == BusKind::Kafka
            && let Err(error) = self.kafka_options().check()
        {
            problems.push(format!("bus.kafka: {error}"));
        }
        problems
    }

    fn spool_options(&self) -> Option<ocpp_bus::spool::SpoolOptions> {
        let spool = &self.bus.spool;
        (!spool.dir.as_os_str().is_empty()).then(|| ocpp_bus::spool::SpoolOptions {
            dir: spool.dir.clone(),
            max_bytes: spool.max_size.as_u64(),
            max_age: spool.max_age,
            alarm_level: spool.alarm_level,
            max_record_bytes: u32::try_from(self.max_event_bytes()).unwrap_or(u32::MAX),
            after: spool.after,
        })
    }

    /// What the Kafka bus needs to know.
    pub fn kafka_options(&self) -> ocpp_bus::kafka::KafkaOptions {
        let kafka = &self.bus.kafka;
        ocpp_bus::kafka::KafkaOptions {
            brokers: kafka.brokers.clone(),
            client_id: format!("ocpp-gateway-{}", self.node.id),
            compression: kafka.compression.clone(),
            linger: kafka.linger,
            unready_after: kafka.unready_after,
            max_record_bytes: self.max_event_bytes(),
            events_topic: self.topics.events.clone(),
            command_results_topic: self.topics.command_results.clone(),
            set_aside_dir: self.set_aside_dir(),
            spool: self.spool_options(),
            extra: kafka.options.0.clone(),
        }
    }
}

#[cfg(test)]
mod tests;
