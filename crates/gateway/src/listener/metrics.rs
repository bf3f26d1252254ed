//! What listeners count: handshakes, and the rejections that became no event.

use ocpp_bus::Registrar;
use prometheus::{IntCounterVec, IntGauge};

use crate::metrics::DroppedMessages;

/// The metrics of all listeners of this node.
#[derive(Debug)]
pub struct HandshakeMetrics {
    ended: IntCounterVec,
    in_progress: IntGauge,
    dropped: DroppedMessages,
}

impl HandshakeMetrics {
    /// Registers them.
    ///
    /// # Errors
    /// If one of the names is taken.
    pub fn register(registrar: &Registrar, dropped: DroppedMessages) -> Result<Self, prometheus::Error> {
        Ok(Self {
            ended: registrar.counters(
                "handshakes_total",
                "Handshakes, by listener and outcome",
                &["listener", "outcome"],
            )?,
            in_progress: registrar
                .gauge("handshakes_in_progress", "Connections that are not sessions yet")?,
            dropped,
        })
    }

    /// A handshake ended: `admitted`, or why not.
    pub fn handshake_ended(&self, listener: &str, outcome: &str) {
        self.ended.with_label_values(&[listener, outcome]).inc();
    }

    /// A connection was accepted.
    pub fn handshake_began(&self) {
        self.in_progress.inc();
    }

    /// That connection is a session now, or gone.
    pub fn handshake_left(&self) {
        self.in_progress.dec();
    }

    /// A rejection was counted instead of published.
    pub fn dropped(&self, event: &str, reason: &str) {
        self.dropped.count(event, reason);
    }
}
