//! What a station has asked lately, so that a repeated question gets the same answer and makes no second event.
//!
//! Delivery by stations is at least once: a CALL whose answer did not arrive is sent again, with the same message id and
//! the same content, often on a new connection (ocpp-j 2.2). Owns a few remembered CALLs for each station, bounded in
//! number and time. Not remembered: BootNotification, which begins a station's life anew (counters of message ids
//! restart at a reboot) and makes the gateway forget the rest, and Heartbeat, whose answer is the time.

use std::collections::VecDeque;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::{Duration, Instant};

use dashmap::DashMap;
use ocpp_bus::Durability;
use ocpp_protocol::{Call, IdentityKey};

use crate::session::SessionId;
use crate::session::pending::Content;

/// The remembered CALLs of all stations of this node.
#[derive(Debug)]
pub struct Replays {
    stations: DashMap<IdentityKey, VecDeque<Remembered>>,
    most: usize,
    window: Duration,
}

/// How far a session's events and its station's state changes must be durable.
#[derive(Clone, Debug)]
pub(crate) struct Milestone {
    pub(crate) events: (Durability, u64),
    pub(crate) states: (Durability, u64),
}

impl Milestone {
    pub(crate) fn is_reached(&self) -> bool {
        [&self.events, &self.states].iter().all(|(durability, ordinal)| durability.reached() >= *ordinal)
    }
}

/// A CALL that was taken in.
#[derive(Clone, Debug)]
pub(crate) struct Remembered {
    id: u64,
    content: u64,
    at: Instant,
    /// The session that took it in.
    pub(crate) session: SessionId,
    /// When its answer may go.
    pub(crate) milestone: Milestone,
    /// The answer.
    pub(crate) answer: Content,
}

impl Replays {
    /// Remembers so many CALLs of each station for so long; with none nothing is ever taken for a repetition.
    pub fn new(most: usize, window: Duration) -> Self {
        Self { stations: DashMap::new(), most, window }
    }

    /// The CALL that this one repeats.
    pub(crate) fn find(&self, station: &IdentityKey, call: &Call<'_>, now: Instant) -> Option<Remembered> {
        if self.most == 0 {
            return None;
        }
        let (id, content) = fingerprint(call);
        let remembered = self.stations.get(station)?;
        let same = |known: &&Remembered| known.id == id && known.content == content;
        remembered.iter().find(same).filter(|known| now.duration_since(known.at) < self.window).cloned()
    }

    /// Remembers a CALL and its answer, in place of another with the same message id or else of the oldest.
    pub(crate) fn remember(
        &self,
        station: &IdentityKey,
        call: &Call<'_>,
        session: SessionId,
        milestone: Milestone,
        answer: Content,
    ) {
        if self.most == 0 {
            return;
        }
        let (id, content) = fingerprint(call);
        let entry = Remembered { id, content, at: Instant::now(), session, milestone, answer };
        let mut remembered = self.stations.entry(station.clone()).or_default();
        remembered.retain(|known| known.id != id);
        while remembered.len() >= self.most {
            remembered.pop_front();
        }
        remembered.push_back(entry);
    }

    /// Forgets what a station has asked.
    pub fn forget(&self, station: &IdentityKey) {
        self.stations.remove(station);
    }

    /// Forgets what is too old to be repeated.
    pub fn sweep(&self, now: Instant) {
        self.stations.retain(|_, remembered| {
            remembered.retain(|known| now.duration_since(known.at) < self.window);
            !remembered.is_empty()
        });
    }
}

/// Message id and content as numbers. A collision would have to be among a few CALLs of one station.
fn fingerprint(call: &Call<'_>) -> (u64, u64) {
    let hash = |parts: [&str; 2]| {
        let mut hasher = DefaultHasher::new();
        parts.hash(&mut hasher);
        hasher.finish()
    };
    (hash([&call.id.decoded(), ""]), hash([&call.action, call.payload.get()]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use ocpp_bus::log::LogOptions;
    use ocpp_bus::metrics::BusMetrics;
    use ocpp_bus::queue::QueueLimits;
    use ocpp_bus::{Bus, open_log};
    use ocpp_protocol::{Frame, Version, parse};

    fn milestone() -> Milestone {
        let dir = tempfile::tempdir().unwrap();
        let metrics = BusMetrics::register(&prometheus::Registry::new(), "events").unwrap();
        let log = open_log(LogOptions::new(dir.path()), &metrics).unwrap();
        let limits = QueueLimits { records: 16, bytes: 1 << 20 };
        let bus =
            Bus::start_local("events", log, limits, None, dir.path().join("undelivered"), metrics).unwrap();
        let durability = bus.lane().durability();
        Milestone { events: (durability.clone(), 0), states: (durability, 0) }
    }

    fn with_call<T>(text: &str, use_it: impl FnOnce(&Call<'_>) -> T) -> T {
        match parse(Version::V16, text).unwrap() {
            Frame::Call(call) => use_it(&call),
            other => panic!("not a CALL: {other:?}"),
        }
    }

    fn remember(replays: &Replays, text: &str) {
        let answer = Content::Result(text.to_owned());
        let session = SessionId::next();
        with_call(text, |call| {
            replays.remember(&IdentityKey::of("CP-1"), call, session, milestone(), answer)
        });
    }

    fn finds(replays: &Replays, text: &str) -> Option<String> {
        let found = with_call(text, |call| replays.find(&IdentityKey::of("cp-1"), call, Instant::now()));
        found.map(|found| match found.answer {
            Content::Result(payload) => payload,
            other => panic!("{other:?}"),
        })
    }

    const FIRST: &str = r#"[2,"1","MeterValues",{"connectorId":1,"meterValue":[]}]"#;

    #[test]
    fn the_same_id_with_the_same_content_is_a_repetition_and_nothing_else_is() {
        let replays = Replays::new(4, Duration::from_secs(60));
        remember(&replays, FIRST);
        assert_eq!(finds(&replays, FIRST).as_deref(), Some(FIRST));
        assert!(finds(&replays, &FIRST.replace("\"1\"", "\"2\"")).is_none(), "another id");
        assert!(finds(&replays, &FIRST.replace(":1,", ":2,")).is_none(), "another content");
        replays.forget(&IdentityKey::of("CP-1"));
        assert!(finds(&replays, FIRST).is_none(), "forgotten");
    }

    #[test]
    fn a_reused_id_means_the_latest_content() {
        let replays = Replays::new(4, Duration::from_secs(60));
        let other = FIRST.replace(":1,", ":2,");
        remember(&replays, FIRST);
        remember(&replays, &other);
        assert!(finds(&replays, FIRST).is_none(), "a station that always says id 1 goes back and forth");
        assert!(finds(&replays, &other).is_some());
    }

    #[test]
    fn memory_is_bounded_in_number_and_time() {
        let replays = Replays::new(2, Duration::from_secs(60));
        let calls: Vec<String> = (1..=3).map(|id| FIRST.replace("\"1\"", &format!("\"{id}\""))).collect();
        for call in &calls {
            remember(&replays, call);
        }
        assert!(finds(&replays, &calls[0]).is_none());
        assert!(finds(&replays, &calls[2]).is_some());
        replays.sweep(Instant::now() + Duration::from_secs(61));
        assert!(replays.stations.is_empty());
        let off = Replays::new(0, Duration::from_secs(60));
        remember(&off, FIRST);
        assert!(finds(&off, FIRST).is_none());
    }
}
