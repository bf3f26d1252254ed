//! A run as one HTML page that needs no network and no other file, and that can be read without scripts.

use std::fmt::Write;

use super::markup::escape;
use super::plots::{self, Axis};
use super::scale::thousands;
use super::svg::{AXIS, Content, Plot, number, swatch};
use super::{Judgement, Report, tables};

const PALETTE: &str = include_str!("palette.css");
const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");

/// Renders the page.
pub fn page(report: &Report) -> String {
    let mut text = String::new();
    // Writing to a String cannot fail.
    let _written = write(&mut text, report);
    text
}

fn write(text: &mut String, report: &Report) -> std::fmt::Result {
    let (word, class) = match report.outcome.judgement {
        Judgement::Passed => ("passed", "passed"),
        Judgement::Failed => ("FAILED", "failed"),
        Judgement::Invalid => ("INVALID", "invalid"),
    };
    let name = escape(&report.scenario.name);
    writeln!(text, "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">")?;
    writeln!(text, "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">")?;
    writeln!(
        text,
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'\">"
    )?;
    writeln!(
        text,
        "<title>{word}: {name}, ocpp-loadtest</title><style>{PALETTE}{STYLE}</style></head><body>"
    )?;
    writeln!(text, "<h1>{name} <span class=\"word {class}\">{word}</span></h1>")?;
    let early = if report.interrupted { ", interrupted" } else { "" };
    writeln!(
        text,
        "<p>{}</p><p class=\"soft\">{} · {:.0} s{early} · {} stations · ocpp-loadtest {}</p>",
        escape(&report.scenario.about),
        escape(&report.started),
        report.seconds,
        thousands(report.scenario.stations.into()),
        escape(&report.version)
    )?;
    reasons(text, report)?;
    cards(text, report)?;
    plots(text, report)?;
    tables::write(text, report)?;
    writeln!(text, "<script>{SCRIPT}</script></body></html>")
}

/// Why it did not pass, before anything else.
fn reasons(text: &mut String, report: &Report) -> std::fmt::Result {
    let (faults, invalid) = (&report.outcome.faults, &report.outcome.invalid);
    let examples = report.verification.iter().flat_map(|verification| &verification.verdict.examples);
    let examples: Vec<_> = examples.collect();
    let mut list = |class: &str, head: &str, reasons: Vec<&String>| {
        if reasons.is_empty() {
            return Ok(());
        }
        writeln!(text, "<section class=\"reasons {class}\"><h2>{head}</h2><ul>")?;
        for reason in reasons {
            writeln!(text, "<li>{}</li>", escape(reason))?;
        }
        writeln!(text, "</ul></section>")
    };
    list("failed", "What the gateway did wrong", faults.iter().collect())?;
    list("failed", "Examples", examples)?;
    list(
        "invalid",
        "What was wrong with the load test: nothing is said about the gateway's limits",
        invalid.iter().collect(),
    )
}

fn cards(text: &mut String, report: &Report) -> std::fmt::Result {
    let counts = &report.counts;
    writeln!(text, "<div class=\"cards\">")?;
    let mut card = |bad: bool, value: String, what: &str| {
        let class = if bad { "card bad" } else { "card" };
        writeln!(text, "<div class=\"{class}\"><b>{}</b>{}</div>", escape(&value), escape(what))
    };
    let attempts = format!("of {} attempts to connect succeeded", thousands(counts.attempts));
    card(counts.connects == 0, thousands(counts.connects), &attempts)?;
    let calls = format!("of {} CALLs were answered", thousands(counts.sent));
    card(counts.answered < counts.sent, thousands(counts.answered), &calls)?;
    card(false, format!("{:.1} ms", report.latency.p50), "median latency, from due to answered")?;
    card(false, format!("{:.1} ms", report.latency.p99), "p99 latency, from due to answered")?;
    match &report.verification {
        Some(verification) => {
            let verdict = &verification.verdict;
            let counts = [verdict.lost, verdict.duplicated, verdict.reordered];
            let shown = counts.map(thousands).join(" / ");
            card(!verdict.faults().is_empty(), shown, "lost / duplicated / reordered")?;
        }
        None => card(true, "not verified".into(), "what was stored is unknown")?,
    }
    for (number, gateway) in report.watched.iter().enumerate().filter(|watched| watched.1.is_gateway()) {
        if let Some(micros) = report.cpu_per_call(number) {
            card(false, format!("{micros:.0} µs"), &format!("{}: CPU per CALL", gateway.name))?;
        }
        if let Some(bytes) = report.memory_per_station(gateway) {
            card(
                false,
                format!("{:.1} KiB", bytes / 1024.0),
                &format!("{}: memory per station", gateway.name),
            )?;
        }
    }
    card(false, format!("{:.1} ms", report.load.send_lag.p99), "p99 of the load test's own send lag")?;
    writeln!(text, "</div>")
}

fn plots(text: &mut String, report: &Report) -> std::fmt::Result {
    let axis = Axis::of(report);
    let plots = plots::of(report, &axis);
    writeln!(text, "<h2>Over time</h2><p class=\"soft\">Times count from the start.")?;
    if !axis.marks.is_empty() {
        writeln!(text, "Dotted vertical lines are the scenario's moments.")?;
    }
    writeln!(
        text,
        "<span class=\"scripted\" hidden>Point at a plot to see its values, or use the arrow keys.</span></p>"
    )?;
    for (number, plot) in plots.iter().enumerate() {
        figure(text, number, plot)?;
    }
    writeln!(text, "<script type=\"application/json\" id=\"values\">{}</script>", values(&axis, &plots))
}

fn figure(text: &mut String, number: usize, plot: &Plot<'_>) -> std::fmt::Result {
    writeln!(
        text,
        "<figure><figcaption><span id=\"title-{number}\">{}</span> <small>{}</small><span class=\"keys\">",
        escape(plot.title),
        escape(&plot.scale())
    )?;
    for key in plot.keys() {
        let swatch = swatch(&key);
        let name = escape(key.name);
        writeln!(
            text,
            "<span class=\"key\"><svg aria-hidden=\"true\" width=\"20\" height=\"10\">{swatch}</svg>{name}</span>"
        )?;
    }
    let high = plot.height() + AXIS;
    // No <title>: browsers would show it over the values under the pointer.
    writeln!(
        text,
        "</span></figcaption><div class=\"plot\"><svg data-plot=\"{number}\" width=\"100%\" height=\"{high}\" role=\"img\" aria-labelledby=\"title-{number}\" aria-describedby=\"desc-{number}\"><desc id=\"desc-{number}\">{}</desc>",
        escape(&plot.description())
    )?;
    writeln!(text, "{}</svg></div></figure>", plot.shapes())
}

/// The values that the page's script shows under the pointer, as JSON.
fn values(axis: &Axis, plots: &[Plot<'_>]) -> String {
    let list =
        |values: &mut dyn Iterator<Item = String>| format!("[{}]", values.collect::<Vec<_>>().join(","));
    let word = |text: &str| serde_json::json!(text).to_string().replace('<', "\\u003c");
    let plot = |plot: &Plot<'_>| {
        let series = match &plot.content {
            Content::Lines { series, .. } => list(&mut series.iter().map(|one| {
                let shown = |value: &Option<f64>| value.map_or_else(|| "null".to_owned(), number);
                format!(
                    "{{\"name\":{},\"values\":{}}}",
                    word(&one.name),
                    list(&mut one.values.iter().map(shown))
                )
            })),
            Content::States(states) => {
                format!(
                    "[{{\"name\":\"state\",\"values\":{}}}]",
                    list(&mut states.iter().map(|state| word(state)))
                )
            }
        };
        format!("{{\"unit\":{},\"series\":{series}}}\n", word(plot.unit))
    };
    let times = list(&mut axis.times.iter().map(|time| number(*time)));
    format!("{{\"times\":{times},\"plots\":{}}}", list(&mut plots.iter().map(plot)))
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
        assert_eq!(text.matches("<figure").count(), 7);
        assert!(text.contains("a &lt;test&gt;"), "what a scenario says is text");
        assert!(!text.contains("NaN"));
    }

    #[test]
    fn the_script_has_every_value() {
        let mut report = example::report();
        report.watched[0].name = "gateway </script>".into();
        report.timeline[1].watched_cores = vec![None];
        let text = page(&report);
        let json = text.split("id=\"values\">").nth(1).unwrap().split("</script>").next().unwrap();
        let values: serde_json::Value = serde_json::from_str(json).unwrap();
        assert_eq!(values["times"].as_array().unwrap().len(), 70);
        let gateway = &values["plots"][3]["series"][0];
        assert_eq!(gateway["name"], "gateway </script>");
        assert_eq!(gateway["values"][0], 30);
        assert!(gateway["values"][1].is_null());
        assert_eq!(values["plots"][6]["series"][0]["values"][0], "direct");
    }

    #[test]
    fn a_run_that_did_not_pass_says_why_first() {
        let mut report = example::report();
        report.outcome.judgement = Judgement::Failed;
        report.outcome.faults.push("lost: 3".into());
        report.outcome.invalid.push("worker 0 ended <early>".into());
        let text = page(&report);
        assert!(text.contains("<title>FAILED: example"), "{text}");
        let place = |part: &str| text.find(part).unwrap_or_else(|| panic!("{part} is missing"));
        assert!(place("<li>lost: 3</li>") < place("class=\"cards\""));
        assert!(place("<li>worker 0 ended &lt;early&gt;</li>") < place("class=\"cards\""));
        assert!(!page(&example::report()).contains("class=\"reasons"));
        report.verification = None;
        assert!(page(&report).contains("not verified"));
    }
}
