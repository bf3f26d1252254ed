//! CALLs that a backend answers: deadlines, fallbacks, order, and what a response may still change.

use ocpp_protocol::{BootState, Version};
use ocpp_station::delegated_calls::FallbackReason;
use ocpp_station::host::Fallback;

use crate::bench::Input::*;
use crate::bench::{Bench, Memory, SECOND, delegation, options};

const AUTHORIZE: &str = r#"[2,"a","Authorize",{"idTag":"A"}]"#;
const VERDICT: &str = r#"{"idTagInfo":{"status":"Blocked"}}"#;
const ASKED: &[&str] = &["in CALL a Authorize", "ask a Authorize"];

fn bench(action: &'static str, fallback: Fallback) -> Bench {
    let mut bench = Bench::new();
    bench.world.delegations.insert(action, delegation(5 * SECOND, fallback));
    bench
}

#[test]
fn the_first_response_goes_out_when_the_event_is_durable() {
    bench("Authorize", Fallback::Builtin).table(&[
        (0, Text(AUTHORIZE), ASKED),
        (1, Respond("a", VERDICT), &["seen delegated Authorize answered"]),
        (1, Respond("a", VERDICT), &["response Answered"]),
        (
            2,
            Durable,
            &["out CALLRESULT a Authorize", "ready true", r#"> [3,"a",{"idTagInfo":{"status":"Blocked"}}]"#],
        ),
        (6 * SECOND, Wait, &[]),
    ]);
}

#[test]
fn at_the_deadline_the_station_gets_the_fallback() {
    for (fallback, written) in [
        (Fallback::Reject, Some(r#"> [3,"a",{"idTagInfo":{"status":"Invalid"}}]"#)),
        (Fallback::Builtin, Some(r#"> [3,"a",{"idTagInfo":{"status":"Accepted"}}]"#)),
        (
            Fallback::Error,
            Some(r#"> [4,"a","InternalError","the service that decides about this did not answer",{}]"#),
        ),
        (Fallback::Silence, None),
    ] {
        let mut bench = bench("Authorize", fallback);
        bench.put(0, &Text(AUTHORIZE));
        bench.put(0, &Durable);
        assert!(bench.put(5 * SECOND - 1, &Wait).is_empty(), "{fallback:?}");
        let effects = bench.put(5 * SECOND, &Wait);
        assert_eq!(effects[0], "seen delegated Authorize deadline");
        assert_eq!(effects.iter().find(|line| line.starts_with("> ")).map(String::as_str), written);
        bench.table(&[(5 * SECOND, Respond("a", VERDICT), &["response FellBack"])]);
        let is_new = bench.put(6 * SECOND, &Text(AUTHORIZE));
        assert_eq!(
            is_new == ASKED,
            matches!(fallback, Fallback::Error | Fallback::Silence),
            "after a result it is a repetition: {is_new:?}"
        );
    }
}

#[test]
fn the_fallback_may_apply_before_the_deadline() {
    for reason in FallbackReason::ALL {
        let mut bench = bench("Authorize", Fallback::Builtin);
        bench.put(0, &Text(AUTHORIZE));
        bench.put(0, &Durable);
        let effects = bench.put(1, &Fail("a", reason));
        assert_eq!(effects[0], format!("seen delegated Authorize {}", reason.as_str()));
        assert_eq!(effects.last().unwrap(), r#"> [3,"a",{"idTagInfo":{"status":"Accepted"}}]"#);
    }
}

#[test]
fn a_delegated_call_holds_up_the_answers_behind_it_and_nothing_else() {
    let heartbeat = r#"[2,"h","Heartbeat",{}]"#;
    let mut bench = bench("Authorize", Fallback::Builtin);
    bench.table(&[
        (0, Text(AUTHORIZE), ASKED),
        (0, Text(heartbeat), &["in CALL h Heartbeat"]),
        (0, Durable, &[]),
    ]);
    let effects = bench.put(SECOND, &Respond("a", VERDICT));
    let written: Vec<_> = effects.iter().filter(|line| line.starts_with("> ")).collect();
    assert!(written[0].starts_with(r#"> [3,"a""#) && written[1].starts_with(r#"> [3,"h""#), "{written:?}");
}

#[test]
fn a_response_that_registers_waits_for_the_registration_to_be_durable() {
    let boot = r#"[2,"b","BootNotification",{"chargePointVendor":"v","chargePointModel":"m"}]"#;
    let memory = Memory::default();
    memory.boot_state.set(BootState::Unregistered);
    let mut bench = Bench::with(Version::V16, options(), memory);
    bench.world.delegations.insert("BootNotification", delegation(5 * SECOND, Fallback::Builtin));
    let answer = r#"{"status":"Accepted","currentTime":"2026-01-01T00:00:00Z","interval":60}"#;
    bench.table(&[
        (0, Command("c1", "Reset"), &[]),
        (0, Text(boot), &["in CALL b BootNotification", "ask b BootNotification"]),
        (3 * SECOND, Durable, &[]),
        (3 * SECOND, Respond("b", answer), &["state Accepted", "seen delegated BootNotification answered"]),
    ]);
    let effects = bench.put(3 * SECOND, &Durable);
    assert_eq!(effects[1], "ready true");
    assert_eq!(effects[2], format!(r#"> [3,"b",{answer}]"#));
    assert_eq!(effects[3], "note c1", "commands waited for the answer");
}

#[test]
fn a_transaction_starts_without_a_backend_as_well() {
    let start = r#"[2,"s","StartTransaction",{"connectorId":1,"idTag":"A","meterStart":0,"timestamp":"2026-01-01T00:00:00Z"}]"#;
    let mut bench = bench("StartTransaction", Fallback::Builtin);
    bench.put(0, &Text(start));
    bench.put(0, &Durable);
    bench.table(&[(5 * SECOND, Wait, &["state transaction 1", "seen delegated StartTransaction deadline"])]);
    let effects = bench.put(5 * SECOND, &Durable);
    assert_eq!(effects.last().unwrap(), r#"> [3,"s",{"idTagInfo":{"status":"Accepted"},"transactionId":1}]"#);
}

#[test]
fn a_call_repeated_while_it_waits_is_asked_once() {
    bench("Authorize", Fallback::Builtin)
        .table(&[(0, Text(AUTHORIZE), ASKED), (1, Text(AUTHORIZE), &["seen repeated held"])]);
}

#[test]
fn what_waits_for_a_backend_counts_as_unacknowledged() {
    let mut bench = bench("Authorize", Fallback::Builtin);
    for id in ["a1", "a2", "a3"] {
        bench.put(0, &Text(&AUTHORIZE.replace("\"a\"", &format!("\"{id}\""))));
        bench.put(0, &Durable);
    }
    assert!(!bench.reads());
    bench.put(1, &Respond("a1", VERDICT));
    assert!(bench.reads());
}
