//! Every way in which a session ends, and in which order.

use ocpp_station::CloseReason;
use ocpp_station::host::{Backlog, Fallback};

use crate::bench::Input::*;
use crate::bench::{Bench, SECOND, delegation};

const STATUS: &str =
    r#"[2,"1","StatusNotification",{"connectorId":1,"errorCode":"NoError","status":"Available"}]"#;

#[test]
fn every_reason_has_its_event_its_code_and_one_close_frame() {
    for reason in CloseReason::ALL {
        let mut bench = Bench::new();
        let code = reason.code().map_or_else(|| "-".to_owned(), |code| code.to_string());
        let event = format!("disconnected {} {code}", reason.as_str());
        let effects = bench.put(0, &End(reason));
        match reason.code() {
            Some(code) => assert_eq!(effects, [event, format!("> close {code}")]),
            None => assert_eq!(effects, [event]),
        }
        assert!(bench.put(0, &End(CloseReason::Operator)).is_empty(), "the first reason counts");
        assert!(bench.put(1, &Text(STATUS)).is_empty(), "what comes after our close frame is not read");
        assert!(bench.core.is_over(&bench.world));
    }
}

#[test]
fn the_code_of_the_stations_close_frame_is_in_the_event() {
    let mut bench = Bench::new();
    bench.table(&[(0, Close(Some(1001)), &["disconnected stationClosed 1001"])]);
    assert_eq!(bench.ended(), Some(CloseReason::StationClosed));
}

#[test]
fn a_lost_connection_ends_at_once() {
    let mut bench = Bench::new();
    bench.table(&[(0, Lost, &["disconnected connectionLost -"])]);
    assert_eq!(bench.ended(), Some(CloseReason::ConnectionLost));
}

#[test]
fn a_broken_rule_is_told_with_its_code() {
    for (reason, code) in [
        (CloseReason::ProtocolError, 1002),
        (CloseReason::InvalidUtf8, 1007),
        (CloseReason::MessageTooBig, 1009),
    ] {
        let (event, close) = (format!("disconnected {} {code}", reason.as_str()), format!("> close {code}"));
        Bench::new().table(&[(0, Broken(reason), &[&event, &close])]);
    }
}

#[test]
fn a_station_that_does_not_close_its_side_is_dropped_in_time() {
    let mut bench = Bench::new();
    bench.put(0, &End(CloseReason::Operator));
    assert_eq!(bench.ended(), None);
    bench.put(5 * SECOND - 1, &Wait);
    assert_eq!(bench.ended(), None);
    bench.put(5 * SECOND, &Wait);
    assert_eq!(bench.ended(), Some(CloseReason::Operator));
}

#[test]
fn a_draining_gateway_answers_what_is_in_flight_first() {
    Bench::new().table(&[
        (0, Text(STATUS), &["in CALL 1 StatusNotification"]),
        (1, End(CloseReason::Shutdown), &[]),
        (
            2,
            Durable,
            &[
                "out CALLRESULT 1 StatusNotification",
                "ready true",
                r#"> [3,"1",{}]"#,
                "disconnected shutdown 1001",
                "> close 1001",
            ],
        ),
    ]);
}

#[test]
fn a_draining_gateway_does_not_wait_for_ever() {
    let mut bench = Bench::new();
    bench.world.delegations.insert("Authorize", delegation(60 * SECOND, Fallback::Builtin));
    bench.put(0, &Text(r#"[2,"a","Authorize",{"idTag":"A"}]"#));
    bench.put(0, &Text(STATUS));
    bench.put(0, &Durable);
    bench.table(&[
        (1, End(CloseReason::Shutdown), &[]),
        (
            5 * SECOND + 1,
            Wait,
            &["seen delegated Authorize abandoned", "disconnected shutdown 1001", "> close 1001"],
        ),
    ]);
}

#[test]
fn any_other_end_drops_what_was_not_answered() {
    let mut bench = Bench::new();
    bench.put(0, &Text(STATUS));
    bench.table(&[
        (1, End(CloseReason::Replaced), &["disconnected replaced 1008", "> close 1008"]),
        (2, Durable, &[]),
    ]);
}

#[test]
fn the_last_event_waits_for_the_results_of_commands_within_limits() {
    let mut bench = Bench::new();
    bench.world.results_pending = true;
    assert!(bench.put(0, &End(CloseReason::Operator)).is_empty());
    assert!(bench.put(4 * SECOND, &Wait).is_empty());
    bench.world.results_pending = false;
    assert_eq!(bench.put(4 * SECOND, &Wait), ["disconnected operator 1000", "> close 1000"]);

    let mut bench = Bench::new();
    bench.world.results_pending = true;
    bench.put(0, &End(CloseReason::Operator));
    assert_eq!(bench.put(5 * SECOND, &Wait), ["disconnected operator 1000", "> close 1000"]);
}

#[test]
fn a_successor_waits_until_the_last_event_is_on_the_bus() {
    let mut bench = Bench::new();
    bench.world.backlog = Backlog::Unpublished;
    bench.put(0, &Lost);
    assert!(bench.core.is_ending() && !bench.core.is_over(&bench.world));
    assert_eq!(bench.ended(), None);
    bench.world.backlog = Backlog::None;
    assert!(bench.core.is_over(&bench.world));
    assert_eq!(bench.ended(), Some(CloseReason::ConnectionLost));
}
