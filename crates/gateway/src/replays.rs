//! What a station has asked lately, so that a repeated question gets the same answer and makes no second event.
//!
//! Delivery by stations is at least once: a CALL whose answer did not arrive is sent again, with the same message id and
//! the same content, often on a new connection (ocpp-j 2.2). Owns a few remembered CALLs for each station, bounded in
//! number and time. Not remembered: BootNotification, which begins a station's life anew (counters of message ids
//! restart at a reboot) and makes the gateway forget the rest, and Heartbeat, whose answer is the time.
//!
//! A CALL that a backend is to answer is remembered while it waits. So a repetition joins the wait, and an answer that comes
//! while the station is away is kept for the repetition.

use std::collections::VecDeque;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::{Duration, Instant};

use dashmap::DashMap;
use ocpp_bus::DurableWatermark;
use ocpp_protocol::{Action, Call, IdentityKey, Version};

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
    pub(crate) events: (DurableWatermark, u64),
    pub(crate) states: (DurableWatermark, u64),
}

impl Milestone {
    pub(crate) fn is_reached(&self) -> bool {
        [&self.events, &self.states].iter().all(|(durability, ordinal)| durability.reached() >= *ordinal)
    }
}

/// What makes two CALLs of one station the same: message id and content, as numbers. A collision would have to be among a
/// few CALLs of one station.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct CallKey {
    id: u64,
    content: u64,
}

impl CallKey {
    pub(crate) fn of(call: &Call<'_>) -> Self {
        Self { id: hash_of([&call.id.decoded(), ""]), content: hash_of([&call.action, call.payload.get()]) }
    }
}

fn hash_of(parts: [&str; 2]) -> u64 {
    let mut hasher = DefaultHasher::new();
    parts.hash(&mut hasher);
    hasher.finish()
}

/// A CALL that was taken in.
#[derive(Clone, Debug)]
pub(crate) struct Remembered {
    key: CallKey,
    at: Instant,
    /// The session that took it in, or that its wait was joined in.
    pub(crate) session: SessionId,
    /// When its answer may go.
    pub(crate) milestone: Milestone,
    /// The answer, as far as there is one.
    pub(crate) answer: Said,
}

/// What was said to a CALL.
#[derive(Clone, Debug)]
pub(crate) enum Said {
    /// The answer that the station was given.
    Given(Content),
    /// A backend's answer that came while the station was away.
    Kept(Content),
    /// A backend is to answer it.
    Awaited(Asked),
}

/// A CALL that a backend is to answer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asked {
    /// The session whose event told of it.
    pub(crate) asked_in: SessionId,
    /// When the fallback applies.
    pub(crate) until: Instant,
    pub(crate) action: &'static Action,
    pub(crate) version: Version,
}

/// What the memory has to say about a backend's answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Recalled {
    /// The station is away; it will have the answer if it asks again.
    Waits(Asked),
    /// The session that was asked for the wait has just joined it.
    JustJoined,
    /// The CALL was answered.
    Answered,
    /// The deadline has passed.
    Lapsed,
    /// No such CALL is remembered.
    Unknown,
}

impl PartialEq for Asked {
    fn eq(&self, other: &Self) -> bool {
        (self.asked_in, self.until) == (other.asked_in, other.until)
    }
}

impl Eq for Asked {}

impl Replays {
    /// Remembers so many CALLs of each station for so long; with none nothing is ever taken for a repetition.
    pub fn new(most: usize, window: Duration) -> Self {
        Self { stations: DashMap::new(), most, window }
    }

    /// The CALL that this one repeats.
    pub(crate) fn find(&self, station: &IdentityKey, key: CallKey, now: Instant) -> Option<Remembered> {
        if self.most == 0 {
            return None;
        }
        let remembered = self.stations.get(station)?;
        let same = |known: &&Remembered| known.key == key;
        remembered.iter().find(same).filter(|known| now.duration_since(known.at) < self.window).cloned()
    }

    /// Remembers a CALL and its answer, in place of another with the same message id or else of the oldest.
    pub(crate) fn remember(
        &self,
        station: &IdentityKey,
        key: CallKey,
        session: SessionId,
        milestone: Milestone,
        answer: Said,
    ) {
        if self.most == 0 {
            return;
        }
        let entry = Remembered { key, at: Instant::now(), session, milestone, answer };
        let mut remembered = self.stations.entry(station.clone()).or_default();
        remembered.retain(|known| known.key.id != key.id);
        while remembered.len() >= self.most {
            remembered.pop_front();
        }
        // One at a time: a deque's own growth begins with four, and most stations sleep with less.
        remembered.reserve_exact(1);
        remembered.push_back(entry);
    }

