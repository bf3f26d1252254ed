//! What is remembered of one station across its connections: its registration, the operator's decision about it, what it is, and
//! its transactions of OCPP 1.6.
//!
//! Owns the rules of these. Stores nothing: whoever changes a record has it written down, and lets the answer wait until that
//! is durable (P1).

use std::collections::VecDeque;
use std::time::SystemTime;

use ocpp_protocol::{BootState, Registration, StartKey, Version, vendor_and_model};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};

use crate::transaction_ids::{TransactionIds, next_of_station};

/// Transactions remembered for each station, so that a retried StartTransaction gets the same id. A station retries one
/// StartTransaction at a time, in order (OCPP 1.6 section 3.7), so a few would do.
const REMEMBERED_STARTS: usize = 16;

/// How far a station's registration has come: what the station knows, and what is true.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Standing {
    /// What its last BootNotification was answered with.
    pub told: BootState,
    /// The same, or what an operator has decided since.
    pub counts: BootState,
}

impl Standing {
    /// That of a station which has just been told.
    pub fn of(told: BootState) -> Self {
        Self { told, counts: told }
    }
}

/// One station's record.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct StationRecord {
    /// What the last BootNotification was answered with.
    #[serde(default, with = "word", skip_serializing_if = "Option::is_none")]
    registration: Option<Registration>,
    /// What the operator decided for the next one.
    #[serde(default, with = "word", skip_serializing_if = "Option::is_none")]
    decision: Option<Registration>,
    /// It was decided after the last BootNotification was answered, and counts in place of that answer.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    decision_counts: bool,
    /// What it said it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    model: Option<Box<StationModel>>,
    #[serde(default)]
    last_transaction: i32,
    /// Start keys (hashed) with their transaction ids, oldest first.
    #[serde(default, skip_serializing_if = "VecDeque::is_empty")]
    starts: VecDeque<(String, i32)>,
}

/// What a station is, in the words of its BootNotification.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Deserialize, Serialize)]
pub struct StationModel {
    /// Who made it.
    pub vendor: String,
    /// What it is called.
    pub model: String,
}

impl StationModel {
    /// The longest vendor or model that is kept, in characters; OCPP allows 50 and 20.
    const MOST_CHARS: usize = 64;

    /// What a BootNotification says, if it says anything.
    pub fn in_boot(version: Version, boot: &RawValue) -> Option<Self> {
        let cut = |text: String| text.chars().take(Self::MOST_CHARS).collect();
        vendor_and_model(version, boot).map(|(vendor, model)| Self { vendor: cut(vendor), model: cut(model) })
    }
}

impl StationRecord {
    /// What the station said it is.
    pub fn model(&self) -> Option<&StationModel> {
        self.model.as_deref()
    }

    /// The station says what it is.
    pub fn introduce(&mut self, model: StationModel) {
        self.model = Some(Box::new(model));
    }

    /// How far the station's registration has come.
    pub fn standing(&self) -> Standing {
        let told = self.registration.map_or(BootState::Unregistered, BootState::from);
        let decided = self.decision.filter(|_| self.decision_counts);
        Standing { told, counts: decided.map_or(told, BootState::from) }
    }

    /// What the last BootNotification was answered with.
    pub fn registration(&self) -> Option<Registration> {
        self.registration
    }

    /// What an operator has decided.
    pub fn decision(&self) -> Option<Registration> {
        self.decision
    }

    /// Decides a BootNotification: the operator's word, or the default.
    pub fn boot(&mut self, default: Registration) -> Registration {
        let decided = self.decision.unwrap_or(default);
        self.registered(decided);
        decided
    }

    /// A backend has answered a BootNotification with this.
    pub fn registered(&mut self, registration: Registration) {
        self.registration = Some(registration);
        self.decision_counts = false;
    }

    /// An operator decides about the station: that counts at once, and every BootNotification is answered with it.
    pub fn decide(&mut self, decision: Registration) {
        self.decision = Some(decision);
        self.decision_counts = true;
    }

