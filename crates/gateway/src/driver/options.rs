//! Options of a session: its limits, registration, and what may be shed.

use std::time::Duration;

use bytesize::ByteSize;
use ocpp_options::{DurationText, Problems, SizeText, word};
use ocpp_protocol::Registration;
use ocpp_station::options::BeforeBoot;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A station's connection.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(default)]
pub struct SessionOptions {
    /// The largest message, from 1 KiB to 64 MiB. A larger one closes the connection with 1009.
    #[serde(with = "SizeText")]
    pub max_message_size: ByteSize,
    /// Bytes read by one system call, into a buffer that each worker thread lends to its connections. At most this much of what a
    /// station sends without waiting for responses is kept with its connection.
    #[serde(with = "SizeText")]
    #[schemars(extend("x-tuning" = true))]
    pub read_buffer_size: ByteSize,
    /// Agree to permessage-deflate (RFC 7692) when a station offers it; OCPP 2.x requires that of a CSMS. Neither side keeps a
    /// compression context between messages, so a compressed connection takes no more memory than another.
    pub compression: bool,
    /// On a connection with compression, larger messages to the station are compressed if that makes them smaller.
    #[serde(with = "SizeText")]
    #[schemars(extend("x-tuning" = true))]
    pub compress_above: ByteSize,
    /// How often the gateway pings. `0s`: never.
    #[serde(with = "DurationText")]
    pub ping_interval: Duration,
    /// A connection without any inbound frame for this long is closed (`idle`). Set it to two or three times the heartbeat interval
    /// at least. A peer that vanished is detected sooner, see `write_timeout`.
    #[serde(with = "DurationText")]
    pub idle_timeout: Duration,
    /// A station that accepts no data for this long is closed (`slowReader`). It is also how long the kernel waits for data to be
    /// acknowledged (TCP_USER_TIMEOUT): with pings on, a dead peer is detected within `ping_interval` + `write_timeout`, whether
    /// or not the station answers pings.
    #[serde(with = "DurationText")]
    pub write_timeout: Duration,
    /// How long the gateway waits for the station's close frame after its own.
    #[serde(with = "DurationText")]
    #[schemars(extend("x-tuning" = true))]
    pub close_timeout: Duration,
    /// Messages of one station that may wait for durability or for the socket. At this many the gateway stops reading, and TCP
    /// slows the station down.
    #[schemars(extend("x-tuning" = true))]
    pub max_unacknowledged: usize,
    /// Bytes that events of one station may take on the bus until they are durable. Beyond, the gateway stops reading, too. The
    /// message that exceeds the limit is still accepted.
    #[serde(with = "SizeText")]
    #[schemars(extend("x-tuning" = true))]
    pub max_unacknowledged_size: ByteSize,
    /// Commands that may wait for one station; the next one fails with `queueFull`.
    #[schemars(extend("x-tuning" = true))]
    pub command_queue: usize,
    /// CALLs of a station that are remembered. One that is repeated with the same message id and content gets the same answer
    /// again and makes no second event: on the same connection, and on another if the content has a time or number of its own.
    /// A BootNotification clears them. 0: none.
    #[schemars(extend("x-tuning" = true))]
    pub remembered_calls: usize,
    /// How long a CALL is remembered.
    #[serde(with = "DurationText")]
    #[schemars(extend("x-tuning" = true))]
    pub remember_for: Duration,
}

impl Default for SessionOptions {
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

impl SessionOptions {
    /// The largest event: a message with its envelope, or the raw text of a malformed one.
    pub fn max_event_bytes(&self) -> usize {
        usize::try_from(self.max_message_size.as_u64()).unwrap_or(usize::MAX).saturating_add(64 * 1024)
    }

