//! What is counted about the rules file.

use ocpp_bus::Registrar;
use prometheus::{IntCounterVec, IntGauge};

/// The metrics of the rules file.
#[derive(Debug)]
pub struct SettingsMetrics {
    reloads: IntCounterVec,
    rules: IntGauge,
}

impl SettingsMetrics {
    /// Registers them.
    ///
    /// # Errors
    /// If one of the names is taken.
    pub fn register(registrar: &Registrar) -> Result<Self, prometheus::Error> {
        let reloads = registrar.counters(
            "rules_reloads_total",
            "Times the rules file was read again, by outcome",
            &["outcome"],
        )?;
        let rules = registrar.gauge("rules", "Rules in force")?;
        Ok(Self { reloads, rules })
    }

    pub(super) fn reloaded(&self, outcome: &str) {
        self.reloads.with_label_values(&[outcome]).inc();
    }

    pub(super) fn in_force(&self, rules: usize) {
        self.rules.set(i64::try_from(rules).unwrap_or(i64::MAX));
    }
}
