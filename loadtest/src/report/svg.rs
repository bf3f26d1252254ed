//! Plots as SVG text: lines over time, and bands of states.
//!
//! Owns scales, ticks and shapes; colours and fonts are the page's. What is drawn is stated beside it as JSON, so that the page's
//! script can show the values under the pointer.

use std::fmt::Write;

use super::html::escape;

/// A line. A value that is missing breaks it.
pub(super) struct Series {
    pub(super) name: String,
    pub(super) values: Vec<Option<f64>>,
}

/// A plot over time.
pub(super) struct Chart<'a> {
    pub(super) title: &'a str,
    /// The unit of the values.
    pub(super) unit: &'a str,
    /// Seconds, one for each value.
    pub(super) times: &'a [f64],
    pub(super) series: Vec<Series>,
    /// A logarithmic scale, for what spans orders of magnitude.
    pub(super) log: bool,
}

const WIDTH: f64 = 960.0;
const HEIGHT: f64 = 240.0;
const LEFT: f64 = 70.0;
const RIGHT: f64 = 12.0;
const TOP: f64 = 10.0;
const BOTTOM: f64 = 24.0;
/// A plot has no more pixels to show more.
const MOST_POINTS: usize = 900;
/// Lines about as many as there should be.
const TICKS: f64 = 5.0;

impl Chart<'_> {
    /// The plot with its title and legend.
    pub(super) fn draw(&self) -> String {
        let every = self.times.len().div_ceil(MOST_POINTS).max(1);
        let times: Vec<f64> = self.times.chunks(every).map(|chunk| chunk[chunk.len() - 1]).collect();
        let series: Vec<(&str, Vec<Option<f64>>)> =
            self.series.iter().map(|series| (series.name.as_str(), thinned(&series.values, every))).collect();
        let scale = Scale::of(series.iter().flat_map(|one| one.1.iter().flatten().copied()), self.log);
        let end = times.last().copied().unwrap_or(1.0).max(1.0);
        let mut text = String::new();
        // Writing to a String cannot fail.
        let _written = self.write(&mut text, &times, &series, &scale, end);
        text
    }

    fn write(
        &self,
        text: &mut String,
        times: &[f64],
        series: &[(&str, Vec<Option<f64>>)],
        scale: &Scale,
        end: f64,
    ) -> std::fmt::Result {
        let shown = serde_json::json!({ "unit": self.unit, "times": times, "left": LEFT, "right": WIDTH - RIGHT,
            "series": series.iter().map(|(name, values)| serde_json::json!({ "name": name, "values": values })).collect::<Vec<_>>() });
        writeln!(text, "<figure><figcaption>{} <small>{}</small>", escape(self.title), escape(self.unit))?;
        for (number, (name, _)) in series.iter().enumerate() {
            writeln!(text, "<span class=\"key c{}\">{}</span>", number % 8, escape(name))?;
        }
        writeln!(
            text,
            "</figcaption><svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" data-plot=\"{}\">",
            escape(&shown.to_string())
        )?;
        for tick in scale.ticks() {
            let y = scale.y(tick);
            writeln!(
                text,
                "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>",
                WIDTH - RIGHT
            )?;
            writeln!(
                text,
                "<text class=\"y\" x=\"{}\" y=\"{:.1}\">{}</text>",
                LEFT - 6.0,
                y + 4.0,
                short(tick)
            )?;
        }
        time_axis(text, end)?;
        for (number, (_, values)) in series.iter().enumerate() {
            writeln!(
                text,
                "<path class=\"line c{}\" d=\"{}\"/>",
                number % 8,
                path(times, values, scale, end)
            )?;
        }
        writeln!(text, "</svg></figure>")
    }
}

/// A band that shows which of several states there was when.
pub(super) fn band(title: &str, times: &[f64], states: &[String]) -> String {
    const HIGH: f64 = 24.0;
    let end = times.last().copied().unwrap_or(1.0).max(1.0);
    let mut names: Vec<&str> = Vec::new();
    let mut shapes = String::new();
    let mut from = 0;
    for to in 1..=states.len() {
        if to < states.len() && states[to] == states[from] {
            continue;
        }
        let name = states[from].as_str();
        let known = names.iter().position(|known| *known == name);
        let number = known.unwrap_or_else(|| {
            names.push(name);
            names.len() - 1
        });
        let begin = if from == 0 { 0.0 } else { times[from - 1] };
        let (left, right) = (x(begin, end), x(times[to - 1], end));
        let _written = write!(
            shapes,
            "<rect class=\"c{}\" x=\"{left:.1}\" y=\"2\" width=\"{:.1}\" height=\"20\"><title>{}</title></rect>",
            number % 8,
            (right - left).max(0.5),
            escape(name)
        );
        from = to;
    }
    let keys: String = names
        .iter()
        .enumerate()
        .map(|(number, name)| format!("<span class=\"key c{}\">{}</span>", number % 8, escape(name)))
        .collect();
    format!(
        "<figure><figcaption>{} {keys}</figcaption><svg viewBox=\"0 0 {WIDTH} {HIGH}\">{shapes}</svg></figure>",
        escape(title)
    )
}

/// The greatest value of every so many: what is thinned out must not hide a peak.
fn thinned(values: &[Option<f64>], every: usize) -> Vec<Option<f64>> {
    values.chunks(every).map(|chunk| chunk.iter().flatten().copied().reduce(f64::max)).collect()
}

fn x(time: f64, end: f64) -> f64 {
    LEFT + (WIDTH - LEFT - RIGHT) * time / end
}

