//! Which sessions are open, so that the next start can end those that a crash leaves open (ADR 0023).
//!
//! Owns what the stations' journal says of sessions, and reading it back. Publishes nothing: `session_journal.rs` does.
//!
//! In this order the journal says that a session is opened (before its `connected` event is published), that this event is
//! durable, and that the session has ended (after its `disconnected` event is durable). So a crash leaves no session without an end,
//! and each session that it leaves open has told its beginning, or tells it again as the same event.

mod replay;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use dashmap::DashMap;
use ocpp_bus::{DurableWatermark, Record, Snapshot};
use ocpp_protocol::{Identity, Version};
use ocpp_station::events::{Disconnected, EncodedEvent, Events};
use ocpp_station::time::unix_millis;
use ocpp_station::{CloseReason, SessionId, Subject};
use serde::{Deserialize, Serialize};

use crate::kinds;
use crate::session::SessionHandle;

pub use replay::Replay;

/// As many sessions fit into a record of the journal.
pub const NOTED_TOGETHER: usize = 1000;

/// The sessions of this process that are open, and those that an earlier one left open.
#[derive(Debug, Default)]
pub struct OpenSessions {
    open: DashMap<SessionId, Arc<SessionHandle>>,
    /// Those whose `connected` event may not be durable yet. Written before `open` and read after it.
    unconfirmed: Mutex<Vec<Unconfirmed>>,
    /// In the order in which they began.
    lost: Mutex<BTreeMap<SessionId, Arc<LostSession>>>,
    /// When the process before this one was last known to run.
    lost_ms: u64,
}

#[derive(Debug)]
struct Unconfirmed {
    session: SessionId,
    /// Of the publisher whose first record is the `connected` event.
    events: DurableWatermark,
    opened: Record,
}

/// A session that an earlier process left open.
#[derive(Debug)]
pub struct LostSession {
    /// Its number.
    pub id: SessionId,
    /// Its station, in the registered spelling.
    identity: Identity,
    version: Version,
    connected_ms: u64,
    /// When that process was last known to run.
    lost_ms: u64,
    /// The record of its beginning, if nothing says that its `connected` event is durable.
    opened: Option<Record>,
}

/// What the journal says of sessions, but for the record of a beginning: that is the `connected` event itself.
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
enum Note {
    /// One is open, and its `connected` event is durable.
    #[serde(rename_all = "camelCase")]
    Open { session: String, version: String, connected_ms: u64 },
    /// The `connected` events of these are durable. With or without any, the gateway is alive.
    Confirmed(Vec<String>),
    /// These have ended, and their `disconnected` events are durable.
    Ended(Vec<String>),
    /// A process has started and found what is open so far, which was lost at this time, if not earlier.
    Lost(u64),
}

impl OpenSessions {
    /// Notes a session that begins. The record must be durable before the `connected` event is published, which is the first of the
    /// publisher with this watermark.
    pub fn opened(
        &self,
        session: &Arc<SessionHandle>,
        connected: EncodedEvent,
        events: DurableWatermark,
    ) -> Record {
        let opened = Record {
            kind: kinds::SESSION_OPENED,
            time_ms: connected.time_ms,
            key: connected.key,
            value: connected.json.into(),
        };
        self.unconfirmed().push(Unconfirmed { session: session.id, events, opened: opened.clone() });
        self.open.insert(session.id, Arc::clone(session));
        opened
    }

    /// Notes the `connected` events that have become durable since the last call.
    pub fn confirmed(&self, now: SystemTime) -> Vec<Record> {
        let mut unconfirmed = self.unconfirmed();
        let durable = unconfirmed.extract_if(.., |one| one.events.reached() > 0);
        let confirmed: Vec<_> = durable.map(|one| one.session).collect();
        if unconfirmed.is_empty() {
            // Frees what a storm of connections has left.
            *unconfirmed = Vec::new();
        }
        drop(unconfirmed);
        confirmed.chunks(NOTED_TOGETHER).map(|some| note(&Note::Confirmed(words(some)), "", now)).collect()
    }

    /// Notes that the gateway is alive.
    pub fn alive(&self, now: SystemTime) -> Record {
        note(&Note::Confirmed(Vec::new()), "", now)
    }

