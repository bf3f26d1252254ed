//! Options of a listener, and of the time before a connection is a session.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ocpp_options::{DurationText, Problems, address, word, words};
use ocpp_protocol::Version;
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};

use crate::settings::overrides::Subprotocols;

/// Where stations connect. Several listeners may have different rules: each has a name of its own. Naming any replaces the
/// built-in `main`.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(default)]
pub struct ListenerOptions {
    /// Address and port.
    #[serde(deserialize_with = "address")]
    pub address: SocketAddr,
    /// What precedes the identity in the path: `ws://HOST:9000/ocpp/{identity}`. May be empty.
    pub path_prefix: String,
    /// The OCPP versions enabled here. The station's order of preference decides which one is used, not this order. In the
    /// environment: separated by commas.
    #[schemars(with = "Vec<String>")]
    pub subprotocols: Subprotocols,
    /// Who may connect.
    #[serde(deserialize_with = "word")]
    pub auth: AuthMode,
    /// Accept what real stations get wrong: no subprotocol header (counts as OCPP 1.6), a subprotocol in another case, empty path
    /// segments, binary messages that hold text, a malformed `Sec-WebSocket-Extensions` header. Each is counted in
    /// `ocpp_gateway_leniencies_total`, and logged with the station at `debug`.
    pub lenient: bool,
    /// Groups that stations of this listener belong to from their first connection, beside those set through the API; for
    /// commands to many stations.
    #[serde(deserialize_with = "tags")]
    pub tags: Arc<BTreeSet<String>>,
}

impl Default for ListenerOptions {
    fn default() -> Self {
        Self {
            address: SocketAddr::from(([0, 0, 0, 0], 9000)),
            path_prefix: "/ocpp".into(),
            subprotocols: Subprotocols(vec![Version::V21, Version::V201, Version::V16]),
            auth: AuthMode::Open,
            lenient: false,
            tags: Arc::default(),
        }
    }
}

impl ListenerOptions {
    /// What is wrong with the listener of this name.
    pub fn check(&self, name: &str, problems: &mut Problems) {
        problems.demand(
            !self.subprotocols.0.is_empty(),
            format!("listeners.{name}.subprotocols must not be empty"),
        );
        if let Err(error) = crate::stations::check_tags(&self.tags) {
            problems.demand(false, format!("listeners.{name}.tags: {error}"));
        }
        let prefix = &self.path_prefix;
        problems.demand(
            prefix.is_empty() || (prefix.starts_with('/') && !prefix.ends_with('/')),
            format!("listeners.{name}.path_prefix must start with / and not end with it"),
        );
    }
}

/// How a listener authenticates stations.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum AuthMode {
    /// any client is admitted under any identity; for development, and a warning at start says so
    Open,
    /// HTTP Basic (security profile 1) against `credentials.file`; the user must be the identity
    Basic,
}

fn tags<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Arc<BTreeSet<String>>, D::Error> {
    words(deserializer).map(|words| Arc::new(words.into_iter().collect()))
}

/// The time before a connection is a session. Every limit is for each listener.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(default)]
pub struct HandshakeOptions {
    /// Connections that are not sessions yet. Until its whole request has arrived, such a connection takes a file descriptor and
    /// about 1.7 KiB. Further connections wait in the kernel's backlog.
    #[schemars(extend("x-tuning" = true))]
    pub max_arriving: usize,
    /// Requests being answered at once; each takes up to 20 KiB. Further ones are answered in the order of their arrival.
    #[schemars(extend("x-tuning" = true))]
    pub max_concurrent: usize,
    /// How long a handshake may take.
    #[serde(with = "DurationText")]
    #[schemars(extend("x-tuning" = true))]
    pub timeout: Duration,
    /// When `max_arriving` is reached, or the process has no file descriptor left, connections of this age whose request is
    /// incomplete are dropped, oldest first, so that half-open connections cannot keep stations out.
    #[serde(with = "DurationText")]
    #[schemars(extend("x-tuning" = true))]
    pub yield_after: Duration,
    /// Connections that the kernel keeps until they are accepted. Linux caps it at `net.core.somaxconn`.
    #[schemars(extend("x-tuning" = true))]
    pub backlog: i32,
    /// Refused handshakes that become `ocpp.station.rejected` events. The others are only counted, so that strangers cannot fill
    /// the log.
    #[schemars(extend("x-tuning" = true))]
    pub rejected_events_per_second: u32,
}

impl Default for HandshakeOptions {
    fn default() -> Self {
        Self {
            max_arriving: 32_768,
            max_concurrent: 256,
            timeout: Duration::from_secs(10),
            yield_after: Duration::from_secs(1),
            backlog: 4096,
            rejected_events_per_second: 100,
        }
    }
}

impl HandshakeOptions {
    /// What is wrong with these values.
    pub fn check(&self, problems: &mut Problems) {
        problems.demand_count("handshake.max_arriving", self.max_arriving);
        problems.demand_count("handshake.max_concurrent", self.max_concurrent);
        problems.demand_positive("handshake.timeout", self.timeout);
        problems.demand(self.backlog > 0, "handshake.backlog must be positive");
    }
}
