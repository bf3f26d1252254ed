//! The configuration: every feature's options as one tree, read from their sources and checked.
//!
//! Owns the order of sources (built-in default, TOML file, environment, `--set`), the names of the sections, and the checks that
//! concern more than one of them. A section's keys, defaults and own checks belong to its feature. The only part that reads the
//! environment. Opens nothing: that a file exists or a port is free shows when `app.rs` builds the parts. Only the composition
//! root uses this module.

mod unknown;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use ocpp_options::Problems;
use schemars::{JsonSchema, Schema, generate::SchemaSettings};
use serde::{Deserialize, Serialize};

use crate::auth::options::CredentialsOptions;
use crate::backend::options::{ActionOptions, AnswersOptions, HookOptions};
use crate::bus_options::{BusKind, BusOptions, TopicOptions};
use crate::command_options::CommandOptions;
use crate::driver::options::{RegistrationOptions, SessionOptions, ValidationOptions};
use crate::http::options::AdminOptions;
use crate::listener::options::{AuthMode, HandshakeOptions, ListenerOptions};
use crate::node::{NodeOptions, ShutdownOptions};
use crate::settings::options::RulesOptions;
use crate::spans::options::TelemetryOptions;
use crate::telemetry::LogOptions;
use crate::twins::TwinOptions;

/// The environment prefix: `OCPP_GATEWAY__SECTION__KEY`.
const ENVIRONMENT_PREFIX: &str = "OCPP_GATEWAY";

/// The action whose table stands for that of every action in the tree of known keys.
const EXAMPLE_ACTION: &str = "Authorize";

/// Why a configuration cannot be used. One line, for people.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read or is not TOML, or a value has the wrong type.
    #[error("configuration{}: {message}", origin(.file))]
    Unreadable {
        /// The file, if there is one.
        file: Option<PathBuf>,
        /// What is wrong, with the key.
        message: String,
    },
    /// A key that nothing reads.
    #[error("configuration{}: unknown key `{key}`{}", origin(.file), suggestion(.nearest))]
    UnknownKey {
        /// The file, if there is one.
        file: Option<PathBuf>,
        /// The key, as a dotted path.
        key: String,
        /// The nearest key that exists.
        nearest: Option<String>,
    },
    /// Values that make no sense together.
    #[error("configuration{}: {}", origin(.file), .problems.join("; "))]
    Senseless {
        /// The file, if there is one.
        file: Option<PathBuf>,
        /// Everything that is wrong.
        problems: Vec<String>,
    },
}

fn origin(file: &Option<PathBuf>) -> String {
    file.as_ref().map_or_else(String::new, |file| format!(" {}", file.display()))
}

fn suggestion(nearest: &Option<String>) -> String {
    nearest.as_ref().map_or_else(String::new, |nearest| format!("; did you mean `{nearest}`?"))
}

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
    /// One line that says what is wrong and where.
    pub fn load(file: Option<&Path>, overrides: &[(String, String)]) -> Result<Self, ConfigError> {
        let origin = file.map(Path::to_path_buf);
        let unreadable = |error: config::ConfigError| ConfigError::Unreadable {
            file: origin.clone(),
            message: error.to_string().replace('\n', " "),
        };
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
            builder = builder.set_override(key, value.as_str()).map_err(unreadable)?;
        }
        let merged = builder.build().map_err(unreadable)?;
        let tree: serde_json::Value = merged.clone().try_deserialize().map_err(unreadable)?;
        if let Some((key, nearest)) = unknown::first_unknown(&tree, &Self::key_tree()) {
            return Err(ConfigError::UnknownKey { file: origin, key, nearest });
        }
        let config: Self = merged.try_deserialize().map_err(unreadable)?;
        let problems = config.problems();
        if problems.is_empty() { Ok(config) } else { Err(ConfigError::Senseless { file: origin, problems }) }
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
            if listener.address.port() != 0
                && let Some((other, _)) = addresses.iter().find(|(_, address)| *address == listener.address)
            {
                problems.demand(false, format!("{key} and {other} are the same"));
            }
            addresses.push((key, listener.address));
        }
    }
}

#[cfg(test)]
mod tests;
