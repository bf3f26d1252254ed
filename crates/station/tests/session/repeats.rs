//! Repeated CALLs: the same answer again, no second event, and what counts as a repetition.

use std::rc::Rc;
use std::time::Instant;

use ocpp_protocol::Version;
use ocpp_station::CloseReason;
use ocpp_station::host::Fallback;

use crate::bench::Input::*;
use crate::bench::{Bench, Memory, SECOND, delegation, options};

const METER: &str = r#"[2,"1","MeterValues",{"connectorId":1,"meterValue":[]}]"#;
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

/// Two sessions of one station whose Authorize a backend answers.
fn delegating(deadline_ms: u64) -> (Bench, Bench) {
    let (start, memory) = (Instant::now(), Memory::default());
    let mut sessions = [0, 1].map(|_| Bench::starting_at(start, Version::V16, options(), memory.clone()));
    for session in &mut sessions {
        session.world.delegations.insert("Authorize", delegation(deadline_ms, Fallback::Error));
    }
    assert!(Rc::ptr_eq(&sessions[0].world.memory.recent, &sessions[1].world.memory.recent));
    let [first, second] = sessions;
    (first, second)
}

const AUTHORIZE: &str = r#"[2,"a","Authorize",{"idTag":"A"}]"#;

#[test]
fn a_repetition_joins_the_wait_for_a_backend_and_keeps_its_deadline() {
    let (mut first, mut second) = delegating(5 * SECOND);
    first.put(0, &Text(AUTHORIZE));
    first.put(0, &Durable);
    first.put(SECOND, &Lost);
    assert_eq!(second.put(2 * SECOND, &Text(AUTHORIZE)), ["seen repeated joined"], "nobody is asked again");
    let effects = second.put(5 * SECOND, &Wait);
    assert!(effects.contains(&"seen delegated Authorize deadline".to_owned()), "{effects:?}");
    let (mut first, mut second) = delegating(5 * SECOND);
    first.put(0, &Text(AUTHORIZE));
    first.put(0, &Durable);
    first.put(SECOND, &End(CloseReason::Replaced));
    second.put(2 * SECOND, &Text(AUTHORIZE));
    let effects = second.put(3 * SECOND, &Respond("a", r#"{"idTagInfo":{"status":"Accepted"}}"#));
    assert_eq!(effects.last().unwrap(), r#"> [3,"a",{"idTagInfo":{"status":"Accepted"}}]"#);
}

#[test]
fn after_the_deadline_the_station_asks_anew() {
    let (mut first, mut second) = delegating(5 * SECOND);
    first.put(0, &Text(AUTHORIZE));
    first.put(SECOND, &Lost);
    assert_eq!(second.put(6 * SECOND, &Text(AUTHORIZE)), ["in CALL a Authorize", "ask a Authorize"]);
}
