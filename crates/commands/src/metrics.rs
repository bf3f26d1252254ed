//! What is counted about commands: how they ended, what was wrong with them, and how many are queued and remembered.

use ocpp_bus::{ComputedGauge, Registrar};
use ocpp_protocol::Action;
use ocpp_station::Status;
use prometheus::IntCounterVec;

/// The metrics of commands.
#[derive(Debug)]
pub struct CommandMetrics {
    ended: IntCounterVec,
    violations: IntCounterVec,
    /// Commands queued for stations that are away.
    pub queued: ComputedGauge,
    /// Ended commands that are remembered.
    pub remembered: ComputedGauge,
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
            violations: registrar.counters(
                "command_violations_total",
                "Commands whose payload violates its schema, by action and error code",
                &["action", "code"],
            )?,
            queued: registrar.computed("commands_kept", "Commands kept for stations that are away")?,
            remembered: registrar.computed(
                "commands_remembered",
                "Ended commands whose outcome is remembered, so that a repeated one is not sent again",
            )?,
        })
    }

    /// A command ended.
    pub fn command_ended(&self, status: Status) {
        self.ended.with_label_values(&[status.as_str()]).inc();
    }

    /// A command's payload violates its schema; `code` is the error code for that.
    pub fn violation(&self, action: &Action, code: &str) {
        self.violations.with_label_values(&[action.name, code]).inc();
    }
}
