//! What a station gets when nobody decides: refusals where the answer decides something, acknowledgements of reports.

use ocpp_protocol::{BootState, Version};
use ocpp_station::host::{Delegation, Fallback};

use crate::bench::Input::*;
use crate::bench::{Bench, Memory, SECOND, delegation, options};

const TOKEN: &str = r#"{"idToken":"A","type":"Central"}"#;

/// The payload of the answer to a request of a station in this state, after the deadline if it is delegated.
fn answer(
    version: Version,
    state: BootState,
    delegation: Option<Delegation>,
    action: &'static str,
    request: &str,
) -> String {
    let memory = Memory::default();
    memory.boot_state.set(state);
    let mut bench = Bench::with(version, options(), memory);
    bench.world.delegations.extend(delegation.map(|one| (action, one)));
    let mut effects = bench.put(0, &Text(&format!(r#"[2,"a","{action}",{request}]"#)));
    for at in [0, 5 * SECOND] {
        effects.extend(bench.put(at, &Wait));
        effects.extend(bench.put(at, &Durable));
    }
    let written = effects.iter().find_map(|line| line.strip_prefix(r#"> [3,"a","#));
    written.unwrap_or_else(|| panic!("{action} {request}: {effects:?}")).trim_end_matches(']').to_owned()
}

fn rejecting(status: Option<&'static str>) -> Option<Delegation> {
    Some(Delegation { status, ..delegation(5 * SECOND, Fallback::Reject) })
}

#[test]
fn a_decision_is_refused_and_a_report_acknowledged() {
    let token = &format!(r#"{{"idToken":{TOKEN}}}"#);
    let event = |kind: &str| format!(r#"{{"eventType":"{kind}","idToken":{TOKEN}}}"#);
    let invalid = r#"{"idTokenInfo":{"status":"Invalid"}}"#;
    for (version, action, request, refusal) in [
        (Version::V16, "Authorize", r#"{"idTag":"A"}"#, r#"{"idTagInfo":{"status":"Invalid"}}"#),
        (
            Version::V16,
            "StartTransaction",
            r#"{"idTag":"A","timestamp":"t"}"#,
            r#"{"idTagInfo":{"status":"Invalid"},"transactionId":1}"#,
        ),
        (Version::V16, "DataTransfer", r#"{"vendorId":"v"}"#, r#"{"status":"Rejected"}"#),
        (Version::V16, "StopTransaction", r#"{"idTag":"A","transactionId":1}"#, "{}"),
        (Version::V16, "MeterValues", "{}", "{}"),
        (Version::V16, "StatusNotification", "{}", "{}"),
        (Version::V201, "Authorize", token, invalid),
        (Version::V201, "TransactionEvent", &event("Started"), invalid),
        (Version::V21, "TransactionEvent", &event("Updated"), invalid),
        (Version::V21, "TransactionEvent", &event("Ended"), r#"{"idTokenInfo":{"status":"Accepted"}}"#),
        (Version::V21, "TransactionEvent", r#"{"eventType":"Updated"}"#, "{}"),
        (Version::V21, "MeterValues", "{}", "{}"),
        (Version::V201, "SignCertificate", "{}", r#"{"status":"Rejected"}"#),
    ] {
        let given = answer(version, BootState::Accepted, rejecting(None), action, request);
        assert_eq!(given, refusal, "{version:?} {action} {request}");
    }
}

#[test]
fn the_operator_chooses_the_word_where_the_version_has_it() {
    let token = &format!(r#"{{"idToken":{TOKEN}}}"#);
    for (version, action, request, status, word) in [
        (Version::V16, "Authorize", r#"{"idTag":"A"}"#, "Blocked", r#""Blocked""#),
        (Version::V201, "Authorize", token, "NoCredit", r#""NoCredit""#),
        (Version::V16, "Authorize", r#"{"idTag":"A"}"#, "NoCredit", r#""Invalid""#),
        (Version::V16, "StartTransaction", r#"{"idTag":"A"}"#, "Expired", r#""Expired""#),
        (Version::V16, "DataTransfer", "{}", "UnknownMessageId", r#""UnknownMessageId""#),
    ] {
        let given = answer(version, BootState::Accepted, rejecting(Some(status)), action, request);
        assert!(given.contains(word), "{version:?} {action} {status}: {given}");
    }
}

#[test]
fn a_station_keeps_its_registration_while_its_backend_is_away_and_a_new_one_waits() {
    let builtin = Some(delegation(5 * SECOND, Fallback::Builtin));
    for version in Version::ALL {
        for (state, delegation, status) in [
            (BootState::Unregistered, rejecting(None), "Pending"),
            (BootState::Pending, rejecting(None), "Pending"),
            (BootState::Rejected, rejecting(None), "Rejected"),
            (BootState::Accepted, rejecting(None), "Accepted"),
            (BootState::Accepted, rejecting(Some("Rejected")), "Rejected"),
            (BootState::Unregistered, rejecting(Some("Rejected")), "Rejected"),
            (BootState::Unregistered, builtin, "Accepted"),
            (BootState::Rejected, builtin, "Accepted"),
        ] {
            let given = answer(version, state, delegation, "BootNotification", "{}");
            let status = format!(r#""status":"{status}""#);
            assert!(given.contains(&status), "{version:?} {state:?} {delegation:?}: {given}");
        }
    }
}

#[test]
fn nobody_may_charge_as_nobody() {
    let builtin = Some(delegation(5 * SECOND, Fallback::Builtin));
    for delegation in [None, builtin, rejecting(None)] {
        for (version, action, request, given) in [
            (Version::V16, "Authorize", "{}", r#"{"idTagInfo":{"status":"Invalid"}}"#),
            (Version::V16, "Authorize", r#"{"idTag":""}"#, r#"{"idTagInfo":{"status":"Invalid"}}"#),
            (
                Version::V16,
                "StartTransaction",
                r#"{"timestamp":"t"}"#,
                r#"{"idTagInfo":{"status":"Invalid"},"transactionId":1}"#,
            ),
            (Version::V201, "Authorize", "{}", r#"{"idTokenInfo":{"status":"Invalid"}}"#),
            (Version::V21, "Authorize", r#"{"idToken":{}}"#, r#"{"idTokenInfo":{"status":"Invalid"}}"#),
            (
                Version::V21,
                "TransactionEvent",
                r#"{"eventType":"Started","idToken":{}}"#,
                r#"{"idTokenInfo":{"status":"Invalid"}}"#,
            ),
        ] {
            let found = answer(version, BootState::Accepted, delegation, action, request);
            assert_eq!(found, given, "{version:?} {action} {request} {delegation:?}");
        }
    }
}

#[test]
fn what_a_backend_never_hears_of_is_not_decided_for_it() {
    for (fallback, status) in [
        (Fallback::Reject, "Invalid"),
        (Fallback::Error, "Invalid"),
        (Fallback::Silence, "Invalid"),
        (Fallback::Builtin, "Accepted"),
    ] {
        let mut bench = Bench::new();
        bench.world.delegations.insert("Authorize", delegation(5 * SECOND, fallback));
        bench.world.sheds = true;
        let given = bench.put(0, &Text(r#"[2,"a","Authorize",{"idTag":"A"}]"#));
        assert_eq!(given.last().unwrap(), &format!(r#"> [3,"a",{{"idTagInfo":{{"status":"{status}"}}}}]"#));
    }
}
