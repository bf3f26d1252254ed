//! Whether records become durable. Owns the state that the pump writes and that `/readyz` reads; decides nothing.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::metrics::BusMetrics;

/// What a bus is doing, in one word.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BusState {
    /// Started, and storage was not reached yet.
    Starting,
    /// Records become durable as they come.
    Direct,
    /// Kafka does not acknowledge; records become durable in the spool.
    Spooling,
    /// Kafka is back; the spool is sent first, and new records go behind it.
    Draining,
    /// Storage does not acknowledge: records, and the answers behind them, are held back.
    Holding,
}

impl BusState {
    /// Every state, for metrics.
    pub const ALL: [Self; 5] = [Self::Starting, Self::Direct, Self::Spooling, Self::Draining, Self::Holding];

    /// Whether records become durable, and so answers go out.
    pub fn is_flowing(self) -> bool {
        matches!(self, Self::Direct | Self::Spooling | Self::Draining)
    }

    /// The word used in JSON and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Direct => "direct",
            Self::Spooling => "spooling",
            Self::Draining => "draining",
            Self::Holding => "holding",
        }
    }
}

/// A bus's health at one moment.
#[derive(Clone, Debug)]
pub struct BusHealth {
    /// What it is doing.
    pub state: BusState,
    /// Why it is not `Direct`, for people.
    pub detail: Option<String>,
    /// Age of the oldest record that is not durable.
    pub oldest_unacknowledged: Duration,
    /// Records accepted and not yet durable.
    pub in_flight_records: usize,
    /// Their bytes.
    pub in_flight_bytes: usize,
    /// Since when records are held back, if they are.
    pub holding_for: Option<Duration>,
    /// The spool, if there is one.
    pub spool: Option<SpoolHealth>,
}

/// A spool's state at one moment.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct SpoolHealth {
    /// Records that Kafka does not have yet.
    pub records: u64,
    /// Bytes on disk.
    pub bytes: u64,
    /// Bytes it may take.
    pub capacity_bytes: u64,
    /// Age of its oldest record.
    pub oldest: Duration,
    /// Whether its fill level has reached the alarm level.
    pub alarm: bool,
    /// How long it takes until it is empty at the present rates; none while it does not shrink.
    pub time_to_drain: Option<Duration>,
}

/// Where the pump writes what it sees. One line is logged for each change of state, not for each failure.
#[derive(Debug)]
pub(crate) struct HealthCell {
    current: Mutex<Current>,
    metrics: BusMetrics,
    name: &'static str,
}

#[derive(Debug)]
struct Current {
    state: BusState,
    detail: Option<String>,
    oldest: Option<Instant>,
    holding_since: Option<Instant>,
    spool: Option<SpoolHealth>,
}

impl HealthCell {
    pub(crate) fn new(name: &'static str, metrics: BusMetrics) -> Self {
        metrics.show_state(BusState::Starting);
        let current = Current {
            state: BusState::Starting,
            detail: None,
            oldest: None,
            holding_since: Some(Instant::now()),
            spool: None,
        };
        Self { current: Mutex::new(current), metrics, name }
    }

    /// Records become durable as they come.
    pub(crate) fn direct(&self) {
        self.enter(BusState::Direct, None);
    }

    /// Records become durable in the spool, for this reason.
    pub(crate) fn spooling(&self, detail: String) {
        self.enter(BusState::Spooling, Some(detail));
    }

    /// The spool is being sent.
    pub(crate) fn draining(&self) {
        self.enter(BusState::Draining, None);
    }

    /// Records are held back, for this reason.
    pub(crate) fn holding(&self, detail: String) {
        self.enter(BusState::Holding, Some(detail));
    }

    fn enter(&self, state: BusState, detail: Option<String>) {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if current.state != state || (state == BusState::Holding && current.detail != detail) {
            let bus = self.name;
            match (state, &detail) {
                (BusState::Holding, Some(detail)) => {
                    tracing::error!(bus, detail, "records are held back, and the answers behind them");
                }
                (BusState::Spooling, Some(detail)) => {
                    tracing::warn!(bus, detail, "records go to the spool");
                }
                (BusState::Draining, _) => tracing::info!(bus, "the spool is sent"),
                _ => tracing::info!(bus, "records become durable"),
            }
            self.metrics.show_state(state);
        }
        if state.is_flowing() {
            current.holding_since = None;
        } else if current.holding_since.is_none() {
            current.holding_since = Some(Instant::now());
        }
        current.state = state;
        current.detail = detail;
    }

    /// Notes when the oldest record taken by the pump and not yet durable was accepted.
    pub(crate) fn oldest(&self, accepted_at: Option<Instant>) {
        self.current.lock().unwrap_or_else(PoisonError::into_inner).oldest = accepted_at;
    }

    /// Notes how the spool is doing.
    pub(crate) fn spool(&self, spool: SpoolHealth) {
        self.metrics.show_spool(&spool);
        self.current.lock().unwrap_or_else(PoisonError::into_inner).spool = Some(spool);
    }

    pub(crate) fn read(&self, queue: &crate::queue::Queue) -> BusHealth {
        let (in_flight_records, in_flight_bytes) = queue.in_flight();
        let current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        let oldest = current.oldest.or_else(|| queue.oldest_waiting());
        let oldest_unacknowledged = match oldest {
            Some(accepted_at) if in_flight_records > 0 => accepted_at.elapsed(),
            _ => Duration::ZERO,
        };
        self.metrics.queue_records.set(i64::try_from(in_flight_records).unwrap_or(i64::MAX));
        self.metrics.queue_bytes.set(i64::try_from(in_flight_bytes).unwrap_or(i64::MAX));
        self.metrics.oldest_seconds.set(oldest_unacknowledged.as_secs_f64());
        BusHealth {
            state: current.state,
            detail: current.detail.clone(),
            oldest_unacknowledged,
            in_flight_records,
            in_flight_bytes,
            holding_for: current.holding_since.map(|since| since.elapsed()),
            spool: current.spool,
        }
    }
}
