//! Which plots a report has, and what they show.

use super::scale::MIB;
use super::svg::{Content, Plot, Series};
use super::{Point, Report};
use crate::latency::Percentiles;

/// The times of the points, and of the scenario's moments.
pub(super) struct Axis {
    pub(super) times: Vec<f64>,
    pub(super) marks: Vec<f64>,
}

impl Axis {
    pub(super) fn of(report: &Report) -> Self {
        Self {
            times: report.timeline.iter().map(|point| point.at).collect(),
            marks: report.scenario.moments.iter().map(|moment| moment.at.as_secs_f64()).collect(),
        }
    }
}

/// Returns all plots in the order of the page.
pub(super) fn of<'a>(report: &Report, axis: &'a Axis) -> Vec<Plot<'a>> {
    let plot = |name, title, unit, content| {
        let Axis { times, marks } = axis;
        Plot { name, title, unit, times, marks, content }
    };
    let lines = |series: Vec<Series>| Content::Lines { series, log: false };
    let (processor, memory) = processes(report);
    let mut plots = vec![
        plot("connections", "Connections", "", lines(connections(report))),
        plot("rates", "Rates", "per second", lines(rates(report))),
        plot(
            "latency",
            "Latency from due to answered",
            "ms",
            Content::Lines { series: latency(report), log: true },
        ),
        plot("processor", "Processor time", "% of a core", lines(processor)),
    ];
    if !memory.is_empty() {
        plots.push(plot("memory", "Resident memory", "MiB", lines(memory)));
    }
    plots.push(plot("waiting", "Waiting", "", lines(waiting(report))));
    let states = report.timeline.iter().map(state).collect();
    plots.push(plot("bus", "State of the bus", "", Content::States(states)));
    plots
}

fn line(report: &Report, name: &str, value: impl Fn(&Point) -> Option<f64>) -> Series {
    Series { name: name.to_owned(), values: report.timeline.iter().map(value).collect(), wide: false }
}

fn connections(report: &Report) -> Vec<Series> {
    let stations = line(report, "stations connected", |point| Some(point.connected as f64));
    vec![
        Series { wide: true, ..stations },
        line(report, "sessions of the gateway", |point| Some(point.gateway.as_ref()?.sessions)),
    ]
}

fn rates(report: &Report) -> Vec<Series> {
    let calls = line(report, "CALLs", |point| Some(point.sent));
    let mut rates = vec![
        Series { wide: true, ..calls },
        line(report, "answers", |point| Some(point.answered)),
        line(report, "connects", |point| Some(point.connects)),
    ];
    if report.timeline.iter().any(|point| point.misbehaved > 0.0) {
        rates.push(line(report, "CALLs of misbehaving stations", |point| Some(point.misbehaved)));
    }
    rates
}

fn latency(report: &Report) -> Vec<Series> {
    let of = |name: &str, pick: fn(&Percentiles) -> f64| {
        line(report, name, |point| (point.latency.count > 0).then(|| pick(&point.latency)))
    };
    vec![
        of("p50", |latency| latency.p50),
        of("p90", |latency| latency.p90),
        of("p99", |latency| latency.p99),
        of("max", |latency| latency.max),
        line(report, "send lag (p99)", |point| (point.sent > 0.0).then_some(point.lag_p99)),
    ]
}

/// Processor time of all processes, and memory of those that were watched.
fn processes(report: &Report) -> (Vec<Series>, Vec<Series>) {
    let (mut processor, mut memory) = (Vec::new(), Vec::new());
    for (number, watched) in report.watched.iter().enumerate() {
        processor.push(line(report, &watched.name, |point| {
            Some(point.watched_cores.get(number)?.as_ref()? * 100.0)
        }));
        memory.push(line(report, &watched.name, |point| {
            Some(*point.watched_memory.get(number)?.as_ref()? as f64 / MIB)
        }));
    }
    for number in 0..report.load.workers.len() {
        let name = format!("load: worker {number}");
        processor.push(line(report, &name, |point| Some(point.workers.get(number)? * 100.0)));
    }
    processor.push(line(report, "load: verification", |point| Some(point.verifier * 100.0)));
    (processor, memory)
}

fn waiting(report: &Report) -> Vec<Series> {
    vec![
        line(report, "CALLs without an answer", |point| Some(point.open as f64)),
        line(report, "events not yet durable", |point| Some(point.gateway.as_ref()?.queue_records)),
        line(report, "events in the spool", |point| Some(point.gateway.as_ref()?.spool_records)),
        line(report, "handshakes in progress", |point| Some(point.gateway.as_ref()?.handshakes)),
    ]
}

fn state(point: &Point) -> String {
    match &point.gateway {
        Some(gateway) if gateway.bus_states.is_empty() => "unknown".into(),
        Some(gateway) => gateway.bus_states.iter().cloned().collect::<Vec<_>>().join(" + "),
        None => "no answer".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::example;

    #[test]
    fn a_bus_always_has_a_state_to_show() {
        let mut report = example::report();
        let gateway = report.timeline[0].gateway.as_mut().unwrap();
        gateway.bus_states = ["spooling".into(), "direct".into()].into();
        assert_eq!(state(&report.timeline[0]), "direct + spooling");
        report.timeline[0].gateway.as_mut().unwrap().bus_states.clear();
        assert_eq!(state(&report.timeline[0]), "unknown");
        report.timeline[0].gateway = None;
        assert_eq!(state(&report.timeline[0]), "no answer");
    }

    #[test]
    fn stations_that_misbehave_have_a_line_only_where_there_are_some() {
        let mut report = example::report();
        assert_eq!(rates(&report).len(), 3);
        report.timeline[9].misbehaved = 1.0;
        assert_eq!(rates(&report).len(), 4);
    }
}
