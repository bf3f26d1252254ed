//! What is known about the stations beyond their connections: each one's record and its groups.
//!
//! Owns the state in memory and what the stations' journal says of it; the rules of a record are the station crate's. Each of these
//! records is one station's whole state with a revision, so the order of two writers of one station does not matter: replay
//! keeps the greatest revision. A change is made in memory first and published by the caller, who lets the answer wait until it is
//! durable (P1 holds for state as it does for events).

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use dashmap::DashMap;
use ocpp_bus::Record;
use ocpp_bus::Snapshot;
use ocpp_commands::nearest::nearest;
use ocpp_protocol::{BootState, Identity, IdentityKey, Registration, StartKey};
use ocpp_station::{Standing, StationModel, StationRecord, TransactionIds};
use serde::{Deserialize, Serialize};

use crate::kinds;
use crate::settings::overrides::Overrides;
use crate::settings::{ListenerTags, Resolver, Settings, Source, Who};
use ocpp_station::time::millis;

/// Stations among which one is looked for that has a similar identity: a few milliseconds' work.
const LOOKED_AT: usize = 10_000;

/// The stations.
#[derive(Debug, Default)]
pub struct Stations {
    states: DashMap<IdentityKey, State>,
    /// The greatest revision of a station that was forgotten.
    forgotten: AtomicU64,
    ids: TransactionIds,
}

/// One station's state, as the journal keeps it.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
struct State {
    revision: u64,
    /// The identity in its registered spelling.
    identity: String,
    /// What groups it belongs to.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    tags: BTreeSet<String>,
    /// What an operator set for this station alone, as it was written: another version may know other settings.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    settings: Option<serde_json::Value>,
    /// The station was forgotten; only in the journal, so that older records of it do not count.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    forgotten: bool,
    #[serde(flatten)]
    record: StationRecord,
}

/// A station's state, for people.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct StationState {
    /// The identity in its registered spelling.
    pub identity: String,
    /// What the last BootNotification was answered with.
    pub registration: Option<&'static str>,
    /// What the operator decided.
    pub decision: Option<&'static str>,
    /// What it said it is.
    pub model: Option<StationModel>,
    /// What groups it belongs to.
    pub tags: Vec<String>,
}

impl Stations {
    /// None yet. Those that start transactions will be given these ids.
    pub fn new(ids: TransactionIds) -> Self {
        Self { ids, ..Self::default() }
    }

    /// Takes a record of the journal.
    pub fn restore(&self, value: &[u8]) {
        match serde_json::from_slice::<State>(value) {
            Ok(state) => {
                self.ids.see(state.record.last_transaction());
                let mut slot = self.states.entry(IdentityKey::of(&state.identity)).or_default();
                if state.revision > slot.revision {
                    *slot = state;
                }
            }
            Err(error) => tracing::error!(%error, "a station's state in the journal is not readable"),
        }
    }

    /// Forgets what the journal says is forgotten. To be called after its last record.
    pub fn restored(&self) {
        self.states.retain(|_, state| {
            if state.forgotten {
                self.forgotten.fetch_max(state.revision, Ordering::AcqRel);
            }
            !state.forgotten
        });
    }

    /// Forgets a station. None if it is not known.
    pub fn forget(&self, key: &IdentityKey) -> Option<Record> {
        let (_, State { revision, identity, record, .. }) = self.states.remove(key)?;
        let record = record.forgotten();
        let mut forgotten = State { revision, identity, forgotten: true, record, ..State::default() };
        let record = changed(&mut forgotten);
        self.forgotten.fetch_max(forgotten.revision, Ordering::AcqRel);
        Some(record)
    }

    /// How many stations are known.
    pub fn len(&self) -> usize {
        self.states.len()
    }

    /// Whether none is known.
    pub fn is_empty(&self) -> bool {
        self.states.is_empty()
    }

    /// The registered spelling of an identity; the given one if the station is unknown.
    pub fn canonical(&self, identity: Identity) -> Identity {
        let registered = self.states.get(&identity.folded()).map(|state| state.identity.clone());
        match registered {
            Some(spelling) if spelling != identity.as_str() => Identity::parse(&spelling).unwrap_or(identity),
            _ => identity,
        }
    }

