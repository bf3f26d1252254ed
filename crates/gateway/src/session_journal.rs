//! The way of sessions into the stations' journal and, after a crash, the end of those that it left open (ADR 0023).
//!
//! Owns the order between the journal and the bus: a session is noted before its first event is published, its end after its last
//! event is durable, and no session begins before those of an earlier process have ended. What the notes say is
//! `open_sessions.rs`'s.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use ocpp_bus::{Bus, DurableWatermark, Journal};
use ocpp_station::SessionId;
use ocpp_station::events::{EncodedEvent, Events};
use tokio::sync::SetOnce;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::open_sessions::{NOTED_TOGETHER, OpenSessions};
use crate::session::SessionHandle;

/// How often the journal learns which `connected` events have become durable, if any have.
const CONFIRM_EVERY: Duration = Duration::from_secs(1);
/// How often it learns at least that the gateway is alive. A crash is at most this much later than the time that is told.
const ALIVE_EVERY: Duration = Duration::from_secs(10);

/// The sessions' side of the stations' journal.
#[derive(Debug)]
pub struct SessionJournal {
    sessions: Arc<OpenSessions>,
    journal: Journal,
    /// Set once the sessions that an earlier process left open have ended on the bus.
    past_ended: SetOnce<()>,
    /// Ends that are to be noted: fewer than the bus has records in flight, and what waits for room in the journal.
    ends: TaskTracker,
}

impl SessionJournal {
    /// A session may begin only once [`end_lost`](Self::end_lost) has run.
    pub fn new(sessions: Arc<OpenSessions>, journal: Journal) -> Self {
        Self { sessions, journal, past_ended: SetOnce::new(), ends: TaskTracker::new() }
    }

    /// Waits until a session's `connected` event may be published: the first of the publisher with this watermark.
    pub async fn opened(
        &self,
        session: &Arc<SessionHandle>,
        connected: EncodedEvent,
        events: DurableWatermark,
    ) {
        self.past_ended.wait().await;
        self.journal.store(self.sessions.opened(session, connected, events)).await;
    }

    /// Notes the end of sessions as soon as their `disconnected` events are durable: the publisher's records up to `last`. Nobody
    /// else may wait for this publisher.
    pub fn ended(&self, sessions: Vec<SessionId>, events: DurableWatermark, last: u64) {
        let (open, journal) = (Arc::clone(&self.sessions), self.journal.clone());
        drop(self.ends.spawn(async move {
            events.wait(last).await;
            journal.publisher().publish(open.ended(&sessions, SystemTime::now())).await;
        }));
    }

    /// Ends the sessions that an earlier process left open: publishes their events, at the pace of the bus. Returns how many.
    pub async fn end_lost(&self, bus: &Bus, events: &Events) -> usize {
        let lost = self.sessions.lost();
        if !lost.is_empty() {
            self.journal.store(self.sessions.found_lost(SystemTime::now())).await;
        }
        for together in lost.chunks(NOTED_TOGETHER) {
            let mut publisher = bus.publisher();
            for record in together.iter().flat_map(|session| session.events(events)) {
                publisher.publish(record).await;
            }
            let sessions = together.iter().map(|session| session.id).collect();
            self.ended(sessions, publisher.watermark(), publisher.published());
        }
        // Set only here.
        drop(self.past_ended.set(()));
        lost.len()
    }

    /// Notes now and then which `connected` events are durable, and that the gateway is alive.
    pub async fn keep(self: Arc<Self>, stop: CancellationToken) {
        let mut publisher = self.journal.publisher();
        let mut noted = Instant::now();
        while stop.run_until_cancelled(tokio::time::sleep(CONFIRM_EVERY)).await.is_some() {
            let now = SystemTime::now();
            let mut records = self.sessions.confirmed(now);
            if records.is_empty() && noted.elapsed() >= ALIVE_EVERY {
                records.push(self.sessions.alive(now));
            }
            for record in records {
                publisher.publish(record).await;
                noted = Instant::now();
            }
        }
    }

    /// Waits until every end is noted whose event is durable. To be called when no session is left, and nothing more becomes durable.
    pub async fn close(&self) {
        self.ends.close();
        self.ends.wait().await;
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use ocpp_bus::metrics::BusMetrics;
    use ocpp_bus::queue::QueueLimits;
    use ocpp_bus::{Registrar, Snapshot};

    use super::*;
    use crate::open_sessions::Replay;

    const LIMITS: QueueLimits = QueueLimits { records: 4, bytes: 10_000 };

    fn journal(name: &'static str) -> Journal {
        Journal::start_forgetful(LIMITS, &BusMetrics::register(&Registrar::default(), name).unwrap()).unwrap()
    }

    fn event() -> EncodedEvent {
        let json = br#"{"data":{"sessionId":"00000000-0000-0000-0000-000000000001","ocppVersion":"1.6"}}"#;
        EncodedEvent { key: "CP-1".into(), time_ms: 1, json: json.to_vec() }
    }

    fn session(number: u128) -> Arc<SessionHandle> {
        Arc::new(SessionHandle::of_test(SessionId::new(uuid::Uuid::from_u128(number)), 0))
    }

    #[tokio::test]
    async fn no_session_begins_before_those_of_the_last_run_have_ended() {
        let before = OpenSessions::default();
        let opened = before.opened(&session(1), event(), journal("events").publisher().watermark());
        let mut replay = Replay::default();
        replay.take(ocpp_log::Record {
            position: 0,
            kind: opened.kind.0,
            time_ms: opened.time_ms,
            key: "CP-1".into(),
            value: opened.value,
        });
        let open = Arc::new(replay.finish(SystemTime::now()));
        let sessions = Arc::new(SessionJournal::new(Arc::clone(&open), journal("stations")));

        let bus =
            Bus::start_forgetful(LIMITS, &BusMetrics::register(&Registrar::default(), "events").unwrap());
        let bus = bus.unwrap();
        let (new, publisher) = (session(2), bus.publisher());
        let mut begins = Box::pin(sessions.opened(&new, event(), publisher.watermark()));
        assert!(begins.as_mut().now_or_never().is_none());
        assert_eq!(sessions.end_lost(&bus, &Events::new("gw-1", uuid::Uuid::now_v7)).await, 1);
        begins.await;
        sessions.close().await;
        assert!(open.lost().is_empty(), "their end is noted");
        assert_eq!(open.records().len(), 2, "the new session, and a sign of life");
    }
}
