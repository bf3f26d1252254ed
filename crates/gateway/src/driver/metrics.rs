//! What sessions count: their number, their messages, how long things took, what was wrong.
//!
//! Owns the names. Labels are closed sets of words and the names of known actions, never a station's text.

use std::time::Duration;

use ocpp_bus::Registrar;
use ocpp_bus::registrar::Buckets;
use ocpp_protocol::Version;
use prometheus::{Histogram, IntCounter, IntCounterVec, IntGauge, IntGaugeVec};

use crate::metrics::{DroppedMessages, PayloadViolations};
use crate::socket::{ProtocolError, Traffic};
use ocpp_station::CloseReason;

/// The metrics of all sessions of this node.
#[derive(Debug)]
pub struct SessionMetrics {
    sessions: IntGaugeVec,
    opened: IntCounterVec,
    closed: IntCounterVec,
    compressed: IntGauge,
    compression_bytes: IntCounterVec,
    inflating_paused: IntCounter,
    protocol_violations: IntCounterVec,
    replacements: IntCounter,
    messages: IntCounterVec,
    calls: IntCounterVec,
    malformed: IntCounterVec,
    unmatched_answers: IntCounterVec,
    leniencies: IntCounterVec,
    boot_triggers: IntCounterVec,
    repeated: IntCounterVec,
    answer_latency: Histogram,
    ping_round_trip: Histogram,
    pings_received: IntCounter,
    command_wait: Histogram,
    reads_paused: IntCounter,
    violations: PayloadViolations,
    dropped: DroppedMessages,
    /// CALLs that a backend answers.
    pub answers: DelegatedMetrics,
}

impl SessionMetrics {
    /// Registers them. The series of versions, close reasons and broken rules start at zero.
    ///
    /// # Errors
    /// If one of the names is taken.
    pub fn register(
        registrar: &Registrar,
        violations: PayloadViolations,
        dropped: DroppedMessages,
    ) -> Result<Self, prometheus::Error> {
        let counter = |name, help| registrar.counter(name, help);
        let counters = |name, help, labels| registrar.counters(name, help, labels);
        let seconds = |name, help| registrar.histogram(name, help, Buckets::SECONDS);
        let metrics = Self {
            sessions: registrar.gauges("sessions", "Sessions now, by OCPP version", &["version"])?,
            opened: counters("sessions_opened_total", "Sessions admitted, by OCPP version", &["version"])?,
            closed: counters("sessions_closed_total", "Sessions ended, by reason", &["reason"])?,
            compressed: registrar.gauge("sessions_compressed", "Sessions now that agreed on compression")?,
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
            boot_triggers: counters(
                "boot_triggers_total",
                "Stations asked to send BootNotification, by outcome",
                &["outcome"],
            )?,
            leniencies: counters("leniencies_total", "Deviations that were let through, by kind", &["kind"])?,
            repeated: counters(
                "repeated_calls_total",
                "CALLs that repeat one: answered again, or their answer is still held",
                &["kind"],
            )?,
            answer_latency: seconds(
                "answer_latency_seconds",
                "From a CALL's frame being read to its answer being handed to the socket's writer",
            )?,
            ping_round_trip: seconds("ping_round_trip_seconds", "From a ping to its pong")?,
            pings_received: counter("pings_received_total", "Pings of stations")?,
            command_wait: seconds("command_wait_seconds", "From a command being sent to its answer")?,
            reads_paused: counter("reads_paused_total", "Times a session stopped reading its socket")?,
            violations,
            dropped,
            answers: DelegatedMetrics::register(registrar)?,
        };
        for version in Version::ALL {
            metrics.sessions.with_label_values(&[version.as_str()]).set(0);
        }
        for reason in CloseReason::ALL {
            metrics.closed.with_label_values(&[reason.as_str()]).reset();
        }
        for violation in ProtocolError::ALL {
            metrics.protocol_violations.with_label_values(&[violation.as_str()]).reset();
        }
        Ok(metrics)
    }

    /// A session began; it may have replaced the station's former one.
    pub fn session_opened(&self, version: Version, replaced: bool, compressed: bool) {
        self.compressed.add(i64::from(compressed));
        self.sessions.with_label_values(&[version.as_str()]).inc();
        self.opened.with_label_values(&[version.as_str()]).inc();
        if replaced {
            self.replacements.inc();
        }
    }

    /// Sessions of an earlier process ended with it.
    pub fn sessions_lost(&self, count: usize) {
        let reason = CloseReason::GatewayLost.as_str();
        self.closed.with_label_values(&[reason]).inc_by(count as u64);
    }

    /// A session ended. Version and compression as at its beginning.
    pub fn session_closed(&self, version: Version, reason: CloseReason, compressed: bool) {
        self.compressed.sub(i64::from(compressed));
        self.sessions.with_label_values(&[version.as_str()]).dec();
        self.closed.with_label_values(&[reason.as_str()]).inc();
    }

