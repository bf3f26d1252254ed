//! The checks on a scenario's values, before anything is started.

use super::{Scenario, ScenarioError};

/// Limit on the connections of one worker: a process may open 20,000 files and needs some for itself.
const MOST_STATIONS_PER_WORKER: u32 = 18_000;
/// Limit on the number of workers: one byte of their source addresses tells them apart.
const MOST_WORKERS: u32 = 200;

impl Scenario {
    /// Checks the values; called again after some were overridden.
    ///
    /// # Errors
    /// On the first value that makes no sense.
    pub fn check(&self) -> Result<(), ScenarioError> {
        let wrong =
            |key: &'static str, problem: &str| Err(ScenarioError::Value { key, problem: problem.to_owned() });
        if self.name.is_empty() || self.name.contains(['/', '\0']) {
            return wrong("name", "it names files: not empty, and without a slash");
        }
        if !(1..=1_000_000).contains(&self.stations) {
            return wrong("stations", "1 to 1,000,000");
        }
        if self.targets.is_empty() || !self.targets.iter().all(|target| target.starts_with("ws://")) {
            return wrong("targets", "at least one, each ws://HOST:PORT/PATH");
        }
        if self.workers > MOST_WORKERS || self.stations.div_ceil(self.workers()) > MOST_STATIONS_PER_WORKER {
            return wrong("workers", "at most 200, and at most 18,000 stations each");
        }
        if self.prefix.is_empty()
            || !self.prefix.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
        {
            return wrong("prefix", "letters, digits and hyphens, at least one");
        }
        if self.versions.total() == 0 {
            return wrong("versions", "at least one share must not be 0");
        }
        if !(0.0..=1e7).contains(&self.traffic.messages_per_second) {
            return wrong("traffic.messages_per_second", "0 to 10,000,000");
        }
        if !(0.0..=1e4).contains(&self.commands.per_second) {
            return wrong("commands.per_second", "0 to 10,000");
        }
        if self.reconnect.first.is_zero() || self.reconnect.longest < self.reconnect.first {
            return wrong("reconnect.first", "longer than 0 and no longer than reconnect.longest");
        }
        if !(1..=100).contains(&self.traffic.connectors) {
            return wrong("traffic.connectors", "1 to 100");
        }
        if self.moments.iter().any(|moment| !(0.0..=1.0).contains(&moment.share)) {
            return wrong("moments.share", "0 to 1");
        }
        if u64::from(self.slow_readers.stations) + u64::from(self.chatty.stations) > u64::from(self.stations)
        {
            return wrong("slow_readers.stations", "with chatty.stations more than there are stations");
        }
        for group in [&self.slow_readers, &self.chatty] {
            if group.stations > 0 && (group.every.is_zero() || !(1..=1000).contains(&group.window)) {
                return wrong("chatty.every", "longer than 0, with a window of 1 to 1,000");
            }
        }
        Ok(())
    }
}
