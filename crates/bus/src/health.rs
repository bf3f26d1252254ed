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
    /// Storage does not acknowledge: records, and the answers behind them, are held back.
    Holding,
}

impl BusState {
    /// The word used in JSON and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Direct => "direct",
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
}

impl HealthCell {
    pub(crate) fn new(name: &'static str, metrics: BusMetrics) -> Self {
        metrics.flowing.set(0);
        Self {
            current: Mutex::new(Current { state: BusState::Starting, detail: None, oldest: None }),
            metrics,
            name,
        }
    }

    pub(crate) fn direct(&self) {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if current.state != BusState::Direct {
            tracing::info!(bus = self.name, "records become durable");
            current.state = BusState::Direct;
            current.detail = None;
            self.metrics.flowing.set(1);
        }
    }

    pub(crate) fn holding(&self, detail: String) {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if current.state != BusState::Holding || current.detail.as_deref() != Some(detail.as_str()) {
            tracing::error!(bus = self.name, detail, "records are held back, and the answers behind them");
            self.metrics.flowing.set(0);
        }
        current.state = BusState::Holding;
        current.detail = Some(detail);
    }

    /// Notes when the oldest record taken by the pump and not yet durable was accepted.
    pub(crate) fn oldest(&self, accepted_at: Option<Instant>) {
        self.current.lock().unwrap_or_else(PoisonError::into_inner).oldest = accepted_at;
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
        }
    }
}