    /// Whether a station's state is kept.
    pub fn knows(&self, key: &IdentityKey) -> bool {
        self.states.contains_key(key)
    }

    /// A known identity that is spelled much like this one, among the first few thousand.
    pub fn similar(&self, identity: &str) -> Option<String> {
        nearest(identity, self.states.iter().take(LOOKED_AT).map(|state| state.identity.clone()))
    }

    /// How far a station's registration has come.
    pub fn standing(&self, key: &IdentityKey) -> Standing {
        let unknown = || Standing::of(BootState::Unregistered);
        self.states.get(key).map_or_else(unknown, |state| state.record.standing())
    }

    /// Notes what a station says it is. Written down with its next change, which is its registration.
    pub fn introduce(&self, identity: &Identity, model: StationModel) {
        self.slot(identity).record.introduce(model);
    }

    /// What a station said it is.
    pub fn model(&self, key: &IdentityKey) -> Option<StationModel> {
        self.states.get(key)?.record.model().cloned()
    }

    /// Decides a BootNotification: the operator's word, or the default.
    pub fn boot(&self, identity: &Identity, default: Registration) -> (Registration, Record) {
        self.change(identity, |record| record.boot(default))
    }

    /// Notes what a backend answered to a BootNotification.
    pub fn registered(&self, identity: &Identity, registration: Registration) -> Record {
        self.change(identity, |record| record.registered(registration)).1
    }

    /// Notes what the operator decided about a station.
    pub fn decide(&self, identity: &Identity, decision: Registration) -> Record {
        self.change(identity, |record| record.decide(decision)).1
    }

    /// Adds a station to groups. None if it belongs to them already.
    pub fn add_tags(&self, identity: &Identity, tags: &BTreeSet<String>) -> Option<Record> {
        let known = self.states.get(&identity.folded()).is_some_and(|state| tags.is_subset(&state.tags));
        if known || tags.is_empty() {
            return None;
        }
        let mut state = self.slot(identity);
        state.tags.extend(tags.iter().cloned());
        Some(changed(&mut state))
    }

    /// Puts a station into these groups and no others.
    pub fn tag(&self, identity: &Identity, tags: BTreeSet<String>) -> Record {
        let mut state = self.slot(identity);
        state.tags = tags;
        changed(&mut state)
    }

    /// Sets what holds for a station alone, and nothing else for it alone.
    pub fn set(&self, identity: &Identity, own: &Overrides) -> Record {
        let mut state = self.slot(identity);
        // A plain struct always serializes.
        state.settings = if own.is_empty() { None } else { serde_json::to_value(own).ok() };
        changed(&mut state)
    }

    /// What is set for a station alone. Settings of another version that this one does not know count as none.
    pub fn own_settings(&self, key: &IdentityKey) -> Option<Overrides> {
        let written = self.states.get(key)?.settings.clone()?;
        Overrides::deserialize(written)
            .inspect_err(|error| {
                tracing::error!(station = key.as_str(), %error, "a station's own settings cannot be read");
            })
            .ok()
    }

    /// What holds for a station that came, or would come, to this listener.
    pub fn settings(
        &self,
        resolver: &Resolver,
        listener: &ListenerTags<'_>,
        key: &IdentityKey,
    ) -> Arc<Settings> {
        self.with_who(listener, key, |who| resolver.resolve(who))
    }

    /// The same by name, each with its value and where that comes from.
    pub fn explain_settings(
        &self,
        resolver: &Resolver,
        listener: &ListenerTags<'_>,
        key: &IdentityKey,
    ) -> Vec<(String, serde_json::Value, Source)> {
        self.with_who(listener, key, |who| resolver.explain(who))
    }

