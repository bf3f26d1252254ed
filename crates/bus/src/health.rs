//! Whether records become durable. Owns the state that a writer reports and others read; decides nothing and counts nothing.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

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

    /// Whether records become durable, so that answers go out.
    pub fn is_flowing(self) -> bool {
        matches!(self, Self::Direct | Self::Spooling | Self::Draining)
    }

    /// The word used in JSON, metrics and log lines.
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

/// The health of a bus or a journal at one moment.
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
    /// For how long records have been held back, if they are.
    pub holding_for: Option<Duration>,
    /// The spool, if there is one. It always belongs to the state: both are read at once.
    pub spool: Option<SpoolHealth>,
}

/// A spool at one moment.
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
    /// How long until it is empty at the present rate; none while it does not shrink.
    pub time_to_drain: Option<Duration>,
}

/// Where a writer reports what it sees. Logs one line for each change of state, not for each failure.
#[derive(Debug)]
pub(crate) struct HealthCell {
    reported: Mutex<Reported>,
    name: &'static str,
}

/// What a writer has reported.
#[derive(Clone, Debug)]
pub(crate) struct Reported {
    pub(crate) state: BusState,
    pub(crate) detail: Option<String>,
    /// When the oldest record that the writer has taken and that is not durable was accepted.
    pub(crate) oldest: Option<Instant>,
    pub(crate) holding_since: Option<Instant>,
    pub(crate) spool: Option<SpoolHealth>,
}

impl HealthCell {
    pub(crate) fn new(name: &'static str) -> Self {
        let reported = Reported {
            state: BusState::Starting,
            detail: None,
            oldest: None,
            holding_since: Some(Instant::now()),
            spool: None,
        };
        Self { reported: Mutex::new(reported), name }
    }

    /// Reports a state, and why it is not `Direct`.
    pub(crate) fn report(&self, state: BusState, detail: Option<String>) {
        self.report_with(state, detail, || None);
    }

    /// Reports a state together with its spool, which is asked only when the state changes. So nobody sees the state of one moment
    /// beside the spool of another.
    pub(crate) fn report_with(
        &self,
        state: BusState,
        detail: Option<String>,
        spool: impl FnOnce() -> Option<SpoolHealth>,
    ) {
        let mut reported = self.reported.lock().unwrap_or_else(PoisonError::into_inner);
        let has_changed = reported.state != state;
        if has_changed || (state == BusState::Holding && reported.detail != detail) {
            self.log(state, detail.as_deref());
        }
        if has_changed && let Some(spool) = spool() {
            reported.spool = Some(spool);
        }
        if state.is_flowing() {
            reported.holding_since = None;
        } else if reported.holding_since.is_none() {
            reported.holding_since = Some(Instant::now());
        }
        reported.state = state;
        reported.detail = detail;
    }

    fn log(&self, state: BusState, detail: Option<&str>) {
        let bus = self.name;
        match (state, detail) {
            (BusState::Holding, Some(detail)) => {
                tracing::error!(bus, detail, "records are held back, and the answers behind them");
            }
            (BusState::Spooling, Some(detail)) => tracing::warn!(bus, detail, "records go to the spool"),
            (BusState::Draining, _) => tracing::info!(bus, "the spool is sent"),
            _ => tracing::info!(bus, "records become durable"),
        }
    }

    /// Reports when the oldest record that the writer has taken and that is not durable was accepted.
    pub(crate) fn report_oldest(&self, accepted_at: Option<Instant>) {
        self.reported.lock().unwrap_or_else(PoisonError::into_inner).oldest = accepted_at;
    }

    /// Reports the spool while the state stays as it is.
    pub(crate) fn report_spool(&self, spool: SpoolHealth) {
        self.reported.lock().unwrap_or_else(PoisonError::into_inner).spool = Some(spool);
    }

    pub(crate) fn read(&self) -> Reported {
        self.reported.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spool(records: u64) -> SpoolHealth {
        SpoolHealth {
            records,
            bytes: records * 100,
            capacity_bytes: 1000,
            oldest: Duration::ZERO,
            alarm: records > 5,
            time_to_drain: None,
        }
    }

    #[test]
    fn a_state_and_its_spool_change_together() {
        let health = HealthCell::new("events");
        health.report_with(BusState::Draining, None, || Some(spool(9)));
        health.report_with(BusState::Direct, None, || Some(spool(0)));
        let reported = health.read();
        assert_eq!((reported.state, reported.spool), (BusState::Direct, Some(spool(0))));
        health.report_with(BusState::Direct, None, || panic!("the state is the same"));
    }

    #[test]
    fn a_state_that_is_reported_without_a_spool_keeps_the_last_one() {
        let health = HealthCell::new("events");
        health.report_spool(spool(9));
        health.report(BusState::Holding, Some("the disk is full".into()));
        assert_eq!(health.read().spool, Some(spool(9)));
    }

    #[test]
    fn holding_counts_from_the_first_moment_that_nothing_became_durable() {
        let health = HealthCell::new("events");
        let since = health.read().holding_since;
        assert!(since.is_some(), "nothing is durable before storage is reached");
        health.report(BusState::Holding, Some("one reason".into()));
        assert_eq!(health.read().holding_since, since);
        health.report(BusState::Direct, None);
        assert_eq!(health.read().holding_since, None);
    }
}
