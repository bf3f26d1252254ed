//! What is counted about commands: how they ended, and how many are queued and remembered.

use ocpp_bus::Registrar;
use ocpp_station::Status;
use prometheus::{IntCounterVec, IntGauge};

/// The metrics of commands.
#[derive(Debug)]
pub struct CommandMetrics {
    ended: IntCounterVec,
    queued: IntGauge,
    remembered: IntGauge,
}

impl CommandMetrics {
    /// Registers them. The series of every status starts at zero.
    ///
    /// # Errors
    /// If one of the names is taken.
    pub fn register(registrar: &Registrar) -> Result<Self, prometheus::Error> {
        let ended = registrar.counters("commands_total", "Commands, by status", &["status"])?;
        for status in Status::ALL {
            ended.with_label_values(&[status.as_str()]).reset();
        }
        Ok(Self {
            ended,
            queued: registrar.gauge("commands_kept", "Commands kept for stations that are away")?,
            remembered: registrar.gauge(
                "commands_remembered",
                "Ended commands whose outcome is remembered, so that a repeated one is not sent again",
            )?,
        })
    }

    /// A command ended.
    pub fn command_ended(&self, status: Status) {
        self.ended.with_label_values(&[status.as_str()]).inc();
    }

    /// This many commands are queued for stations that are away, and this many ended ones are remembered.
    pub fn commands_known(&self, queued: usize, remembered: usize) {
        self.queued.set(i64::try_from(queued).unwrap_or(i64::MAX));
        self.remembered.set(i64::try_from(remembered).unwrap_or(i64::MAX));
    }
}