    /// Notes sessions whose `disconnected` events are durable, [`NOTED_TOGETHER`] at most.
    pub fn ended(&self, sessions: &[SessionId], now: SystemTime) -> Record {
        for session in sessions {
            // Before the record is published, or a compaction in between would note the session as open for ever.
            if self.open.remove(session).is_none() {
                self.lost_sessions().remove(session);
            }
        }
        note(&Note::Ended(words(sessions)), "", now)
    }

    /// The sessions that an earlier process left open, in the order in which they began.
    pub fn lost(&self) -> Vec<Arc<LostSession>> {
        self.lost_sessions().values().cloned().collect()
    }

    /// Notes when they were lost. Durable before anything is told of them, it makes a repeated start tell the same.
    pub fn found_lost(&self, now: SystemTime) -> Record {
        note(&Note::Lost(self.lost_ms), "", now)
    }

    fn unconfirmed(&self) -> MutexGuard<'_, Vec<Unconfirmed>> {
        self.unconfirmed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lost_sessions(&self) -> MutexGuard<'_, BTreeMap<SessionId, Arc<LostSession>>> {
        self.lost.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Snapshot for OpenSessions {
    fn records(&self) -> Vec<Record> {
        self.kept(SystemTime::now())
    }
}

impl OpenSessions {
    fn kept(&self, now: SystemTime) -> Vec<Record> {
        let mut records = Vec::new();
        let mut lost = self.lost();
        lost.sort_by_key(|one| one.lost_ms);
        for together in lost.chunk_by(|one, next| one.lost_ms == next.lost_ms) {
            records.extend(together.iter().map(|one| one.record(now)));
            records.extend(together.first().map(|one| note(&Note::Lost(one.lost_ms), "", now)));
        }
        let open: Vec<_> = self.open.iter().map(|session| Arc::clone(&session)).collect();
        let mut opened: HashMap<_, _> =
            self.unconfirmed().iter().map(|one| (one.session, one.opened.clone())).collect();
        records.extend(open.into_iter().map(|session| {
            opened
                .remove(&session.id)
                .unwrap_or_else(|| open_note(session.subject(), unix_millis(session.connected_at), now))
        }));
        records.push(self.alive(now));
        records
    }
}

impl LostSession {
    /// The events that tell of it: `connected`, if that may never have become durable, and `disconnected`.
    pub fn events(&self, events: &Events) -> impl Iterator<Item = Record> + use<> {
        let connected = self.opened.clone().map(|opened| Record { kind: kinds::EVENT, ..opened });
        let ended = Disconnected {
            at: UNIX_EPOCH + Duration::from_millis(self.lost_ms),
            reason: CloseReason::GatewayLost,
            note: None,
            close_code: None,
            duration: Duration::from_millis(self.lost_ms.saturating_sub(self.connected_ms)),
            messages_in: None,
            messages_out: None,
        };
        let EncodedEvent { key, time_ms, json } = events.disconnected(self.subject(), &ended);
        let disconnected = Record { kind: kinds::EVENT, time_ms, key, value: json.into() };
        connected.into_iter().chain([disconnected])
    }

    fn subject(&self) -> Subject<'_> {
        Subject { session: self.id, identity: &self.identity, version: self.version }
    }

    fn record(&self, now: SystemTime) -> Record {
        self.opened.clone().unwrap_or_else(|| open_note(self.subject(), self.connected_ms, now))
    }
}

fn open_note(subject: Subject<'_>, connected_ms: u64, now: SystemTime) -> Record {
    let (session, version) = (subject.session.to_string(), subject.version.as_str().to_owned());
    note(&Note::Open { session, version, connected_ms }, subject.identity.as_str(), now)
}

fn note(note: &Note, key: &str, now: SystemTime) -> Record {
    // A plain enum always serializes; an empty value would be reported at replay.
    let value = serde_json::to_vec(note).unwrap_or_default().into();
    Record { kind: kinds::SESSION_NOTE, time_ms: unix_millis(now), key: key.into(), value }
}

fn words(sessions: &[SessionId]) -> Vec<String> {
    sessions.iter().map(ToString::to_string).collect()
}
