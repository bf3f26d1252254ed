//! The result of a run: its form for machines (JSON), and what is made of it for people.
//!
//! Owns the schema of the JSON, `ocpp-loadtest/1`: members may be added to it, none is renamed or removed. Everything in
//! `report/` is a function of it, so that a report can be regenerated from its file.

#[cfg(test)]
mod example;
pub mod html;
pub mod judge;
mod markup;
mod plots;
mod scale;
pub mod standalone;
pub mod summary;
mod svg;
mod tables;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::latency::{Latency, Percentiles};
use crate::scenario::Scenario;
use crate::scrape::Scrape;
use crate::verify::checker::Verdict;
use crate::worker::Counts;

/// The schema's name.
pub const SCHEMA: &str = "ocpp-loadtest/1";

/// One run.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// [`SCHEMA`].
    pub schema: String,
    /// The load test's version.
    pub version: String,
    /// The scenario that was run.
    pub scenario: Scenario,
    /// Prefix of every message id.
    pub run: String,
    /// When it started, RFC 3339.
    pub started: String,
    /// How long it took, from the first connection to the last, in seconds.
    pub seconds: f64,
    /// Whether it was interrupted.
    pub interrupted: bool,
    /// What the run is worth.
    pub outcome: Conclusion,
    /// Counters of all stations.
    pub counts: Counts,
    /// How long connections took, from when they were due to the end of the handshake, failed attempts included.
    pub connect: Percentiles,
    /// Attempts to connect that failed, by cause.
    pub failures: BTreeMap<String, u64>,
    /// Connections that ended against the scenario's will, by cause.
    pub ends: BTreeMap<String, u64>,
    /// Latency of CALLs of well-behaved stations, from when they were due.
    pub latency: Percentiles,
    /// The same as base64 of an HdrHistogram (V2, microseconds), for adding up runs.
    pub latency_histogram: Latency,
    /// The same by action.
    pub actions: BTreeMap<String, Percentiles>,
    /// Latency of flooding stations.
    pub chatty: Percentiles,
    /// Commands, and how they ended.
    pub commands: Commands,
    /// What was found in the bus; `None` if it was not read.
    pub verification: Option<Verification>,
    /// What the load test itself cost.
    pub load: Load,
    /// What the watched processes cost.
    pub watched: Vec<Watched>,
    /// The run in steps.
    pub timeline: Vec<Point>,
}

/// The judgement of a run, and the reasons for it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Conclusion {
    /// The judgement.
    pub judgement: Judgement,
    /// What the gateway did wrong.
    pub faults: Vec<String>,
    /// What was wrong with the load test.
    pub invalid: Vec<String>,
}

/// Whether a run passed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Judgement {
    /// Every promise and every limit was kept.
    Passed,
    /// The gateway broke a promise or missed a limit.
    Failed,
    /// The load test was the bottleneck, or broke: the run says nothing about the gateway.
    Invalid,
}

/// What was found in the bus.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Verification {
    /// What was read: `kafka` or `local`, and where.
    pub source: String,
    /// Read while the run went on.
    pub during: bool,
    /// What was found.
    pub verdict: Verdict,
}

/// The commands of a run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Commands {
    /// Number sent.
    pub sent: u64,
    /// Outcomes by status, or by why there was none.
    pub outcomes: BTreeMap<String, u64>,
    /// From when one was due to its outcome.
    pub latency: Percentiles,
}

/// What the load test itself cost.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Load {
    /// How late the load test itself sent CALLs.
    pub send_lag: Percentiles,
    /// Each worker.
    pub workers: Vec<Cost>,
    /// The verifier.
    pub verifier: Cost,
    /// The coordinator itself.
    pub coordinator: Cost,
}

/// What a process cost.
#[derive(Clone, Copy, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Cost {
    /// Processor time during the run, in seconds.
    pub cpu_seconds: f64,
    /// Share of one core, on average over the run.
    pub cores: f64,
    /// The longest time without a break at a whole core, in seconds.
    pub pegged_seconds: f64,
    /// Peak of resident memory, in bytes.
    pub memory_max: u64,
}

/// A watched process.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Watched {
    /// Its name on the command line.
    pub name: String,
    /// Its process id.
    pub pid: u32,
    /// Processor time during the run, in seconds.
    pub cpu_seconds: f64,
    /// Share of one core, on average.
    pub cores: f64,
    /// Resident memory before the first connection, at its peak, and at the last sample with all stations connected, in bytes.
    pub memory: [u64; 3],
}

impl Watched {
    /// Whether its name says that it is a gateway.
    pub fn is_gateway(&self) -> bool {
        is_gateway(&self.name)
    }
}

