//! A made-up report for tests: two workers, one watched gateway, nothing wrong.

use std::time::Duration;

use super::{
    BTreeMap, Commands, Conclusion, Cost, Judgement, Latency, Load, Percentiles, Point, Report, SCHEMA,
    Scenario, Scrape, Verdict, Verification, Watched,
};
use crate::worker::Counts;

const CALLS: u64 = 600;

/// A report of a run that passed.
pub(crate) fn report() -> Report {
    let mut latency = Latency::new();
    for number in 0..CALLS {
        latency.record(Duration::from_micros(1000 + number * 10));
    }
    let scenario = Scenario::parse("example", "stations = 100\nabout = 'a <test>'\n[limits]\np99 = '25ms'");
    Report {
        schema: SCHEMA.into(),
        version: "0.0.0".into(),
        scenario: scenario.unwrap_or_default(),
        run: "x".into(),
        started: "2026-11-20T10:30:00.000Z".into(),
        seconds: 70.0,
        interrupted: false,
        outcome: Conclusion { judgement: Judgement::Passed, faults: vec![], invalid: vec![] },
        counts: Counts {
            registered: 100,
            attempts: 101,
            connects: 101,
            cut: 1,
            sent: CALLS,
            answered: CALLS,
            ..Counts::default()
        },
        connect: latency.percentiles(),
        failures: BTreeMap::new(),
        ends: BTreeMap::new(),
        latency: latency.percentiles(),
        actions: BTreeMap::from([("MeterValues".into(), latency.percentiles())]),
        latency_histogram: latency,
        chatty: Percentiles::default(),
        commands: Commands::default(),
        verification: Some(Verification {
            source: "kafka 127.0.0.1:19092 ocpp.events".into(),
            during: true,
            verdict: Verdict { events: 2 * CALLS, calls: CALLS, answered: CALLS, ..Verdict::default() },
        }),
        load: Load { workers: vec![Cost::default(); 2], ..Load::default() },
        watched: vec![Watched {
            name: "gateway".into(),
            pid: 7,
            cpu_seconds: 1.5,
            cores: 0.02,
            memory: [10 << 20, 12 << 20, 11 << 20],
        }],
        timeline: (1..=70).map(point).collect(),
    }
}

fn point(second: u32) -> Point {
    let at = f64::from(second);
    Point {
        at,
        connected: u64::from(second.min(10) * 10),
        connects: if second <= 10 { 10.0 } else { 0.0 },
        sent: 10.0,
        answered: 10.0,
        latency: Percentiles { count: 10, p50: 1.0, p90: 2.0, p99: 3.0, p999: 4.0, max: 5.0, mean: 1.5 },
        workers: vec![0.1, 0.2],
        watched_cores: vec![Some(0.3)],
        watched_memory: vec![Some(10 << 20)],
        gateway: Some(Scrape { sessions: 100.0, bus_states: ["direct".into()].into(), ..Scrape::default() }),
        ..Point::default()
    }
}
