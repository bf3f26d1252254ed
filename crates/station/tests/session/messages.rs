//! What becomes of each kind of message: its event, its answer, its count.

use ocpp_protocol::{BootState, Version};

use crate::bench::Input::*;
use crate::bench::{Bench, Memory, options};

/// What is written in answer to a text, if anything is.
fn answer(bench: &mut Bench, text: &str) -> Option<serde_json::Value> {
    let mut effects = bench.put(0, &Text(text));
    effects.extend(bench.put(0, &Durable));
    let written = effects.iter().find(|line| line.starts_with("> "))?;
    Some(serde_json::from_str(&written[2..]).unwrap())
}

fn bench(version: Version) -> Bench {
    Bench::with(version, options(), Memory::default())
}

#[test]
fn an_action_that_is_not_the_stations_to_send_is_refused() {
    for (version, action, code) in [
        (Version::V16, "Nonsense", "NotImplemented"),
        (Version::V16, "Reset", "NotSupported"),
        (Version::V201, "Nonsense", "NotImplemented"),
        (Version::V201, "Reset", "NotSupported"),
        (Version::V21, "Nonsense", "NotImplemented"),
    ] {
        let answer = answer(&mut bench(version), &format!(r#"[2,"1","{action}",{{}}]"#)).unwrap();
        assert_eq!((answer[0].as_u64(), answer[2].as_str()), (Some(4), Some(code)), "{version:?} {action}");
    }
}

#[test]
fn what_is_not_ocpp_is_told_and_answered_as_far_as_it_can_be() {
    for version in Version::ALL {
        let mut bench = bench(version);
        let effects = bench.put(0, &Text("[2,\"7\",\"Heartbeat\"]"));
        assert!(effects[0].starts_with("in MALFORMED 7 "), "{effects:?}");
        let effects = bench.put(0, &Durable);
        assert!(effects.iter().any(|line| line.starts_with(r#"> [4,"7","#)), "{effects:?}");
    }
}

#[test]
fn empty_texts_are_signs_of_life_and_nothing_else() {
    bench(Version::V16).table(&[(0, Text(""), &["seen leniency emptyText"])]);
}

#[test]
fn a_binary_message_is_text_on_a_lenient_listener_and_the_end_elsewhere() {
    let call = br#"[2,"1","Heartbeat",{}]"#;
    bench(Version::V16).table(&[(
        0,
        Binary(call, true),
        &["seen leniency binaryFrame", "in CALL 1 Heartbeat"],
    )]);
    let end: &[&str] = &["disconnected binaryFrame 1003", "> close 1003"];
    bench(Version::V16).table(&[(0, Binary(call, false), end)]);
    bench(Version::V16).table(&[(0, Binary(&[0xff], true), end)]);
}

#[test]
fn times_have_milliseconds_unless_the_station_cannot_parse_them() {
    for (fractional_seconds, length) in [(true, 24), (false, 20)] {
        let options = ocpp_station::Options { fractional_seconds, ..options() };
        let mut bench = Bench::with(Version::V16, options, Memory::default());
        let answer = answer(&mut bench, r#"[2,"1","Heartbeat",{}]"#).unwrap();
        assert_eq!(answer[2]["currentTime"].as_str().unwrap().len(), length);
    }
}

#[test]
fn a_send_is_told_and_never_answered() {
    let mut bench = bench(Version::V21);
    let effects = bench.put(0, &Text(r#"[6,"s","NotifyPeriodicEventStream",{}]"#));
    assert_eq!(effects, ["in SEND s NotifyPeriodicEventStream"]);
    assert!(bench.put(0, &Durable).is_empty());
}

#[test]
fn a_result_without_a_payload_is_refused_in_2_1_whatever_its_id() {
    for state in [BootState::Accepted, BootState::Unregistered] {
        for (version, is_told) in [(Version::V16, false), (Version::V201, false), (Version::V21, true)] {
            let memory = Memory::default();
            memory.boot_state.set(state);
            let mut bench = Bench::with(version, options(), memory);
            let answer = answer(&mut bench, r#"[3,"x"]"#);
            assert_eq!(answer.map(|answer| answer[0] == 5 && answer[1] == "x"), is_told.then_some(true));
        }
    }
}

#[test]
fn a_result_that_a_station_refuses_is_told_with_the_action_that_it_answered() {
    let mut bench = bench(Version::V21);
    for (id, action) in [("1", "Heartbeat"), ("2", "NotifyDisplayMessages"), ("3", "Nonsense")] {
        answer(&mut bench, &format!(r#"[2,"{id}","{action}",{{"requestId":1}}]"#)).unwrap();
    }
    for (id, action) in [("1", " Heartbeat"), ("2", " NotifyDisplayMessages"), ("3", ""), ("4", "")] {
        let effects = bench.put(0, &Text(&format!(r#"[5,"{id}","FormatViolation","",{{}}]"#)));
        assert_eq!(effects, [format!("in CALLRESULTERROR {id}{action}")]);
        assert!(bench.put(0, &Durable).is_empty(), "it is not answered");
    }
}

#[test]
fn a_payload_of_null_counts_as_an_empty_one() {
    bench(Version::V16).table(&[(
        0,
        Text(r#"[2,"1","Heartbeat",null]"#),
        &["seen leniency nullPayload", "in CALL 1 Heartbeat"],
    )]);
}
