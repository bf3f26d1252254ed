//! How stations deviate from OCPP: which models do what, how often, and at how many stations.
//!
//! Owns the report, in memory and bounded: so many rows, so many stations counted in each. It begins anew when the gateway starts.
//! What a deviation is and whether it is refused is decided elsewhere; nothing here is asked about messages that are in order.

pub mod metrics;

use std::collections::{HashMap, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use ocpp_protocol::{IdentityKey, Version};
use ocpp_station::StationModel;

use self::metrics::DeviationMetrics;

/// Stations that a row counts one by one.
const STATIONS: usize = 1000;
/// Stations that a row names: those that came last.
const NAMED: usize = 3;

/// The report.
#[derive(Debug)]
pub struct Deviations {
    since: SystemTime,
    /// Rows, at most.
    limit: usize,
    rows: Mutex<HashMap<Sort, Row>>,
    metrics: DeviationMetrics,
}

/// A station that deviates, at this moment.
#[derive(Clone, Copy, Debug)]
pub struct Deviant<'a> {
    /// Its identity, in the registered spelling.
    pub identity: &'a str,
    /// The same, whatever its spelling.
    pub key: &'a IdentityKey,
    /// What it said it is.
    pub model: Option<&'a StationModel>,
    /// What it speaks.
    pub version: Version,
    /// When it was seen.
    pub at: SystemTime,
}

/// What a station does.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Deed {
    /// The type of the message, where it is about one.
    pub message_type: Option<&'static str>,
    /// Its action, where it is known.
    pub action: Option<&'static str>,
    /// The path of the member, without positions in lists.
    pub member: Option<String>,
    /// Out of a closed set of words.
    pub kind: &'static str,
}

/// What makes two sightings of the same sort.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Sort {
    model: Option<StationModel>,
    version: Version,
    deed: Deed,
}

#[derive(Debug)]
struct Row {
    count: u64,
    refused: u64,
    /// How often each did it, by a number for its identity.
    stations: HashMap<u64, u64>,
    named: VecDeque<String>,
    example: Option<String>,
    first_seen: SystemTime,
    last_seen: SystemTime,
}

/// A row, for people.
#[derive(Clone, Debug)]
pub struct Shown {
    /// What the stations said they are.
    pub model: Option<StationModel>,
    /// What they speak.
    pub version: Version,
    /// What they do.
    pub deed: Deed,
    /// How often.
    pub count: u64,
    /// How often it was in a message that was refused, and not tolerated.
    pub refused: u64,
    /// How many stations; beyond 1000 no more are counted.
    pub stations: usize,
    /// How often the station that was asked for did it.
    pub by_station: Option<u64>,
    /// Some of the stations.
    pub named: Vec<String>,
    /// What was wrong, the last time.
    pub example: Option<String>,
    /// When it was first seen.
    pub first_seen: SystemTime,
    /// When it was last seen.
    pub last_seen: SystemTime,
}

impl Deviations {
    /// An empty report of at most `limit` rows.
    pub fn new(limit: usize, metrics: DeviationMetrics) -> Self {
        Self { since: SystemTime::now(), limit, rows: Mutex::default(), metrics }
    }

    /// When it began.
    pub fn since(&self) -> SystemTime {
        self.since
    }

    /// Notes what a station did. Says whether that is new, and worth a line in the log: so often as there are rows, at most.
    pub fn note(&self, who: &Deviant<'_>, deed: &Deed, example: Option<&str>, is_refused: bool) -> bool {
        let sort = Sort { model: who.model.cloned(), version: who.version, deed: deed.clone() };
        let mut rows = self.rows();
        let is_known = rows.contains_key(&sort);
        let is_full = rows.len() >= self.limit;
        if !is_known && is_full {
            // Whatever a station invents is seen once, and gives way to what it invents next.
            let least =
                rows.iter().min_by_key(|(_, row)| (row.count, row.last_seen)).map(|(sort, _)| sort.clone());
            if let Some(least) = least {
                rows.remove(&least);
                self.metrics.forgotten();
            }
        }
        rows.entry(sort).or_insert_with(|| Row::new(who.at)).note(who, example, is_refused);
        self.metrics.listed(rows.len());
        !is_known && !is_full
    }

    /// The rows of all stations, or of one, the most frequent first.
    pub fn report(&self, station: Option<&IdentityKey>) -> Vec<Shown> {
        let number = station.map(number);
        let rows = self.rows();
        let mut shown: Vec<_> = rows
            .iter()
            .filter(|(_, row)| number.is_none_or(|number| row.stations.contains_key(&number)))
            .map(|(sort, row)| row.shown(sort, number))
            .collect();
        drop(rows);
        shown.sort_by_key(|row| std::cmp::Reverse((row.by_station.unwrap_or(row.count), row.last_seen)));
        shown
    }

