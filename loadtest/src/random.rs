//! Pseudo-random numbers that are the same in every run with the same seed (splitmix64).
//!
//! Owns its state alone. Not for secrets: it decides when stations send, not what must not be guessed.

use std::time::Duration;

/// A sequence of numbers, determined by its seed.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// Starts the sequence of this seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Returns the next number of the sequence.
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// Returns a number from 0 up to, not including, 1.
    pub fn unit(&mut self) -> f64 {
        // 53 bits are what an f64 holds exactly.
        (self.next_u64() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// Returns a number from 0 up to, not including, `limit`; 0 if that is 0.
    pub fn below(&mut self, limit: u32) -> u32 {
        u32::try_from(((self.next_u64() >> 32) * u64::from(limit)) >> 32).unwrap_or_default()
    }

    /// Returns a duration between zero and `limit`.
    pub fn up_to(&mut self, limit: Duration) -> Duration {
        limit.mul_f64(self.unit())
    }

    /// Returns a duration between half of `mean` and one and a half times it: `mean` on average.
    pub fn around(&mut self, mean: Duration) -> Duration {
        mean.mul_f64(0.5 + self.unit())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mean_of_what_is_around_is_the_mean() {
        let mut random = Random::new(7);
        let mean = Duration::from_secs(10);
        let sum: Duration = (0..10_000).map(|_| random.around(mean)).sum();
        let found = sum.as_secs_f64() / 10_000.0;
        assert!((9.9..10.1).contains(&found), "{found}");
    }

    #[test]
    fn below_reaches_every_number_and_no_more() {
        let mut random = Random::new(1);
        let mut seen = [0_u32; 7];
        for _ in 0..7000 {
            seen[random.below(7) as usize] += 1;
        }
        assert!(seen.iter().all(|count| (800..1200).contains(count)), "{seen:?}");
        assert_eq!(random.below(0), 0);
    }
}
