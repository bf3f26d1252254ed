//! The gateway's metrics: their names, and one method for each thing that is counted.
//!
//! Owns every name that starts with `ocpp_gateway_` except the bus's own (`ocpp_bus::metrics`). No label ever names
//! a station: at tens of thousands of stations that would be tens of thousands of series.

pub mod answers;

use std::time::Duration;

use prometheus::{
    Encoder, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
    TextEncoder,
};

use self::answers::AnswerMetrics;
use crate::command::Status;
use crate::session::close::CloseReason;
use crate::socket::{Traffic, Violation};
use ocpp_protocol::Version;

/// What the gateway counts.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    sessions: IntGaugeVec,
    handshakes: IntCounterVec,
    handshakes_in_progress: IntGauge,
    sessions_opened: IntCounterVec,
    sessions_closed: IntCounterVec,
    sessions_compressed: IntGauge,
    compression_bytes: IntCounterVec,
    inflating_paused: IntCounter,
    protocol_violations: IntCounterVec,
    replacements: IntCounter,
    messages: IntCounterVec,
    calls: IntCounterVec,
    malformed: IntCounterVec,
    unmatched_answers: IntCounterVec,
    violations: IntCounterVec,
    leniencies: IntCounterVec,
    repeated: IntCounterVec,
    dropped: IntCounterVec,
    answer_latency: Histogram,
    ping_round_trip: Histogram,
    pings_received: IntCounter,
    commands: IntCounterVec,
    commands_kept: IntGauge,
    commands_remembered: IntGauge,
    command_wait: Histogram,
    reads_paused: IntCounter,
    credential_reloads: IntCounterVec,
    stations_known: IntGauge,
    spans: IntCounterVec,
    spans_waiting: IntGauge,
    traceparents_invalid: IntCounter,
    ready: IntGauge,
    /// What concerns answers by a backend.
    pub answers: AnswerMetrics,
}

