//! Whether the gateway should get traffic.
//!
//! Owns the one answer that `/readyz`, `/health` and the `ready` metric give: not while it drains, not before every bus accepts
//! records. What is done about it is up to whoever asks.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Instant, SystemTime};

use ocpp_bus::Status;
use ocpp_bus::health::BusHealth;

/// Answers whether stations can be accepted and their events become durable.
#[derive(Debug)]
pub struct Readiness {
    draining: AtomicBool,
    events: Status,
    stations: Status,
    commands: Status,
    /// When the process started, on the monotonic clock.
    pub started: Instant,
    /// When the process started, on the wall clock.
    pub started_at: SystemTime,
}

/// How the gateway is at one moment: the reason follows from these buses.
#[derive(Debug)]
pub struct Report {
    /// Why the gateway is not ready, for people.
    pub reason: Option<String>,
    /// The bus of the events.
    pub events: BusHealth,
    /// The journal of the stations.
    pub stations: BusHealth,
    /// The journal of the commands.
    pub commands: BusHealth,
}

impl Readiness {
    /// Ready as soon as every bus is. The process counts as started now.
    pub fn new(events: Status, stations: Status, commands: Status) -> Self {
        Self {
            draining: AtomicBool::new(false),
            events,
            stations,
            commands,
            started: Instant::now(),
            started_at: SystemTime::now(),
        }
    }

    /// Whether the gateway is ready, and how its buses are, from one look at them.
    pub fn report(&self) -> Report {
        let (events, stations, commands) =
            (self.events.health(), self.stations.health(), self.commands.health());
        let reason = if self.draining.load(Ordering::Acquire) {
            Some("draining".into())
        } else {
            let buses = [("bus", &events), ("stations", &stations), ("commands", &commands)];
            buses.into_iter().find(|(_, health)| !health.state.is_flowing()).map(|(name, health)| {
                format!("{name} {}: {}", health.state.as_str(), health.detail.as_deref().unwrap_or_default())
            })
        };
        Report { reason, events, stations, commands }
    }

    /// Whether the gateway is ready.
    ///
    /// # Errors
    /// Why the gateway is not ready, for people.
    pub fn check(&self) -> Result<(), String> {
        self.report().reason.map_or(Ok(()), Err)
    }

    /// Makes the gateway not ready from now on.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Release);
    }
}
