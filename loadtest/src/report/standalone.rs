//! Plots as files of their own: SVG with title, legend and background, for documents that show them as images.

use std::fmt::Write;

use super::Report;
use super::markup::escape;
use super::plots::{self, Axis};
use super::svg::{AXIS, Plot, swatch};

const PALETTE: &str = include_str!("palette.css");
const WIDTH: f64 = 900.0;
/// Room for the axis of values, and for half of the last time.
const LEFT: f64 = 64.0;
const RIGHT: f64 = 32.0;
/// The line of the title, a row of the legend, and the room below it.
const HEAD: f64 = 30.0;
const ROW: f64 = 18.0;
const GAP: f64 = 14.0;
/// The line under the plot that names the axis of time.
const FOOT: f64 = 22.0;
/// An estimate on the wide side: nothing here can measure text.
const LETTER: f64 = 6.8;
const SWATCH: f64 = 26.0;

/// Returns every plot of a report: a name for the file, and its content.
pub fn files(report: &Report) -> Vec<(&'static str, String)> {
    let axis = Axis::of(report);
    let draw = |plot: &Plot<'_>| {
        let mut text = String::new();
        // Writing to a String cannot fail.
        let _written = write(&mut text, report, plot);
        (plot.name, text)
    };
    plots::of(report, &axis).iter().map(draw).collect()
}

fn write(text: &mut String, report: &Report, plot: &Plot<'_>) -> std::fmt::Result {
    let legend = legend(plot);
    let top = HEAD + ROW * legend.rows + GAP;
    let (high, scenario) = (plot.height(), escape(&report.scenario.name));
    let all = top + high + AXIS + FOOT;
    writeln!(
        text,
        r#"<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{all}" viewBox="0 0 {WIDTH} {all}" role="img" aria-labelledby="title" aria-describedby="desc">"#
    )?;
    writeln!(text, r#"<title id="title">{scenario}: {}</title>"#, escape(plot.title))?;
    writeln!(text, r#"<desc id="desc">{}</desc>"#, escape(&plot.description()))?;
    writeln!(text, "<style>{PALETTE}.ground {{ fill: var(--card); stroke: var(--line); }}")?;
    writeln!(
        text,
        "svg .title {{ fill: var(--text); font-size: 14px; font-weight: 600; }} svg .key {{ fill: var(--text); }}"
    )?;
    writeln!(
        text,
        "svg .end {{ text-anchor: end; }} @media (max-width: 600px) {{ .line {{ stroke-width: .7; }} .line.wide {{ stroke-width: 2.4; }} .line.dot {{ stroke-width: 3; }} }}</style>"
    )?;
    writeln!(
        text,
        r#"<rect class="ground" x=".5" y=".5" width="{}" height="{}" rx="6"/>"#,
        WIDTH - 1.0,
        all - 1.0
    )?;
    let unit = if plot.unit.is_empty() { String::new() } else { format!(", {}", plot.scale()) };
    writeln!(text, r#"<text class="title" x="16" y="24">{}{}</text>"#, escape(plot.title), escape(&unit))?;
    writeln!(
        text,
        r#"<text class="end" x="{}" y="24">{scenario}, {}</text>"#,
        WIDTH - 16.0,
        day(&report.started)
    )?;
    text.push_str(&legend.shapes);
    let across = WIDTH - LEFT - RIGHT;
    writeln!(text, r#"<svg x="{LEFT}" y="{top}" width="{across}" height="{high}">{}</svg>"#, plot.shapes())?;
    let end = plot.times.last().copied().unwrap_or_default();
    let clock = if end >= 3600.0 { "h:mm:ss" } else { "m:ss" };
    writeln!(
        text,
        r#"<text class="end" x="{}" y="{}">{clock} since the start</text></svg>"#,
        WIDTH - 16.0,
        all - 9.0
    )
}

struct Legend {
    shapes: String,
    rows: f64,
}

fn legend(plot: &Plot<'_>) -> Legend {
    let mut shapes = String::new();
    let (mut x, mut rows) = (16.0, 1.0);
    for key in plot.keys() {
        let wide = SWATCH + key.name.chars().count() as f64 * LETTER;
        if x + wide > WIDTH - 16.0 && x > 16.0 {
            (x, rows) = (16.0, rows + 1.0);
        }
        let y = HEAD + ROW * (rows - 1.0) + 4.0;
        let _written = writeln!(
            shapes,
            r#"<svg x="{x}" y="{y}" width="20" height="10">{}</svg><text class="key" x="{}" y="{}">{}</text>"#,
            swatch(&key),
            x + SWATCH,
            y + 9.0,
            escape(key.name)
        );
        x += wide + 16.0;
    }
    Legend { shapes, rows }
}

/// Returns the date of a time in RFC 3339.
fn day(started: &str) -> String {
    escape(started.split('T').next().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::{Watched, example};

    fn file(report: &Report, name: &str) -> String {
        files(report).into_iter().find(|file| file.0 == name).unwrap().1
    }

    #[test]
    fn each_plot_is_a_file_that_needs_nothing_else() {
        let report = example::report();
        let names: Vec<_> = files(&report).into_iter().map(|file| file.0).collect();
        assert_eq!(names, ["connections", "rates", "latency", "processor", "memory", "waiting", "bus"]);
        for (name, text) in files(&report) {
            assert!(text.starts_with("<svg xmlns=\"http://www.w3.org/2000/svg\""), "{name}");
            let rest = text.replacen("http://www.w3.org/2000/svg", "", 1);
            for outside in ["http", "href", "url(", "@import", "<script"] {
                assert!(!rest.contains(outside), "{name}: {outside}");
            }
            assert!(
                text.contains("<title id=\"title\">example: ")
                    && text.contains("<desc id=\"desc\">Over 1:10: ")
            );
            assert!(text.contains("prefers-color-scheme: dark"), "{name}");
            assert_eq!(text.matches("<svg").count(), text.matches("</svg>").count(), "{name}");
        }
    }

    #[test]
    fn a_long_legend_has_several_rows() {
        let mut report = example::report();
        let high = |text: &str| {
            text.split("viewBox=\"0 0 900 ").nth(1).unwrap().split('"').next().unwrap().to_owned()
        };
        assert_eq!(high(&file(&report, "memory")), "308");
        for number in 2..=9 {
            let name = format!("gateway-{number} of a very long name");
            report.watched.push(Watched { name, ..report.watched[0].clone() });
        }
        assert_eq!(high(&file(&report, "memory")), "344");
    }

    #[test]
    fn a_plot_of_a_whole_hour_stays_small() {
        let mut report = example::report();
        let minute = report.timeline.clone();
        let hour = (0..3600).map(|number| {
            let mut point = minute[number % minute.len()].clone();
            point.at = number as f64 + 1.0;
            point.latency.p99 += (number * 7919 % 1000) as f64;
            point
        });
        report.timeline = hour.collect();
        for (name, text) in files(&report) {
            assert!(text.len() < 60_000, "{name}: {}", text.len());
        }
    }
}
