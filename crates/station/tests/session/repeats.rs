//! Repeated CALLs: the same answer again, no second event, and what counts as a repetition on the same connection and on
//! another.

use std::rc::Rc;
use std::time::Instant;

use ocpp_protocol::Version;
use ocpp_station::CloseReason;
use ocpp_station::host::Fallback;
use proptest::prelude::*;

use crate::bench::Input::*;
use crate::bench::{Bench, Memory, SECOND, delegation, options};

const METER: &str =
    r#"[2,"1","MeterValues",{"connectorId":1,"meterValue":[{"timestamp":"2026-01-01T00:00:00Z"}]}]"#;
const FIRST: &[&str] = &["out CALLRESULT 1 MeterValues", "ready true", r#"> [3,"1",{}]"#];

#[test]
fn a_repeated_call_gets_its_answer_again_without_a_second_event() {
    Bench::new().table(&[
        (0, Text(METER), &["in CALL 1 MeterValues"]),
        (0, Durable, FIRST),
        (1, Text(METER), &["seen repeated answered", r#"> [3,"1",{}]"#]),
    ]);
}

#[test]
fn one_answer_satisfies_two_copies_while_it_is_held() {
    Bench::new().table(&[
        (0, Text(METER), &["in CALL 1 MeterValues"]),
        (0, Text(METER), &["seen repeated held"]),
        (0, Durable, FIRST),
    ]);
}

#[test]
fn another_id_or_another_content_is_a_new_call() {
    let mut bench = Bench::new();
    bench.put(0, &Text(METER));
    let other_id = METER.replace("\"1\"", "\"2\"");
    let other_content = METER.replace(":1,", ":2,");
    bench.table(&[
        (0, Text(&other_id), &["in CALL 2 MeterValues"]),
        (0, Text(&other_content), &["in CALL 1 MeterValues", "seen read paused"]),
    ]);
}

#[test]
fn heartbeats_are_never_repetitions_and_a_boot_begins_a_new_series() {
    let heartbeat = r#"[2,"h","Heartbeat",{}]"#;
    let mut bench = Bench::new();
    for _ in 0..2 {
        assert_eq!(bench.put(0, &Text(heartbeat)), ["in CALL h Heartbeat"]);
        bench.put(0, &Durable);
    }
    bench.put(0, &Text(METER));
    bench.put(0, &Durable);
    bench.put(0, &Text(r#"[2,"b","BootNotification",{"chargePointVendor":"v","chargePointModel":"m"}]"#));
    bench.put(0, &Durable);
    assert_eq!(bench.put(0, &Text(METER)), ["in CALL 1 MeterValues"]);
}

#[test]
fn a_repetition_on_a_new_connection_waits_for_the_first_event() {
    let (start, memory) = (Instant::now(), Memory::default());
    let mut first = Bench::starting_at(start, Version::V16, options(), memory.clone());
    first.put(0, &Text(METER));
    first.put(1, &Lost);
    let mut second = Bench::starting_at(start, Version::V16, options(), memory);
    assert_eq!(second.put(2, &Text(METER)), ["seen repeated answered"]);
    assert!(second.put(3, &Durable).is_empty(), "the event is the first session's");
    first.put(4, &Durable);
    assert_eq!(second.put(100, &Wait), ["ready true", r#"> [3,"1",{}]"#]);
}

/// Two sessions of one station, of which a backend answers some CALLs.
fn delegating(deadline_ms: u64) -> (Bench, Bench) {
    let (start, memory) = (Instant::now(), Memory::default());
    let mut sessions = [0, 1].map(|_| Bench::starting_at(start, Version::V16, options(), memory.clone()));
    for session in &mut sessions {
        for action in ["Authorize", "StopTransaction"] {
            session.world.delegations.insert(action, delegation(deadline_ms, Fallback::Error));
        }
    }
    assert!(Rc::ptr_eq(&sessions[0].world.memory.recent, &sessions[1].world.memory.recent));
    let [first, second] = sessions;
    (first, second)
}

const AUTHORIZE: &str = r#"[2,"a","Authorize",{"idTag":"A"}]"#;
const STOP: &str =
    r#"[2,"a","StopTransaction",{"transactionId":1,"meterStop":0,"timestamp":"2026-01-01T00:00:00Z"}]"#;

#[test]
fn a_repetition_joins_the_wait_for_a_backend_and_keeps_its_deadline() {
    let (mut first, mut second) = delegating(5 * SECOND);
    first.put(0, &Text(STOP));
    first.put(0, &Durable);
    first.put(SECOND, &Lost);
    assert_eq!(second.put(2 * SECOND, &Text(STOP)), ["seen repeated joined"], "nobody is asked again");
    let effects = second.put(5 * SECOND, &Wait);
    assert!(effects.contains(&"seen delegated StopTransaction deadline".to_owned()), "{effects:?}");
    let (mut first, mut second) = delegating(5 * SECOND);
    first.put(0, &Text(STOP));
    first.put(0, &Durable);
    first.put(SECOND, &End(CloseReason::Replaced));
    second.put(2 * SECOND, &Text(STOP));
    let effects = second.put(3 * SECOND, &Respond("a", r#"{"idTagInfo":{"status":"Accepted"}}"#));
    assert_eq!(effects.last().unwrap(), r#"> [3,"a",{"idTagInfo":{"status":"Accepted"}}]"#);
}

#[test]
fn after_the_deadline_the_station_asks_anew() {
    let (mut first, mut second) = delegating(5 * SECOND);
    first.put(0, &Text(STOP));
    first.put(SECOND, &Lost);
    assert_eq!(second.put(6 * SECOND, &Text(STOP)), ["in CALL a StopTransaction", "ask a StopTransaction"]);
}

#[test]
fn a_station_that_counts_from_1_on_each_connection_is_heard() {
    let (start, memory) = (Instant::now(), Memory::default());
    let status = |id: u32, status: &str| {
        format!(
            r#"[2,"{id}","StatusNotification",{{"connectorId":1,"errorCode":"NoError","status":"{status}"}}]"#
        )
    };
    let mut first = Bench::starting_at(start, Version::V16, options(), memory.clone());
    let mut second = Bench::starting_at(start, Version::V16, options(), memory);
    for (at, text) in [(0, status(1, "Available")), (1, status(2, "Charging"))] {
        assert!(first.put(at, &Text(&text))[0].starts_with("in CALL"));
        first.put(at, &Durable);
    }
    assert_eq!(second.put(3, &Text(&status(1, "Available"))), ["in CALL 1 StatusNotification"]);
    assert_eq!(
        first.put(4, &Text(&status(2, "Charging")))[0],
        "seen repeated answered",
        "the same connection"
    );
}

#[test]
fn what_waits_for_a_backend_is_asked_anew_on_another_connection_if_it_may_be_new() {
    let (mut first, mut second) = delegating(5 * SECOND);
    let asked = ["in CALL a Authorize", "ask a Authorize"];
    assert_eq!(first.put(0, &Text(AUTHORIZE)), asked);
    first.put(0, &Durable);
    first.put(SECOND, &Lost);
    assert_eq!(second.put(2 * SECOND, &Text(AUTHORIZE)), asked);
    second.put(2 * SECOND, &Durable);
    assert!(second.put(5 * SECOND, &Wait).is_empty(), "the deadline is its own");
    let effects = second.put(6 * SECOND, &Respond("a", r#"{"idTagInfo":{"status":"Blocked"}}"#));
    assert_eq!(effects.last().unwrap(), r#"> [3,"a",{"idTagInfo":{"status":"Blocked"}}]"#);
    assert_eq!(second.put(6 * SECOND, &Text(AUTHORIZE))[0], "seen repeated answered");
}

/// What a station may send: the action and the payload, and whether it says when it happened.
const MESSAGES: [(&str, &str, bool); 9] = [
    ("Authorize", r#"{"idTag":"A"}"#, false),
    ("Heartbeat", "{}", false),
    ("DataTransfer", r#"{"vendorId":"v","data":"2026-01-01T00:00:00Z"}"#, false),
    ("StatusNotification", r#"{"connectorId":1,"errorCode":"NoError","status":"Available"}"#, false),
    ("StatusNotification", r#"{"connectorId":1,"errorCode":"NoError","status":"Charging"}"#, false),
    (
        "StatusNotification",
        r#"{"connectorId":1,"errorCode":"NoError","status":"Available","timestamp":"2026-01-01T00:00:00Z"}"#,
        true,
    ),
    ("MeterValues", r#"{"connectorId":1,"meterValue":[]}"#, false),
    ("MeterValues", r#"{"connectorId":1,"meterValue":[{"timestamp":"2026-01-01T00:00:00Z"}]}"#, true),
    ("StopTransaction", r#"{"transactionId":1,"meterStop":0,"timestamp":"2026-01-01T00:00:00Z"}"#, true),
];

/// What happens next.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// The station sends one of the messages with a message id.
    Send { id: u8, message: usize },
    /// It sends the last one again.
    Again,
    /// It loses its connection and comes back.
    Reconnect,
    /// Everything is durable.
    Durable,
    /// A backend responds to the CALL with this id, if it waits.
    Respond { id: u8 },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (1_u8..4, 0..MESSAGES.len()).prop_map(|(id, message)| Step::Send { id, message }),
        3 => Just(Step::Again),
        2 => Just(Step::Reconnect),
        4 => Just(Step::Durable),
        2 => (1_u8..4).prop_map(|id| Step::Respond { id }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    /// A message without an event of its own repeats, byte for byte, one that has an event, either on the same connection
    /// or with a time of its own in it. And what comes again at once is such a repetition, if it can be.
    #[test]
    fn no_event_is_swallowed(steps in prop::collection::vec(step(), 1..120)) {
        let (start, memory) = (Instant::now(), Memory::default());
        let connect = || {
            let mut bench = Bench::starting_at(start, Version::V16, options(), memory.clone());
            for action in ["Authorize", "StopTransaction"] {
                bench.world.delegations.insert(action, delegation(3_600 * SECOND, Fallback::Builtin));
            }
            bench
        };
        let mut bench = connect();
        let mut connection = 0;
        // What was sent, on which connection, and whether it had an event.
        let mut sent: Vec<(String, usize, bool)> = Vec::new();
        let mut last = None;
        for step in steps {
            let (id, message, is_again) = match (step, last) {
                (Step::Send { id, message }, _) => (id, message, false),
                (Step::Again, Some((id, message))) => (id, message, true),
                (Step::Again, None) => continue,
                (Step::Reconnect, _) => {
                    bench.put(0, &Durable);
                    bench.put(0, &Lost);
                    prop_assert!(bench.core.is_over(&bench.world));
                    bench = connect();
                    connection += 1;
                    continue;
                }
                (Step::Durable, _) => {
                    bench.put(0, &Durable);
                    continue;
                }
                (Step::Respond { id }, _) => {
                    bench.put(0, &Respond(&id.to_string(), r#"{"idTagInfo":{"status":"Accepted"}}"#));
                    continue;
                }
            };
            if !bench.reads() {
                continue;
            }
            let (action, payload, has_time) = MESSAGES[message];
            let text = format!(r#"[2,"{id}","{action}",{payload}]"#);
            let effects = bench.put(0, &Text(&text));
            let has_event = effects.contains(&format!("in CALL {id} {action}"));
            let is_repetition = |(earlier, on, had_event): &(String, usize, bool)| {
                *had_event && *earlier == text && (*on == connection || has_time)
            };
            prop_assert!(has_event || sent.iter().any(is_repetition), "{text} is swallowed: {effects:?}");
            // What was a repetition itself may be remembered no more: another message had its id in between.
            let is_known = sent.last().is_some_and(|(_, on, told)| *told && (*on == connection || has_time));
            let must_be_known = is_again && is_known && action != "Heartbeat";
            prop_assert!(!(has_event && must_be_known), "{text} is told twice: {effects:?}");
            sent.push((text, connection, has_event));
            last = Some((id, message));
        }
    }
}
