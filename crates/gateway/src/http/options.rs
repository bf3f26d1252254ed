//! Options of the admin listener.

use std::net::SocketAddr;

use ocpp_options::{Problems, address};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The operators' listener: health, metrics, API. It has no authentication: keep it on an address that only operators reach.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(default)]
pub struct AdminOptions {
    /// Address and port. Must differ from every station listener's.
    #[serde(deserialize_with = "address")]
    pub address: SocketAddr,
    /// Connections at once, including those that follow events. As many again wait for their turn, and more are refused with 503;
    /// `/livez`, `/readyz`, `/health` and `/metrics` are answered in any case.
    #[schemars(extend("x-tuning" = true))]
    pub max_connections: usize,
}

impl Default for AdminOptions {
    fn default() -> Self {
        Self { address: SocketAddr::from(([127, 0, 0, 1], 9100)), max_connections: 256 }
    }
}

impl AdminOptions {
    /// What is wrong with these values.
    pub fn check(&self, problems: &mut Problems) {
        problems.demand_count("admin.max_connections", self.max_connections);
    }
}
