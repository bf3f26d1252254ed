//! Logs: where they go and how a line looks. Owns the subscriber; decides nothing about what is logged.

use std::io::IsTerminal;

use ocpp_options::{Problems, word};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tracing_subscriber::EnvFilter;

/// Logs, on the standard error stream.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(default)]
pub struct LogOptions {
    /// How a line looks.
    #[serde(deserialize_with = "word")]
    pub format: LogFormat,
    /// `error`, `warn`, `info`, `debug`, `trace`, or directives such as `info,ocpp_gateway::session=debug`. Nothing is logged for
    /// each message above `debug`.
    pub level: String,
}

impl Default for LogOptions {
    fn default() -> Self {
        Self { format: LogFormat::Human, level: "info".into() }
    }
}

impl LogOptions {
    /// What is wrong with these values.
    pub fn check(&self, problems: &mut Problems) {
        if let Err(error) = self.level.parse::<EnvFilter>() {
            problems.demand(false, format!("log.level: {error}"));
        }
    }
}

/// How a log line looks.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// text for people
    Human,
    /// one JSON object a line
    Json,
}

/// Starts logging to the standard error stream.
///
/// # Errors
/// When a subscriber is set already, or the level is no filter (which the configuration's checks rule out).
pub fn start(log: &LogOptions) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let filter: EnvFilter = log.level.parse()?;
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        // A log line that cannot be written must not end the thread that wrote it.
        .log_internal_errors(false);
    match log.format {
        LogFormat::Human => lines.with_ansi(std::io::stderr().is_terminal()).try_init(),
        LogFormat::Json => lines.json().flatten_event(true).try_init(),
    }
}
