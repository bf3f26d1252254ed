//! The tables of the page: what was measured as numbers, and the rest of the report.

use std::fmt::Write;

use super::Report;
use super::markup::escape;
use super::scale::{MIB, thousands};

pub(super) fn write(text: &mut String, report: &Report) -> std::fmt::Result {
    latencies(text, report)?;
    costs(text, report)?;
    let failures = report.failures.iter().chain(&report.ends).map(|(why, count)| (why.as_str(), *count));
    counts(text, "Connections that failed or ended", failures.collect())?;
    let outcomes = report.commands.outcomes.iter().map(|(how, count)| (how.as_str(), *count));
    counts(text, "Commands", outcomes.collect())?;
    verification(text, report)?;
    let rest = serde_json::json!({
        "counts": report.counts,
        "verification": report.verification,
        "scenario": report.scenario,
    });
    let rest = serde_json::to_string_pretty(&rest).unwrap_or_default();
    writeln!(text, "<details><summary>Counters, verification and scenario as JSON</summary>")?;
    writeln!(text, "<pre tabindex=\"0\">{}</pre></details>", escape(&rest))
}

/// Renders a table that scrolls by itself where the page is too narrow.
fn table(text: &mut String, title: &str, heads: &[&str], rows: Vec<Vec<String>>) -> std::fmt::Result {
    let title = escape(title);
    writeln!(
        text,
        "<h2>{title}</h2><div class=\"scroll\" tabindex=\"0\" role=\"region\" aria-label=\"{title}\"><table><thead><tr>"
    )?;
    for head in heads {
        write!(text, "<th scope=\"col\">{}</th>", escape(head))?;
    }
    writeln!(text, "</tr></thead><tbody>")?;
    for row in rows {
        let cells = row.iter().map(|cell| format!("<td>{}</td>", escape(cell)));
        writeln!(text, "<tr>{}</tr>", cells.collect::<String>())?;
    }
    writeln!(text, "</tbody></table></div>")
}

fn latencies(text: &mut String, report: &Report) -> std::fmt::Result {
    let more = [
        ("all", &report.latency),
        ("flooding stations", &report.chatty),
        ("commands", &report.commands.latency),
        ("connecting", &report.connect),
        ("send lag", &report.load.send_lag),
    ];
    let rows = report.actions.iter().map(|(action, values)| (action.as_str(), values)).chain(more);
    let rows = rows.filter(|row| row.1.count > 0).map(|(name, values)| {
        let times = [values.mean, values.p50, values.p90, values.p99, values.p999, values.max];
        let cells = [name.to_owned(), thousands(values.count)].into_iter();
        cells.chain(times.map(|time| format!("{time:.2}"))).collect()
    });
    let heads = ["action", "count", "mean", "p50", "p90", "p99", "p99.9", "max"];
    table(text, "Latency, ms", &heads, rows.collect())
}

fn costs(text: &mut String, report: &Report) -> std::fmt::Result {
    let mib = |bytes: u64| format!("{:.1}", bytes as f64 / MIB);
    let watched = report.watched.iter().map(|watched| {
        let [before, most, last] = watched.memory.map(mib);
        let cost = [format!("{:.1}", watched.cpu_seconds), format!("{:.1}", watched.cores * 100.0)];
        let [seconds, cores] = cost;
        vec![format!("{} ({})", watched.name, watched.pid), seconds, cores, before, most, last]
    });
    let workers =
        report.load.workers.iter().enumerate().map(|(number, cost)| (format!("worker {number}"), cost));
    let others = [
        ("verification".to_owned(), &report.load.verifier),
        ("coordinator".to_owned(), &report.load.coordinator),
    ];
    let load = workers.chain(others).map(|(name, cost)| {
        let (seconds, cores) = (format!("{:.1}", cost.cpu_seconds), format!("{:.1}", cost.cores * 100.0));
        vec![format!("load: {name}"), seconds, cores, String::new(), mib(cost.memory_max), String::new()]
    });
    let heads = ["process", "CPU s", "% of a core", "MiB before", "MiB at peak", "MiB at the end"];
    table(text, "Cost", &heads, watched.chain(load).collect())
}

fn counts(text: &mut String, title: &str, counts: Vec<(&str, u64)>) -> std::fmt::Result {
    if counts.is_empty() {
        return Ok(());
    }
    let rows = counts.into_iter().map(|(what, count)| vec![what.to_owned(), thousands(count)]);
    table(text, title, &["what", "count"], rows.collect())
}

fn verification(text: &mut String, report: &Report) -> std::fmt::Result {
    let Some(verification) = &report.verification else { return Ok(()) };
    let verdict = &verification.verdict;
    let found = [
        ("events read", verdict.events),
        ("CALLs that were answered", verdict.answered),
        ("of these lost", verdict.lost),
        ("duplicated", verdict.duplicated),
        ("reordered", verdict.reordered),
        ("never sent", verdict.unknown),
        ("unreadable", verdict.unreadable),
        ("gaps", verdict.gaps),
        ("redelivered with the same id (allowed)", verdict.redelivered),
        ("repeated by the station (allowed)", verdict.repeated),
        ("after a restart (allowed)", verdict.after_restart),
    ];
    counts(text, &format!("Verification: {}", verification.source), found.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::example;

    #[test]
    fn what_went_wrong_is_in_a_table() {
        let mut report = example::report();
        report.failures.insert("refused: <503>".into(), 1234);
        let mut text = String::new();
        write(&mut text, &report).unwrap();
        assert!(text.contains("<td>refused: &lt;503&gt;</td><td>1,234</td>"), "{text}");
        assert!(text.contains("<td>all</td><td>600</td>"), "{text}");
        assert!(text.contains("<td>of these lost</td><td>0</td>"), "{text}");
    }
}
