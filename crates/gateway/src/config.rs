//! The configuration: every feature's options as one tree, read from their sources and checked.
//!
//! Owns the order of sources (built-in default, TOML file, environment, `--set`), the names of the sections, and the checks that
//! concern more than one of them. A section's keys, defaults and own checks belong to its feature. The only part that reads the
//! environment. Opens nothing: whether a file exists or an address can be had is a matter of `app/preflight.rs`, and of the start. Only
//! the composition root uses this module.

mod unknown;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use ocpp_options::Problems;
use schemars::{JsonSchema, Schema, generate::SchemaSettings};
use serde::{Deserialize, Serialize};

use crate::auth::options::CredentialsOptions;
use crate::backend::options::{ActionOptions, AnswersOptions, HookOptions};
use crate::bus_options::{BusKind, BusOptions, TopicOptions};
use crate::command_options::CommandOptions;
use crate::driver::options::{RegistrationOptions, SessionOptions};
use crate::http::options::AdminOptions;
use crate::listener::options::{AuthMode, HandshakeOptions, ListenerOptions};
use crate::node::{NodeOptions, ShutdownOptions};
use crate::settings::options::RulesOptions;
use crate::spans::options::TelemetryOptions;
use crate::telemetry::LogOptions;
use crate::twins::TwinOptions;
use crate::validation::ValidationOptions;

/// The environment prefix: `OCPP_GATEWAY__SECTION__KEY`.
const ENVIRONMENT_PREFIX: &str = "OCPP_GATEWAY";

/// The action whose table stands for that of every action in the tree of known keys.
const EXAMPLE_ACTION: &str = "Authorize";

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{}", .0.join("; "))]
pub struct ConfigError(
    /// Everything that is wrong: a line each, for people.
    pub Vec<String>,
);

/// Everything that can be configured. Durations are written `10s`, `5m`, `1h 30m`; sizes `64MiB`, `2MB`.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(default)]
pub struct Config {
    /// The node's name, folder and threads.
    pub node: NodeOptions,
    /// Where stations connect; by name.
    #[serde(default = "default_listeners")]
    pub listeners: BTreeMap<String, ListenerOptions>,
    /// The time before a connection is a session.
    pub handshake: HandshakeOptions,
    /// Who may connect.
    pub credentials: CredentialsOptions,
    /// The limits and times of a station's connection.
    pub session: SessionOptions,
    /// How a BootNotification is answered.
    pub registration: RegistrationOptions,
    /// Who answers the CALLs of stations.
    pub answers: AnswersOptions,
    /// How a backend's URLs are asked.
    pub hooks: HookOptions,
    /// Whether payloads are validated.
    pub validation: ValidationOptions,
    /// Two devices under one identity.
    pub twins: TwinOptions,
    /// What holds for some stations only.
    pub rules: RulesOptions,
    /// How long commands may take, and how many are kept.
    pub commands: CommandOptions,
    /// Where events are stored.
    pub bus: BusOptions,
    /// The Kafka topics.
    pub topics: TopicOptions,
    /// The operators' listener.
    pub admin: AdminOptions,
    /// What is logged, and how a line looks.
    pub log: LogOptions,
    /// Which traces are recorded, and where spans are exported.
    pub telemetry: TelemetryOptions,
    /// How the gateway shuts down.
    pub shutdown: ShutdownOptions,
}

fn default_listeners() -> BTreeMap<String, ListenerOptions> {
    BTreeMap::from([("main".to_owned(), ListenerOptions::default())])
}

impl Config {
    /// Reads, merges and checks: built-in defaults, then the file, then the environment, then `key=value` overrides.
    ///
    /// # Errors
    /// Everything that is wrong. What values mean together is checked once each of them can be read.
    pub fn load(file: Option<&Path>, overrides: &[(String, String)]) -> Result<Self, ConfigError> {
        let origin = file.map_or_else(String::new, |file| format!(" {}", file.display()));
        Self::read(file, overrides).map_err(|problems| {
            ConfigError(problems.iter().map(|problem| format!("configuration{origin}: {problem}")).collect())
        })
    }

    fn read(file: Option<&Path>, overrides: &[(String, String)]) -> Result<Self, Vec<String>> {
        let mut builder = config::Config::builder();
        if let Some(file) = file {
            builder = builder.add_source(config::File::from(file).format(config::FileFormat::Toml));
        }
        builder = builder.add_source(
            config::Environment::with_prefix(ENVIRONMENT_PREFIX)
                .prefix_separator("__")
                .separator("__")
                .ignore_empty(true)
                .try_parsing(true),
        );
        for (key, value) in overrides {
            builder = builder.set_override(key, value.as_str()).map_err(|error| vec![line(&error)])?;
        }
        let merged = builder.build().map_err(|error| vec![line(&error)])?;
        let tree: serde_json::Value = merged.clone().try_deserialize().map_err(|error| vec![line(&error)])?;
        let known = Self::key_tree();
        let mut problems: Vec<_> =
            unknown::keys(&tree, &known).into_iter().chain(unknown::variables(&tree, &known)).collect();
        match merged.try_deserialize::<Self>() {
            Ok(config) => {
                problems.extend(config.problems());
                if problems.is_empty() { Ok(config) } else { Err(problems) }
            }
            Err(error) => {
                problems.extend(unreadable_values(tree, error));
                Err(problems)
            }
        }
    }

