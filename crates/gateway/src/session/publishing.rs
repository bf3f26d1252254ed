//! A session's way onto the buses: events and states in order, behind what waits for room.
//!
//! Owns what the session has not published yet, and the reports that must not overtake it. When to read again is the loop's
//! decision (`actor.rs`).

use std::collections::VecDeque;
use std::time::SystemTime;

use ocpp_bus::Record;

use super::actor::Actor;
use crate::events::Message;
use crate::kinds;

impl Actor {
    /// Whether its events that are not durable yet take up its share of the bus: a few stations with large messages must not fill
    /// it for all.
    pub(super) fn has_too_much_under_way(&self) -> bool {
        self.lane.unacknowledged_bytes() >= self.shared.limits.max_unacknowledged_size.as_u64()
    }

    pub(super) fn publish_received(&mut self, time: SystemTime, message: &Message<'_>) {
        let record = self.shared.events.received(&self.session, time, message);
        self.publish_event(record);
    }

    pub(super) fn publish_sent(&mut self, time: SystemTime, message: &Message<'_>) {
        let record = self.shared.events.sent(&self.session, time, message);
        self.publish_event(record);
    }

    pub(super) fn publish_event(&mut self, record: Record) {
        self.queued_events += 1;
        self.publish(record);
    }

    pub(super) fn publish_state(&mut self, record: Record) {
        self.queued_states += 1;
        self.publish(record);
    }

    /// Publishes behind everything that waits for room; where nothing waits, a session has no queue of its own.
    fn publish(&mut self, record: Record) {
        let refused = if self.unpublished.is_empty() { self.try_publish(record).err() } else { Some(record) };
        self.unpublished.extend(refused);
    }

    /// Publishes what there is room for by now, and reports what waited behind it.
    pub(super) fn publish_what_fits(&mut self) {
        while let Some(record) = self.unpublished.pop_front() {
            if let Err(record) = self.try_publish(record) {
                self.unpublished.push_front(record);
                return;
            }
        }
        self.unpublished = VecDeque::new();
        for (reply, report) in self.reports.drain(..) {
            // Whoever followed the command has gone only when the process is leaving.
            drop(reply.send(report));
        }
    }

    fn try_publish(&mut self, record: Record) -> Result<(), Record> {
        let lane = if record.kind == kinds::STATION_STATE { &mut self.states } else { &mut self.lane };
        lane.try_publish(record).map(drop)
    }
}