/// Whether a process of this name is a gateway.
pub fn is_gateway(name: &str) -> bool {
    name.starts_with("gateway")
}

/// One step. Rates are per second, times in milliseconds, sizes in bytes.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Point {
    /// Its end, in seconds since the start.
    pub at: f64,
    /// Open connections.
    pub connected: u64,
    /// Connections opened.
    pub connects: f64,
    /// CALLs sent by well-behaved stations.
    pub sent: f64,
    /// Answers to them.
    pub answered: f64,
    /// CALLs of misbehaving stations.
    pub misbehaved: f64,
    /// Unanswered CALLs of well-behaved stations, at the end of the step.
    pub open: u64,
    /// Latency of CALLs answered in this step.
    pub latency: Percentiles,
    /// 99th percentile of how late CALLs were sent.
    pub lag_p99: f64,
    /// Share of a core of each worker.
    pub workers: Vec<f64>,
    /// Share of a core of the verifier.
    pub verifier: f64,
    /// Events read from the bus so far.
    pub events_read: u64,
    /// Share of a core of each watched process.
    pub watched_cores: Vec<Option<f64>>,
    /// Resident memory of each.
    pub watched_memory: Vec<Option<u64>>,
    /// The gateways' metrics; `None` when one did not answer.
    pub gateway: Option<Scrape>,
}

impl Report {
    /// Returns the processor time of a watched process in microseconds for each CALL that it handled, while all stations were
    /// connected and none was draining; `None` without such a time.
    pub fn cpu_per_call(&self, watched: usize) -> Option<f64> {
        let share = self.share(self.watched.get(watched)?);
        let from = self.scenario.connect.over + self.scenario.step();
        let (from, to) = (from.as_secs_f64(), self.scenario.sending_time().as_secs_f64());
        let steady = self.timeline.iter().filter(|point| point.at > from && point.at <= to);
        let (mut cores, mut calls) = (0.0, 0.0);
        for point in steady {
            cores += point.watched_cores.get(watched).copied().flatten()?;
            calls += point.answered + point.misbehaved;
        }
        (calls > 0.0).then(|| cores * 1e6 / (calls * share))
    }

    /// Returns the resident memory of a gateway for each of its stations: with all connected, less what it had before the
    /// first, in bytes. `None` for other processes.
    pub fn memory_per_station(&self, watched: &Watched) -> Option<f64> {
        let [before, _, last] = watched.memory;
        let stations = f64::from(self.scenario.stations.max(1)) * self.share(watched);
        watched.is_gateway().then(|| last.saturating_sub(before) as f64 / stations)
    }

    /// The share of the stations that a process handles: gateways have an equal part each.
    fn share(&self, watched: &Watched) -> f64 {
        let gateways = self.watched.iter().filter(|one| one.is_gateway()).count();
        if watched.is_gateway() { 1.0 / gateways.max(1) as f64 } else { 1.0 }
    }

    /// Returns the exit code of a run: 0 passed, 1 failed, 3 invalid.
    pub fn exit_code(&self) -> u8 {
        match self.outcome.judgement {
            Judgement::Passed => 0,
            Judgement::Failed => 1,
            Judgement::Invalid => 3,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cost_per_call_is_of_the_steady_time() {
        let mut report = example::report();
        // 0.3 of a core for ten CALLs a second.
        assert_eq!(report.cpu_per_call(0).map(f64::round), Some(30_000.0));
        for point in report.timeline.iter_mut().filter(|point| point.at <= 11.0) {
            point.watched_cores = vec![Some(50.0)];
        }
        assert_eq!(report.cpu_per_call(0).map(f64::round), Some(30_000.0), "connecting does not count");
        assert_eq!(report.cpu_per_call(1), None);
        assert_eq!(report.memory_per_station(&report.watched[0]), Some(f64::from(1 << 20) / 100.0));
        // Two gateways have half of the stations each.
        report.watched.push(Watched { name: "gateway-2".into(), ..report.watched[0].clone() });
        assert_eq!(report.cpu_per_call(0).map(f64::round), Some(60_000.0));
        assert_eq!(report.memory_per_station(&report.watched[0]), Some(f64::from(1 << 20) / 50.0));
    }

    #[test]
    fn a_report_survives_its_file() {
        let report = example::report();
        let text = serde_json::to_string(&report).unwrap();
        let back: Report = serde_json::from_str(&text).unwrap();
        assert_eq!(back.timeline, report.timeline);
        assert_eq!(html::page(&back), html::page(&report));
        for member in ["schema", "outcome", "latencyHistogram", "verification", "timeline"] {
            assert!(text.contains(&format!("\"{member}\"")), "{member}");
        }
    }
}