    /// Every key with its default: what is not in it is unknown. Has the listener `main` and the table of one action.
    pub fn example() -> Self {
        let mut example = Self { listeners: default_listeners(), ..Self::default() };
        example.answers.actions.insert(EXAMPLE_ACTION.to_owned(), ActionOptions::default());
        example
    }

    /// What the keys mean, as a JSON schema. The documentation is generated from it.
    pub fn schema() -> Schema {
        SchemaSettings::default().into_generator().into_root_schema_for::<Self>()
    }

    /// The folder of the local event log.
    pub fn events_dir(&self) -> PathBuf {
        let configured = &self.bus.local.dir;
        if configured.as_os_str().is_empty() { self.node.events_dir() } else { configured.clone() }
    }

    fn key_tree() -> serde_json::Value {
        // Serializing plain structs to a tree cannot fail; an empty tree would make every key unknown, which shows.
        serde_json::to_value(Self::example()).unwrap_or_default()
    }

    /// Everything that is wrong, one line each.
    fn problems(&self) -> Vec<String> {
        let mut problems = Problems::default();
        let max_event_bytes = self.session.max_event_bytes();
        self.node.check(&mut problems);
        self.check_listeners(&mut problems);
        self.handshake.check(&mut problems);
        self.credentials.check(&mut problems);
        self.session.check(&mut problems);
        self.registration.check(&mut problems);
        self.validation.check(&mut problems);
        self.answers.check(&mut problems);
        self.hooks.check(&mut problems);
        self.twins.check(&mut problems);
        self.rules.check(&mut problems);
        self.commands.check(&mut problems);
        problems.demand(
            !self.commands.consumer_group.is_empty() || self.topics.commands.is_empty(),
            "commands.consumer_group must not be empty while topics.commands is read",
        );
        self.bus.check(self.session.max_message_size.as_u64(), max_event_bytes as u64, &mut problems);
        self.admin.check(&mut problems);
        self.log.check(&mut problems);
        self.telemetry.check(&mut problems);
        self.shutdown.check(&mut problems);
        if self.bus.kind == BusKind::Kafka
            && let Err(error) = self.bus.kafka(&self.node, &self.topics, max_event_bytes).check()
        {
            problems.demand(false, format!("bus.kafka: {error}"));
        }
        problems.into_vec()
    }

    fn check_listeners(&self, problems: &mut Problems) {
        problems.demand(!self.listeners.is_empty(), "listeners: at least one is needed");
        let mut addresses = vec![("admin.address".to_owned(), self.admin.address)];
        for (name, listener) in &self.listeners {
            listener.check(name, problems);
            problems.demand(
                listener.auth == AuthMode::Open || !self.credentials.file.as_os_str().is_empty(),
                format!("listeners.{name}.auth = \"basic\" needs credentials.file"),
            );
            let key = format!("listeners.{name}.address");
            if let Some((other, _)) =
                addresses.iter().find(|(_, address)| overlap(*address, listener.address))
            {
                problems.demand(false, format!("{key} and {other} are the same, or one includes the other"));
            }
            addresses.push((key, listener.address));
        }
    }
}

/// Whether only one of two addresses can be listened on. `[::]` includes the addresses of IPv4.
fn overlap(one: SocketAddr, other: SocketAddr) -> bool {
    let includes = |one: IpAddr, other: IpAddr| one.is_unspecified() && (one.is_ipv6() || other.is_ipv4());
    let (ip, other_ip) = (one.ip(), other.ip());
    one.port() != 0
        && one.port() == other.port()
        && (ip == other_ip || includes(ip, other_ip) || includes(other_ip, ip))
}

fn line(error: &config::ConfigError) -> String {
    error.to_string().replace('\n', " ")
}

/// Every value that cannot be read, and the first one's error: each is taken out in its turn, to find the next.
fn unreadable_values(mut tree: serde_json::Value, first: config::ConfigError) -> Vec<String> {
    let mut problems = Vec::new();
    let mut next = Some(first);
    while let Some(error) = next {
        problems.push(line(&error));
        let is_taken_out = match &error {
            config::ConfigError::At { key: Some(key), .. }
            | config::ConfigError::Type { key: Some(key), .. } => take_out(&mut tree, key),
            _ => false,
        };
        next = is_taken_out
            .then(|| {
                config::Config::try_from(&tree).and_then(config::Config::try_deserialize::<Config>).err()
            })
            .flatten();
    }
    problems
}

fn take_out(tree: &mut serde_json::Value, path: &str) -> bool {
    let (parent, key) = path.rsplit_once('.').map_or(("", path), |(parent, key)| (parent, key));
    let parent =
        parent.split('.').filter(|part| !part.is_empty()).try_fold(tree, |tree, part| tree.get_mut(part));
    parent.and_then(serde_json::Value::as_object_mut).is_some_and(|parent| parent.remove(key).is_some())
}

#[cfg(test)]
mod tests;
