//! When a session stops reading, and what it does meanwhile (P2).

use ocpp_station::host::Backlog;

use crate::bench::Input::*;
use crate::bench::{Bench, SECOND};

fn status(id: u32) -> String {
    format!(
        r#"[2,"{id}","StatusNotification",{{"connectorId":{id},"errorCode":"NoError","status":"Available"}}]"#
    )
}

#[test]
fn a_session_stops_reading_at_the_limit_of_unacknowledged_answers() {
    let mut bench = Bench::new();
    for id in 1..=2 {
        bench.put(0, &Text(&status(id)));
        assert!(bench.reads());
    }
    assert_eq!(bench.put(0, &Text(&status(3))), ["in CALL 3 StatusNotification", "seen read paused"]);
    assert!(!bench.reads());
    bench.put(1, &DurableUpTo(2, 0));
    assert!(bench.reads(), "one has left");
}

#[test]
fn answers_that_the_station_does_not_take_count_too() {
    let mut bench = Bench::new();
    bench.put(0, &Stuck);
    for id in 1..=4 {
        bench.put(0, &Text(&status(id)));
        bench.put(0, &Durable);
    }
    assert!(!bench.reads(), "one is being written, three wait");
    bench.put(1, &Unstuck);
    assert!(bench.reads());
}

#[test]
fn a_session_does_not_read_while_an_event_waits_for_room_or_its_share_is_used_up() {
    for (backlog, reads) in
        [(Backlog::None, true), (Backlog::Unacknowledged, false), (Backlog::Unpublished, false)]
    {
        let mut bench = Bench::new();
        bench.world.backlog = backlog;
        assert_eq!(bench.reads(), reads, "{backlog:?}");
    }
}

#[test]
fn a_session_whose_share_is_used_up_waits_for_its_next_event_to_be_durable() {
    let mut bench = Bench::new();
    bench.put(0, &Text(r#"[3,"x",{}]"#));
    let durable = bench.world.durable.get();
    assert_eq!(bench.core.awaited(durable, &bench.world), None, "no answer is held");
    bench.world.backlog = Backlog::Unacknowledged;
    let awaited = bench.core.awaited(durable, &bench.world).unwrap();
    assert_eq!((awaited.events, awaited.states), (1, 0));
}

#[test]
fn no_command_leaves_while_an_event_waits_for_room_and_a_ping_does() {
    let mut bench = Bench::new();
    bench.world.backlog = Backlog::Unpublished;
    bench.world.options.ping_interval = std::time::Duration::from_secs(60);
    bench.put(5 * SECOND, &Command("c1", "Reset"));
    assert!(bench.put(6 * SECOND, &Wait).is_empty());
    bench.world.backlog = Backlog::None;
    assert_eq!(bench.put(7 * SECOND, &Wait), ["note c1"]);
}

#[test]
fn storage_that_does_not_acknowledge_for_too_long_ends_the_session() {
    let mut bench = Bench::new();
    bench.put(0, &Text(&status(1)));
    assert!(bench.put(130 * SECOND, &Wait).is_empty(), "only this answer is late; storage goes on");
    bench.world.holds = true;
    assert_eq!(bench.put(132 * SECOND, &Wait), ["disconnected busHolding 1013", "> close 1013"]);
}

#[test]
fn storage_that_holds_ends_no_session_without_a_late_answer() {
    let mut bench = Bench::new();
    bench.world.holds = true;
    assert!(bench.put(300 * SECOND, &Wait).is_empty());
    bench.world.options.hold_limit = std::time::Duration::ZERO;
    bench.put(300 * SECOND, &Text(&status(1)));
    assert!(bench.put(800 * SECOND, &Wait).is_empty(), "a limit of zero means never");
}
