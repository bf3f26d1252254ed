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
    let mut bench = bench(Version::V16, BootState::Unregistered);
    bench.table(&[
        (0, Command("c1", "Reset"), &[]),
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
        let mut bench = bench(Version::V201, state);
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
