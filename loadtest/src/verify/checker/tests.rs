//! Every fault of a bus is found, and nothing else is reported.

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

fn ledger(number: u32, sent: u32, answered: Ranges) -> Ledger {
    Ledger { number, behaviour: Behaviour::Ordinary, sent, answered, again: Vec::new() }
}

fn checker() -> Checker {
    Checker::new("LT-", RUN, 3, false)
}

/// A run of one station whose ten CALLs were all answered, with this found in the bus.
fn compared(found: &[(u32, &str)]) -> Verdict {
    let mut checker = checker();
    for (seq, id) in found {
        checker.record(&event(1, *seq, id, 1));
    }
    checker.compare(&[ledger(1, 10, Ranges::of(0, 10))])
}

const ALL: [(u32, &str); 10] =
    [(0, "a"), (1, "b"), (2, "c"), (3, "d"), (4, "e"), (5, "f"), (6, "g"), (7, "h"), (8, "i"), (9, "j")];

#[test]
fn everything_found_once_and_in_order_is_no_fault() {
    let verdict = compared(&ALL);
    assert_eq!(verdict.faults(), []);
    assert_eq!((verdict.answered, verdict.calls, verdict.events), (10, 10, 10));
}

#[test]
fn what_is_missing_is_lost() {
    let mut found = ALL.to_vec();
    found.remove(4);
    found.pop();
    let verdict = compared(&found);
    assert_eq!(verdict.faults(), [("lost", 2)]);
    assert_eq!(verdict.examples, ["lost: LT-000001 CALL 4", "lost: LT-000001 CALL 9"]);
}

#[test]
fn an_empty_bus_has_lost_everything() {
    assert_eq!(compared(&[]).faults(), [("lost", 10)]);
}

#[test]
fn a_call_after_a_later_one_is_reordered() {
    let mut found = ALL.to_vec();
    found.swap(2, 3);
    assert_eq!(compared(&found).faults(), [("reordered", 1)]);
}

#[test]
fn a_second_event_of_what_was_sent_once_is_a_duplicate() {
    let mut found = ALL.to_vec();
    found.insert(5, (3, "another"));
    let verdict = compared(&found);
    assert_eq!(verdict.faults(), [("duplicated", 1)]);
    assert!(verdict.examples[0].contains("CALL 3, sent 1 times, 2 events"), "{:?}", verdict.examples);
}

#[test]
fn the_same_event_again_is_a_redelivery() {
    let mut found = ALL.to_vec();
    found.extend(&ALL[4..]);
    let verdict = compared(&found);
    assert_eq!(verdict.faults(), []);
    assert_eq!((verdict.redelivered, verdict.calls), (6, 10));
}

#[test]
fn what_nobody_sent_is_reported() {
    let mut found = ALL.to_vec();
    found.push((10, "k"));
    assert_eq!(compared(&found).faults(), [("never sent", 1)]);
    let mut checker = checker();
    checker.record(&event(77, 0, "x", 1));
    assert_eq!(checker.compare(&[]).faults(), [("never sent", 1)]);
}

#[test]
fn an_older_session_after_a_newer_one_is_out_of_order() {
    let mut checker = checker();
    checker.record(&event(1, 0, "a", 5));
    checker.record(&event(1, 1, "b", 6));
    checker.record(&event(1, 2, "c", 5));
    assert_eq!(checker.compare(&[ledger(1, 3, Ranges::of(0, 3))]).faults(), [("reordered", 1)]);
}

#[test]
fn each_send_of_an_action_that_is_never_deduplicated_may_be_an_event() {
    let again = |times, never_remembered| {
        let mut checker = checker();
        for (seq, id) in [(0, "a"), (1, "b"), (1, "c"), (1, "d"), (2, "e")] {
            checker.record(&event(1, seq, id, 1));
        }
        let mut ledger = ledger(1, 3, Ranges::of(0, 3));
        ledger.again.push(Again { seq: 1, times, never_remembered });
        checker.compare(&[ledger])
    };
    assert_eq!(again(2, true).faults(), []);
    assert_eq!(again(2, true).repeated, 2);
    assert_eq!(again(1, true).faults(), [("duplicated", 1)]);
    assert_eq!(again(2, false).faults(), [("duplicated", 2)], "the gateway should have known it");
}

#[test]
fn a_restarted_gateway_may_have_forgotten_what_it_did_not_answer() {
    let mut checker = Checker::new("LT-", RUN, 3, true);
    for (seq, id) in [(0, "a"), (0, "b"), (1, "c"), (1, "d")] {
        checker.record(&event(1, seq, id, 1));
    }
    let mut ledger = ledger(1, 2, Ranges::of(0, 2));
    ledger.again.push(Again { seq: 0, times: 1, never_remembered: false });
    let verdict = checker.compare(&[ledger]);
    assert_eq!(verdict.after_restart, 1);
    assert_eq!(verdict.faults(), [("duplicated", 1)], "the other was sent once");
}

#[test]
fn an_unanswered_call_may_be_found_or_missing() {
    let mut checker = checker();
    for (seq, id) in [(0, "a"), (2, "b")] {
        checker.record(&event(1, seq, id, 1));
    }
    let verdict = checker.compare(&[ledger(1, 4, Ranges::of(0, 1))]);
    assert_eq!(verdict.faults(), []);
    assert_eq!((verdict.unanswered_found, verdict.unanswered_missing), (1, 2));
}

#[test]
fn gaps_nonsense_and_stations_without_an_account_are_faults() {
    let mut checker = checker();
    checker.gap("positions 5 to 9");
    checker.record(b"nonsense");
    checker.record(&event(2, 0, "a", 1));
    assert_eq!(checker.compare(&[]).faults(), [("unreadable", 1), ("gaps", 1), ("unaccounted", 1)]);
}

#[test]
fn other_runs_stations_and_types_are_ignored() {
    let mut checker = checker();
    let text = String::from_utf8(event(1, 0, "a", 1)).unwrap();
    checker.record(text.replace("k7-0", "other-0").as_bytes());
    checker.record(text.replace("LT-000001", "CP-1").as_bytes());
    checker.record(text.replace("ocpp.message.received", "ocpp.message.sent").as_bytes());
    let verdict = checker.compare(&[ledger(1, 0, Ranges::default())]);
    assert_eq!((verdict.faults(), verdict.events, verdict.calls), (vec![], 3, 0));
}

/// What a faulty bus does to the events of a run.
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
        let mut checker = checker();
        for (station, seq, id) in &events {
            checker.record(&event(*station, *seq, id, 1));
        }
        let ledgers: Vec<_> = (0..3).map(|number| ledger(number, 20, Ranges::of(0, 20))).collect();
        prop_assert_eq!(checker.compare(&ledgers).faults(), [(wanted, 1)]);
    }
}