impl Metrics {
    /// Registers everything.
    ///
    /// # Errors
    /// When two metrics have the same name, which a test would show.
    pub fn register(registry: Registry) -> Result<Self, prometheus::Error> {
        let counters =
            |name: &str, help: &str, labels: &[&str]| -> Result<IntCounterVec, prometheus::Error> {
                let metric = IntCounterVec::new(Opts::new(format!("ocpp_gateway_{name}"), help), labels)?;
                registry.register(Box::new(metric.clone()))?;
                Ok(metric)
            };
        let counter = |name: &str, help: &str| -> Result<IntCounter, prometheus::Error> {
            let metric = IntCounter::new(format!("ocpp_gateway_{name}"), help)?;
            registry.register(Box::new(metric.clone()))?;
            Ok(metric)
        };
        let gauge = |name: &str, help: &str| -> Result<IntGauge, prometheus::Error> {
            let metric = IntGauge::new(format!("ocpp_gateway_{name}"), help)?;
            registry.register(Box::new(metric.clone()))?;
            Ok(metric)
        };
        let seconds = |name: &str, help: &str| -> Result<Histogram, prometheus::Error> {
            let buckets = prometheus::exponential_buckets(0.000_25, 2.0, 18)?;
            let options = HistogramOpts::new(format!("ocpp_gateway_{name}"), help).buckets(buckets);
            let metric = Histogram::with_opts(options)?;
            registry.register(Box::new(metric.clone()))?;
            Ok(metric)
        };
        let sessions = IntGaugeVec::new(
            Opts::new("ocpp_gateway_sessions", "Sessions now, by OCPP version"),
            &["version"],
        )?;
        registry.register(Box::new(sessions.clone()))?;
        let metrics = Self {
            sessions,
            handshakes: counters(
                "handshakes_total",
                "Handshakes, by listener and outcome",
                &["listener", "outcome"],
            )?,
            handshakes_in_progress: gauge("handshakes_in_progress", "Connections that are not sessions yet")?,
            sessions_opened: counters(
                "sessions_opened_total",
                "Sessions admitted, by OCPP version",
                &["version"],
            )?,
            sessions_closed: counters("sessions_closed_total", "Sessions ended, by reason", &["reason"])?,
            sessions_compressed: gauge("sessions_compressed", "Sessions now that agreed on compression")?,
            compression_bytes: counters(
                "compression_bytes_total",
                "Bytes of messages that travelled compressed, by direction and form",
                &["direction", "form"],
            )?,
            inflating_paused: counter(
                "inflating_paused_total",
                "Times that inflating a message made way for other stations",
            )?,
            protocol_violations: counters(
                "protocol_violations_total",
                "Connections ended because the station broke a rule of the WebSocket, by rule",
                &["rule"],
            )?,
            replacements: counter(
                "replacements_total",
                "Sessions replaced by a newer connection of the same identity",
            )?,
            messages: counters(
                "messages_total",
                "OCPP messages, by direction, type and action",
                &["direction", "type", "action"],
            )?,
            calls: counters(
                "calls_total",
                "CALLs of stations, by action and outcome",
                &["action", "outcome"],
            )?,
            malformed: counters(
                "malformed_messages_total",
                "Messages that are not OCPP-J, by what is wrong",
                &["reason"],
            )?,
            unmatched_answers: counters(
                "unmatched_answers_total",
                "Answers that came after the timeout, or to no CALL of ours",
                &["kind"],
            )?,
            violations: counters(
                "payload_violations_total",
                "Payloads that violate their schema, by action and error code",
                &["action", "code"],
            )?,
            leniencies: counters("leniencies_total", "Deviations that were let through, by kind", &["kind"])?,
            repeated: counters(
                "repeated_calls_total",
                "CALLs that repeat one: answered again, or their answer is still held",
                &["kind"],
            )?,
            dropped: counters(
                "dropped_messages_total",
                "Messages that the operator has called expendable and that were dropped, by action and reason",
                &["action", "reason"],
            )?,
            answer_latency: seconds(
                "answer_latency_seconds",
                "From a CALL's frame being read to its answer being handed to the socket's writer",
            )?,
            ping_round_trip: seconds("ping_round_trip_seconds", "From a ping to its pong")?,
            pings_received: counter("pings_received_total", "Pings of stations")?,
            commands: counters("commands_total", "Commands, by status", &["status"])?,
            commands_kept: gauge("commands_kept", "Commands kept for stations that are away")?,
            commands_remembered: gauge(
                "commands_remembered",
                "Ended commands whose outcome is remembered, so that a repeated one is not sent again",
            )?,
            command_wait: seconds("command_wait_seconds", "From a command being sent to its answer")?,
            reads_paused: counter("reads_paused_total", "Times a session stopped reading its socket")?,
            credential_reloads: counters(
                "credential_reloads_total",
                "Times the credentials file was read again, by outcome",
                &["outcome"],
            )?,
            stations_known: gauge("stations_known", "Stations whose state is kept")?,
            spans: counters("spans_total", "Spans, by what became of them", &["outcome"])?,
            spans_waiting: gauge("spans_waiting", "Spans that wait to be exported")?,
            traceparents_invalid: counter(
                "traceparents_invalid_total",
                "Commands whose traceparent breaks the rules and was ignored",
            )?,
            ready: gauge("ready", "1 while /readyz says yes")?,
            answers: AnswerMetrics::register(&registry)?,
            registry: registry.clone(),
        };
        for version in Version::ALL {
            metrics.sessions.with_label_values(&[version.as_str()]).set(0);
        }
        for reason in CloseReason::ALL {
            metrics.sessions_closed.with_label_values(&[reason.as_str()]).reset();
        }
        for violation in Violation::ALL {
            metrics.protocol_violations.with_label_values(&[violation.as_str()]).reset();
        }
        for status in Status::ALL {
            metrics.commands.with_label_values(&[status.as_str()]).reset();
        }
        for outcome in ["exported", "rejected", "failed", "dropped"] {
            metrics.spans.with_label_values(&[outcome]).reset();
        }
        Ok(metrics)
    }

    /// Where the metrics of other parts go.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// The page, in Prometheus's text format.
    ///
    /// # Errors
    /// When a metric cannot be written as text.
    pub fn page(&self) -> Result<Vec<u8>, prometheus::Error> {
        let mut page = Vec::with_capacity(32 * 1024);
        TextEncoder::new().encode(&self.registry.gather(), &mut page)?;
        Ok(page)
    }

    /// A connection became a session or was refused.
    pub fn handshake_ended(&self, listener: &str, outcome: &str) {
        self.handshakes.with_label_values(&[listener, outcome]).inc();
    }

    /// A connection took a place among those that are not sessions yet.
    pub fn handshake_began(&self) {
        self.handshakes_in_progress.inc();
    }

    /// It gave its place up: it is a session, or gone.
    pub fn handshake_left(&self) {
        self.handshakes_in_progress.dec();
    }

    /// A session began.
    pub fn session_opened(&self, version: Version, replaced: bool, compressed: bool) {
        self.sessions_compressed.add(i64::from(compressed));
        self.sessions.with_label_values(&[version.as_str()]).inc();
        self.sessions_opened.with_label_values(&[version.as_str()]).inc();
        if replaced {
            self.replacements.inc();
        }
    }

    /// A session ended.
    pub fn session_closed(&self, version: Version, reason: CloseReason, compressed: bool) {
        self.sessions_compressed.sub(i64::from(compressed));
        self.sessions.with_label_values(&[version.as_str()]).dec();
        self.sessions_closed.with_label_values(&[reason.as_str()]).inc();
    }