fn path(times: &[f64], values: &[Option<f64>], scale: &Scale, end: f64) -> String {
    let mut path = String::new();
    let mut drawing = false;
    for (time, value) in times.iter().zip(values) {
        let Some(value) = value else {
            drawing = false;
            continue;
        };
        let command = if drawing { 'L' } else { 'M' };
        let _written = write!(path, "{command}{:.1} {:.1}", x(*time, end), scale.y(*value));
        drawing = true;
    }
    path
}

fn time_axis(text: &mut String, end: f64) -> std::fmt::Result {
    let step = [1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0, 7200.0, 14_400.0]
        .into_iter()
        .find(|step| end / step <= 12.0)
        .unwrap_or(end / 8.0);
    let mut time = 0.0;
    while time <= end {
        let seconds = time.round() as u64;
        writeln!(
            text,
            "<text class=\"x\" x=\"{:.1}\" y=\"{}\">{}:{:02}</text>",
            x(time, end),
            HEIGHT - 6.0,
            seconds / 60,
            seconds % 60
        )?;
        time += step;
    }
    Ok(())
}

/// From values to heights.
struct Scale {
    low: f64,
    high: f64,
    log: bool,
}

impl Scale {
    fn of(values: impl Iterator<Item = f64>, log: bool) -> Self {
        let (mut low, mut high) = (f64::INFINITY, 0.0_f64);
        for value in values.filter(|value| value.is_finite() && (!log || *value > 0.0)) {
            low = low.min(value);
            high = high.max(value);
        }
        if log {
            let low = if low.is_finite() { 10_f64.powf(low.log10().floor()) } else { 0.1 };
            let high = 10_f64.powf(high.max(low * 10.0).log10().ceil());
            return Self { low, high, log };
        }
        Self { low: 0.0, high: if high > 0.0 { high * 1.05 } else { 1.0 }, log }
    }

    fn y(&self, value: f64) -> f64 {
        let part = if self.log {
            (value.max(self.low) / self.low).log10() / (self.high / self.low).log10()
        } else {
            value / self.high
        };
        TOP + (HEIGHT - TOP - BOTTOM) * (1.0 - part.clamp(0.0, 1.0))
    }

    fn ticks(&self) -> Vec<f64> {
        if self.log {
            let decades = (self.high / self.low).log10().round() as i32;
            return (0..=decades).map(|decade| self.low * 10_f64.powi(decade)).collect();
        }
        let rough = self.high / TICKS;
        let power = 10_f64.powf(rough.log10().floor());
        let step = [1.0, 2.0, 5.0, 10.0].map(|times| times * power).into_iter().find(|step| *step >= rough);
        let step = step.unwrap_or(10.0 * power);
        (0..).map(|number| f64::from(number) * step).take_while(|tick| *tick <= self.high).collect()
    }
}

/// A number for an axis.
fn short(value: f64) -> String {
    let (value, unit) = match value {
        v if v >= 1e9 => (v / 1e9, "G"),
        v if v >= 1e6 => (v / 1e6, "M"),
        v if v >= 1e4 => (v / 1e3, "k"),
        v => (v, ""),
    };
    let text = format!("{value:.3}");
    format!("{}{unit}", text.trim_end_matches('0').trim_end_matches('.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chart(values: Vec<Option<f64>>, log: bool) -> String {
        let times: Vec<f64> = (1..=values.len()).map(|second| second as f64).collect();
        let series = vec![Series { name: "a <b>".into(), values }];
        Chart { title: "t", unit: "ms", times: &times, series, log }.draw()
    }

    #[test]
    fn a_missing_value_breaks_the_line() {
        let text = chart(vec![Some(1.0), Some(2.0), None, Some(3.0)], false);
        let path = text.split("d=\"").nth(1).unwrap();
        assert_eq!(path.split('"').next().unwrap().matches('M').count(), 2, "{path}");
        assert!(text.contains("a &lt;b&gt;"));
        assert!(!text.contains("NaN") && !text.contains("inf"));
    }

    #[test]
    fn peaks_survive_thinning() {
        let mut values = vec![Some(1.0); 5000];
        values[3333] = Some(77.0);
        let thin = thinned(&values, 6);
        assert!(thin.len() <= MOST_POINTS);
        assert!(thin.contains(&Some(77.0)));
    }

    #[test]
    fn nothing_at_all_can_be_drawn() {
        for log in [false, true] {
            let text = chart(vec![], log) + &chart(vec![None, None], log) + &chart(vec![Some(0.0)], log);
            assert!(!text.contains("NaN") && !text.contains("inf"), "{text}");
        }
    }

    #[test]
    fn axes_have_round_numbers() {
        let scale = Scale::of([0.0, 43.0].into_iter(), false);
        assert_eq!(scale.ticks(), [0.0, 10.0, 20.0, 30.0, 40.0]);
        let scale = Scale::of([0.4, 43.0].into_iter(), true);
        assert_eq!(
            scale.ticks().iter().map(|tick| short(*tick)).collect::<Vec<_>>(),
            ["0.1", "1", "10", "100"]
        );
        assert!(scale.y(43.0) < scale.y(0.4));
    }

    #[test]
    fn a_band_has_one_shape_for_each_stretch() {
        let states: Vec<String> = ["direct", "direct", "spooling", "direct"].map(str::to_owned).into();
        let text = band("bus", &[1.0, 2.0, 3.0, 4.0], &states);
        assert_eq!(text.matches("<rect").count(), 3, "{text}");
        assert_eq!(text.matches("class=\"key").count(), 2);
    }
}
