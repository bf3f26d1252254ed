//! A run as one HTML page that needs nothing else: no network, no other file.

use std::fmt::Write;

use super::svg::{Chart, Series, band};
use super::{Judgement, Point, Report};
use crate::latency::Percentiles;

const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");
const MIB: f64 = 1_048_576.0;

/// The page.
pub fn page(report: &Report) -> String {
    let mut text = String::new();
    // Writing to a String cannot fail.
    let _written = write(&mut text, report);
    text
}

/// Text as HTML shows it, in content and in attributes.
pub(super) fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

fn write(text: &mut String, report: &Report) -> std::fmt::Result {
    let (word, class) = match report.outcome.judgement {
        Judgement::Passed => ("passed", "passed"),
        Judgement::Failed => ("failed", "failed"),
        Judgement::Invalid => ("invalid: nothing is said about the gateway", "invalid"),
    };
    let name = escape(&report.scenario.name);
    writeln!(text, "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">")?;
    writeln!(text, "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">")?;
    writeln!(text, "<title>ocpp-loadtest: {name}</title><style>{STYLE}</style></head><body>")?;
    writeln!(text, "<h1>{name} <span class=\"word {class}\">{word}</span></h1>")?;
    let early = if report.interrupted { ", ended before its time" } else { "" };
    writeln!(
        text,
        "<p>{}</p><p class=\"soft\">{} · {:.0} s{early} · {} stations · ocpp-loadtest {}</p>",
        escape(&report.scenario.about),
        escape(&report.started),
        report.seconds,
        report.scenario.stations,
        escape(&report.version)
    )?;
    for reason in report.outcome.faults.iter().chain(&report.outcome.invalid) {
        writeln!(text, "<p class=\"c4\">{}</p>", escape(reason))?;
    }
    cards(text, report)?;
    plots(text, report);
    tables(text, report)?;
    writeln!(text, "<script>{SCRIPT}</script></body></html>")
}

fn cards(text: &mut String, report: &Report) -> std::fmt::Result {
    let counts = &report.counts;
    let mut card = |value: String, what: &str| {
        writeln!(text, "<div class=\"card\"><b>{}</b>{}</div>", escape(&value), escape(what))
    };
    card(format!("{}", counts.connects), &format!("connections of {} attempts", counts.attempts))?;
    card(format!("{}", counts.answered), &format!("answers to {} CALLs", counts.sent))?;
    card(format!("{:.1} ms", report.latency.p50), "median from due to answer")?;
    card(format!("{:.1} ms", report.latency.p99), "p99 from due to answer")?;
    if let Some(verification) = &report.verification {
        let verdict = &verification.verdict;
        card(
            format!("{} / {} / {}", verdict.lost, verdict.duplicated, verdict.reordered),
            "lost / duplicated / reordered",
        )?;
    }
    if let Some(gateway) = report.watched.first() {
        if let Some(micros) = report.cpu_per_call(0) {
            card(format!("{micros:.0} µs"), &format!("{} CPU per CALL", gateway.name))?;
        }
        if let Some(bytes) = report.memory_per_station(gateway) {
            card(format!("{:.1} KiB", bytes / 1024.0), &format!("{} memory per station", gateway.name))?;
        }
    }
    card(format!("{:.1} ms", report.load.send_lag.p99), "p99 of the load test's own lateness")
}

fn plots(text: &mut String, report: &Report) {
    text.push_str("<h2>Over time</h2>");
    let points = &report.timeline;
    let times: Vec<f64> = points.iter().map(|point| point.at).collect();
    let line = |name: &str, value: &dyn Fn(&Point) -> Option<f64>| Series {
        name: name.to_owned(),
        values: points.iter().map(value).collect(),
    };
    let mut draw = |title: &str, unit: &str, series: Vec<Series>, log: bool| {
        text.push_str(&Chart { title, unit, times: &times, series, log }.draw());
    };
    draw(
        "Connections",
        "",
        vec![
            line("stations connected", &|point| Some(point.connected as f64)),
            line("sessions of the gateway", &|point| Some(point.gateway.as_ref()?.sessions)),
        ],
        false,
    );
    draw(
        "Rates",
        "per second",
        vec![
            line("CALLs", &|point| Some(point.sent)),
            line("answers", &|point| Some(point.answered)),
            line("CALLs of stations that misbehave", &|point| Some(point.misbehaved)),
            line("connects", &|point| Some(point.connects)),
        ],
        false,
    );
    let of = |pick: fn(&Percentiles) -> f64| {
        move |point: &Point| (point.latency.count > 0).then(|| pick(&point.latency))
    };
    draw(
        "Latency from due to answer",
        "ms",
        vec![
            line("p50", &of(|latency| latency.p50)),
            line("p90", &of(|latency| latency.p90)),
            line("p99", &of(|latency| latency.p99)),
            line("max", &of(|latency| latency.max)),
            line("sent late by (p99)", &|point| (point.sent > 0.0).then_some(point.lag_p99)),
        ],
        true,
    );
    let mut cores: Vec<Series> = Vec::new();
    let mut memory: Vec<Series> = Vec::new();
    for (number, watched) in report.watched.iter().enumerate() {
        cores.push(line(&watched.name, &|point| Some(point.watched_cores.get(number)?.as_ref()? * 100.0)));
        memory.push(line(&watched.name, &|point| {
            Some(*point.watched_memory.get(number)?.as_ref()? as f64 / MIB)
        }));
    }
    for number in 0..report.load.workers.len() {
        let name = format!("load: worker {number}");
        cores.push(line(&name, &|point| Some(point.workers.get(number)? * 100.0)));
    }
    cores.push(line("load: verification", &|point| Some(point.verifier * 100.0)));
    draw("Processor time", "% of a core", cores, false);
    if !memory.is_empty() {
        draw("Resident memory", "MiB", memory, false);
    }
    draw(
        "Waiting",
        "",
        vec![
            line("CALLs without an answer", &|point| Some(point.open as f64)),
            line("events not yet durable", &|point| Some(point.gateway.as_ref()?.queue_records)),
            line("events in the spool", &|point| Some(point.gateway.as_ref()?.spool_records)),
        ],
        false,
    );
    let states: Vec<String> = points
        .iter()
        .map(|point| match &point.gateway {
            Some(gateway) => gateway.bus_states.iter().cloned().collect::<Vec<_>>().join(" + "),
            None => "no answer".into(),
        })
        .collect();
    text.push_str(&band("State of the bus", &times, &states));
}

fn tables(text: &mut String, report: &Report) -> std::fmt::Result {
    writeln!(
        text,
        "<h2>Latency, ms</h2><table><tr><th>action</th><th>count</th><th>mean</th><th>p50</th><th>p90</th><th>p99</th><th>p99.9</th><th>max</th></tr>"
    )?;
    let more = [
        ("all", &report.latency),
        ("stations that flood", &report.chatty),
        ("commands", &report.commands.latency),
        ("connecting", &report.connect),
        ("sent late by", &report.load.send_lag),
    ];
    let rows = report.actions.iter().map(|(action, values)| (action.as_str(), values)).chain(more);
    for (name, values) in rows.filter(|row| row.1.count > 0) {
        writeln!(
            text,
            "<tr><td>{}</td><td>{}</td><td>{:.2}</td><td>{:.2}</td><td>{:.2}</td><td>{:.2}</td><td>{:.2}</td><td>{:.2}</td></tr>",
            escape(name),
            values.count,
            values.mean,
            values.p50,
            values.p90,
            values.p99,
            values.p999,
            values.max
        )?;
    }
    writeln!(
        text,
        "</table><h2>Cost</h2><table><tr><th>process</th><th>CPU s</th><th>% of a core</th><th>memory, most, MiB</th><th>before</th><th>at the end</th></tr>"
    )?;
    for watched in &report.watched {
        let [before, most, last] = watched.memory.map(|bytes| bytes as f64 / MIB);
        writeln!(
            text,
            "<tr><td>{} ({})</td><td>{:.1}</td><td>{:.1}</td><td>{most:.1}</td><td>{before:.1}</td><td>{last:.1}</td></tr>",
            escape(&watched.name),
            watched.pid,
            watched.cpu_seconds,
            watched.cores * 100.0
        )?;
    }
    let workers =
        report.load.workers.iter().enumerate().map(|(number, cost)| (format!("worker {number}"), cost));
    let others = [
        ("verification".to_owned(), &report.load.verifier),
        ("coordinator".to_owned(), &report.load.coordinator),
    ];
    for (name, cost) in workers.chain(others) {
        writeln!(
            text,
            "<tr><td>load: {name}</td><td>{:.1}</td><td>{:.1}</td><td>{:.1}</td><td></td><td></td></tr>",
            cost.cpu_seconds,
            cost.cores * 100.0,
            cost.memory_max as f64 / MIB
        )?;
    }
    writeln!(text, "</table><h2>Everything else</h2><pre>")?;
    let rest = serde_json::json!({
        "counts": report.counts,
        "failures": report.failures,
        "ends": report.ends,
        "commands": report.commands.outcomes,
        "verification": report.verification,
        "scenario": report.scenario,
    });
    let rest = serde_json::to_string_pretty(&rest).unwrap_or_default();
    writeln!(text, "{}</pre>", escape(&rest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::example;

    #[test]
    fn the_page_needs_nothing_else_and_shows_every_plot() {
        let text = page(&example::report());
        for outside in ["http://", "https://", "src=", "@import", "url("] {
            let without_targets = text.replace("ws://127.0.0.1:9000/ocpp", "");
            assert!(!without_targets.contains(outside), "{outside}");
        }
        assert_eq!(text.matches("<svg").count(), 7);
        assert!(text.contains("a &lt;test&gt;"), "what a scenario says is text");
        assert!(!text.contains("NaN"));
    }
}
