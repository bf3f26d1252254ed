//! The list of what is wrong with the values of a configuration.

use std::time::Duration;

/// Collects every problem, so that all of them are told at once.
#[derive(Debug, Default)]
pub struct Problems(Vec<String>);

impl Problems {
    /// Adds this problem unless the condition holds.
    pub fn demand(&mut self, holds: bool, problem: impl Into<String>) {
        if !holds {
            self.0.push(problem.into());
        }
    }

    /// Demands that something countable is there, and not absurdly many times.
    pub fn demand_count(&mut self, key: &str, count: usize) {
        self.demand((1..=100_000_000).contains(&count), format!("{key} must be between 1 and 100 million"));
    }

    /// Demands a duration above zero.
    pub fn demand_positive(&mut self, key: &str, duration: Duration) {
        self.demand(!duration.is_zero(), format!("{key} must be positive"));
    }

    /// Demands a share between none and all.
    pub fn demand_share(&mut self, key: &str, share: f64) {
        self.demand((0.0..=1.0).contains(&share), format!("{key} must be between 0 and 1"));
    }

    /// Everything that was demanded and does not hold, in the order of the demands.
    pub fn into_vec(self) -> Vec<String> {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_problems_are_told_in_order_and_nothing_else() {
        let mut problems = Problems::default();
        problems.demand(true, "holds");
        problems.demand_count("a", 0);
        problems.demand_count("b", 1);
        problems.demand_positive("c", Duration::ZERO);
        problems.demand_share("d", f64::NAN);
        problems.demand(false, "e");
        assert_eq!(
            problems.into_vec(),
            ["a must be between 1 and 100 million", "c must be positive", "d must be between 0 and 1", "e"]
        );
    }
}
