//! Plots over time as SVG: lines, and bands of states.
//!
//! Owns shapes and their positions; colours and fonts are those of `palette.css`. A plot fills the width of its place:
//! horizontal positions are in percent, or in a stretched view box, so that text and strokes keep their size on a narrow page.

use std::fmt::Write;

use super::markup::escape;
use super::scale::{Scale, clock, times};

/// A plot.
pub(super) struct Plot<'a> {
    /// A word for file names.
    pub(super) name: &'static str,
    pub(super) title: &'static str,
    /// The unit of the values.
    pub(super) unit: &'static str,
    /// Seconds, one for each value.
    pub(super) times: &'a [f64],
    /// Seconds of the scenario's moments.
    pub(super) marks: &'a [f64],
    pub(super) content: Content,
}

/// The values.
pub(super) enum Content {
    Lines {
        series: Vec<Series>,
        /// A logarithmic scale, for what spans orders of magnitude.
        log: bool,
    },
    /// The state at each time.
    States(Vec<String>),
}

/// A line. A missing value breaks it.
pub(super) struct Series {
    pub(super) name: String,
    pub(super) values: Vec<Option<f64>>,
    /// Broad and pale, for a line that others overlap.
    pub(super) wide: bool,
}

/// An entry of the legend.
pub(super) struct Key<'a> {
    pub(super) name: &'a str,
    /// The class of its line or its area.
    pub(super) class: String,
}

/// Height of the axis of time.
pub(super) const AXIS: f64 = 24.0;
const HIGH: f64 = 200.0;
const BAND: f64 = 22.0;
/// The stretched view box of the lines.
const ACROSS: f64 = 9000.0;
const DOWN: f64 = 2000.0;
/// Columns of a long run, each of which shows its least and its greatest value.
const COLUMNS: usize = 450;
const COLOURS: usize = 8;
/// Labels of times that fit on a narrow page; of more, every other one is hidden.
const MOST_NARROW: usize = 5;