    fn with_who<T>(
        &self,
        listener: &ListenerTags<'_>,
        key: &IdentityKey,
        look: impl FnOnce(&Who<'_>) -> T,
    ) -> T {
        let own = self.own_settings(key);
        let known = self.states.get(key).map(|state| state.tags.clone()).unwrap_or_default();
        let tags =
            if known.is_empty() { listener.tags } else { &known.union(listener.tags).cloned().collect() };
        look(&Who { listener: listener.name, station: key, tags, own: own.as_ref() })
    }

    /// Every station that belongs to a group, or every one, in its registered spelling and in order.
    pub fn members(&self, tag: Option<&str>) -> Vec<String> {
        let belongs = |state: &State| tag.is_none_or(|tag| state.tags.contains(tag));
        let mut members: Vec<_> =
            self.states.iter().filter(|state| belongs(state)).map(|state| state.identity.clone()).collect();
        members.sort();
        members
    }

    /// The transaction id for a 1.6 StartTransaction.
    pub fn transaction(&self, identity: &Identity, start: &StartKey, now: SystemTime) -> (i32, Record) {
        self.change(identity, |record| record.transaction(start, &self.ids, now))
    }

    /// The greatest transaction id so far.
    pub fn greatest_transaction_id(&self) -> i32 {
        self.ids.greatest()
    }

    /// A station's state, for people.
    pub fn get(&self, key: &IdentityKey) -> Option<StationState> {
        self.states.get(key).map(|state| shown(&state))
    }

    /// Every known station's key, in order.
    pub fn keys(&self) -> Vec<IdentityKey> {
        let mut keys: Vec<_> = self.states.iter().map(|entry| entry.key().clone()).collect();
        keys.sort();
        keys
    }

    /// Changes a station's record. It is written down although it may be as before: the write of that may not be durable yet.
    fn change<T>(&self, identity: &Identity, change: impl FnOnce(&mut StationRecord) -> T) -> (T, Record) {
        let mut state = self.slot(identity);
        let outcome = change(&mut state.record);
        (outcome, changed(&mut state))
    }

    fn slot(&self, identity: &Identity) -> dashmap::mapref::one::RefMut<'_, IdentityKey, State> {
        let mut state = self.states.entry(identity.folded()).or_default();
        if state.identity.is_empty() {
            state.identity = identity.as_str().to_owned();
            // Greater than what the journal may hold of a station of this name that was forgotten.
            state.revision = self.forgotten.load(Ordering::Acquire);
        }
        state
    }
}

/// Whether these can be a station's groups. Else why not.
///
/// # Errors
/// The reason.
pub fn check_tags(tags: &BTreeSet<String>) -> Result<(), String> {
    const MOST: usize = 32;
    const LONGEST: usize = 64;
    if tags.len() > MOST {
        return Err(format!("a station may have {MOST} tags"));
    }
    match tags.iter().find(|tag| tag.is_empty() || tag.len() > LONGEST) {
        Some(_) => Err(format!("a tag has 1 to {LONGEST} bytes")),
        None => Ok(()),
    }
}

impl ocpp_commands::port::Stations for Stations {
    fn canonical(&self, identity: Identity) -> Identity {
        self.canonical(identity)
    }

    fn knows(&self, station: &IdentityKey) -> bool {
        self.knows(station)
    }

    fn similar(&self, identity: &str) -> Option<String> {
        self.similar(identity)
    }

    fn members(&self, tag: Option<&str>) -> Vec<String> {
        self.members(tag)
    }
}

impl Snapshot for Stations {
    fn records(&self) -> Vec<Record> {
        // The greatest transaction id may be that of a station which was forgotten: one without a name stands for all of these.
        let forgotten = StationRecord::of_transaction(self.ids.greatest());
        let forgotten = State { revision: 1, forgotten: true, record: forgotten, ..State::default() };
        self.states.iter().map(|state| record(&state)).chain([record(&forgotten)]).collect()
    }
}

fn shown(state: &State) -> StationState {
    StationState {
        identity: state.identity.clone(),
        registration: state.record.registration().map(Registration::as_str),
        decision: state.record.decision().map(Registration::as_str),
        model: state.record.model().cloned(),
        tags: state.tags.iter().cloned().collect(),
    }
}

fn changed(state: &mut State) -> Record {
    state.revision += 1;
    record(state)
}

