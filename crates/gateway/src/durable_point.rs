//! How far a session's events and its station's state changes must be durable before an answer may leave, for whoever
//! outlives the session. Owns two watermarks and a number on each.

use ocpp_bus::DurableWatermark;
use ocpp_station::recent_calls::DurablePoint;

/// A place on a session's two watermarks.
#[derive(Clone, Debug)]
pub struct Point {
    events: (DurableWatermark, u64),
    states: (DurableWatermark, u64),
}

impl Point {
    /// These events and these state changes.
    pub(crate) fn new(events: (DurableWatermark, u64), states: (DurableWatermark, u64)) -> Self {
        Self { events, states }
    }
}

impl DurablePoint for Point {
    fn is_reached(&self) -> bool {
        [&self.events, &self.states].iter().all(|(watermark, sequence)| watermark.reached() >= *sequence)
    }

    fn with_states_of(&self, later: &Self) -> Self {
        Self { events: self.events.clone(), states: later.states.clone() }
    }
}
