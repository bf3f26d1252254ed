//! The books: what was found in the bus against what stations were answered.
//!
//! Owns the judgement. Every CALL that was answered must be found, once for each event the gateway may make of it, in
//! the order in which its station sent it. Stations number their CALLs, so that the books of a station are a few ranges and
//! the last events, however many messages there were: memory grows with stations and faults, not with time.

use std::collections::VecDeque;
use std::hash::{DefaultHasher, Hash, Hasher};

use serde::{Deserialize, Serialize};

use super::event::Event;
use crate::ranges::Ranges;
use crate::station::{Account, Habit, identity, parse_message_id};

/// Events of a station whose ids are kept, to know a second delivery. An older one counts as a second event.
const REMEMBERED: usize = 32;
/// Second events of a station that are kept until the accounts are there. More are faults without a look.
const MOST_SECONDS: usize = 256;
/// Examples of faults that are told.
const MOST_EXAMPLES: usize = 20;

/// The comparison.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Verdict {
    /// Events read, of any kind and anybody.
    pub events: u64,
    /// CALLs found, each counted once.
    pub calls: u64,
    /// CALLs that stations were answered.
    pub answered: u64,
    /// Of these, not found. A fault.
    pub lost: u64,
    /// Found after a later one, or in a session that had been followed by another. A fault.
    pub reordered: u64,
    /// Found as several events with different ids although sent once, or although the gateway should have known it. A fault.
    pub duplicated: u64,
    /// Found and never sent. A fault.
    pub unknown: u64,
    /// Records that are no events. A fault.
    pub unreadable: u64,
    /// Positions of the log that the gateway said are missing or damaged, and breaks of the stream that could not be closed.
    /// A fault: nothing can be said about what was there.
    pub gaps: u64,
    /// Stations found that no worker gave an account of. A fault of the load test.
    pub unaccounted: u64,
    /// Delivered again with the same event id. Allowed: consumers deduplicate on it.
    pub redelivered: u64,
    /// Second events of a CALL that was sent again, of an action that is never remembered. Allowed.
    pub repeated: u64,
    /// Second events of a CALL that was sent again, in a run in which the gateway was restarted. Allowed there.
    pub after_restart: u64,
    /// CALLs without an answer that are in the bus all the same. Allowed: the answer was lost, not the event.
    pub unanswered_found: u64,
    /// CALLs without an answer that are not. Allowed.
    pub unanswered_missing: u64,
    /// Some of the faults, for people.
    pub examples: Vec<String>,
}

impl Verdict {
    /// Faults of the gateway or its bus, by name.
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

/// What one station's CALLs left in the bus.
#[derive(Debug, Default)]
struct Book {
    seen: Ranges,
    session: u128,
    /// Number and event id of the last ones.
    recent: VecDeque<(u32, u64)>,
    /// Numbers of events that tell of a CALL told of before, with another id.
    seconds: Vec<u32>,
}

/// The books of all stations.
#[derive(Debug)]
pub struct Ledger {
    prefix: String,
    run: String,
    restarts_allowed: bool,
    books: Vec<Book>,
    verdict: Verdict,
}

impl Ledger {
    /// Empty books for so many stations. With `restarts_allowed` the gateway may have forgotten what it did not answer.
    pub fn new(prefix: &str, run: &str, stations: u32, restarts_allowed: bool) -> Self {
        Self {
            prefix: prefix.to_owned(),
            run: run.to_owned(),
            restarts_allowed,
            books: (0..stations).map(|_| Book::default()).collect(),
            verdict: Verdict::default(),
        }
    }

    /// Events and CALLs so far.
    pub fn read(&self) -> (u64, u64) {
        (self.verdict.events, self.verdict.calls)
    }

    /// The bus, or the way to it, has a gap.
    pub fn gap(&mut self, what: &str) {
        self.verdict.gaps += 1;
        self.example(|| format!("gap: {what}"));
    }