    /// What the socket has compressed and inflated since it was last asked.
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
    pub fn protocol_violation(&self, violation: ProtocolError) {
        self.protocol_violations.with_label_values(&[violation.as_str()]).inc();
    }

    /// A message came in. `action` must be the name of a known action or `unknown`, never a station's text.
    pub fn received(&self, message_type: &str, action: &str) {
        self.messages.with_label_values(&["in", message_type, action]).inc();
    }

    /// A message went out.
    pub fn sent(&self, message_type: &str, action: &str) {
        self.messages.with_label_values(&["out", message_type, action]).inc();
    }

    /// A station's CALL ended: `answered`, `silence`, or the error code of its CALLERROR.
    pub fn call_ended(&self, action: &str, outcome: &str) {
        self.calls.with_label_values(&[action, outcome]).inc();
    }

    /// A message was not OCPP-J.
    pub fn malformed(&self, reason: &str) {
        self.malformed.with_label_values(&[reason]).inc();
    }

    /// A response matched no outstanding CALL: it was `late` or its message id is `unknown`.
    pub fn unmatched_answer(&self, kind: &str) {
        self.unmatched_answers.with_label_values(&[kind]).inc();
    }

    /// A station's payload violated its schema.
    pub fn violation(&self, action: &str, code: &str) {
        self.violations.count(action, code);
    }

    /// A station was asked to boot; the outcome is one of a closed set.
    pub fn boot_triggered(&self, outcome: &str) {
        self.boot_triggers.with_label_values(&[outcome]).inc();
    }

    /// A deviation from the specification was let through.
    pub fn leniency(&self, kind: &str) {
        self.leniencies.with_label_values(&[kind]).inc();
    }

    /// A repeated CALL was `answered` again, found its answer still `held`, or `joined` the wait for a backend's answer.
    pub fn repeated(&self, kind: &str) {
        self.repeated.with_label_values(&[kind]).inc();
    }

    /// A message was dropped instead of published.
    pub fn dropped(&self, action: &str, reason: &str) {
        self.dropped.count(action, reason);
    }

    /// An answer was handed to the socket's writer this long after its CALL was read.
    pub fn answer_latency(&self, latency: Duration) {
        self.answer_latency.observe(latency.as_secs_f64());
    }

    /// A pong arrived this long after its ping.
    pub fn ping_round_trip(&self, round_trip: Duration) {
        self.ping_round_trip.observe(round_trip.as_secs_f64());
    }

    /// A station pinged.
    pub fn ping_received(&self) {
        self.pings_received.inc();
    }

    /// A station answered a command after this long.
    pub fn command_wait(&self, wait: Duration) {
        self.command_wait.observe(wait.as_secs_f64());
    }

    /// A session stopped reading its socket.
    pub fn read_paused(&self) {
        self.reads_paused.inc();
    }
}

/// The metrics of CALLs that a backend answers, as their sessions see them.
#[derive(Debug)]
pub struct DelegatedMetrics {
    /// CALLs that wait for a backend now.
    pub awaited: IntGauge,
    ended: IntCounterVec,
    wait: Histogram,
}

impl DelegatedMetrics {
    fn register(registrar: &Registrar) -> Result<Self, prometheus::Error> {
        Ok(Self {
            awaited: registrar.gauge("answers_awaited", "CALLs that wait for a backend's answer")?,
            ended: registrar.counters(
                "backend_answers_total",
                "CALLs that a backend was to answer, by action and how the wait ended",
                &["action", "outcome"],
            )?,
            wait: registrar.histogram(
                "backend_answer_seconds",
                "From a CALL's frame being read to a backend's answer to it",
                Buckets::BACKEND_SECONDS,
            )?,
        })
    }

    /// A wait ended: `answered`, `error`, the reason for the fallback, or `abandoned` with its session.
    pub fn ended(&self, action: &str, outcome: &str) {
        self.ended.with_label_values(&[action, outcome]).inc();
    }

    /// A backend answered this long after the CALL was read.
    pub fn waited(&self, wait: Duration) {
        self.wait.observe(wait.as_secs_f64());
    }
}

/// What one session adds to a gauge of all; taken back when it is dropped.
#[derive(Debug)]
pub(super) struct Share {
    gauge: IntGauge,
    share: i64,
}

impl Share {
    pub(super) fn of(gauge: &IntGauge) -> Self {
        Self { gauge: gauge.clone(), share: 0 }
    }

    pub(super) fn set(&mut self, count: usize) {
        let count = i64::try_from(count).unwrap_or(i64::MAX);
        if count != self.share {
            self.gauge.add(count - self.share);
            self.share = count;
        }
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.gauge.sub(self.share);
    }
}
