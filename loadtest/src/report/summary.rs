//! The summary of a run for a terminal.

use std::fmt::Write;

use super::scale::MIB;
use super::{Cost, Judgement, Report};
use crate::latency::Percentiles;

/// Renders the summary.
pub fn summary(report: &Report) -> String {
    let mut text = String::new();
    // Writing to a String cannot fail.
    let _written = write(&mut text, report);
    text
}

fn write(text: &mut String, report: &Report) -> std::fmt::Result {
    let counts = &report.counts;
    writeln!(text, "\n{}  {}", report.scenario.name, report.scenario.about)?;
    let early = if report.interrupted { ", interrupted" } else { "" };
    writeln!(text, "{} stations, {:.0} s{early}\n", report.scenario.stations, report.seconds)?;
    writeln!(
        text,
        "  connections   {} of {} attempts, {} stations registered; {} cut by the scenario, {} ended otherwise",
        counts.connects, counts.attempts, counts.registered, counts.cut, counts.disconnects
    )?;
    for (what, count) in report.failures.iter().chain(&report.ends) {
        writeln!(text, "                {count} × {what}")?;
    }
    writeln!(
        text,
        "  messages      {} of {} answered ({} %), {} with an error; {:.0} a second; {} sent again",
        counts.answered,
        counts.sent,
        percent(counts.answered, counts.sent),
        counts.refused,
        counts.sent as f64 / report.seconds.max(1.0),
        counts.again
    )?;
    if counts.misbehaved_sent > 0 {
        writeln!(
            text,
            "                {} more from misbehaving stations, {} answered",
            counts.misbehaved_sent, counts.misbehaved_answered
        )?;
    }
    if report.commands.sent > 0 {
        let outcomes: Vec<_> =
            report.commands.outcomes.iter().map(|(what, count)| format!("{count} {what}")).collect();
        writeln!(text, "  commands      {} sent: {}", report.commands.sent, outcomes.join(", "))?;
    }
    match &report.verification {
        Some(verification) => {
            let verdict = &verification.verdict;
            writeln!(
                text,
                "  verification  {} answered CALLs looked for in {} events of {}",
                verdict.answered, verdict.events, verification.source
            )?;
            writeln!(
                text,
                "                lost {}, duplicated {}, reordered {}, never sent {}, gaps {}",
                verdict.lost, verdict.duplicated, verdict.reordered, verdict.unknown, verdict.gaps
            )?;
            writeln!(
                text,
                "                allowed: {} redelivered with the same id, {} repeated by the station, {} after a restart",
                verdict.redelivered, verdict.repeated, verdict.after_restart
            )?;
            for example in &verdict.examples {
                writeln!(text, "                {example}")?;
            }
        }
        None => writeln!(text, "  verification  none: what was stored is unknown")?,
    }
    writeln!(text)?;
    latencies(text, report)?;
    costs(text, report)?;
    let word = match report.outcome.judgement {
        Judgement::Passed => "PASSED",
        Judgement::Failed => "FAILED",
        Judgement::Invalid => "INVALID: the run says nothing about the gateway",
    };
    writeln!(text, "\n{word}")?;
    for reason in report.outcome.faults.iter().chain(&report.outcome.invalid) {
        writeln!(text, "  {reason}")?;
    }
    Ok(())
}

fn latencies(text: &mut String, report: &Report) -> std::fmt::Result {
    writeln!(
        text,
        "  {:<22} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9}",
        "ms from due to answer", "count", "p50", "p90", "p99", "p99.9", "max"
    )?;
    let mut row = |name: &str, values: &Percentiles| {
        writeln!(
            text,
            "  {name:<22} {:>9} {:>9.2} {:>9.2} {:>9.2} {:>9.2} {:>9.2}",
            values.count, values.p50, values.p90, values.p99, values.p999, values.max
        )
    };
    for (action, values) in &report.actions {
        row(action, values)?;
    }
    row("all", &report.latency)?;
    if report.chatty.count > 0 {
        row("(flooding stations)", &report.chatty)?;
    }
    if report.commands.sent > 0 {
        row("(commands)", &report.commands.latency)?;
    }
    row("(connecting)", &report.connect)?;
    row("(send lag)", &report.load.send_lag)
}

fn costs(text: &mut String, report: &Report) -> std::fmt::Result {
    writeln!(text, "\n  {:<22} {:>9} {:>9} {:>12}", "cost", "CPU s", "of a core", "memory MiB")?;
    let mib = |bytes: u64| bytes as f64 / MIB;
    for (number, watched) in report.watched.iter().enumerate() {
        let [before, most, last] = watched.memory.map(mib);
        write!(
            text,
            "  {:<22} {:>9.1} {:>8.1}% {:>12.1}  before {before:.1}, at the end {last:.1}",
            watched.name,
            watched.cpu_seconds,
            watched.cores * 100.0,
            most
        )?;
        if let Some(bytes) = report.memory_per_station(watched) {
            write!(text, ", {:.1} KiB a station", bytes / 1024.0)?;
        }
        if let Some(micros) = report.cpu_per_call(number) {
            write!(text, "; {micros:.0} µs CPU a CALL")?;
        }
        writeln!(text)?;
    }
    let mut row = |name: &str, cost: &Cost| {
        writeln!(
            text,
            "  {name:<22} {:>9.1} {:>8.1}% {:>12.1}",
            cost.cpu_seconds,
            cost.cores * 100.0,
            mib(cost.memory_max)
        )
    };
    for (number, worker) in report.load.workers.iter().enumerate() {
        row(&format!("load: worker {number}"), worker)?;
    }
    row("load: verification", &report.load.verifier)?;
    row("load: coordinator", &report.load.coordinator)
}

/// Rounds down: less than all must not read as 100.
fn percent(part: u64, whole: u64) -> String {
    let hundredths = (part * 10_000).checked_div(whole).unwrap_or_default();
    format!("{}.{:02}", hundredths / 100, hundredths % 100)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::example;

    #[test]
    fn the_summary_says_what_matters() {
        let mut report = example::report();
        report.outcome.judgement = Judgement::Failed;
        report.outcome.faults.push("lost: 3".into());
        let text = summary(&report);
        for part in
            ["600 of 600 answered (100.00 %)", "lost 0", "MeterValues", "gateway", "FAILED\n  lost: 3"]
        {
            assert!(text.contains(part), "{part:?} is missing in\n{text}");
        }
    }

    #[test]
    fn all_but_one_in_a_million_is_not_everything() {
        assert_eq!(percent(999_999, 1_000_000), "99.99");
        assert_eq!(percent(7, 7), "100.00");
        assert_eq!(percent(0, 0), "0.00");
    }
}
