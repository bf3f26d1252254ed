//! What every session of this node shares: limits, buses, stations, metrics. Owns nothing of one session.

use std::sync::Arc;
use std::time::Duration;

use ocpp_bus::{Bus, Journal, Status};
use ocpp_commands::Dispatcher;

use crate::backend::Answers;
use crate::deviations::Deviations;
use crate::driver::metrics::SessionMetrics;
use crate::driver::options::{RegistrationOptions, SessionOptions, SheddableOptions};
use crate::durable_point::Point;
use crate::session_journal::SessionJournal;
use crate::settings::Resolver;
use crate::spans::Tracer;
use crate::stations::Stations;
use ocpp_station::events::Events;
use ocpp_station::recent_calls::RecentCalls;

/// What every session of this node shares.
#[derive(Debug)]
pub struct Shared {
    /// What holds for which station.
    pub settings: Arc<Resolver>,
    /// Limits of a connection.
    pub limits: SessionOptions,
    /// BootNotification.
    pub registration: RegistrationOptions,
    /// Answers by a backend.
    pub backend: Arc<Answers>,
    /// How long answers are held before stations are better off offline; zero means for ever.
    pub hold_limit: Duration,
    /// Events go here …
    pub bus: Bus,
    /// … and changes of stations' states here.
    pub journal: Journal,
    /// Sessions are noted here when they begin and when they end.
    pub sessions: Arc<SessionJournal>,
    /// The stations' states.
    pub stations: Arc<Stations>,
    /// Takes commands to their stations.
    pub dispatcher: Arc<Dispatcher>,
    /// How stations deviate.
    pub deviations: Arc<Deviations>,
    /// What stations asked lately.
    pub recent_calls: Arc<RecentCalls<Point>>,
    /// Actions whose messages may be dropped, and the fill level of the bus from which they are.
    pub expendable: SheddableOptions,
    /// Writes events.
    pub events: Events,
    /// Makes spans.
    pub tracer: Tracer,
    /// What sessions count.
    pub metrics: Arc<SessionMetrics>,
}

impl Shared {
    /// Storage has not acknowledged for so long that stations are better off offline.
    pub fn holds_too_long(&self) -> bool {
        let over = |status: &Status| status.health().holding_for.is_some_and(|held| held >= self.hold_limit);
        !self.hold_limit.is_zero() && (over(self.bus.status()) || over(self.journal.status()))
    }
}