impl Plot<'_> {
    /// Its height without the axis of time.
    pub(super) fn height(&self) -> f64 {
        if matches!(self.content, Content::Lines { .. }) { HIGH } else { BAND }
    }

    /// Unit and kind of its scale.
    pub(super) fn scale(&self) -> String {
        let log = matches!(self.content, Content::Lines { log: true, .. });
        format!("{}{}", self.unit, if log { ", logarithmic" } else { "" })
    }

    /// The entries of its legend.
    pub(super) fn keys(&self) -> Vec<Key<'_>> {
        match &self.content {
            Content::Lines { series, .. } => {
                let keys = series.iter().enumerate();
                keys.map(|(number, one)| Key { name: &one.name, class: line_class(number, one) }).collect()
            }
            Content::States(states) => {
                let mut names: Vec<&str> = Vec::new();
                for state in states {
                    if !names.contains(&state.as_str()) {
                        names.push(state);
                    }
                }
                names.into_iter().map(|name| Key { name, class: state_class(name) }).collect()
            }
        }
    }

    /// A description in words, for those who cannot see it.
    pub(super) fn description(&self) -> String {
        let end = clock(self.times.last().copied().unwrap_or_default());
        let parts: Vec<String> = match &self.content {
            Content::Lines { series, .. } => series.iter().map(Series::description).collect(),
            Content::States(_) => self.keys().iter().map(|key| key.name.to_owned()).collect(),
        };
        format!("Over {end}: {}.", parts.join("; "))
    }

    /// Renders the shapes, for an SVG that begins where the values do and lets the axes overflow.
    pub(super) fn shapes(&self) -> String {
        let mut text = String::new();
        // Writing to a String cannot fail.
        let _written = self.write(&mut text);
        text
    }

    fn write(&self, text: &mut String) -> std::fmt::Result {
        let high = self.height();
        let end = self.times.last().copied().unwrap_or(1.0).max(1.0);
        let percent = |time: f64| format!("{}%", number(time / end * 100.0));
        let times = times(end);
        for (place, time) in times.iter().enumerate() {
            let narrow = if place % 2 == 1 && times.len() > MOST_NARROW { " odd" } else { "" };
            let x = percent(*time);
            writeln!(text, r#"<line class="grid" x1="{x}" x2="{x}" y1="{high}" y2="{}"/>"#, high + 4.0)?;
            writeln!(text, r#"<text class="x{narrow}" x="{x}" y="{}">{}</text>"#, high + 17.0, clock(*time))?;
        }
        match &self.content {
            Content::Lines { series, log } => self.lines(text, series, *log, end)?,
            Content::States(states) => self.bands(text, states, &percent)?,
        }
        for time in self.marks.iter().filter(|time| **time <= end) {
            let x = percent(*time);
            writeln!(text, r#"<line class="mark" x1="{x}" x2="{x}" y1="0" y2="{high}"/>"#)?;
        }
        writeln!(text, r#"<rect class="area" width="100%" height="{high}"/>"#)
    }

    fn lines(&self, text: &mut String, series: &[Series], log: bool, end: f64) -> std::fmt::Result {
        let values = || series.iter().flat_map(|one| one.values.iter().flatten().copied());
        let scale = if log { Scale::logarithmic(values()) } else { Scale::linear(values()) };
        for (tick, label) in scale.ticks() {
            let y = number(HIGH * (1.0 - scale.part(tick)));
            writeln!(text, r#"<line class="grid" x1="0" x2="100%" y1="{y}" y2="{y}"/>"#)?;
            writeln!(text, r#"<text class="y" x="-8" y="{y}" dy="4">{label}</text>"#)?;
        }
        if values().next().is_none() {
            return writeln!(
                text,
                r#"<text class="none" x="50%" y="{}">nothing was measured</text>"#,
                HIGH / 2.0 + 4.0
            );
        }
        writeln!(
            text,
            r#"<svg class="lines" viewBox="0 0 {ACROSS} {DOWN}" preserveAspectRatio="none" width="100%" height="{HIGH}">"#
        )?;
        for (number, one) in series.iter().enumerate() {
            let (class, path) = (line_class(number, one), path(self.times, &one.values, &scale, end));
            writeln!(text, r#"<path class="{class}" d="{}"/>"#, path.line)?;
            if !path.dots.is_empty() {
                writeln!(text, r#"<path class="{class} dot" d="{}"/>"#, path.dots)?;
            }
        }
        writeln!(text, "</svg>")
    }

    fn bands(
        &self,
        text: &mut String,
        states: &[String],
        percent: &dyn Fn(f64) -> String,
    ) -> std::fmt::Result {
        let mut from = 0;
        for stretch in states.chunk_by(|one, next| one == next) {
            let to = from + stretch.len();
            let begin = if from == 0 { 0.0 } else { self.times[from - 1] };
            let (until, name) = (self.times[to - 1], &stretch[0]);
            writeln!(
                text,
                r#"<rect class="{}" x="{}" width="{}" height="{BAND}"/>"#,
                state_class(name),
                percent(begin),
                percent(until - begin)
            )?;
            from = to;
        }
        Ok(())
    }
}

impl Series {
    fn description(&self) -> String {
        let values = || self.values.iter().flatten().copied();
        let (Some(least), Some(most)) = (values().reduce(f64::min), values().reduce(f64::max)) else {
            return format!("{}: nothing", self.name);
        };
        format!("{} from {} to {}", self.name, number(least), number(most))
    }
}

fn line_class(number: usize, series: &Series) -> String {
    format!("line c{}{}", number % COLOURS, if series.wide { " wide" } else { "" })
}

/// A state has the same colour in every report.
fn state_class(name: &str) -> String {
    let known = ["direct", "spooling", "draining", "holding", "unknown", "no answer"];
    format!("state c{}", known.iter().position(|known| *known == name).unwrap_or(COLOURS - 1))
}

/// Formats a number with no more digits than can be seen.
pub(super) fn number(value: f64) -> String {
    let text = format!("{value:.3}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// A line, and those of its points that have no neighbour.
#[derive(Default)]
struct Path {
    line: String,
    dots: String,
}

/// Keeps the least and the greatest value of each column, in their order: neither a peak nor a gap gets lost. Whole numbers
/// relative to the previous point are short.
fn path(times: &[f64], values: &[Option<f64>], scale: &Scale, end: f64) -> Path {
    let mut path = Path::default();
    let points: Vec<(f64, Option<f64>)> = times.iter().copied().zip(values.iter().copied()).collect();
    let kept = match points.len().div_ceil(COLUMNS) {
        0..=2 => points,
        every => points.chunks(every).flat_map(extremes).collect(),
    };
    for stretch in kept.split(|point| point.1.is_none()) {
        let mut places = stretch.iter().map(|(time, value)| {
            let down = 1.0 - scale.part(value.unwrap_or_default());
            ((ACROSS * time / end).round() as i32, (DOWN * down).round() as i32)
        });
        let Some((mut x, mut y)) = places.next() else { continue };
        // A line without length is a dot, thanks to round caps.
        if places.len() == 0 {
            let _written = write!(path.dots, "M{x} {y}h0");
            continue;
        }
        let _written = write!(path.line, "M{x} {y}");
        for (next_x, next_y) in places {
            let _written = write!(path.line, "l{} {}", next_x - x, next_y - y);
            (x, y) = (next_x, next_y);
        }
    }
    path
}

/// Returns the least and the greatest value of some neighbouring points, and a gap if there is one.
fn extremes(points: &[(f64, Option<f64>)]) -> Vec<(f64, Option<f64>)> {
    let known = || points.iter().enumerate().filter_map(|(place, point)| Some((place, point.1?)));
    let least = known().min_by(|one, other| one.1.total_cmp(&other.1));
    let most = known().max_by(|one, other| one.1.total_cmp(&other.1));
    let gap = points.iter().position(|point| point.1.is_none());
    let mut places: Vec<usize> =
        [least.map(|one| one.0), most.map(|one| one.0), gap].into_iter().flatten().collect();
    places.sort_unstable();
    places.dedup();
    places.into_iter().map(|place| points[place]).collect()
}

/// Draws the sample of a line or an area for the legend.
pub(super) fn swatch(key: &Key<'_>) -> String {
    if key.class.starts_with("line") {
        format!(r#"<line class="{}" x1="1" x2="19" y1="5" y2="5"/>"#, escape(&key.class))
    } else {
        format!(r#"<rect class="{}" width="20" height="10"/>"#, escape(&key.class))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(values: Vec<Option<f64>>, log: bool) -> String {
        let times: Vec<f64> = (1..=values.len()).map(|second| second as f64).collect();
        let series = vec![Series { name: "a".into(), values, wide: false }];
        let content = Content::Lines { series, log };
        Plot { name: "t", title: "T", unit: "ms", times: &times, marks: &[], content }.shapes()
    }

    fn drawn(shapes: &str) -> &str {
        shapes.split(" d=\"").nth(1).unwrap().split('"').next().unwrap()
    }

    #[test]
    fn a_missing_value_breaks_the_line() {
        let text = lines(vec![Some(1.0), Some(2.0), None, Some(4.0)], false);
        assert_eq!(drawn(&text), "M2250 1500l2250 -500");
        assert!(text.contains(r#"<path class="line c0 dot" d="M9000 0h0"/>"#), "{text}");
    }

    #[test]
    fn neither_peaks_nor_gaps_get_lost_in_a_long_run() {
        let mut values = vec![Some(50.0); 5000];
        (values[3333], values[1001], values[4000]) = (Some(100.0), Some(0.0), None);
        let text = lines(values, false);
        let path = drawn(&text);
        let points = path.matches(['M', 'l']).count();
        assert!(points <= COLUMNS * 2 + 2, "{points}");
        assert_eq!(path.matches(" -1000l").count(), 2, "up to the peak, and back from the dip");
        assert_eq!(
            path.matches(" 1000l").count(),
            4,
            "down to the dip, back from the peak, and where a line begins"
        );
        assert_eq!(path.matches('M').count(), 2, "the gap");
    }

    #[test]
    fn an_empty_plot_can_be_drawn() {
        for log in [false, true] {
            let nothing = lines(vec![], log) + &lines(vec![None, None], log);
            assert_eq!(nothing.matches("nothing was measured").count(), 2);
            let text = nothing + &lines(vec![Some(0.0)], log);
            assert!(!text.contains("NaN") && !text.contains("inf"), "{text}");
        }
    }

    #[test]
    fn a_band_has_one_shape_for_each_stretch_and_one_key_for_each_state() {
        let states = ["direct", "direct", "spooling", "direct"].map(str::to_owned).into();
        let times = [1.0, 2.0, 3.0, 4.0];
        let content = Content::States(states);
        let plot = Plot { name: "bus", title: "Bus", unit: "", times: &times, marks: &[2.5, 9.0], content };
        let text = plot.shapes();
        assert_eq!(text.matches("class=\"state").count(), 3, "{text}");
        assert!(text.contains(r#"<rect class="state c1" x="50%" width="25%""#), "{text}");
        assert_eq!(text.matches("class=\"mark\"").count(), 1, "not of what was after the end: {text}");
        assert_eq!(plot.keys().iter().map(|key| key.name).collect::<Vec<_>>(), ["direct", "spooling"]);
        assert_eq!(plot.description(), "Over 0:04: direct; spooling.");
    }
}
