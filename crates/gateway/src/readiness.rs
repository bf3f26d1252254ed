//! Whether the gateway should get traffic.
//!
//! Owns the one answer that `/readyz`, `/health` and the `ready` metric give: not while it drains, not before every bus accepts
//! records. What is done about it is up to whoever asks.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

use ocpp_bus::Status;
use prometheus::IntGauge;

/// How often readiness is checked when nobody asks, so that its metric stays true.
pub const CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// Answers whether stations can be accepted and their events become durable.
#[derive(Debug)]
pub struct Readiness {
    draining: AtomicBool,
    /// Every bus that must accept records, by the name that the reason gives it.
    buses: [(&'static str, Status); 3],
    ready: IntGauge,
    /// When the process started, on the monotonic clock.
    pub started: Instant,
    /// When the process started, on the wall clock.
    pub started_at: SystemTime,
}

impl Readiness {
    /// Ready as soon as every bus is. The process counts as started now.
    pub fn new(events: Status, stations: Status, commands: Status, ready: IntGauge) -> Self {
        Self {
            draining: AtomicBool::new(false),
            buses: [("bus", events), ("stations", stations), ("commands", commands)],
            ready,
            started: Instant::now(),
            started_at: SystemTime::now(),
        }
    }

    /// Checks now, and updates the metric.
    ///
    /// # Errors
    /// Why the gateway is not ready, for people.
    pub fn check(&self) -> Result<(), String> {
        let result = self.reason().map_or(Ok(()), Err);
        self.ready.set(i64::from(result.is_ok()));
        result
    }

    fn reason(&self) -> Option<String> {
        if self.draining.load(Ordering::Acquire) {
            return Some("draining".into());
        }
        self.buses.iter().find_map(|(name, bus)| {
            let health = bus.health();
            (!health.state.is_flowing())
                .then(|| format!("{name} {}: {}", health.state.as_str(), health.detail.unwrap_or_default()))
        })
    }

    /// Makes the gateway not ready from now on.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Release);
    }
}
