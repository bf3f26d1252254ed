//! What stations have asked lately, so that a repeated CALL gets the same answer and makes no second event.
//!
//! Delivery by stations is at least once: a CALL whose answer did not arrive is sent again, with the same message id and
//! the same content, often on a new connection (ocpp-j 2.2). Owns a few remembered CALLs for each station, bounded in
//! number and time. Not remembered: BootNotification, which begins a station's life anew (counters of message ids
//! restart at a reboot) and makes the gateway forget the rest, and Heartbeat, whose answer is the time.
//!
//! What repeats what: on one connection, the same id with the same content. On another connection the id says nothing,
//! because ids are unique within one only (1.6, 4.1.4), and many stations count from 1 on each. There a CALL is a
//! repetition only if it cannot be a new message, because its content has a time or number of its own
//! ([`ocpp_protocol::is_unmistakable`]): two events of one message do less harm than none.
//!
//! A delegated CALL is remembered while it waits. So a repetition joins the wait, and a response that comes while the
//! station is away is stored for the repetition; both only for what can be repeated on another connection. An Authorize
//! that is sent again there is a new CALL, about which the backend is asked again, and the former wait ended with its
//! connection.

use std::collections::VecDeque;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::{Duration, Instant};

use dashmap::DashMap;
use ocpp_protocol::{Action, Call, IdentityKey, Version};

use crate::content::Content;
use crate::session_id::SessionId;

/// How far a session's events and its station's state changes must be durable before an answer may leave, for whoever
/// outlives the session.
pub trait DurablePoint: Clone {
    /// Whether everything up to it is durable.
    fn is_reached(&self) -> bool;

    /// Its events, and the state changes of `later`.
    #[must_use]
    fn with_states_of(&self, later: &Self) -> Self;
}

/// The remembered CALLs of all stations of this node.
#[derive(Debug)]
pub struct RecentCalls<P> {
    stations: DashMap<IdentityKey, VecDeque<Remembered<P>>>,
    most: usize,
    window: Duration,
}

/// What makes two CALLs of one station the same: message id and content, as numbers. A collision would have to be among a
/// few CALLs of one station.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CallKey {
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
pub struct Remembered<P> {
    key: CallKey,
    at: Instant,
    /// The session that took it in, or that joined its wait.
    pub(crate) session: SessionId,
    /// When its answer may go.
    pub(crate) point: P,
    pub(crate) recorded: Recorded,
}

/// What is recorded of a CALL's answer.
#[derive(Clone, Debug)]
pub enum Recorded {
    /// The station was sent this.
    Sent(Content),
    /// A backend's response that came while the station was away.
    Stored(Content),
    /// A backend is to respond.
    Pending(Pending),
}

/// A delegated CALL that waits.
#[derive(Clone, Copy, Debug)]
pub struct Pending {
    /// The session whose event told of it.
    pub asked_in: SessionId,
    /// When the fallback applies.
    pub until: Instant,
    /// What was asked.
    pub action: &'static Action,
    /// What the station spoke.
    pub version: Version,
    /// A repetition on another connection is known as one, and may join the wait.
    pub outlives_session: bool,
}

impl PartialEq for Pending {
    fn eq(&self, other: &Self) -> bool {
        (self.asked_in, self.until) == (other.asked_in, other.until)
    }
}

impl Eq for Pending {}

/// What is known about a CALL that a backend responds to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Recalled {
    /// The station is away; it will have the answer if it asks again.
    Waiting(Pending),
    /// The session that was asked for the wait has just joined it.
    JustJoined,
    /// The CALL was answered.
    Answered,
    /// The deadline has passed.
    TooLate,
    /// No such CALL is remembered.
    Unknown,
}

impl<P: DurablePoint> RecentCalls<P> {
    /// Remembers at most `most` CALLs of each station for `window`; with none nothing is ever taken for a repetition.
    pub fn new(most: usize, window: Duration) -> Self {
        Self { stations: DashMap::new(), most, window }
    }

    /// The CALL that this one repeats: one of the same session or, if it `is_unmistakable`, which is only asked then, of any.
    pub(crate) fn find(
        &self,
        station: &IdentityKey,
        key: CallKey,
        now: Instant,
        session: SessionId,
        is_unmistakable: impl FnOnce() -> bool,
    ) -> Option<Remembered<P>> {
        if self.most == 0 {
            return None;
        }
        let same = |known: &&Remembered<P>| known.key == key;
        let is_recent = |known: &&Remembered<P>| now.duration_since(known.at) < self.window;
        let known = self.stations.get(station)?.iter().find(same).filter(is_recent).cloned()?;
        (known.session == session || is_unmistakable()).then_some(known)
    }

