//! What is counted about spans and about the traces that commands name.

use ocpp_bus::Registrar;
use prometheus::{IntCounter, IntCounterVec, IntGauge};

/// The metrics of spans.
#[derive(Debug)]
pub struct SpanMetrics {
    ended: IntCounterVec,
    waiting: IntGauge,
    traceparents_invalid: IntCounter,
}

impl SpanMetrics {
    /// Registers them. The series of every outcome starts at zero.
    ///
    /// # Errors
    /// If one of the names is taken.
    pub fn register(registrar: &Registrar) -> Result<Self, prometheus::Error> {
        let ended = registrar.counters("spans_total", "Spans, by what became of them", &["outcome"])?;
        for outcome in ["exported", "rejected", "failed", "dropped"] {
            ended.with_label_values(&[outcome]).reset();
        }
        Ok(Self {
            ended,
            waiting: registrar.gauge("spans_waiting", "Spans that wait to be exported")?,
            traceparents_invalid: registrar.counter(
                "traceparents_invalid_total",
                "Commands whose traceparent breaks the rules and was ignored",
            )?,
        })
    }

    /// A span was queued for export.
    pub fn span_queued(&self) {
        self.waiting.inc();
    }

    /// This many spans left the queue.
    pub fn spans_taken(&self, count: usize) {
        self.waiting.sub(i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// What became of spans: `exported`, `rejected` by the collector, `failed` on the way, `dropped` because the queue was full.
    pub fn spans_ended(&self, outcome: &str, count: usize) {
        self.ended.with_label_values(&[outcome]).inc_by(count as u64);
    }

    /// How many spans had this outcome.
    #[cfg(test)]
    pub(super) fn ended(&self, outcome: &str) -> u64 {
        self.ended.with_label_values(&[outcome]).get()
    }

    /// A command's traceparent was malformed.
    pub fn traceparent_invalid(&self) {
        self.traceparents_invalid.inc();
    }
}