    /// Moves the wait for a backend's answer to the session in which the station asked again. Gives the answer if it came
    /// before.
    pub(crate) fn join(&self, station: &IdentityKey, key: CallKey, session: SessionId) -> Option<Content> {
        let mut remembered = self.stations.get_mut(station)?;
        let at = remembered.iter().position(|known| known.key == key)?;
        let known = remembered.get_mut(at)?;
        let content = match &known.answer {
            Said::Awaited(_) => {
                known.session = session;
                return None;
            }
            Said::Kept(content) | Said::Given(content) => content.clone(),
        };
        if matches!(content, Content::Result(_)) {
            known.answer = Said::Given(content.clone());
        } else {
            // After a CALLERROR the station's next try is a new question.
            remembered.remove(at);
        }
        Some(content)
    }

    /// Ends the wait for a backend's answer: with what was said to the CALL, or by forgetting it, so that a repetition is a
    /// new question.
    pub(crate) fn settle(
        &self,
        station: &IdentityKey,
        key: CallKey,
        session: SessionId,
        said: Option<(Said, Milestone)>,
    ) {
        let Some(mut remembered) = self.stations.get_mut(station) else { return };
        let awaited = |known: &Remembered| {
            known.key == key && known.session == session && matches!(known.answer, Said::Awaited(_))
        };
        match said {
            Some((answer, milestone)) => {
                if let Some(known) = remembered.iter_mut().find(|known| awaited(known)) {
                    known.answer = answer;
                    known.milestone = milestone;
                }
            }
            None => remembered.retain(|known| !awaited(known)),
        }
    }

    /// What is known about the CALL that a backend answers; the session that serves the station, if one does, knows nothing.
    pub(crate) fn recall(
        &self,
        station: &IdentityKey,
        message_id: &str,
        asked_in: Option<SessionId>,
        serving: Option<SessionId>,
        now: Instant,
    ) -> Recalled {
        let Some(remembered) = self.stations.get(station) else { return Recalled::Unknown };
        let id = hash_of([message_id, ""]);
        match remembered.iter().find(|known| known.key.id == id) {
            None => Recalled::Unknown,
            Some(known) => match &known.answer {
                Said::Given(_) | Said::Kept(_) if asked_in.is_none_or(|session| session == known.session) => {
                    Recalled::Answered
                }
                Said::Awaited(asked) if asked_in.is_none_or(|session| session == asked.asked_in) => {
                    if serving == Some(known.session) {
                        Recalled::JustJoined
                    } else if asked.until <= now {
                        Recalled::Lapsed
                    } else {
                        Recalled::Waits(*asked)
                    }
                }
                Said::Given(_) | Said::Kept(_) | Said::Awaited(_) => Recalled::Unknown,
            },
        }
    }

    /// Keeps a backend's answer for a station that is away, if the CALL still waits as it did when it was recalled. Says
    /// whether it did.
    pub(crate) fn keep(
        &self,
        station: &IdentityKey,
        message_id: &str,
        asked: Asked,
        serving: Option<SessionId>,
        answer: Content,
    ) -> bool {
        let Some(mut remembered) = self.stations.get_mut(station) else { return false };
        let id = hash_of([message_id, ""]);
        let waits = |known: &&mut Remembered| {
            known.key.id == id
                && serving != Some(known.session)
                && matches!(&known.answer, Said::Awaited(awaited) if *awaited == asked)
        };
        let Some(known) = remembered.iter_mut().find(waits) else { return false };
        known.answer = Said::Kept(answer);
        true
    }