    /// That of a station of which only its last transaction id is known.
    pub fn of_transaction(last_transaction: i32) -> Self {
        Self { last_transaction, ..Self::default() }
    }

    /// What remains of a station that is forgotten.
    pub fn forgotten(&self) -> Self {
        Self::of_transaction(self.last_transaction)
    }

    /// The greatest id among its transactions; 0 before the first.
    pub fn last_transaction(&self) -> i32 {
        self.last_transaction
    }

    /// The transaction id for a 1.6 StartTransaction: the one given before if it is a retry, else a new one, greater than every
    /// earlier one of the station. When the node's ids are used up, it counts on from the station's own instead, and behind the last
    /// of 31 bits from the clock.
    pub fn transaction(&mut self, start: &StartKey, ids: &TransactionIds, now: SystemTime) -> i32 {
        let hash = start.is_distinctive().then(|| hash(&start.canonical()));
        let before = hash.as_ref().and_then(|hash| self.starts.iter().find(|(known, _)| known == hash));
        if let Some((_, id)) = before {
            return *id;
        }
        let id = ids.next(now).unwrap_or_else(|| next_of_station(self.last_transaction, now));
        self.last_transaction = id;
        if let Some(hash) = hash {
            if self.starts.len() == REMEMBERED_STARTS {
                self.starts.pop_front();
            }
            self.starts.push_back((hash, id));
        }
        id
    }
}

/// 128 bits are plenty among sixteen keys, and much shorter than what they stand for.
fn hash(text: &str) -> String {
    Sha256::digest(text.as_bytes()).iter().take(16).map(|byte| format!("{byte:02x}")).collect()
}

/// A registration by its word on the wire; none for a word that is not known.
mod word {
    use super::*;