    /// Takes the next event. Events of one station come in the order of the bus.
    pub fn take(&mut self, record: &[u8]) {
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
        let Some(book) = self.books.get_mut(number as usize) else {
            self.verdict.unknown += 1;
            self.example(|| format!("never sent: {} does not exist", event.subject));
            return;
        };
        match book.take(seq, fingerprint(&event.id), event.session()) {
            Taken::New => self.verdict.calls += 1,
            Taken::Late => {
                self.verdict.calls += 1;
                self.verdict.reordered += 1;
                self.example(|| format!("reordered: {} CALL {seq}", event.subject));
            }
            Taken::Redelivered => self.verdict.redelivered += 1,
            Taken::Second => {}
            Taken::TooMany => {
                self.verdict.duplicated += 1;
                self.example(|| format!("duplicated: {} CALL {seq}, as many others of it", event.subject));
            }
        }
    }

    /// Compares with what the stations know.
    pub fn settle(mut self, accounts: &[Account]) -> Verdict {
        for account in accounts {
            let Some(book) = self.books.get_mut(account.number as usize).map(std::mem::take) else {
                continue;
            };
            self.settle_one(account, &book);
        }
        let left = self.books.iter().filter(|book| book.seen.end() > 0).count();
        self.verdict.unaccounted += left as u64;
        self.verdict
    }

    fn settle_one(&mut self, account: &Account, book: &Book) {
        let name = identity(&self.prefix, account.number);
        let missing = book.seen.missing_below(account.sent);
        let unanswered = account.answered.missing_below(account.sent);
        let lost = account.answered.common(&missing);
        let unknown = book.seen.common(&Ranges::of(account.sent, u32::MAX));
        self.verdict.answered += account.answered.count();
        self.verdict.lost += lost.count();
        self.verdict.unknown += unknown.count();
        self.verdict.unanswered_found += unanswered.common(&book.seen).count();
        self.verdict.unanswered_missing += unanswered.common(&missing).count();
        for (what, numbers) in [("lost", lost), ("never sent", unknown)] {
            for seq in numbers.iter().take(MOST_EXAMPLES) {
                self.example(|| format!("{what}: {name} CALL {seq}{}", shown(account.habit)));
            }
        }
        let mut seconds = book.seconds.clone();
        seconds.sort_unstable();
        for of_one in seconds.chunk_by(|left, right| left == right) {
            self.settle_seconds(account, &name, of_one);
        }
    }

