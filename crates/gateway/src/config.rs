//! The configuration: what the operator may set, its defaults, and whether it makes sense.
//!
//! Owns the order of sources (built-in default, TOML file, environment, `--set`) and what follows from the values; the keys
//! are in `config/keys.rs`, the checks in `config/checks.rs`. The only part that reads the environment. Does not open
//! anything: that a file exists or a port is free shows when `app.rs` builds the parts. Every key is documented in
//! `docs/configuration.md`; a test compares.

mod answers;
mod checks;
mod keys;
mod units;
mod unknown;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use ocpp_bus::kafka::consumer::ConsumerOptions;
use ocpp_station::envelope::CONTENT_TYPE;

use crate::command::request::RequestLimits;
use crate::kinds;

pub use answers::{ActionAnswer, AnsweredBy, Answers, Authorization, Fallback, Hooks, hook_target};
pub use keys::*;
pub use units::{DottedOptions, Subprotocols};

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

    /// Every key with its default, as a tree; what is not in it is unknown.
    pub fn key_tree() -> serde_json::Value {
        let mut defaults = Self { listeners: default_listeners(), ..Self::default() };
        defaults.answers.actions.insert(EXAMPLE_ACTION.to_owned(), ActionAnswer::default());
        // Serializing plain structs to a tree cannot fail; an empty tree would make every key unknown, which shows.
        serde_json::to_value(defaults).unwrap_or_default()
    }

    /// Folder of the local event log.
    pub fn events_dir(&self) -> PathBuf {
        if self.bus.local.dir.as_os_str().is_empty() {
            self.node.data_dir.join("events")
        } else {
            self.bus.local.dir.clone()
        }
    }

    /// Folder of the stations' state.
    pub fn stations_dir(&self) -> PathBuf {
        self.node.data_dir.join("stations")
    }

    /// Folder of the book of commands.
    pub fn commands_dir(&self) -> PathBuf {
        self.node.data_dir.join("commands")
    }

    /// The rules that sessions keep.
    pub fn session_options(&self) -> ocpp_station::Options {
        let session = &self.session;
        ocpp_station::Options {
            max_unacknowledged: session.max_unacknowledged,
            ping_interval: session.ping_interval,
            idle_timeout: session.idle_timeout,
            write_timeout: session.write_timeout,
            close_timeout: session.close_timeout,
            hold_limit: self.bus.hold_limit,
            grace: self.commands.grace,
            before_boot: match self.registration.before_boot {
                BeforeBoot::Refuse => ocpp_station::options::BeforeBoot::Refuse,
                BeforeBoot::Accept => ocpp_station::options::BeforeBoot::Accept,
            },
            boot_interval: self.registration.interval,
            authorization: self.answers.authorization.as_str(),
            validation: match self.validation.mode {
                ValidationMode::Off => ocpp_station::options::ValidationMode::Off,
                ValidationMode::Warn => ocpp_station::options::ValidationMode::Warn,
                ValidationMode::Enforce => ocpp_station::options::ValidationMode::Enforce,
            },
        }
    }

    /// What a command may hold.
    pub fn request_limits(&self) -> RequestLimits {
        RequestLimits {
            commands: self.commands.clone(),
            max_payload_bytes: self.session.max_message_size.as_u64(),
        }
    }

    /// Where commands come from; nowhere on the local bus.
    pub fn intake_options(&self) -> Option<ConsumerOptions> {
        let is_read = self.bus.kind == BusKind::Kafka && !self.topics.commands.is_empty();
        is_read.then(|| ConsumerOptions {
            topic: self.topics.commands.clone(),
            group: self.commands.consumer_group.clone(),
            most_open: self.commands.max_in_flight,
            // What a crash brings again must still be known.
            widest: (self.commands.remembered / 2).max(1),
            max_value_bytes: self.max_event_bytes(),
        })
    }

    /// Folder of the events that storage can never take.
    pub fn dead_letter_dir(&self) -> PathBuf {
        self.node.data_dir.join("undelivered")
    }

    /// The largest event: a message with its envelope, or the raw text of a malformed one.
    pub fn max_event_bytes(&self) -> usize {
        usize::try_from(self.session.max_message_size.as_u64())
            .unwrap_or(usize::MAX)
            .saturating_add(64 * 1024)
    }

    fn spool_options(&self) -> Option<ocpp_bus::spool::SpoolOptions> {
        let spool = &self.bus.spool;
        (!spool.dir.as_os_str().is_empty()).then(|| ocpp_bus::spool::SpoolOptions {
            dir: spool.dir.clone(),
            max_bytes: spool.max_size.as_u64(),
            max_age: spool.max_age,
            alarm_level: spool.alarm_level,
            max_record_bytes: u32::try_from(self.max_event_bytes()).unwrap_or(u32::MAX),
            after: spool.after,
        })
    }

    /// What the Kafka bus needs to know.
    pub fn kafka_options(&self) -> ocpp_bus::kafka::KafkaOptions {
        let kafka = &self.bus.kafka;
        ocpp_bus::kafka::KafkaOptions {
            brokers: kafka.brokers.clone(),
            client_id: format!("ocpp-gateway-{}", self.node.id),
            compression: kafka.compression.clone(),
            linger: kafka.linger,
            unready_after: kafka.unready_after,
            max_record_bytes: self.max_event_bytes(),
            topics: ocpp_bus::kafka::Topics {
                default: self.topics.events.clone(),
                of_kind: BTreeMap::from([(kinds::COMMAND_RESULT, self.topics.command_results.clone())]),
            },
            content_type: CONTENT_TYPE,
            dead_letter_dir: self.dead_letter_dir(),
            spool: self.spool_options(),
            extra: kafka.options.0.clone(),
        }
    }
}

#[cfg(test)]
mod tests;
