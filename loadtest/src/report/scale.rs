//! Scales of a plot: from values to heights, and from seconds to clock times, with round labels.

/// Maps values to parts of a height.
pub(super) struct Scale {
    low: f64,
    high: f64,
    kind: Kind,
}

#[derive(Clone, Copy)]
enum Kind {
    Linear {
        step: f64,
    },
    /// `cut`: some values lie below the lowest tick and are drawn there.
    Logarithmic {
        cut: bool,
    },
}

/// Bytes of a mebibyte.
pub(super) const MIB: f64 = 1_048_576.0;

/// Steps between ticks, approximately.
const TICKS: f64 = 5.0;
/// The decades that a logarithmic scale shows at most, the highest ones.
const DECADES: i32 = 5;
/// Up to this many decades, each has ticks at its 2 and its 5 as well.
const FEW_DECADES: f64 = 3.1;
/// Tolerance for rounding errors of doubles.
const SLACK: f64 = 1e-9;

impl Scale {
    /// A linear scale from zero to a round number.
    pub(super) fn linear(values: impl Iterator<Item = f64>) -> Self {
        let most = values.filter(|value| value.is_finite()).fold(0.0, f64::max);
        let step = if most > 0.0 { step(most) } else { 1.0 };
        let high = (most / step - SLACK).ceil().max(1.0) * step;
        Self { low: 0.0, high, kind: Kind::Linear { step } }
    }

    /// A logarithmic scale, for values over orders of magnitude; those not above zero are drawn at the bottom.
    pub(super) fn logarithmic(values: impl Iterator<Item = f64>) -> Self {
        let (mut least, mut most) = (f64::INFINITY, 0.0_f64);
        for value in values.filter(|value| value.is_finite() && *value > 0.0) {
            least = least.min(value);
            most = most.max(value);
        }
        if most <= 0.0 {
            return Self { low: 0.1, high: 10.0, kind: Kind::Logarithmic { cut: false } };
        }
        let bottom =
            (0..).map(|down| rung(3 * decade(least) + 2 - down)).find(|rung| *rung <= least * (1.0 + SLACK));
        let top = (0..).map(|up| rung(3 * decade(most) + up)).find(|rung| *rung >= most * (1.0 - SLACK));
        let (bottom, top) = (bottom.unwrap_or(least), top.unwrap_or(most).max(least * 9.0));
        let top = (0..)
            .map(|up| rung(3 * decade(top) + up))
            .find(|rung| *rung >= top * (1.0 - SLACK))
            .unwrap_or(top);
        let floor = 10_f64.powi((top.log10() - SLACK).ceil() as i32 - DECADES);
        Self {
            low: bottom.max(floor),
            high: top,
            kind: Kind::Logarithmic { cut: bottom < floor * (1.0 - SLACK) },
        }
    }

    /// Returns the height of a value: 0 at the bottom, 1 at the top.
    pub(super) fn part(&self, value: f64) -> f64 {
        let part = match self.kind {
            Kind::Linear { .. } => value / self.high,
            Kind::Logarithmic { .. } => {
                (value.max(self.low) / self.low).log10() / (self.high / self.low).log10()
            }
        };
        part.clamp(0.0, 1.0)
    }

    /// Returns round values from the bottom to the top, with their labels.
    pub(super) fn ticks(&self) -> Vec<(f64, String)> {
        let cut = match self.kind {
            Kind::Linear { step } => {
                let count = (self.high / step).round() as i32;
                let ticks = (0..=count).map(|number| f64::from(number) * step);
                return ticks.map(|tick| (tick, short(tick))).collect();
            }
            Kind::Logarithmic { cut } => cut,
        };
        let every = if (self.high / self.low).log10() <= FEW_DECADES { 1 } else { 3 };
        let rungs = (0..).map(|number| rung(3 * decade(self.low) + number * every));
        let between = rungs.skip_while(|rung| *rung <= self.low * (1.0 + SLACK));
        let between = between.take_while(|rung| *rung < self.high * (1.0 - SLACK));
        let label = |(number, tick)| match number {
            0 if cut => (tick, format!("≤ {}", short(tick))),
            _ => (tick, short(tick)),
        };
        [self.low].into_iter().chain(between).chain([self.high]).enumerate().map(label).collect()
    }
}

/// Returns a round step for values up to `most`.
fn step(most: f64) -> f64 {
    let rough = most / TICKS;
    let power = 10_f64.powf(rough.log10().floor());
    let steps = [1.0, 2.0, 2.5, 5.0, 10.0].map(|times| times * power);
    steps.into_iter().find(|step| *step >= rough * (1.0 - SLACK)).unwrap_or(10.0 * power)
}

fn decade(value: f64) -> i32 {
    (value.log10() + SLACK).floor() as i32
}

/// 1, 2, 5, 10, 20, 50, …
fn rung(index: i32) -> f64 {
    let first = 10_f64.powi(index.div_euclid(3));
    match index.rem_euclid(3) {
        0 => first,
        1 => 2.0 * first,
        _ => 5.0 * first,
    }
}