fn record(state: &State) -> Record {
    // A plain struct always serializes; an empty value would be reported at replay.
    let value = serde_json::to_vec(state).unwrap_or_default();
    let time_ms = millis(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default());
    Record {
        kind: kinds::STATION_STATE,
        time_ms,
        key: state.identity.as_str().into(),
        value: Bytes::from(value),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::value::RawValue;

    fn start(timestamp: &str) -> StartKey {
        let text = format!(r#"{{"connectorId":1,"idTag":"A","timestamp":"{timestamp}","meterStart":0}}"#);
        ocpp_protocol::start_key(&RawValue::from_string(text).unwrap())
    }

    fn station() -> Identity {
        Identity::parse("CP-1").unwrap()
    }

    #[test]
    fn replay_keeps_the_newest_revision_in_any_order() {
        let stations = Stations::default();
        let (id, old) = stations.transaction(&station(), &start("a"), UNIX_EPOCH);
        let (_, newer) = stations.boot(&station(), Registration::Accepted);
        let replayed = Stations::default();
        replayed.restore(&newer.value);
        replayed.restore(&old.value);
        assert_eq!(replayed.standing(&station().folded()), Standing::of(BootState::Accepted));
        assert_eq!(replayed.transaction(&station(), &start("a"), UNIX_EPOCH).0, id);
    }

    #[test]
    fn what_is_forgotten_stays_forgotten_until_the_station_comes_again() {
        let (stations, key) = (Stations::default(), station().folded());
        assert!(stations.forget(&key).is_none());
        let (_, known) = stations.boot(&station(), Registration::Accepted);
        let forgotten = stations.forget(&key).unwrap();
        let (_, again) = stations.boot(&station(), Registration::Pending);
        for records in [vec![&known, &forgotten], vec![&forgotten, &known]] {
            let replayed = Stations::default();
            records.iter().for_each(|record| replayed.restore(&record.value));
            replayed.restored();
            assert!(replayed.is_empty());
            replayed.restore(&again.value);
            assert_eq!(replayed.len(), 1);
        }
        let replayed = Stations::default();
        [&again, &known, &forgotten].iter().for_each(|record| replayed.restore(&record.value));
        replayed.restored();
        assert_eq!(replayed.get(&key).unwrap().registration, Some("Pending"));
    }

    #[test]
    fn no_id_is_given_out_again_although_its_station_was_forgotten_and_the_journal_compacted() {
        let stations = Stations::default();
        let other = Identity::parse("CP-2").unwrap();
        let (_, kept) = stations.transaction(&other, &start("a"), UNIX_EPOCH);
        let (greatest, known) = stations.transaction(&station(), &start("a"), UNIX_EPOCH);
        let forgotten = stations.forget(&station().folded()).unwrap();
        for records in [vec![kept, known, forgotten], stations.records()] {
            let replayed = Stations::default();
            records.iter().for_each(|record| replayed.restore(&record.value));
            replayed.restored();
            assert_eq!(replayed.len(), 1);
            assert_eq!(replayed.greatest_transaction_id(), greatest);
            assert!(replayed.transaction(&other, &start("b"), UNIX_EPOCH).0 > greatest);
        }
    }

    #[test]
    fn stations_that_start_together_get_different_ids() {
        let (stations, now) = (Stations::default(), SystemTime::now());
        let ids = |from: u32| {
            let stations = &stations;
            (from..from + 500).map(move |number| {
                let station = Identity::parse(&format!("CP-{number}")).unwrap();
                stations.transaction(&station, &start("a"), now).0
            })
        };
        let mut given: Vec<i32> = std::thread::scope(|scope| {
            let threads: Vec<_> =
                (0..4).map(|at| scope.spawn(move || ids(at * 500).collect::<Vec<_>>())).collect();
            threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
        });
        given.sort_unstable();
        given.dedup();
        assert_eq!(given.len(), 2000);
    }

    #[test]
    fn one_station_whatever_the_spelling() {
        let stations = Stations::default();
        stations.boot(&station(), Registration::Accepted);
        let other = Identity::parse("cp-1").unwrap();
        assert_eq!(stations.canonical(other).as_str(), "CP-1");
        assert_eq!(stations.len(), 1);
    }
}