    /// Messages travelled compressed.
    pub fn compressed_traffic(&self, traffic: Traffic) {
        let counts = [
            ("in", "compressed", traffic.received_compressed),
            ("in", "plain", traffic.received_plain),
            ("out", "compressed", traffic.sent_compressed),
            ("out", "plain", traffic.sent_plain),
        ];
        for (direction, form, bytes) in counts.into_iter().filter(|(_, _, bytes)| *bytes > 0) {
            self.compression_bytes.with_label_values(&[direction, form]).inc_by(bytes);
        }
        self.inflating_paused.inc_by(traffic.inflating_paused);
    }

    /// A station broke a rule of the WebSocket, which ends its connection.
    pub fn protocol_violation(&self, violation: Violation) {
        self.protocol_violations.with_label_values(&[violation.as_str()]).inc();
    }

    /// A message came in. `action` must be one of the table's names or `unknown`, never a station's text.
    pub fn received(&self, message_type: &str, action: &str) {
        self.messages.with_label_values(&["in", message_type, action]).inc();
    }

    /// A message went out.
    pub fn sent(&self, message_type: &str, action: &str) {
        self.messages.with_label_values(&["out", message_type, action]).inc();
    }

    /// A station's CALL was dealt with: `answered`, or the error code given.
    pub fn call_ended(&self, action: &str, outcome: &str) {
        self.calls.with_label_values(&[action, outcome]).inc();
    }

    /// A message was not OCPP-J.
    pub fn malformed(&self, reason: &str) {
        self.malformed.with_label_values(&[reason]).inc();
    }

    /// An answer came that nobody waits for: `late` or `unknown`.
    pub fn unmatched_answer(&self, kind: &str) {
        self.unmatched_answers.with_label_values(&[kind]).inc();
    }

    /// A payload violated its schema.
    pub fn violation(&self, action: &str, code: &str) {
        self.violations.with_label_values(&[action, code]).inc();
    }

    /// A deviation was let through.
    pub fn leniency(&self, kind: &str) {
        self.leniencies.with_label_values(&[kind]).inc();
    }

    /// A CALL repeats one: `answered` again, or the first answer is still `held`.
    pub fn repeated(&self, kind: &str) {
        self.repeated.with_label_values(&[kind]).inc();
    }

    /// An expendable message was dropped.
    pub fn dropped(&self, action: &str, reason: &str) {
        self.dropped.with_label_values(&[action, reason]).inc();
    }

    /// An answer left.
    pub fn answer_latency(&self, latency: Duration) {
        self.answer_latency.observe(latency.as_secs_f64());
    }

    /// A pong came back.
    pub fn ping_round_trip(&self, round_trip: Duration) {
        self.ping_round_trip.observe(round_trip.as_secs_f64());
    }

    /// A station's ping came.
    pub fn ping_received(&self) {
        self.pings_received.inc();
    }

    /// A command ended.
    pub fn command_ended(&self, status: Status) {
        self.commands.with_label_values(&[status.as_str()]).inc();
    }

    /// So many commands are kept for stations that are away, and so many ended ones are remembered.
    pub fn commands_known(&self, kept: usize, remembered: usize) {
        self.commands_kept.set(i64::try_from(kept).unwrap_or(i64::MAX));
        self.commands_remembered.set(i64::try_from(remembered).unwrap_or(i64::MAX));
    }

    /// A station took this long over a command.
    pub fn command_wait(&self, wait: Duration) {
        self.command_wait.observe(wait.as_secs_f64());
    }

    /// A session stopped reading.
    pub fn read_paused(&self) {
        self.reads_paused.inc();
    }

    /// The credentials file was read again: `loaded` or `failed`.
    pub fn credentials_reloaded(&self, outcome: &str) {
        self.credential_reloads.with_label_values(&[outcome]).inc();
    }

    /// A span waits to be exported.
    pub fn span_queued(&self) {
        self.spans_waiting.inc();
    }

    /// So many spans wait no longer.
    pub fn spans_taken(&self, count: usize) {
        self.spans_waiting.sub(i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// What became of spans: `exported`, `rejected` by the collector, `failed` on the way, `dropped` because too many wait.
    pub fn spans_ended(&self, outcome: &str, count: usize) {
        self.spans.with_label_values(&[outcome]).inc_by(count as u64);
    }

    /// A command came with a traceparent that breaks the rules.
    pub fn traceparent_invalid(&self) {
        self.traceparents_invalid.inc();
    }

    /// So many stations are known.
    pub fn stations_known(&self, count: usize) {
        self.stations_known.set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// Whether the gateway is ready.
    pub fn ready(&self, ready: bool) {
        self.ready.set(i64::from(ready));
    }
}