/// Formats a number for an axis.
fn short(value: f64) -> String {
    let (value, unit) = match value {
        v if v >= 1e9 => (v / 1e9, " G"),
        v if v >= 1e6 => (v / 1e6, " M"),
        v => (v, ""),
    };
    if value >= 1000.0 {
        return thousands(value.round() as u64);
    }
    let text = format!("{value:.5}");
    format!("{}{unit}", text.trim_end_matches('0').trim_end_matches('.'))
}

/// Formats a count with thousands separators.
pub(super) fn thousands(count: u64) -> String {
    let digits = count.to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Formats seconds as m:ss, or as h:mm:ss from the first hour on.
pub(super) fn clock(seconds: f64) -> String {
    let whole = seconds.round() as u64;
    let (hours, minutes, seconds) = (whole / 3600, whole / 60 % 60, whole % 60);
    if hours > 0 { format!("{hours}:{minutes:02}:{seconds:02}") } else { format!("{minutes}:{seconds:02}") }
}

/// Returns round times from the start to `end`, at most nine.
pub(super) fn times(end: f64) -> Vec<f64> {
    let round =
        [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10_800, 21_600, 43_200, 86_400];
    let days = (1..).map(|doubled: i32| 86_400.0 * 2_f64.powi(doubled));
    let steps = round.into_iter().map(f64::from).chain(days);
    let step = steps.into_iter().find(|step| end / step <= 8.0).unwrap_or(end);
    (0..).map(|number| f64::from(number) * step).take_while(|time| *time <= end).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(scale: &Scale) -> Vec<String> {
        scale.ticks().into_iter().map(|tick| tick.1).collect()
    }

    #[test]
    fn a_linear_scale_goes_from_zero_to_a_round_number() {
        assert_eq!(labels(&Scale::linear([3.0, 43.0].into_iter())), ["0", "10", "20", "30", "40", "50"]);
        let scale = Scale::linear([12_000.0].into_iter());
        assert_eq!(labels(&scale), ["0", "2,500", "5,000", "7,500", "10,000", "12,500"]);
        assert_eq!((scale.part(0.0), scale.part(6250.0), scale.part(12_500.0)), (0.0, 0.5, 1.0));
        assert_eq!(labels(&Scale::linear([100.0].into_iter())).last().unwrap(), "100");
        assert_eq!(labels(&Scale::linear([1.0].into_iter())).last().unwrap(), "1");
        assert_eq!(labels(&Scale::linear([0.0].into_iter())), ["0", "1"]);
        assert_eq!(labels(&Scale::linear([f64::NAN].into_iter())), ["0", "1"]);
        assert_eq!(labels(&Scale::linear([2.2e6].into_iter())).last().unwrap(), "2.5 M");
    }

    #[test]
    fn a_logarithmic_scale_fits_its_values() {
        let scale = Scale::logarithmic([0.9, 43.0, 0.0].into_iter());
        assert_eq!(labels(&scale), ["0.5", "1", "2", "5", "10", "20", "50"]);
        assert!(scale.part(43.0) > scale.part(0.9) && scale.part(0.9) > 0.0 && scale.part(0.0) == 0.0);
        let wide = Scale::logarithmic([0.09, 300.0].into_iter());
        assert_eq!(labels(&wide), ["0.05", "0.1", "1", "10", "100", "500"], "both ends are labelled");
        assert_eq!(labels(&Scale::logarithmic([5.0].into_iter())), ["5", "10", "20", "50"]);
        assert_eq!(
            labels(&Scale::logarithmic(std::iter::empty())),
            ["0.1", "0.2", "0.5", "1", "2", "5", "10"]
        );
    }

    #[test]
    fn too_many_decades_are_cut_at_the_bottom_and_labelled_so() {
        let scale = Scale::logarithmic([0.004, 2950.0].into_iter());
        assert_eq!(labels(&scale), ["≤ 0.1", "1", "10", "100", "1,000", "5,000"]);
        assert_eq!(scale.part(0.004), 0.0);
        assert_eq!(labels(&Scale::logarithmic([0.1, 10_000.0].into_iter()))[0], "0.1");
    }

    #[test]
    fn times_are_formatted_as_a_clock_shows_them() {
        assert_eq!(
            [59.6, 61.0, 3599.0, 3600.0, 36_061.0].map(clock),
            ["1:00", "1:01", "59:59", "1:00:00", "10:01:01"]
        );
        assert_eq!(times(661.0), [0.0, 120.0, 240.0, 360.0, 480.0, 600.0]);
        for end in [1.0, 9.0, 76.0, 3600.0, 28_800.0, 1e6, 1e8] {
            assert!((2..=9).contains(&times(end).len()), "{end}: {:?}", times(end));
        }
    }

    #[test]
    fn thousands_are_apart() {
        assert_eq!(
            [0, 999, 1000, 713_495, 1_453_380].map(thousands),
            ["0", "999", "1,000", "713,495", "1,453,380"]
        );
    }
}
