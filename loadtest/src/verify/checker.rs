//! Compares what was found in the bus with what stations were answered.
//!
//! Owns the rules: every CALL that was answered must be found, once for each event that the gateway may publish for it, in the
//! order in which its station sent it. Stations number their CALLs, so that the state of a station is a few ranges and its
//! latest events, however many messages there were: memory grows with stations and faults, not with time.

use std::collections::VecDeque;
use std::hash::{DefaultHasher, Hash, Hasher};

use serde::{Deserialize, Serialize};

use super::event::Event;
use crate::ranges::Ranges;
use crate::station::{Behaviour, Ledger, identity, parse_message_id};

/// How many event ids of a station are remembered to recognise a redelivery. An older event counts as a second one.
const REMEMBERED: usize = 32;
/// Limit on second events kept per station until its ledger arrives. Further ones count as duplicated without a comparison.
const MAX_DUPLICATES: usize = 256;
/// Limit on examples of faults in the report.
const MAX_EXAMPLES: usize = 20;

/// The result of the comparison.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Verdict {
    /// Events read, of any type and any station.
    pub events: u64,
    /// CALLs found, each counted once.
    pub calls: u64,
    /// CALLs that stations were answered.
    pub answered: u64,
    /// Of these, not found. A fault.
    pub lost: u64,
    /// Found after a later CALL, or in a session after a newer one. A fault.
    pub reordered: u64,
    /// Found as several events with different ids, although sent once, or although the gateway should have recognised it. A
    /// fault.
    pub duplicated: u64,
    /// Found, but never sent. A fault.
    pub unknown: u64,
    /// Records that are not events. A fault.
    pub unreadable: u64,
    /// Positions that the gateway reported as missing or damaged. A fault: nothing can be said about what was there.
    pub gaps: u64,
    /// Stations that were found although no worker sent their ledger. A fault of the load test.
    pub unaccounted: u64,
    /// Delivered again with the same event id. Allowed: consumers deduplicate on it.
    pub redelivered: u64,
    /// Second events of a CALL that was sent again, of an action that is never deduplicated. Allowed.
    pub repeated: u64,
    /// Second events of a CALL that was sent again, in a run in which the gateway was restarted. Allowed there.
    pub after_restart: u64,
    /// Unanswered CALLs that are in the bus all the same. Allowed: the answer was lost, not the event.
    pub unanswered_found: u64,
    /// Unanswered CALLs that are not in the bus. Allowed.
    pub unanswered_missing: u64,
    /// Some of the faults, for people.
    pub examples: Vec<String>,
}

impl Verdict {
    /// Returns the faults of the gateway or its bus, by name.
    pub fn faults(&self) -> Vec<(&'static str, u64)> {
        let all = [
            ("lost", self.lost),
            ("reordered", self.reordered),
            ("duplicated", self.duplicated),
            ("never sent", self.unknown),
            ("unreadable", self.unreadable),
            ("gaps", self.gaps),
            ("unaccounted", self.unaccounted),
        ];
        all.into_iter().filter(|fault| fault.1 > 0).collect()
    }
}

/// What was found of one station's CALLs.
#[derive(Debug, Default)]
struct StationEvents {
    seen: Ranges,
    session: u128,
    /// Sequence number and event id of the latest events.
    recent: VecDeque<(u32, u64)>,
    /// Sequence numbers of second events: the same CALL with another event id.
    duplicates: Vec<u32>,
}

/// What was found so far, of all stations.
#[derive(Debug)]
pub struct Checker {
    prefix: String,
    run: String,
    restarts_allowed: bool,
    stations: Vec<StationEvents>,
    verdict: Verdict,
}

impl Checker {
    /// Starts with nothing found. With `restarts_allowed`, the gateway may have forgotten what it did not answer.
    pub fn new(prefix: &str, run: &str, stations: u32, restarts_allowed: bool) -> Self {
        Self {
            prefix: prefix.to_owned(),
            run: run.to_owned(),
            restarts_allowed,
            stations: (0..stations).map(|_| StationEvents::default()).collect(),
            verdict: Verdict::default(),
        }
    }

    /// Returns the number of events and of CALLs so far.
    pub fn read(&self) -> (u64, u64) {
        (self.verdict.events, self.verdict.calls)
    }

    /// Records a gap in the bus, or in the stream from it.
    pub fn gap(&mut self, what: &str) {
        self.verdict.gaps += 1;
        self.example(|| format!("gap: {what}"));
    }

