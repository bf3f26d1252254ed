//! Distributions of durations that add up exactly: the sum of two is what one process would have measured.
//!
//! Owns the resolution (three digits, in microseconds) and the encoding in which they are sent between processes.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::{Deserializer, Serializer, V2Serializer};
use serde::de::Error as _;
use serde::ser::Error as _;
use serde::{Deserialize, Serialize};

/// The longest duration that is recorded; longer ones count as this.
pub const LONGEST: Duration = Duration::from_secs(3600);
/// Significant digits: a value is off by a thousandth at most.
const DIGITS: u8 = 3;

/// A distribution of durations.
#[derive(Clone, Debug)]
pub struct Latency(Histogram<u64>);

/// The percentiles of a distribution, in milliseconds.
#[derive(Clone, Copy, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Percentiles {
    /// Number of durations.
    pub count: u64,
    /// Mean.
    pub mean: f64,
    /// Half were faster.
    pub p50: f64,
    /// 90 % were faster.
    pub p90: f64,
    /// 99 % were faster.
    pub p99: f64,
    /// 99.9 % were faster.
    pub p999: f64,
    /// The slowest.
    pub max: f64,
}

impl Latency {
    /// Creates an empty distribution.
    #[expect(clippy::expect_used, reason = "the bounds are constants")]
    pub fn new() -> Self {
        Self(
            Histogram::new_with_bounds(1, micros(LONGEST), DIGITS).expect("bounds that a histogram can have"),
        )
    }

    /// Adds one duration.
    pub fn record(&mut self, duration: Duration) {
        self.0.saturating_record(micros(duration).max(1));
    }

    /// Adds another distribution, exactly.
    pub fn add(&mut self, other: &Self) {
        // It cannot fail: all have the same bounds, and counts are 64 bits.
        let _added = self.0.add(&other.0);
    }

    /// Removes all durations.
    pub fn clear(&mut self) {
        self.0.reset();
    }

    /// Returns the number of durations.
    pub fn count(&self) -> u64 {
        self.0.len()
    }

    /// Returns the duration that this share of them did not exceed.
    pub fn quantile(&self, share: f64) -> Duration {
        Duration::from_micros(self.0.value_at_quantile(share).min(self.0.max()))
    }

    /// Returns the percentiles.
    pub fn percentiles(&self) -> Percentiles {
        let millis = |share: f64| self.quantile(share).as_micros() as f64 / 1000.0;
        Percentiles {
            count: self.count(),
            mean: if self.0.is_empty() { 0.0 } else { self.0.mean() / 1000.0 },
            p50: millis(0.5),
            p90: millis(0.9),
            p99: millis(0.99),
            p999: millis(0.999),
            max: self.0.max() as f64 / 1000.0,
        }
    }
}

impl Default for Latency {
    fn default() -> Self {
        Self::new()
    }
}

impl PartialEq for Latency {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}

/// As base64 of the HdrHistogram V2 format, which other tools can read.
impl Serialize for Latency {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut bytes = Vec::new();
        V2Serializer::new().serialize(&self.0, &mut bytes).map_err(S::Error::custom)?;
        serializer.serialize_str(&STANDARD.encode(bytes))
    }
}

impl<'de> Deserialize<'de> for Latency {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let bytes = STANDARD.decode(String::deserialize(deserializer)?).map_err(D::Error::custom)?;
        let read: Histogram<u64> = Deserializer::new()
            .deserialize(&mut bytes.as_slice())
            .map_err(|error| D::Error::custom(format!("{error:?}")))?;
        let mut latency = Self::new();
        latency.0.add(&read).map_err(|error| D::Error::custom(format!("{error:?}")))?;
        Ok(latency)
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_two_measured_is_what_one_would_have(values in proptest::collection::vec(0_u64..4_000_000_000, 0..200)) {
            let (mut one, mut halves) = (Latency::new(), [Latency::new(), Latency::new()]);
            for (number, micros) in values.iter().enumerate() {
                one.record(Duration::from_micros(*micros));
                halves[number % 2].record(Duration::from_micros(*micros));
            }
            let mut sum = Latency::new();
            for half in &halves {
                let text = serde_json::to_string(half).unwrap();
                sum.add(&serde_json::from_str(&text).unwrap());
            }
            prop_assert!(sum == one);
            prop_assert_eq!(sum.percentiles(), one.percentiles());
        }
    }

    #[test]
    fn percentiles_are_of_the_durations() {
        let mut latency = Latency::new();
        assert_eq!(latency.percentiles(), Percentiles::default());
        for millis in 1..=1000 {
            latency.record(Duration::from_millis(millis));
        }
        let found = latency.percentiles();
        assert_eq!(found.count, 1000);
        for (found, wanted) in
            [(found.p50, 500.0), (found.p99, 990.0), (found.p999, 999.0), (found.max, 1000.0)]
        {
            assert!((found - wanted).abs() <= wanted / 900.0, "{found} instead of {wanted}");
        }
    }

    #[test]
    fn what_is_longer_than_the_longest_counts_as_that() {
        let mut latency = Latency::new();
        latency.record(Duration::from_secs(100_000));
        assert!(latency.percentiles().max >= 3_599_000.0);
        assert!(serde_json::from_str::<Latency>("\"bm9uc2Vuc2U=\"").is_err());
    }
}
