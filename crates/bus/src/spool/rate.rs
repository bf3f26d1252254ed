//! How long a spool takes to drain, estimated from how fast it has shrunk lately.

use std::time::{Duration, Instant};

/// The rate at which what remains becomes less, smoothed over some seconds.
#[derive(Default)]
pub(super) struct DrainRate {
    last: Option<(Instant, u64)>,
    shrinking_per_second: Option<f64>,
}

impl DrainRate {
    /// Takes in how much remains now. Returns how long the rest takes; none while it does not shrink.
    pub(super) fn estimate(&mut self, now: Instant, remaining: u64) -> Option<Duration> {
        match self.last {
            Some((at, before)) if now - at >= Duration::from_secs(1) => {
                let rate = (before as f64 - remaining as f64) / (now - at).as_secs_f64();
                let smooth = self.shrinking_per_second.map_or(rate, |former| 0.7 * former + 0.3 * rate);
                self.shrinking_per_second = Some(smooth);
                self.last = Some((now, remaining));
            }
            Some(_) => {}
            None => self.last = Some((now, remaining)),
        }
        if remaining == 0 {
            return Some(Duration::ZERO);
        }
        let rate = self.shrinking_per_second.filter(|rate| *rate > 0.0)?;
        Duration::try_from_secs_f64(remaining as f64 / rate).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_estimate_follows_what_remains() {
        let start = Instant::now();
        let second = |count: u64| start + Duration::from_secs(count);
        let mut rate = DrainRate::default();
        assert_eq!(rate.estimate(start, 1000), None, "nothing is known of one moment");
        assert_eq!(rate.estimate(second(1), 900), Some(Duration::from_secs(9)));
        let halfway = start + Duration::from_millis(1500);
        assert_eq!(
            rate.estimate(halfway, 800),
            Some(Duration::from_secs(8)),
            "the same rate within a second"
        );
        assert_eq!(rate.estimate(second(2), 0), Some(Duration::ZERO));

        let mut growing = DrainRate::default();
        growing.estimate(start, 100);
        assert_eq!(growing.estimate(second(1), 200), None);
    }
}
