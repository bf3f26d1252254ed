//! Options of commands.
//!
//! Owns the keys, their checks, and the limits that `ocpp_commands` is given because of them.

use std::time::Duration;

use bytesize::ByteSize;
use ocpp_commands::Limits;
use ocpp_commands::request::RATES;
use ocpp_options::{DurationText, Problems, SizeText};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Commands to stations.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(default)]
pub struct CommandOptions {
    /// How long a command may take, from its arrival to the station's answer, when it does not say.
    #[serde(with = "DurationText")]
    pub default_timeout: Duration,
    /// The longest timeout that a command may ask for.
    #[serde(with = "DurationText")]
    pub max_timeout: Duration,
    /// After a connection no command is sent until the station's first CALL was answered or this time has passed: several stations
    /// fail on anything sooner.
    #[serde(with = "DurationText")]
    #[schemars(extend("x-tuning" = true))]
    pub grace: Duration,
    /// Commands in a row that a station may leave unanswered; then its connection is closed (`unresponsive`), because some stations
    /// go on sending on a connection on which they no longer listen. 0: it is never closed for that.
    pub close_after_timeouts: u32,
    /// Commands that may be in progress at once: accepted, not ended, and not queued for a station that is offline. Beyond, Kafka
    /// is not read and HTTP answers 503.
    #[schemars(extend("x-tuning" = true))]
    pub max_in_flight: usize,
    /// Commands that are queued for one station while it is offline (`ifOffline: queue`).
    pub offline_queue: usize,
    /// How long a command is queued for a station that is offline; its own `expiresAt` may be sooner.
    #[serde(with = "DurationText")]
    pub offline_ttl: Duration,
    /// Bytes that queued commands of all stations may take, in memory and on disk.
    #[serde(with = "SizeText")]
    #[schemars(extend("x-tuning" = true))]
    pub offline_bytes: ByteSize,
    /// Ended commands that are remembered, also over a restart, so that a repeated one is not sent again.
    #[schemars(extend("x-tuning" = true))]
    pub remembered: usize,
    /// Bytes that remembered commands may take. The commands of a batch that has not ended come on top.
    #[serde(with = "SizeText")]
    #[schemars(extend("x-tuning" = true))]
    pub remembered_bytes: ByteSize,
    /// How long an ended command is remembered: one that is repeated with the same `commandId` gets the first outcome.
    #[serde(with = "DurationText")]
    pub remember_for: Duration,
    /// Commands a second that a batch (a command for many stations) sends, when it does not say.
    pub batch_rate: f64,
    /// Batches that may run at once. Beyond, HTTP answers 503; from Kafka as many again wait, and the rest end as `queueFull`.
    #[schemars(extend("x-tuning" = true))]
    pub max_batches: usize,
    /// The Kafka consumer group that reads `topics.commands`.
    pub consumer_group: String,
}

impl Default for CommandOptions {
    fn default() -> Self {
        Self {
            default_timeout: Duration::from_secs(30),
            max_timeout: Duration::from_secs(600),
            grace: Duration::from_secs(2),
            close_after_timeouts: 0,
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

impl CommandOptions {
    /// What a command may ask for, and how much is remembered.
    pub fn limits(&self, max_payload_bytes: u64) -> Limits {
        Limits {
            default_timeout: self.default_timeout,
            max_timeout: self.max_timeout,
            max_payload_bytes,
            offline_queue: self.offline_queue,
            offline_ttl: self.offline_ttl,
            offline_bytes: self.offline_bytes.as_u64(),
            remembered: self.remembered,
            remembered_bytes: self.remembered_bytes.as_u64(),
            remember_for: self.remember_for,
            batch_rate: self.batch_rate,
            max_batches: self.max_batches,
        }
    }

    /// What is wrong with these values.
    pub fn check(&self, problems: &mut Problems) {
        problems.demand_count("commands.max_in_flight", self.max_in_flight);
        problems.demand_count("commands.offline_queue", self.offline_queue);
        problems.demand_count("commands.max_batches", self.max_batches);
        problems.demand_count("commands.remembered", self.remembered);
        problems.demand(
            !self.default_timeout.is_zero() && self.default_timeout <= self.max_timeout,
            "commands.default_timeout must be positive and not above commands.max_timeout",
        );
        problems
            .demand(RATES.contains(&self.batch_rate), "commands.batch_rate must be between 0.01 and 100000");
        problems.demand_positive("commands.offline_ttl", self.offline_ttl);
        problems.demand_positive("commands.remember_for", self.remember_for);
    }
}