    pub(super) fn serialize<S: Serializer>(
        word: &Option<Registration>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        word.map(Registration::as_str).serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Registration>, D::Error> {
        let word = Option::<String>::deserialize(deserializer)?;
        Ok(word.as_deref().and_then(Registration::parse))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::time::{Duration, UNIX_EPOCH};

    use ocpp_protocol::start_key;
    use proptest::prelude::*;

    use super::*;

    fn start(timestamp: &str) -> StartKey {
        let text = format!(r#"{{"connectorId":1,"idTag":"A","timestamp":"{timestamp}","meterStart":0}}"#);
        start_key(&RawValue::from_string(text).unwrap())
    }

    /// 2026-01-01T00:00:00Z.
    fn now() -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(1_767_225_600)
    }

    #[test]
    fn a_retry_gets_the_same_transaction_id_and_a_new_start_a_greater_one() {
        let (mut station, ids) = (StationRecord::default(), TransactionIds::default());
        let first = station.transaction(&start("2026-01-01T00:00:00Z"), &ids, now());
        let later = now() + Duration::from_secs(9);
        let retry = station.transaction(&start("2026-01-01T00:00:00Z"), &ids, later);
        let second = station.transaction(&start("2026-01-01T00:00:01Z"), &ids, now());
        assert!(first > 0);
        assert_eq!(first, retry);
        assert!(second > first);
    }

    #[test]
    fn the_operator_decides_and_the_default_fills_in() {
        let mut station = StationRecord::default();
        assert_eq!(station.standing(), Standing::of(BootState::Unregistered));
        assert_eq!(station.boot(Registration::Pending), Registration::Pending);
        station.decide(Registration::Accepted);
        let decided = Standing { told: BootState::Pending, counts: BootState::Accepted };
        assert_eq!(station.standing(), decided, "it counts before the station has been told");
        assert_eq!(station.boot(Registration::Pending), Registration::Accepted);
        assert_eq!(station.standing(), Standing::of(BootState::Accepted));
        station.registered(Registration::Rejected);
        assert_eq!(station.standing(), Standing::of(BootState::Rejected), "a backend has the last word");
    }

    #[test]
    fn a_record_is_read_as_it_was_written_by_every_version() {
        let earlier =
            r#"{"registration":"Pending","decision":"Accepted","lastTransaction":7,"starts":[["ab",7]]}"#;
        let mut station: StationRecord = serde_json::from_str(earlier).unwrap();
        assert_eq!(serde_json::to_string(&station).unwrap(), earlier);
        let boot =
            RawValue::from_string(format!(r#"{{"chargePointVendor":"{}"}}"#, "V".repeat(100))).unwrap();
        let model = StationModel::in_boot(Version::V16, &boot).unwrap();
        assert_eq!((model.vendor.len(), &*model.model), (64, ""));
        station.introduce(model);
        let written = serde_json::to_string(&station).unwrap();
        assert_eq!(serde_json::from_str::<StationRecord>(&written).unwrap().model(), station.model());
        let strange: StationRecord = serde_json::from_str(r#"{"registration":"Odd"}"#).unwrap();
        assert_eq!(strange.standing(), Standing::of(BootState::Unregistered));
    }

    /// A node with its journal, which has every record.
    #[derive(Default)]
    struct Node {
        ids: TransactionIds,
        records: HashMap<u8, StationRecord>,
    }

    impl Node {
        fn restarted(self) -> Self {
            let ids = TransactionIds::default();
            let written = serde_json::to_string(&self.records).unwrap();
            let records: HashMap<u8, StationRecord> = serde_json::from_str(&written).unwrap();
            records.values().for_each(|record| ids.see(record.last_transaction()));
            Self { ids, records }
        }
    }

    #[derive(Clone, Debug)]
    enum Step {
        /// A station starts a transaction, or tries its last start again.
        Start {
            station: u8,
            again: bool,
        },
        /// The clock goes by so many seconds, perhaps back.
        Clock(i64),
        Restart,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            20 => (0..20_u8, any::<bool>()).prop_map(|(station, again)| Step::Start { station, again }),
            4 => (-100..1000_i64).prop_map(Step::Clock),
            1 => Just(Step::Restart),
        ]
    }

    proptest! {
        #[test]
        fn no_two_starts_of_a_node_get_the_same_id_whatever_restarts(steps in prop::collection::vec(step(), 1..400)) {
            let (mut node, mut clock) = (Node::default(), 1_767_225_600_u64);
            let mut given: HashMap<i32, (u8, u32)> = HashMap::new();
            let mut starts: HashMap<u8, (u32, i32)> = HashMap::new();
            for step in steps {
                match step {
                    Step::Clock(seconds) => clock = clock.saturating_add_signed(seconds),
                    Step::Restart => node = node.restarted(),
                    Step::Start { station, again } => {
                        let now = UNIX_EPOCH + Duration::from_secs(clock);
                        let record = node.records.entry(station).or_default();
                        let last = starts.get(&station).copied();
                        let (number, before) = last.map_or((1, None), |(number, id)| {
                            if again { (number, Some(id)) } else { (number + 1, None) }
                        });
                        let id = record.transaction(&start(&number.to_string()), &node.ids, now);
                        match before {
                            Some(before) => prop_assert_eq!(id, before, "a retry"),
                            None => {
                                prop_assert!(last.is_none_or(|(_, last)| id > last), "greater than earlier ones");
                                prop_assert_eq!(given.insert(id, (station, number)), None, "{}", id);
                            }
                        }
                        starts.insert(station, (number, id));
                    }
                }
            }
        }

        /// Each time it forgets everything. It has given out fewer ids than seconds have passed.
        #[test]
        fn without_the_journal_ids_are_new_below_one_a_second(
            lives in prop::collection::vec((0..200_u64, 0..20_u64), 1..10),
        ) {
            let (mut clock, mut given) = (1_767_225_600_u64, std::collections::HashSet::new());
            for (starts, idle) in lives {
                let mut node = Node::default();
                for number in 0..starts {
                    let now = UNIX_EPOCH + Duration::from_secs(clock);
                    let record = node.records.entry((number % 7) as u8).or_default();
                    prop_assert!(given.insert(record.transaction(&start(&number.to_string()), &node.ids, now)));
                }
                clock += starts + idle;
            }
        }
    }
}