    fn settle_seconds(&mut self, account: &Account, name: &str, seconds: &[u32]) {
        let found = seconds.len() as u64;
        let again = account.again.iter().find(|again| again.seq == seconds[0]);
        let (times, never_remembered) =
            again.map_or((0, false), |again| (u64::from(again.times), again.never_remembered));
        // One event for each time it was sent, where the gateway promises no memory of it.
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
                    seconds[0],
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
        if self.verdict.examples.len() < MOST_EXAMPLES {
            self.verdict.examples.push(text());
        }
    }
}

/// What an event was.
enum Taken {
    New,
    Late,
    Redelivered,
    Second,
    TooMany,
}

impl Book {
    fn take(&mut self, seq: u32, id: u64, session: u128) -> Taken {
        if self.recent.contains(&(seq, id)) {
            return Taken::Redelivered;
        }
        if self.recent.len() == REMEMBERED {
            self.recent.pop_front();
        }
        self.recent.push_back((seq, id));
        if !self.seen.contains(seq) {
            let in_order = seq >= self.seen.end() && session >= self.session;
            self.session = self.session.max(session);
            self.seen.insert(seq);
            return if in_order { Taken::New } else { Taken::Late };
        }
        if self.seconds.len() == MOST_SECONDS {
            return Taken::TooMany;
        }
        self.seconds.push(seq);
        Taken::Second
    }
}

fn fingerprint(id: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    id.hash(&mut hasher);
    hasher.finish()
}

fn shown(habit: Habit) -> &'static str {
    match habit {
        Habit::Ordinary => "",
        Habit::SlowReader => " (slow reader)",
        Habit::Chatty => " (chatty)",
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::station::{Again, message_id};

    const RUN: &str = "k7";

    fn event(station: u32, seq: u32, id: &str, session: u32) -> Vec<u8> {
        let call = message_id(RUN, seq);
        format!(
            r#"{{"id":"{id}","type":"ocpp.message.received","subject":"LT-{station:06}","data":{{"sessionId":"{session:08x}-0000-7000-8000-000000000000","messageType":"CALL","messageId":"{call}","action":"Heartbeat","payload":{{}}}}}}"#
        )
        .into_bytes()
    }

    fn account(number: u32, sent: u32, answered: Ranges) -> Account {
        Account { number, habit: Habit::Ordinary, sent, answered, again: Vec::new() }
    }

    fn books() -> Ledger {
        Ledger::new("LT-", RUN, 3, false)
    }

    /// A run of one station that got all of its ten answers, with what is found in the bus.
    fn judge(found: &[(u32, &str)]) -> Verdict {
        let mut books = books();
        for (seq, id) in found {
            books.take(&event(1, *seq, id, 1));
        }
        books.settle(&[account(1, 10, Ranges::of(0, 10))])
    }

    const ALL: [(u32, &str); 10] =
        [(0, "a"), (1, "b"), (2, "c"), (3, "d"), (4, "e"), (5, "f"), (6, "g"), (7, "h"), (8, "i"), (9, "j")];

    #[test]
    fn everything_found_once_and_in_order_is_no_fault() {
        let verdict = judge(&ALL);
        assert_eq!(verdict.faults(), []);
        assert_eq!((verdict.answered, verdict.calls, verdict.events), (10, 10, 10));
    }

    #[test]
    fn what_is_missing_is_lost() {
        let mut found = ALL.to_vec();
        found.remove(4);
        found.pop();
        let verdict = judge(&found);
        assert_eq!(verdict.faults(), [("lost", 2)]);
        assert_eq!(verdict.examples, ["lost: LT-000001 CALL 4", "lost: LT-000001 CALL 9"]);
    }

    #[test]
    fn a_bus_without_anything_has_lost_everything() {
        assert_eq!(judge(&[]).faults(), [("lost", 10)]);
    }

    #[test]
    fn what_comes_after_a_later_one_is_reordered() {
        let mut found = ALL.to_vec();
        found.swap(2, 3);
        assert_eq!(judge(&found).faults(), [("reordered", 1)]);
    }

    #[test]
    fn a_second_event_of_what_was_sent_once_is_a_duplicate() {
        let mut found = ALL.to_vec();
        found.insert(5, (3, "another"));
        let verdict = judge(&found);
        assert_eq!(verdict.faults(), [("duplicated", 1)]);
        assert!(verdict.examples[0].contains("CALL 3, sent 1 times, 2 events"), "{:?}", verdict.examples);
    }

    #[test]
    fn the_same_event_again_is_a_redelivery() {
        let mut found = ALL.to_vec();
        found.extend(&ALL[4..]);
        let verdict = judge(&found);
        assert_eq!(verdict.faults(), []);
        assert_eq!((verdict.redelivered, verdict.calls), (6, 10));
    }

    #[test]
    fn what_nobody_sent_is_known_as_such() {
        let mut found = ALL.to_vec();
        found.push((10, "k"));
        assert_eq!(judge(&found).faults(), [("never sent", 1)]);
        let mut books = books();
        books.take(&event(77, 0, "x", 1));
        assert_eq!(books.settle(&[]).faults(), [("never sent", 1)]);
    }

    #[test]
    fn an_older_session_after_a_newer_one_is_out_of_order() {
        let mut books = books();
        books.take(&event(1, 0, "a", 5));
        books.take(&event(1, 1, "b", 6));
        books.take(&event(1, 2, "c", 5));
        assert_eq!(books.settle(&[account(1, 3, Ranges::of(0, 3))]).faults(), [("reordered", 1)]);
    }

    #[test]
    fn each_send_of_what_is_never_remembered_may_be_an_event() {
        let again = |times, never_remembered| {
            let mut books = books();
            for (seq, id) in [(0, "a"), (1, "b"), (1, "c"), (1, "d"), (2, "e")] {
                books.take(&event(1, seq, id, 1));
            }
            let mut account = account(1, 3, Ranges::of(0, 3));
            account.again.push(Again { seq: 1, times, never_remembered });
            books.settle(&[account])
        };
        assert_eq!(again(2, true).faults(), []);
        assert_eq!(again(2, true).repeated, 2);
        assert_eq!(again(1, true).faults(), [("duplicated", 1)]);
        assert_eq!(again(2, false).faults(), [("duplicated", 2)], "the gateway should have known it");
    }

    #[test]
    fn a_restarted_gateway_may_have_forgotten_what_it_did_not_answer() {
        let mut books = Ledger::new("LT-", RUN, 3, true);
        for (seq, id) in [(0, "a"), (0, "b"), (1, "c"), (1, "d")] {
            books.take(&event(1, seq, id, 1));
        }
        let mut account = account(1, 2, Ranges::of(0, 2));
        account.again.push(Again { seq: 0, times: 1, never_remembered: false });
        let verdict = books.settle(&[account]);
        assert_eq!(verdict.after_restart, 1);
        assert_eq!(verdict.faults(), [("duplicated", 1)], "the other was sent once");
    }

    #[test]
    fn without_an_answer_both_are_right() {
        let mut books = books();
        for (seq, id) in [(0, "a"), (2, "b")] {
            books.take(&event(1, seq, id, 1));
        }
        let verdict = books.settle(&[account(1, 4, Ranges::of(0, 1))]);
        assert_eq!(verdict.faults(), []);
        assert_eq!((verdict.unanswered_found, verdict.unanswered_missing), (1, 2));
    }

    #[test]
    fn gaps_nonsense_and_stations_without_an_account_are_faults() {
        let mut books = books();
        books.gap("positions 5 to 9");
        books.take(b"nonsense");
        books.take(&event(2, 0, "a", 1));
        assert_eq!(books.settle(&[]).faults(), [("unreadable", 1), ("gaps", 1), ("unaccounted", 1)]);
    }

    #[test]
    fn others_do_not_matter() {
        let mut books = books();
        let text = String::from_utf8(event(1, 0, "a", 1)).unwrap();
        books.take(text.replace("k7-0", "other-0").as_bytes());
        books.take(text.replace("LT-000001", "CP-1").as_bytes());
        books.take(text.replace("ocpp.message.received", "ocpp.message.sent").as_bytes());
        let verdict = books.settle(&[account(1, 0, Ranges::default())]);
        assert_eq!((verdict.faults(), verdict.events, verdict.calls), (vec![], 3, 0));
    }

    /// What a careless bus does to the events of a run.
    #[derive(Clone, Debug)]
    enum Harm {
        Drop(usize),
        Duplicate(usize),
        Swap(usize),
    }

    fn harm() -> impl Strategy<Value = Harm> {
        (0_usize..58).prop_flat_map(|at| {
            prop_oneof![Just(Harm::Drop(at)), Just(Harm::Duplicate(at)), Just(Harm::Swap(at))]
        })
    }

    proptest! {
        #[test]
        fn any_single_harm_is_found(harm in harm()) {
            // Twenty CALLs of each of three stations, interleaved.
            let mut events: Vec<(u32, u32, String)> =
                (0..60).map(|number| (number % 3, number / 3, format!("e{number}"))).collect();
            let wanted = match harm {
                Harm::Drop(at) => { events.remove(at); "lost" }
                Harm::Duplicate(at) => {
                    let (station, seq, _) = events[at].clone();
                    events.insert(at + 1, (station, seq, "copy".into()));
                    "duplicated"
                }
                Harm::Swap(at) => {
                    // The next event of the same station.
                    let other = if at + 3 < events.len() { at + 3 } else { at - 3 };
                    events.swap(at, other);
                    "reordered"
                }
            };
            let mut books = books();
            for (station, seq, id) in &events {
                books.take(&event(*station, *seq, id, 1));
            }
            let accounts: Vec<_> = (0..3).map(|number| account(number, 20, Ranges::of(0, 20))).collect();
            prop_assert_eq!(books.settle(&accounts).faults(), [(wanted, 1)]);
        }
    }
}