    /// Records the next event. Events of one station come in the order of the bus.
    pub fn record(&mut self, record: &[u8]) {
        self.verdict.events += 1;
        let Ok(event) = Event::parse(record) else {
            self.verdict.unreadable += 1;
            self.example(|| {
                format!("unreadable: {}", String::from_utf8_lossy(&record[..record.len().min(200)]))
            });
            return;
        };
        let Some(number) = self.station(&event.subject) else { return };
        let Some(seq) = event.call().and_then(|id| parse_message_id(&self.run, id)) else { return };
        let Some(events) = self.stations.get_mut(number as usize) else {
            self.verdict.unknown += 1;
            self.example(|| format!("never sent: {} does not exist", event.subject));
            return;
        };
        match events.record(seq, fingerprint(&event.id), event.session()) {
            Found::New => self.verdict.calls += 1,
            Found::Late => {
                self.verdict.calls += 1;
                self.verdict.reordered += 1;
                self.example(|| format!("reordered: {} CALL {seq}", event.subject));
            }
            Found::Redelivered => self.verdict.redelivered += 1,
            Found::Second => {}
            Found::TooMany => {
                self.verdict.duplicated += 1;
                self.example(|| {
                    format!("duplicated: {} CALL {seq}, like many others of this station", event.subject)
                });
            }
        }
    }

    /// Compares what was found with what the stations know.
    pub fn compare(mut self, ledgers: &[Ledger]) -> Verdict {
        for ledger in ledgers {
            let Some(events) = self.stations.get_mut(ledger.number as usize).map(std::mem::take) else {
                continue;
            };
            self.compare_station(ledger, &events);
        }
        let left = self.stations.iter().filter(|events| events.seen.end() > 0).count();
        self.verdict.unaccounted += left as u64;
        self.verdict
    }

    fn compare_station(&mut self, ledger: &Ledger, events: &StationEvents) {
        let name = identity(&self.prefix, ledger.number);
        let missing = events.seen.missing_below(ledger.sent);
        let unanswered = ledger.answered.missing_below(ledger.sent);
        let lost = ledger.answered.common(&missing);
        let unknown = events.seen.common(&Ranges::of(ledger.sent, u32::MAX));
        self.verdict.answered += ledger.answered.count();
        self.verdict.lost += lost.count();
        self.verdict.unknown += unknown.count();
        self.verdict.unanswered_found += unanswered.common(&events.seen).count();
        self.verdict.unanswered_missing += unanswered.common(&missing).count();
        for (what, numbers) in [("lost", lost), ("never sent", unknown)] {
            for seq in numbers.iter().take(MAX_EXAMPLES) {
                self.example(|| format!("{what}: {name} CALL {seq}{}", shown(ledger.behaviour)));
            }
        }
        let mut duplicates = events.duplicates.clone();
        duplicates.sort_unstable();
        for of_one in duplicates.chunk_by(|left, right| left == right) {
            self.compare_duplicates(ledger, &name, of_one);
        }
    }

    fn compare_duplicates(&mut self, ledger: &Ledger, name: &str, duplicates: &[u32]) {
        let found = duplicates.len() as u64;
        let again = ledger.again.iter().find(|again| again.seq == duplicates[0]);
        let (times, never_remembered) =
            again.map_or((0, false), |again| (u64::from(again.times), again.never_remembered));
        // One event for each time it was sent, if the gateway does not promise to deduplicate it.
        let allowed = if never_remembered || self.restarts_allowed { found.min(times) } else { 0 };
        if never_remembered {
            self.verdict.repeated += allowed;
        } else {
            self.verdict.after_restart += allowed;
        }
        if found > allowed {
            self.verdict.duplicated += found - allowed;
            self.example(|| {
                format!(
                    "duplicated: {name} CALL {}, sent {} times, {} events",
                    duplicates[0],
                    times + 1,
                    found + 1
                )
            });
        }
    }

    fn station(&self, subject: &str) -> Option<u32> {
        subject.strip_prefix(self.prefix.as_str())?.parse().ok()
    }

    fn example(&mut self, text: impl FnOnce() -> String) {
        if self.verdict.examples.len() < MAX_EXAMPLES {
            self.verdict.examples.push(text());
        }
    }
}

/// What an event turned out to be.
enum Found {
    New,
    Late,
    Redelivered,
    Second,
    TooMany,
}

impl StationEvents {
    fn record(&mut self, seq: u32, id: u64, session: u128) -> Found {
        if self.recent.contains(&(seq, id)) {
            return Found::Redelivered;
        }
        if self.recent.len() == REMEMBERED {
            self.recent.pop_front();
        }
        self.recent.push_back((seq, id));
        if !self.seen.contains(seq) {
            let in_order = seq >= self.seen.end() && session >= self.session;
            self.session = self.session.max(session);
            self.seen.insert(seq);
            return if in_order { Found::New } else { Found::Late };
        }
        if self.duplicates.len() == MAX_DUPLICATES {
            return Found::TooMany;
        }
        self.duplicates.push(seq);
        Found::Second
    }
}

fn fingerprint(id: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    id.hash(&mut hasher);
    hasher.finish()
}

fn shown(behaviour: Behaviour) -> &'static str {
    match behaviour {
        Behaviour::Ordinary => "",
        Behaviour::SlowReader => " (slow reader)",
        Behaviour::Chatty => " (chatty)",
    }
}

#[cfg(test)]
mod tests;