    /// Forgets a CALL that no backend will answer, so that a repetition is a new question.
    pub(crate) fn give_up(&self, station: &IdentityKey, message_id: &str, asked_in: SessionId) {
        let id = hash_of([message_id, ""]);
        if let Some(mut remembered) = self.stations.get_mut(station) {
            remembered.retain(|known| {
                known.key.id != id
                    || !matches!(&known.answer, Said::Awaited(asked) if asked.asked_in == asked_in)
            });
        }
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

#[cfg(test)]
mod tests {
    use super::*;
    use ocpp_bus::metrics::BusMetrics;
    use ocpp_bus::queue::QueueLimits;
    use ocpp_bus::{Bus, LocalOptions, open_log};
    use ocpp_log::LogOptions;
    use ocpp_protocol::{Frame, Version, parse};

    fn milestone() -> Milestone {
        let dir = tempfile::tempdir().unwrap();
        let metrics = BusMetrics::register(&ocpp_bus::Registrar::default(), "events").unwrap();
        let log = open_log(LogOptions::new(dir.path()), &metrics).unwrap();
        let limits = QueueLimits { records: 16, bytes: 1 << 20 };
        let dead_letter_dir = dir.path().join("undelivered");
        let options = LocalOptions { limits, linger: Duration::ZERO, dead_letter_dir };
        let bus = Bus::start_local(log, options, &metrics).unwrap();
        let durability = bus.publisher().watermark();
        Milestone { events: (durability.clone(), 0), states: (durability, 0) }
    }

    fn with_call<T>(text: &str, use_it: impl FnOnce(&Call<'_>) -> T) -> T {
        match parse(Version::V16, text).unwrap() {
            Frame::Call(call) => use_it(&call),
            other => panic!("not a CALL: {other:?}"),
        }
    }

    fn remember(replays: &Replays, text: &str) {
        let answer = Said::Given(Content::Result(text.to_owned()));
        let session = SessionId::next();
        let key = with_call(text, CallKey::of);
        replays.remember(&IdentityKey::of("CP-1"), key, session, milestone(), answer);
    }

    fn finds(replays: &Replays, text: &str) -> Option<String> {
        let found = replays.find(&IdentityKey::of("cp-1"), with_call(text, CallKey::of), Instant::now());
        found.map(|found| match found.answer {
            Said::Given(Content::Result(payload)) => payload,
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

    /// A CALL with the message id `1` that a backend is to answer; the session in which it came.
    fn asked(replays: &Replays, for_so_long: Duration) -> (SessionId, CallKey) {
        let (session, key) = (SessionId::next(), with_call(FIRST, CallKey::of));
        let asked = Asked {
            asked_in: session,
            until: Instant::now() + for_so_long,
            action: Action::find("MeterValues").unwrap(),
            version: Version::V16,
        };
        replays.remember(&IdentityKey::of("CP-1"), key, session, milestone(), Said::Awaited(asked));
        (session, key)
    }

    fn recall(replays: &Replays, asked_in: Option<SessionId>, serving: Option<SessionId>) -> Recalled {
        replays.recall(&IdentityKey::of("CP-1"), "1", asked_in, serving, Instant::now())
    }

    #[test]
    fn an_answer_that_comes_while_the_station_is_away_is_kept() {
        let replays = Replays::new(4, Duration::from_secs(60));
        let station = IdentityKey::of("CP-1");
        let (session, key) = asked(&replays, Duration::from_secs(5));
        assert_eq!(recall(&replays, Some(SessionId::next()), None), Recalled::Unknown, "another session's");
        let Recalled::Waits(asked) = recall(&replays, Some(session), None) else { panic!("it waits") };
        assert!(replays.keep(&station, "1", asked, None, Content::Result("kept".into())));
        assert!(!replays.keep(&station, "1", asked, None, Content::Result("second".into())));
        assert_eq!(recall(&replays, Some(session), None), Recalled::Answered);
        let content = replays.join(&station, key, SessionId::next());
        assert!(matches!(content, Some(Content::Result(payload)) if payload == "kept"));
    }

    #[test]
    fn a_wait_that_was_joined_belongs_to_the_new_session() {
        let replays = Replays::new(4, Duration::from_secs(60));
        let station = IdentityKey::of("CP-1");
        let (first, key) = asked(&replays, Duration::from_secs(5));
        let Recalled::Waits(asked) = recall(&replays, None, None) else { panic!("it waits") };
        let second = SessionId::next();
        assert!(replays.join(&station, key, second).is_none());
        assert_eq!(recall(&replays, Some(first), Some(second)), Recalled::JustJoined);
        assert!(!replays.keep(&station, "1", asked, Some(second), Content::Result(String::new())));
        replays.settle(&station, key, first, None);
        assert_ne!(recall(&replays, None, None), Recalled::Unknown, "the former session has no say any more");
        replays.settle(&station, key, second, None);
        assert_eq!(recall(&replays, None, None), Recalled::Unknown, "a repetition is a new question");
    }

    #[test]
    fn the_deadline_holds_while_the_station_is_away_too() {
        let replays = Replays::new(4, Duration::from_secs(60));
        let (session, _) = asked(&replays, Duration::ZERO);
        assert_eq!(recall(&replays, None, None), Recalled::Lapsed);
        replays.give_up(&IdentityKey::of("CP-1"), "1", session);
        assert_eq!(recall(&replays, None, None), Recalled::Unknown);
    }
}
