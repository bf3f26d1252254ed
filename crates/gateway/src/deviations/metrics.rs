//! What is counted about the report of deviations itself.

use ocpp_bus::Registrar;
use prometheus::{IntCounter, IntGauge};

/// The metrics of the report.
#[derive(Debug)]
pub struct DeviationMetrics {
    listed: IntGauge,
    forgotten: IntCounter,
}

impl DeviationMetrics {
    /// Registers them.
    ///
    /// # Errors
    /// If one of the names is taken.
    pub fn register(registrar: &Registrar) -> Result<Self, prometheus::Error> {
        Ok(Self {
            listed: registrar.gauge("deviations_listed", "Rows in the report of deviations")?,
            forgotten: registrar.counter(
                "deviations_forgotten_total",
                "Rows that left the report of deviations for others because it was full",
            )?,
        })
    }

    pub(super) fn listed(&self, rows: usize) {
        self.listed.set(i64::try_from(rows).unwrap_or(i64::MAX));
    }

    pub(super) fn forgotten(&self) {
        self.forgotten.inc();
    }
}
