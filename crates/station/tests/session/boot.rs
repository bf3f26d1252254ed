//! Registration: what a station may say and be told before, during and after its boot (1.6 section 4.2; 2.x B01 to B03).

use ocpp_protocol::{BootState, Registration, Version};
use ocpp_station::options::BeforeBoot;

use crate::bench::Input::*;
use crate::bench::{Bench, Memory, options};

const BOOT_16: &str = r#"[2,"b","BootNotification",{"chargePointVendor":"v","chargePointModel":"m"}]"#;
const BOOT_2X: &str =
    r#"[2,"b","BootNotification",{"reason":"PowerUp","chargingStation":{"model":"m","vendorName":"v"}}]"#;
const HEARTBEAT: &str = r#"[2,"1","Heartbeat",{}]"#;

fn bench(version: Version, state: BootState) -> Bench {
    let memory = Memory::default();
    memory.boot_state.set(state);
    Bench::with(version, options(), memory)
}

/// The same where stations are not asked to boot.
fn without_trigger(version: Version, state: BootState) -> Bench {
    let memory = Memory::default();
    memory.boot_state.set(state);
    Bench::with(version, ocpp_station::Options { trigger_boot: false, ..options() }, memory)
}

/// What is written in answer to a CALL: the error code, or `result`.
fn answer(bench: &mut Bench, text: &str) -> String {
    let mut effects = bench.put(0, &Text(text));
    effects.extend(bench.put(0, &Durable));
    let written = effects.iter().find(|line| line.starts_with("> ")).expect("an answer");
    let frame: serde_json::Value = serde_json::from_str(&written[2..]).unwrap();
    if frame[0] == 3 { "result".into() } else { frame[2].as_str().unwrap().into() }
}

#[test]
fn only_an_accepted_station_is_served_and_any_may_boot() {
    for version in Version::ALL {
        let boot = if version == Version::V16 { BOOT_16 } else { BOOT_2X };
        for (state, heartbeat) in [
            (BootState::Unregistered, "SecurityError"),
            (BootState::Pending, "SecurityError"),
            (BootState::Rejected, "SecurityError"),
            (BootState::Accepted, "result"),
        ] {
            assert_eq!(answer(&mut bench(version, state), HEARTBEAT), heartbeat, "{version:?} {state:?}");
            assert_eq!(answer(&mut bench(version, state), boot), "result", "{version:?} {state:?}");
        }
    }
}

