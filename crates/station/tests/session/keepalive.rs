//! Pings, idle connections, and stations that take nothing.

use std::time::Duration;

use ocpp_protocol::Version;
use ocpp_station::CloseReason;

use crate::bench::Input::*;
use crate::bench::{Bench, Memory, SECOND, options};

fn bench(ping_s: u64, idle_s: u64) -> Bench {
    let options = ocpp_station::Options {
        ping_interval: Duration::from_secs(ping_s),
        idle_timeout: Duration::from_secs(idle_s),
        hold_limit: Duration::ZERO,
        ..options()
    };
    Bench::with(Version::V16, options, Memory::default())
}

const IDLE: &[&str] = &["disconnected idle 1008", "> close 1008"];

#[test]
fn silence_ends_a_connection() {
    bench(0, 90).table(&[(89 * SECOND, Wait, &[]), (90 * SECOND, Wait, IDLE)]);
}

#[test]
fn another_limit_holds_for_a_session_that_runs() {
    let shorter =
        ocpp_station::Options { idle_timeout: Duration::from_secs(30), ..bench(0, 90).world.options };
    bench(0, 90).table(&[
        (10 * SECOND, Options(&shorter), &[]),
        (29 * SECOND, Wait, &[]),
        (30 * SECOND, Wait, IDLE),
    ]);
}

#[test]
fn any_frame_is_a_sign_of_life() {
    for input in [Text("[]"), Text(""), Ping, Pong, Binary(b"[]", true)] {
        let mut bench = bench(0, 90);
        bench.put(60 * SECOND, &input);
        bench.put(60 * SECOND, &Durable);
        bench.table(&[(149 * SECOND, Wait, &[]), (150 * SECOND, Wait, IDLE)]);
    }
}

#[test]
fn pings_come_at_their_interval_and_pongs_are_timed() {
    bench(60, 150).table(&[
        (59 * SECOND, Wait, &[]),
        (60 * SECOND, Wait, &["> ping"]),
        (60 * SECOND + 40, Pong, &["seen pong after 40ms"]),
        (60 * SECOND + 41, Pong, &[]),
        (120 * SECOND, Wait, &["> ping"]),
    ]);
}

#[test]
fn a_station_that_answers_no_ping_is_kept_while_it_talks() {
    let mut bench = bench(60, 90);
    for minute in 1..10 {
        assert_eq!(bench.put(minute * 60 * SECOND, &Text("")), ["> ping", "seen leniency emptyText"]);
    }
}

#[test]
fn a_gateway_that_does_not_read_calls_nobody_silent() {
    let mut bench = bench(0, 90);
    bench.world.backlog = ocpp_station::host::Backlog::Unpublished;
    assert_eq!(bench.put(1000 * SECOND, &Wait), ["seen read paused"]);
    bench.world.backlog = ocpp_station::host::Backlog::None;
    // Half of the limit is left from the last look, at 990 s.
    bench.table(&[(1034 * SECOND, Wait, &[])]);
    assert_eq!(bench.put(1035 * SECOND, &Wait), IDLE);
}

#[test]
fn a_station_that_takes_nothing_for_too_long_is_closed() {
    let mut bench = bench(0, 900);
    bench.put(0, &Stuck);
    bench.put(0, &Text(r#"[2,"1","Heartbeat",{}]"#));
    bench.put(SECOND, &Durable);
    assert!(bench.put(60 * SECOND, &Wait).is_empty());
    assert_eq!(bench.put(61 * SECOND, &Wait), ["disconnected slowReader 1008"]);
    assert_eq!(bench.ended(), None, "the socket still holds the answer");
    bench.put(66 * SECOND, &Wait);
    assert_eq!(bench.ended(), Some(CloseReason::SlowReader));
}

#[test]
fn a_station_that_goes_on_taking_is_kept() {
    let mut bench = bench(0, 900);
    for round in 0..5 {
        let at = round * 50 * SECOND;
        bench.put(at, &Stuck);
        bench.put(at, &Text(r#"[2,"1","Heartbeat",{}]"#));
        bench.put(at, &Durable);
        let effects = bench.put(at + 49 * SECOND, &Unstuck);
        assert!(effects.is_empty(), "{effects:?}");
    }
}