    /// Remembers a CALL and what is recorded of its answer, in place of another with the same message id or else of the
    /// oldest.
    pub(crate) fn remember(
        &self,
        station: &IdentityKey,
        key: CallKey,
        now: Instant,
        session: SessionId,
        point: P,
        recorded: Recorded,
    ) {
        if self.most == 0 {
            return;
        }
        let entry = Remembered { key, at: now, session, point, recorded };
        let mut remembered = self.stations.entry(station.clone()).or_default();
        remembered.retain(|known| known.key.id != key.id);
        while remembered.len() >= self.most {
            remembered.pop_front();
        }
        // One at a time: a deque's own growth begins with four, and most stations sleep with less.
        remembered.reserve_exact(1);
        remembered.push_back(entry);
    }

    /// Moves the wait for a backend's response to the session in which the station asked again. Gives the answer if it
    /// came before.
    pub(crate) fn join(&self, station: &IdentityKey, key: CallKey, session: SessionId) -> Option<Content> {
        let mut remembered = self.stations.get_mut(station)?;
        let at = remembered.iter().position(|known| known.key == key)?;
        let known = remembered.get_mut(at)?;
        let content = match &known.recorded {
            Recorded::Pending(_) => {
                known.session = session;
                return None;
            }
            Recorded::Stored(content) | Recorded::Sent(content) => content.clone(),
        };
        if matches!(content, Content::Result(_)) {
            known.recorded = Recorded::Sent(content.clone());
        } else {
            // After a CALLERROR the station's next try is a new CALL.
            remembered.remove(at);
        }
        Some(content)
    }

    /// Ends the wait for a backend's response: with what is recorded from here on, or by forgetting the CALL, so that a
    /// repetition is a new one. Only the session that has the wait may.
    pub(crate) fn settle(
        &self,
        station: &IdentityKey,
        key: CallKey,
        session: SessionId,
        recorded: Option<(Recorded, P)>,
    ) {
        let Some(mut remembered) = self.stations.get_mut(station) else { return };
        let waits = |known: &Remembered<P>| {
            known.key == key && known.session == session && matches!(known.recorded, Recorded::Pending(_))
        };
        match recorded {
            Some((recorded, point)) => {
                if let Some(known) = remembered.iter_mut().find(|known| waits(known)) {
                    known.recorded = recorded;
                    known.point = point;
                }
            }
            None => remembered.retain(|known| !waits(known)),
        }
    }

