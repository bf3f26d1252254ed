//! Options of traces.

use std::time::Duration;

use ocpp_options::{DurationText, Problems, word};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::endpoint::{Endpoint, Protocol};

/// Spans for an OpenTelemetry collector: of commands, of the CALLs that carry them, and of stations' CALLs. See
/// [operations.md](operations.md#traces).
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(default)]
pub struct TelemetryOptions {
    /// The collector that spans are sent to, such as `http://HOST:4318` (OTLP over HTTP, at `/v1/traces`) or `http://HOST:4317`
    /// (gRPC); with `https` over TLS, checked against the system's root certificates. Empty: no spans are made.
    pub otlp_endpoint: String,
    /// How spans are encoded and carried. `https` needs `http/protobuf` or `grpc`.
    #[serde(deserialize_with = "word")]
    pub protocol: Protocol,
    /// The share of traces beginning here that are recorded, from 0 to 1. A command that names a trace is recorded if its sender
    /// records it.
    pub sampling: f64,
    /// Spans that may wait to be sent. Further spans are dropped and counted in `ocpp_gateway_spans_total`.
    #[schemars(extend("x-tuning" = true))]
    pub queue_spans: usize,
    /// How long spans are gathered before they are sent, at most 512 together.
    #[serde(with = "DurationText")]
    #[schemars(extend("x-tuning" = true))]
    pub export_interval: Duration,
    /// How long the collector may take. A batch that it does not accept is dropped and counted.
    #[serde(with = "DurationText")]
    #[schemars(extend("x-tuning" = true))]
    pub export_timeout: Duration,
}

impl Default for TelemetryOptions {
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

impl TelemetryOptions {
    /// What is wrong with these values.
    pub fn check(&self, problems: &mut Problems) {
        problems.demand_count("telemetry.queue_spans", self.queue_spans);
        if !self.otlp_endpoint.is_empty()
            && let Err(error) = Endpoint::parse(&self.otlp_endpoint, self.protocol)
        {
            problems.demand(false, format!("telemetry.otlp_endpoint: {error}"));
        }
        problems.demand_share("telemetry.sampling", self.sampling);
        problems.demand(
            !self.export_interval.is_zero() && !self.export_timeout.is_zero(),
            "telemetry.export_interval and telemetry.export_timeout must be positive",
        );
    }
}
