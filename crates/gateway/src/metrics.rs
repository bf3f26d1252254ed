//! Counters that belong to no single feature. Every other metric is owned by the feature that counts it (`*/metrics.rs`) and
//! registered by `app`.
//!
//! No label ever names a station: at tens of thousands of stations that would be tens of thousands of series.

use ocpp_bus::Registrar;
use prometheus::IntCounterVec;

/// Payloads that violate their schema: those of stations, and those of backends that answer for the gateway.
#[derive(Clone, Debug)]
pub struct PayloadViolations(IntCounterVec);

impl PayloadViolations {
    /// Registers the counter.
    ///
    /// # Errors
    /// If its name is taken.
    pub fn register(registrar: &Registrar) -> Result<Self, prometheus::Error> {
        let help = "Payloads that violate their schema, by action and error code";
        registrar.counters("payload_violations_total", help, &["action", "code"]).map(Self)
    }

    /// Counts one, by the name of a known action and the code of the error.
    pub fn count(&self, action: &str, code: &str) {
        self.0.with_label_values(&[action, code]).inc();
    }
}

/// What was dropped instead of published: messages of stations, and rejected handshakes.
#[derive(Clone, Debug)]
pub struct DroppedMessages(IntCounterVec);

impl DroppedMessages {
    /// Registers the counter.
    ///
    /// # Errors
    /// If its name is taken.
    pub fn register(registrar: &Registrar) -> Result<Self, prometheus::Error> {
        let help =
            "Messages that the operator has called expendable and that were dropped, by action and reason";
        registrar.counters("dropped_messages_total", help, &["action", "reason"]).map(Self)
    }

    /// Counts one, by the name of a known action or the type of the event.
    pub fn count(&self, action: &str, reason: &str) {
        self.0.with_label_values(&[action, reason]).inc();
    }
}
