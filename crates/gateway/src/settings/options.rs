//! Options of the rules file.

use std::path::PathBuf;
use std::time::Duration;

use ocpp_options::{DurationText, Problems};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Settings that hold for some stations only: by listener, by tag, by identity. They can be set for one station through
/// `PUT /api/v1/stations/{id}/settings`, too. See [operations.md](operations.md#settings-for-some-stations).
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(default)]
pub struct RulesOptions {
    /// The rules file, in TOML. None if empty.
    pub file: PathBuf,
    /// How often the file is checked for a change. Changed rules take effect without a restart, also for stations that are
    /// connected; a file with an error is reported and not used.
    #[serde(with = "DurationText")]
    #[schemars(extend("x-tuning" = true))]
    pub reload_interval: Duration,
}

impl Default for RulesOptions {
    fn default() -> Self {
        Self { file: PathBuf::new(), reload_interval: Duration::from_secs(2) }
    }
}

impl RulesOptions {
    /// The rules file, if there is one.
    pub fn path(&self) -> Option<PathBuf> {
        (!self.file.as_os_str().is_empty()).then(|| self.file.clone())
    }

    /// What is wrong with these values.
    pub fn check(&self, problems: &mut Problems) {
        problems.demand_positive("rules.reload_interval", self.reload_interval);
    }
}