    /// What is known about the CALL that a backend responds to, when the session that serves the station, if one does,
    /// knows nothing.
    pub fn recall(
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
            Some(known) => match &known.recorded {
                Recorded::Sent(_) | Recorded::Stored(_)
                    if asked_in.is_none_or(|session| session == known.session) =>
                {
                    Recalled::Answered
                }
                Recorded::Pending(pending) if asked_in.is_none_or(|session| session == pending.asked_in) => {
                    if serving == Some(known.session) {
                        Recalled::JustJoined
                    } else if !pending.outlives_session {
                        Recalled::Unknown
                    } else if pending.until <= now {
                        Recalled::TooLate
                    } else {
                        Recalled::Waiting(*pending)
                    }
                }
                Recorded::Sent(_) | Recorded::Stored(_) | Recorded::Pending(_) => Recalled::Unknown,
            },
        }
    }

    /// Stores a backend's response for a station that is away, if the CALL still waits as it did when it was recalled.
    /// Says whether it did.
    pub fn store(
        &self,
        station: &IdentityKey,
        message_id: &str,
        pending: Pending,
        serving: Option<SessionId>,
        answer: Content,
    ) -> bool {
        let Some(mut remembered) = self.stations.get_mut(station) else { return false };
        let id = hash_of([message_id, ""]);
        let waits = |known: &&mut Remembered<P>| {
            known.key.id == id
                && serving != Some(known.session)
                && matches!(&known.recorded, Recorded::Pending(waiting) if *waiting == pending)
        };
        let Some(known) = remembered.iter_mut().find(waits) else { return false };
        known.recorded = Recorded::Stored(answer);
        true
    }

    /// Forgets a CALL that no backend will respond to, so that a repetition is a new one.
    pub fn give_up(&self, station: &IdentityKey, message_id: &str, asked_in: SessionId) {
        let id = hash_of([message_id, ""]);
        if let Some(mut remembered) = self.stations.get_mut(station) {
            remembered.retain(|known| {
                known.key.id != id
                    || !matches!(&known.recorded, Recorded::Pending(pending) if pending.asked_in == asked_in)
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
    use ocpp_protocol::{Frame, parse};
    use uuid::Uuid;

    /// Of no concern to the memory.
    #[derive(Clone, Debug)]
    struct Anywhere;

    impl DurablePoint for Anywhere {
        fn is_reached(&self) -> bool {
            true
        }

        fn with_states_of(&self, _: &Self) -> Self {
            Self
        }
    }

    fn session_id() -> SessionId {
        SessionId::new(Uuid::now_v7())
    }

    fn with_call<T>(text: &str, use_it: impl FnOnce(&Call<'_>) -> T) -> T {
        match parse(Version::V16, text).unwrap() {
            Frame::Call(call) => use_it(&call),
            other => panic!("not a CALL: {other:?}"),
        }
    }

    fn remember(recent: &RecentCalls<Anywhere>, text: &str) {
        let answer = Recorded::Sent(Content::Result(text.to_owned()));
        let key = with_call(text, CallKey::of);
        recent.remember(&IdentityKey::of("CP-1"), key, Instant::now(), session_id(), Anywhere, answer);
    }

    /// What is remembered of a CALL, asked for in another session.
    fn finds(recent: &RecentCalls<Anywhere>, text: &str) -> Option<String> {
        let key = with_call(text, CallKey::of);
        let found = recent.find(&IdentityKey::of("cp-1"), key, Instant::now(), session_id(), || true);
        found.map(|found| match found.recorded {
            Recorded::Sent(Content::Result(payload)) => payload,
            other => panic!("{other:?}"),
        })
    }

    const FIRST: &str = r#"[2,"1","MeterValues",{"connectorId":1,"meterValue":[]}]"#;

    #[test]
    fn the_same_id_with_the_same_content_is_a_repetition_and_nothing_else_is() {
        let recent = RecentCalls::new(4, Duration::from_secs(60));
        remember(&recent, FIRST);
        assert_eq!(finds(&recent, FIRST).as_deref(), Some(FIRST));
        assert!(finds(&recent, &FIRST.replace("\"1\"", "\"2\"")).is_none(), "another id");
        assert!(finds(&recent, &FIRST.replace(":1,", ":2,")).is_none(), "another content");
        recent.forget(&IdentityKey::of("CP-1"));
        assert!(finds(&recent, FIRST).is_none(), "forgotten");
    }

    #[test]
    fn in_another_session_only_what_is_unmistakable_is_a_repetition() {
        let recent = RecentCalls::new(4, Duration::from_secs(60));
        let (station, now) = (IdentityKey::of("CP-1"), Instant::now());
        let (session, key) = (session_id(), with_call(FIRST, CallKey::of));
        let answer = Recorded::Sent(Content::Result("{}".into()));
        recent.remember(&station, key, now, session, Anywhere, answer);
        assert!(recent.find(&station, key, now, session, || panic!("not asked")).is_some());
        assert!(recent.find(&station, key, now, session_id(), || true).is_some());
        assert!(recent.find(&station, key, now, session_id(), || false).is_none());
    }

    #[test]
    fn a_remembered_call_is_small() {
        assert!(size_of::<Remembered<Anywhere>>() <= 112, "{}", size_of::<Remembered<Anywhere>>());
    }

    #[test]
    fn a_reused_id_means_the_latest_content() {
        let recent = RecentCalls::new(4, Duration::from_secs(60));
        let other = FIRST.replace(":1,", ":2,");
        remember(&recent, FIRST);
        remember(&recent, &other);
        assert!(finds(&recent, FIRST).is_none(), "a station that always says id 1 goes back and forth");
        assert!(finds(&recent, &other).is_some());
    }

    #[test]
    fn memory_is_bounded_in_number_and_time() {
        let recent = RecentCalls::new(2, Duration::from_secs(60));
        let calls: Vec<String> = (1..=3).map(|id| FIRST.replace("\"1\"", &format!("\"{id}\""))).collect();
        for call in &calls {
            remember(&recent, call);
        }
        assert!(finds(&recent, &calls[0]).is_none());
        assert!(finds(&recent, &calls[2]).is_some());
        recent.sweep(Instant::now() + Duration::from_secs(61));
        assert!(recent.stations.is_empty());
        let off = RecentCalls::new(0, Duration::from_secs(60));
        remember(&off, FIRST);
        assert!(finds(&off, FIRST).is_none());
    }

    /// A delegated CALL with the message id `1`; the session in which it came.
    fn delegated(recent: &RecentCalls<Anywhere>, for_so_long: Duration) -> (SessionId, CallKey) {
        delegated_until(recent, for_so_long, true)
    }

    fn delegated_until(
        recent: &RecentCalls<Anywhere>,
        for_so_long: Duration,
        outlives_session: bool,
    ) -> (SessionId, CallKey) {
        let (session, key) = (session_id(), with_call(FIRST, CallKey::of));
        let pending = Pending {
            asked_in: session,
            until: Instant::now() + for_so_long,
            action: Action::find("MeterValues").unwrap(),
            version: Version::V16,
            outlives_session,
        };
        let recorded = Recorded::Pending(pending);
        recent.remember(&IdentityKey::of("CP-1"), key, Instant::now(), session, Anywhere, recorded);
        (session, key)
    }

    fn recall(
        recent: &RecentCalls<Anywhere>,
        asked_in: Option<SessionId>,
        serving: Option<SessionId>,
    ) -> Recalled {
        recent.recall(&IdentityKey::of("CP-1"), "1", asked_in, serving, Instant::now())
    }

    #[test]
    fn a_response_that_comes_while_the_station_is_away_is_stored() {
        let recent = RecentCalls::new(4, Duration::from_secs(60));
        let station = IdentityKey::of("CP-1");
        let (session, key) = delegated(&recent, Duration::from_secs(5));
        assert_eq!(recall(&recent, Some(session_id()), None), Recalled::Unknown, "another session's");
        let Recalled::Waiting(pending) = recall(&recent, Some(session), None) else { panic!("it waits") };
        assert!(recent.store(&station, "1", pending, None, Content::Result("stored".into())));
        assert!(!recent.store(&station, "1", pending, None, Content::Result("second".into())));
        assert_eq!(recall(&recent, Some(session), None), Recalled::Answered);
        let content = recent.join(&station, key, session_id());
        assert!(matches!(content, Some(Content::Result(payload)) if payload == "stored"));
    }

    #[test]
    fn a_wait_that_was_joined_belongs_to_the_new_session() {
        let recent = RecentCalls::new(4, Duration::from_secs(60));
        let station = IdentityKey::of("CP-1");
        let (first, key) = delegated(&recent, Duration::from_secs(5));
        let Recalled::Waiting(pending) = recall(&recent, None, None) else { panic!("it waits") };
        let second = session_id();
        assert!(recent.join(&station, key, second).is_none());
        assert_eq!(recall(&recent, Some(first), Some(second)), Recalled::JustJoined);
        assert!(!recent.store(&station, "1", pending, Some(second), Content::Result(String::new())));
        recent.settle(&station, key, first, None);
        assert_ne!(recall(&recent, None, None), Recalled::Unknown, "the former session has no say any more");
        recent.settle(&station, key, second, None);
        assert_eq!(recall(&recent, None, None), Recalled::Unknown, "a repetition is a new CALL");
    }

    #[test]
    fn nobody_waits_for_a_response_when_the_repetition_would_be_a_new_call() {
        let recent = RecentCalls::new(4, Duration::from_secs(60));
        let (session, _) = delegated_until(&recent, Duration::from_secs(5), false);
        assert_eq!(recall(&recent, Some(session), None), Recalled::Unknown, "the station has left");
        assert_eq!(recall(&recent, None, Some(session_id())), Recalled::Unknown, "it is back");
        assert_eq!(recall(&recent, None, Some(session)), Recalled::JustJoined, "its own session knows more");
    }

    #[test]
    fn the_deadline_holds_while_the_station_is_away_too() {
        let recent = RecentCalls::new(4, Duration::from_secs(60));
        let (session, _) = delegated(&recent, Duration::ZERO);
        assert_eq!(recall(&recent, None, None), Recalled::TooLate);
        recent.give_up(&IdentityKey::of("CP-1"), "1", session);
        assert_eq!(recall(&recent, None, None), Recalled::Unknown);
    }
}