#[test]
fn before_its_acceptance_a_station_is_refused_whether_the_action_is_known_or_not() {
    for version in Version::ALL {
        for (action, when_accepted) in [("Nonsense", "NotImplemented"), ("Reset", "NotSupported")] {
            let call = format!(r#"[2,"1","{action}",{{}}]"#);
            for state in [BootState::Unregistered, BootState::Pending, BootState::Rejected] {
                assert_eq!(
                    answer(&mut bench(version, state), &call),
                    "SecurityError",
                    "{version:?} {state:?}"
                );
            }
            assert_eq!(answer(&mut bench(version, BootState::Accepted), &call), when_accepted);
        }
    }
}

#[test]
fn a_station_that_never_boots_is_served_where_the_operator_says_so() {
    for version in Version::ALL {
        let memory = Memory::default();
        memory.boot_state.set(BootState::Unregistered);
        let lenient = ocpp_station::Options { before_boot: BeforeBoot::Accept, ..options() };
        assert_eq!(answer(&mut Bench::with(version, lenient, memory), HEARTBEAT), "result");
    }
}

#[test]
fn the_answer_to_a_boot_says_what_was_decided_and_waits_until_that_is_durable() {
    for (registration, ready) in [
        (Registration::Accepted, "ready true"),
        (Registration::Pending, "ready false"),
        (Registration::Rejected, "ready false"),
    ] {
        let mut bench = bench(Version::V16, BootState::Unregistered);
        bench.world.registration = registration;
        let word = registration.as_str();
        let state = format!("state {word}");
        bench.table(&[
            (0, Text(BOOT_16), &["in CALL b BootNotification", &state]),
            (1, DurableUpTo(2, 0), &[]),
            (1, DurableUpTo(0, 1), &[]),
        ]);
        let answer = format!(
            r#"> [3,"b",{{"status":"{word}","currentTime":"2026-01-01T00:00:00.002Z","interval":300}}]"#
        );
        bench.table(&[(2, Durable, &["out CALLRESULT b BootNotification", ready, &answer])]);
    }
}

#[test]
fn commands_wait_for_the_answer_to_a_boot() {
    let mut bench = without_trigger(Version::V16, BootState::Unregistered);
    bench.table(&[
        (0, Command("c1", "RemoteStartTransaction"), &[]),
        (5000, Wait, &[]),
        (5000, Text(BOOT_16), &["in CALL b BootNotification", "state Accepted"]),
        (6000, Wait, &[]),
    ]);
    let effects = bench.put(6000, &Durable);
    let position = |needle: &str| effects.iter().position(|line| line.starts_with(needle)).unwrap();
    assert!(position(r#"> [3,"b""#) < position("note c1"), "{effects:?}");
}

/// Sends the station a TriggerMessage.
fn trigger(bench: &mut Bench, at: u64, payload: &str) {
    let payload = serde_json::value::RawValue::from_string(payload.to_owned()).unwrap();
    bench.submit_with(at, "t", "TriggerMessage", payload);
    bench.put(at, &Wait);
    let sent = bench.put(at, &Prepared);
    let frame: serde_json::Value =
        serde_json::from_str(sent.last().unwrap().strip_prefix("> ").unwrap()).unwrap();
    bench.put(at, &Text(&format!(r#"[3,{},{{"status":"Accepted"}}]"#, frame[1])));
}

#[test]
fn a_pending_station_may_send_what_it_was_asked_for_once_and_until_its_registration_ends() {
    const REQUEST: &str = r#"{"requestedMessage":"Heartbeat"}"#;
    for version in Version::ALL {
        let mut bench = bench(version, BootState::Pending);
        let heartbeat = |id: u64| format!(r#"[2,"h{id}","Heartbeat",{{}}]"#);
        assert_eq!(answer(&mut bench, &heartbeat(1)), "SecurityError");
        trigger(&mut bench, 0, REQUEST);
        assert_eq!(answer(&mut bench, &heartbeat(2)), "result", "{version:?}");
        assert_eq!(answer(&mut bench, &heartbeat(3)), "SecurityError", "{version:?}: asked for once");
        trigger(&mut bench, 0, REQUEST);
        let boot = if version == Version::V16 { BOOT_16 } else { BOOT_2X };
        bench.world.registration = Registration::Rejected;
        assert_eq!(answer(&mut bench, boot), "result");
        assert_eq!(answer(&mut bench, &heartbeat(4)), "SecurityError", "the grant has ended");
    }
}

#[test]
fn a_refusal_says_how_far_the_registration_is() {
    for (state, word) in [
        (BootState::Unregistered, "not registered"),
        (BootState::Pending, "pending"),
        (BootState::Rejected, "rejected"),
    ] {
        let mut bench = without_trigger(Version::V201, state);
        bench.put(0, &Text(HEARTBEAT));
        let refused = bench.put(0, &Durable).pop().unwrap();
        assert!(refused.starts_with(r#"> [4,"1","SecurityError""#) && refused.contains(word), "{refused}");
    }
}

#[test]
fn a_command_that_the_boot_state_forbids_ends_or_waits_for_later() {
    for (defers, effects) in [(true, ["defer c1"]), (false, ["end c1 invalid no"])] {
        let mut bench = bench(Version::V16, BootState::Pending);
        bench.world.defers = defers;
        bench.put(2000, &Wait);
        bench.table(&[(2000, Command("c1", "RemoteStartTransaction"), &effects)]);
        bench.table(&[(2000, Command("c2", "GetConfiguration"), &["note c2"])]);
    }
}

const TRIGGER: &str = r#"> [2,"g1","TriggerMessage",{"requestedMessage":"BootNotification"}]"#;

/// The lines that say that a station is asked to boot.
fn asked(effects: &[String]) -> usize {
    effects.iter().filter(|line| line.contains(r#""TriggerMessage""#)).count()
}

#[test]
fn a_station_that_is_not_registered_is_asked_to_boot_when_its_first_call_is_refused() {
    for version in Version::ALL {
        let mut bench = bench(version, BootState::Unregistered);
        assert_eq!(bench.put(0, &Text(HEARTBEAT)), ["in CALL 1 Heartbeat"]);
        let effects = bench.put(10, &Durable);
        let refused =
            effects.iter().position(|line| line.starts_with(r#"> [4,"1","SecurityError""#)).unwrap();
        assert_eq!(effects[refused + 1..], [TRIGGER], "behind the refusal: {effects:?}");
        assert!(effects.contains(&"out CALL g1 TriggerMessage".to_owned()));
        let answer = r#"[3,"g1",{"status":"Accepted"}]"#;
        bench.table(&[(20, Text(answer), &["in CALLRESULT g1 TriggerMessage", "seen trigger accepted"])]);

        // Once a connection.
        let mut later = bench.put(30, &Text(r#"[2,"2","Heartbeat",{}]"#));
        later.extend(bench.put(20_000, &Durable));
        assert_eq!(asked(&later), 0);
        bench.put(20_000, &Text(if version == Version::V16 { BOOT_16 } else { BOOT_2X }));
        bench.put(20_000, &Text(r#"[2,"3","Heartbeat",{}]"#));
        let effects = bench.put(20_000, &Durable);
        assert!(effects.last().unwrap().starts_with(r#"> [3,"3""#), "{effects:?}");
    }
}

#[test]
fn a_silent_station_is_asked_to_boot_after_the_grace() {
    let mut silent = bench(Version::V16, BootState::Unregistered);
    silent.table(&[
        (1999, Wait, &[]),
        (2000, Wait, &["out CALL g1 TriggerMessage", TRIGGER]),
        (32_000, Wait, &["seen trigger timeout"]),
        (100_000, Wait, &[]),
    ]);
    let memory = Memory::default();
    memory.boot_state.set(BootState::Unregistered);
    let hasty = ocpp_station::Options { grace: std::time::Duration::ZERO, ..options() };
    let mut hasty = Bench::with(Version::V16, hasty, memory);
    assert_eq!(asked(&hasty.put(1999, &Wait)), 0, "it has the time to boot by itself");
    assert_eq!(asked(&hasty.put(2000, &Wait)), 1);
    let mut refusing = bench(Version::V16, BootState::Unregistered);
    refusing.put(2000, &Wait);
    let refused = r#"[4,"g1","NotImplemented","",{}]"#;
    refusing.table(&[(2000, Text(refused), &["in CALLERROR g1 TriggerMessage", "seen trigger refused"])]);
    let mut gone = bench(Version::V16, BootState::Unregistered);
    gone.put(2000, &Wait);
    assert_eq!(gone.put(2000, &Lost), ["seen trigger abandoned", "disconnected connectionLost -"]);
}

#[test]
fn no_station_is_asked_to_boot_that_is_served_or_boots_by_itself_or_must_not_be_asked() {
    for state in [BootState::Pending, BootState::Rejected, BootState::Accepted] {
        let mut bench = bench(Version::V201, state);
        let mut effects = bench.put(0, &Text(HEARTBEAT));
        effects.extend(bench.put(10_000, &Durable));
        assert_eq!(asked(&effects), 0, "{state:?}");
    }
    let mut booting = bench(Version::V16, BootState::Unregistered);
    booting.put(1900, &Text(BOOT_16));
    let mut effects = booting.put(5000, &Wait);
    effects.extend(booting.put(9000, &Durable));
    assert_eq!(asked(&effects), 0);
    let leave = ocpp_station::Options { trigger_boot: false, ..options() };
    let serve = ocpp_station::Options { before_boot: BeforeBoot::Accept, ..options() };
    for options in [leave, serve] {
        let memory = Memory::default();
        memory.boot_state.set(BootState::Unregistered);
        let mut bench = Bench::with(Version::V16, options, memory);
        let mut effects = bench.put(0, &Text(HEARTBEAT));
        effects.extend(bench.put(10_000, &Durable));
        assert_eq!(asked(&effects), 0);
    }
}

#[test]
fn a_command_that_may_help_leaves_before_the_boot_and_others_wait_for_it() {
    for (version, start) in
        [(Version::V16, "RemoteStartTransaction"), (Version::V201, "RequestStartTransaction")]
    {
        let mut bench = without_trigger(version, BootState::Unregistered);
        bench.table(&[
            (0, Urgent("c1", start), &[]),
            (0, Command("c2", "Reset"), &[]),
            (0, Command("c3", "TriggerMessage"), &[]),
            (1999, Wait, &[]),
            (2000, Wait, &["note c2"]),
        ]);
        let sent = bench.put(2000, &Prepared);
        assert!(sent.last().unwrap().starts_with(r#"> [2,"g1","Reset""#), "{sent:?}");
        let effects = bench.put(2001, &Text(r#"[3,"g1",{"status":"Accepted"}]"#));
        assert_eq!(effects.last().unwrap(), "note c3");
        bench.put(2001, &Prepared);
        bench.put(2002, &Text(r#"[3,"g2",{"status":"Accepted"}]"#));
        let boot = if version == Version::V16 { BOOT_16 } else { BOOT_2X };
        bench.put(2003, &Text(boot));
        assert_eq!(bench.put(2004, &Durable).last().unwrap(), "note c1", "{version:?}");
    }
}

#[test]
fn commands_leave_the_station_the_time_to_boot_that_was_asked_to() {
    let mut bench = bench(Version::V16, BootState::Unregistered);
    bench.put(0, &Command("c1", "GetConfiguration"));
    assert_eq!(asked(&bench.put(2000, &Wait)), 1, "it comes before commands");
    bench.table(&[
        (
            2500,
            Text(r#"[3,"g1",{"status":"Accepted"}]"#),
            &["in CALLRESULT g1 TriggerMessage", "seen trigger accepted"],
        ),
        (4499, Wait, &[]),
        (4500, Wait, &["note c1"]),
    ]);
}

/// A station that was told one thing, and about which an operator decides another: 40 s after it has connected, or before. How
/// often it is asked to boot for that.
fn decided(told: BootState, decision: Registration, is_connected: bool) -> (Bench, usize) {
    let memory = Memory::default();
    memory.boot_state.set(told);
    memory.decision.set((!is_connected).then_some(decision));
    let mut bench = Bench::with(Version::V16, options(), memory);
    let effects = if is_connected {
        // One that is not registered has been asked to boot by then, and has not answered.
        bench.put(39_999, &Wait);
        bench.put(40_000, &Decide(decision))
    } else {
        bench.put(40_000, &Wait)
    };
    (bench, asked(&effects))
}

#[test]
fn an_operators_decision_counts_at_once() {
    use BootState::{Accepted, Pending, Rejected, Unregistered};
    // What the station was told and what is decided; what its CALL gets; whether it is asked to boot; and what becomes of a
    // command that reads, and of one that starts to charge.
    let cases = [
        (Unregistered, Registration::Accepted, "result", true, "note", "note"),
        (Unregistered, Registration::Pending, "pending", true, "note", "invalid"),
        (Unregistered, Registration::Rejected, "rejected", true, "note", "invalid"),
        (Pending, Registration::Accepted, "result", true, "note", "invalid"),
        (Pending, Registration::Pending, "pending", false, "note", "invalid"),
        (Pending, Registration::Rejected, "rejected", true, "note", "invalid"),
        (Rejected, Registration::Accepted, "result", false, "invalid", "invalid"),
        (Rejected, Registration::Rejected, "rejected", false, "invalid", "invalid"),
        (Accepted, Registration::Accepted, "result", false, "note", "note"),
        (Accepted, Registration::Pending, "pending", false, "note", "invalid"),
        (Accepted, Registration::Rejected, "rejected", false, "note", "invalid"),
    ];
    for (told, decision, heartbeat, triggers, read, start) in cases {
        for is_connected in [true, false] {
            let case = format!("{told:?}, then {decision:?}, connected {is_connected}");
            let (mut bench, times) = decided(told, decision, is_connected);
            assert_eq!(times, usize::from(triggers), "{case}");
            let mut effects = bench.put(40_001, &Text(HEARTBEAT));
            effects.extend(bench.put(40_001, &Durable));
            let answer = if heartbeat == "result" { r#"> [3,"1""# } else { r#"> [4,"1","SecurityError""# };
            let answer = effects.iter().find(|line| line.starts_with(answer)).expect(&case);
            assert!(heartbeat == "result" || answer.contains(heartbeat), "{case}: {answer}");

            assert_eq!(asked(&effects) + asked(&bench.put(500_000, &Wait)), 0, "{case}: again");
            for (action, expected) in [("GetConfiguration", read), ("RemoteStartTransaction", start)] {
                let (mut bench, _) = decided(told, decision, is_connected);
                // Whatever it was asked has ended.
                bench.put(100_000, &Wait);
                let effects = bench.put(100_000, &Command("c", action));
                assert!(effects.len() == 1 && effects[0].contains(expected), "{case}: {action}: {effects:?}");
            }
        }
    }
}

#[test]
fn a_decision_lets_queued_commands_go_or_wait() {
    let mut bench = bench(Version::V16, BootState::Accepted);
    bench.put(0, &Text(HEARTBEAT));
    assert!(bench.put(0, &Durable).contains(&"ready true".to_owned()));
    bench.table(&[
        (1, Decide(Registration::Rejected), &["ready false"]),
        (2, Decide(Registration::Accepted), &["ready true"]),
    ]);
}

#[test]
fn a_boot_is_answered_with_what_was_registered_whatever_is_decided_meanwhile() {
    let mut bench = bench(Version::V16, BootState::Unregistered);
    bench.world.registration = Registration::Pending;
    bench.put(0, &Text(BOOT_16));
    bench.put(1, &Decide(Registration::Accepted));
    let effects = bench.put(2, &Durable);
    assert!(effects.iter().any(|line| line.contains(r#"> [3,"b",{"status":"Pending""#)), "{effects:?}");
    assert_eq!(asked(&effects), 1, "it is asked again: {effects:?}");
}