    /// What is wrong with these values.
    pub fn check(&self, problems: &mut Problems) {
        problems.demand_count("session.max_unacknowledged", self.max_unacknowledged);
        problems.demand_count("session.command_queue", self.command_queue);
        problems.demand(
            self.ping_interval.is_zero() || self.ping_interval >= Duration::from_millis(10),
            "session.ping_interval must be 0s or at least 10ms",
        );
        problems.demand(
            (1024..=64 << 20).contains(&self.max_message_size.as_u64()),
            "session.max_message_size must be between 1 KiB and 64 MiB",
        );
        problems.demand(
            (512..=1 << 20).contains(&self.read_buffer_size.as_u64()),
            "session.read_buffer_size must be between 512 B and 1 MiB",
        );
        problems.demand_positive("session.idle_timeout", self.idle_timeout);
        problems.demand_positive("session.write_timeout", self.write_timeout);
        problems.demand(
            self.ping_interval.is_zero() || self.ping_interval < self.idle_timeout,
            "session.ping_interval must be shorter than session.idle_timeout",
        );
    }
}

/// How a BootNotification is answered, and what a station may say before one.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(default)]
pub struct RegistrationOptions {
    /// The status for a station about which the operator has decided nothing: `Accepted`, `Pending` or `Rejected`. Decide for one
    /// station with `PUT /api/v1/stations/{id}/registration`; that counts at once.
    #[serde(with = "registration")]
    #[schemars(with = "String")]
    pub default: Registration,
    /// The `interval` of the answer: between heartbeats when accepted, else until the next BootNotification.
    #[serde(with = "DurationText")]
    pub interval: Duration,
    /// How CALLs of a station that was never registered are answered.
    #[serde(deserialize_with = "word")]
    pub before_boot: BeforeBoot,
    /// Ask a station to boot (TriggerMessage for a BootNotification) that was never registered, once a connection: after its first
    /// CALL was refused, or after `commands.grace` (2s at least) in silence. And one that was told Pending or nothing, when an operator
    /// decides otherwise. Else it would be refused until it boots by itself. There are stations that reboot on this request.
    pub trigger_boot: bool,
    /// Stations whose state is kept. Beyond, unknown stations are refused with 503.
    #[schemars(extend("x-tuning" = true))]
    pub max_stations: usize,
}

impl Default for RegistrationOptions {
    fn default() -> Self {
        Self {
            default: Registration::Accepted,
            interval: Duration::from_secs(300),
            before_boot: BeforeBoot::Refuse,
            trigger_boot: true,
            max_stations: 1_000_000,
        }
    }
}

impl RegistrationOptions {
    /// What is wrong with these values.
    pub fn check(&self, problems: &mut Problems) {
        problems.demand_count("registration.max_stations", self.max_stations);
        problems.demand(
            (1..=86_400 * 365).contains(&self.interval.as_secs()),
            "registration.interval must be between 1s and a year: 0 would leave the station to choose",
        );
    }
}

/// Registration states by their OCPP words, in any case.
mod registration {
    use ocpp_protocol::Registration;
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Registration, D::Error> {
        let text = String::deserialize(deserializer)?;
        [Registration::Accepted, Registration::Pending, Registration::Rejected]
            .into_iter()
            .find(|state| state.as_str().eq_ignore_ascii_case(&text))
            .ok_or_else(|| D::Error::custom(format!("{text:?} is not one of Accepted, Pending, Rejected")))
    }

    pub(super) fn serialize<S: Serializer>(value: &Registration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(value.as_str())
    }
}

/// Messages that may be dropped when the bus is too full. None are by default; what is dropped is counted in
/// `ocpp_gateway_dropped_messages_total` by action.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(default)]
pub struct SheddableOptions {
    /// OCPP actions, for example `["Heartbeat"]`. A dropped CALL is answered all the same.
    pub actions: Vec<String>,
    /// The fill level of the bus, 0 to 1, from which they are dropped.
    #[schemars(extend("x-tuning" = true))]
    pub above: f64,
}

impl Default for SheddableOptions {
    fn default() -> Self {
        Self { actions: Vec::new(), above: 0.8 }
    }
}

impl SheddableOptions {
    /// What is wrong with these values.
    pub fn check(&self, problems: &mut Problems) {
        problems.demand_share("bus.expendable.above", self.above);
        problems.demand(
            self.actions.iter().all(|action| ocpp_protocol::Action::find(action).is_some()),
            "bus.expendable.actions must be OCPP actions",
        );
    }
}
