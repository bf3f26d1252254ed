//! What is counted about credentials.

use ocpp_bus::Registrar;
use prometheus::IntCounterVec;

/// The metrics of the credentials file.
#[derive(Debug)]
pub struct CredentialMetrics {
    reloads: IntCounterVec,
}

impl CredentialMetrics {
    /// Registers them.
    ///
    /// # Errors
    /// If one of the names is taken.
    pub fn register(registrar: &Registrar) -> Result<Self, prometheus::Error> {
        let reloads = registrar.counters(
            "credential_reloads_total",
            "Times the credentials file was read again, by outcome",
            &["outcome"],
        )?;
        Ok(Self { reloads })
    }

    /// The changed file was read again: `loaded` or `failed`.
    pub fn reloaded(&self, outcome: &str) {
        self.reloads.with_label_values(&[outcome]).inc();
    }
}