    fn rows(&self) -> MutexGuard<'_, HashMap<Sort, Row>> {
        self.rows.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Row {
    fn new(at: SystemTime) -> Self {
        Self {
            count: 0,
            refused: 0,
            stations: HashMap::new(),
            named: VecDeque::new(),
            example: None,
            first_seen: at,
            last_seen: at,
        }
    }

    fn note(&mut self, who: &Deviant<'_>, example: Option<&str>, is_refused: bool) {
        self.count += 1;
        self.refused += u64::from(is_refused);
        self.last_seen = self.last_seen.max(who.at);
        self.example = example.map(str::to_owned).or_else(|| self.example.take());
        let number = number(who.key);
        if self.stations.len() < STATIONS || self.stations.contains_key(&number) {
            *self.stations.entry(number).or_default() += 1;
        }
        if !self.named.iter().any(|named| named == who.identity) {
            if self.named.len() >= NAMED {
                self.named.pop_front();
            }
            self.named.push_back(who.identity.to_owned());
        }
    }

    fn shown(&self, sort: &Sort, number: Option<u64>) -> Shown {
        Shown {
            model: sort.model.clone(),
            version: sort.version,
            deed: sort.deed.clone(),
            count: self.count,
            refused: self.refused,
            stations: self.stations.len(),
            by_station: number.and_then(|number| self.stations.get(&number).copied()),
            named: self.named.iter().cloned().collect(),
            example: self.example.clone(),
            first_seen: self.first_seen,
            last_seen: self.last_seen,
        }
    }
}

/// Identities are numbers here: a collision would add up two stations of thousands.
fn number(key: &IdentityKey) -> u64 {
    let mut hasher = DefaultHasher::new();
    key.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use ocpp_bus::Registrar;

    use super::*;

    fn report(limit: usize) -> Deviations {
        Deviations::new(limit, DeviationMetrics::register(&Registrar::default()).unwrap())
    }

    fn deed(member: &str) -> Deed {
        Deed {
            message_type: Some("CALL"),
            action: Some("MeterValues"),
            member: Some(member.to_owned()),
            kind: "unknownValues",
        }
    }

    fn note(report: &Deviations, station: &str, model: Option<&StationModel>, member: &str, at: u64) -> bool {
        let key = IdentityKey::of(station);
        let at = UNIX_EPOCH + Duration::from_secs(at);
        let who = Deviant { identity: station, key: &key, model, version: Version::V16, at };
        report.note(&who, &deed(member), Some(&format!("{member} of {station}")), at > UNIX_EPOCH)
    }

    #[test]
    fn sightings_of_a_sort_add_up_by_model() {
        let report = report(10);
        let one = StationModel { vendor: "V".into(), model: "M".into() };
        assert!(note(&report, "CP-1", Some(&one), "unit", 5));
        assert!(!note(&report, "CP-2", Some(&one), "unit", 7));
        assert!(!note(&report, "cp-2", Some(&one), "unit", 0));
        assert!(note(&report, "CP-3", None, "unit", 9), "another model");
        let rows = report.report(None);
        assert_eq!(rows.len(), 2);
        let first = &rows[0];
        assert_eq!((first.count, first.refused, first.stations), (3, 2, 2));
        assert_eq!(first.model.as_ref(), Some(&one));
        assert_eq!((first.first_seen, first.last_seen), (at(5), at(7)));
        assert_eq!(first.example.as_deref(), Some("unit of cp-2"));
        assert_eq!(rows[1].model, None);

        let of_two = report.report(Some(&IdentityKey::of("CP-2")));
        assert_eq!((of_two.len(), of_two[0].by_station, of_two[0].count), (1, Some(2), 3));
        assert!(report.report(Some(&IdentityKey::of("CP-9"))).is_empty());
    }

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(seconds)
    }

    #[test]
    fn what_is_invented_gives_way_to_what_is_invented_next() {
        let report = report(3);
        for _ in 0..5 {
            note(&report, "CP-1", None, "frequent", 1);
        }
        for number in 0..100 {
            assert_eq!(note(&report, "CP-1", None, &format!("invented{number}"), number), number < 2);
        }
        let rows = report.report(None);
        assert_eq!(rows.len(), 3);
        assert_eq!(rows[0].deed.member.as_deref(), Some("frequent"));
        assert_eq!(rows[1].deed.member.as_deref(), Some("invented99"));
    }

    #[test]
    fn a_row_counts_a_thousand_stations_and_names_the_last() {
        let report = report(3);
        for number in 0..1500 {
            note(&report, &format!("CP-{number}"), None, "unit", number);
        }
        let rows = report.report(None);
        assert_eq!((rows[0].count, rows[0].stations), (1500, STATIONS));
        assert_eq!(rows[0].named, ["CP-1497", "CP-1498", "CP-1499"]);
        assert_eq!(report.report(Some(&IdentityKey::of("CP-1"))).len(), 1);
    }
}
