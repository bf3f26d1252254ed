//! Options of authentication.

use std::path::PathBuf;
use std::time::Duration;

use ocpp_options::{DurationText, Problems};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Who may connect to a listener with `auth = "basic"`.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(default)]
pub struct CredentialsOptions {
    /// The credentials: one `identity:hash` a line, `#` for comments. `ocpp-gateway hash-password` makes the hashes.
    pub file: PathBuf,
    /// How often the file is checked for a change. A changed file takes effect without a restart; one with an error is reported
    /// and not used.
    #[serde(with = "DurationText")]
    #[schemars(extend("x-tuning" = true))]
    pub reload_interval: Duration,
    /// Answer 401 instead of 404 to an unknown identity, so that nobody can find out which identities exist.
    pub hide_unknown_stations: bool,
    /// Threads that may compute slow hashes (Argon2id) at the same time. See `docs/adr/0004-passwords.md`.
    #[schemars(extend("x-tuning" = true))]
    pub slow_hash_threads: usize,
}

impl Default for CredentialsOptions {
    fn default() -> Self {
        Self {
            file: PathBuf::new(),
            reload_interval: Duration::from_secs(2),
            hide_unknown_stations: false,
            slow_hash_threads: 1,
        }
    }
}

impl CredentialsOptions {
    /// What is wrong with these values.
    pub fn check(&self, problems: &mut Problems) {
        problems.demand_count("credentials.slow_hash_threads", self.slow_hash_threads);
        problems.demand_positive("credentials.reload_interval", self.reload_interval);
    }
}
