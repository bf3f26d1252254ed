//! What a run does, as described by a TOML file.
//!
//! Owns every key of a scenario, its default and its checks. Every key has a default; an unknown one is an error.
//! A scenario says what stations do and what is expected of the gateway. Where the bus is read, and which processes are
//! watched, belongs to the command line.

pub mod builtin;
mod checks;
mod defaults;
pub mod units;

use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Stations of a worker by default: one core serves them at ten times the rate of the reference.
const STATIONS_PER_WORKER: u32 = 9_000;

/// A load test.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Scenario {
    /// Its name; by default that of the file without `.toml`.
    pub name: String,
    /// What it is for, for people.
    pub about: String,
    /// Number of stations.
    pub stations: u32,
    /// Where they connect: station n always to the n-th of them, modulo their number.
    pub targets: Vec<String>,
    /// How long CALLs are sent, from when the last station should have connected.
    #[serde(with = "units")]
    pub duration: Duration,
    /// How long answers are waited for at the end.
    #[serde(with = "units")]
    pub settle: Duration,
    /// Number of workers; 0: as many as the stations need.
    pub workers: u32,
    /// Prefix of every identity; the station's number follows.
    pub prefix: String,
    /// Which versions they speak.
    pub versions: Versions,
    /// How they connect.
    pub connect: Connect,
    /// How they reconnect.
    pub reconnect: Reconnect,
    /// What they send.
    pub traffic: Traffic,
    /// What happens to them at certain times.
    pub moments: Vec<Moment>,
    /// Stations that stop reading.
    pub slow_readers: Misbehaviour,
    /// Stations that flood.
    pub chatty: Misbehaviour,
    /// What they are sent.
    pub commands: Commands,
    /// What is expected.
    pub limits: Limits,
}

/// Shares of the stations, in relation to each other.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Versions {
    /// OCPP 1.6.
    #[serde(rename = "1.6")]
    pub v16: u32,
    /// OCPP 2.0.1.
    #[serde(rename = "2.0.1")]
    pub v201: u32,
    /// OCPP 2.1.
    #[serde(rename = "2.1")]
    pub v21: u32,
}

/// How stations connect.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Connect {
    /// The time over which first connections are spread; `0s`: all at once.
    #[serde(with = "units")]
    pub over: Duration,
    /// How long TCP and the handshake may take.
    #[serde(with = "units")]
    pub timeout: Duration,
}

/// The backoff before the next attempt, doubled each time, with a jitter of half to one and a half.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Reconnect {
    /// The first backoff.
    #[serde(with = "units")]
    pub first: Duration,
    /// The longest.
    #[serde(with = "units")]
    pub longest: Duration,
}

/// What stations send once they are registered.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Traffic {
    /// CALLs of all stations together, while all behave; 0: none.
    pub messages_per_second: f64,
    /// One CALL in this many is a Heartbeat; 0: none, unless there are no charging sessions.
    pub heartbeat_every: u32,
    /// MeterValues per charging session; 0: no sessions, only Heartbeats.
    pub meter_values_per_session: u32,
    /// Approximate bytes of their payload: samples are added until it is that long.
    pub meter_values_bytes: usize,
    /// Connectors of each station, each of which reports its status after a boot.
    pub connectors: u32,
    /// How often a station pings; `0s`: never.
    #[serde(with = "units")]
    pub ping_every: Duration,
}

/// Something that happens to all stations, or to a share of them.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Moment {
    /// When, counted from the start of the run.
    #[serde(with = "units")]
    pub at: Duration,
    /// What.
    pub what: MomentKind,
    /// The share of the stations it happens to, 0 to 1.
    #[serde(default = "all_stations")]
    pub share: f64,
    /// The time over which it is spread.
    #[serde(default, with = "units")]
    pub over: Duration,
    /// For a large message: the bytes of its payload.
    #[serde(default)]
    pub bytes: usize,
}

/// What can happen.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MomentKind {
    /// The connection is cut without a close frame, and reopened at once.
    Reconnect,
    /// A large DataTransfer is sent.
    LargeMessage,
}

/// A group of stations that misbehave.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Misbehaviour {
    /// How many of the stations.
    pub stations: u32,
    /// How long they behave, from the start of the run.
    #[serde(with = "units")]
    pub after: Duration,
    /// Time from one CALL of such a station to the next.
    #[serde(with = "units")]
    pub every: Duration,
    /// Limit on the open CALLs of a flooding station. Above the gateway's `session.remembered_calls`, a CALL that is sent
    /// again can become a second event.
    pub window: usize,
}

/// Commands that the coordinator sends through the gateways' admin listeners.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Commands {
    /// Commands per second, to well-behaved stations chosen at random; 0: none.
    pub per_second: f64,
}

/// What is expected. A missed limit fails the run; `send_lag_p99` makes it invalid.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// The least share of connection attempts that succeed, and of stations that are registered.
    pub connections: f64,
    /// The least share of CALLs of well-behaved stations that are answered with a CALLRESULT.
    pub answered: f64,
    /// Limit on connections of well-behaved stations that end without the scenario wanting it.
    pub disconnects: u64,
    /// The least share of commands that are answered.
    pub commands_answered: f64,
    /// Limit on the latency of well-behaved stations' CALLs, from when they were due to their answer.
    #[serde(with = "units::optional")]
    pub p99: Option<Duration>,
    /// Limit on how late the load test itself sends.
    #[serde(with = "units")]
    pub send_lag_p99: Duration,
}

/// Why a scenario cannot be used.
#[derive(Debug, Error)]
pub enum ScenarioError {
    /// Neither a readable file nor a built-in name.
    #[error("{name:?} is neither a readable file ({source}) nor one of {known}")]
    NotFound {
        /// The name or path that was given.
        name: String,
        /// The built-in names.
        known: String,
        /// Why the file cannot be read.
        source: std::io::Error,
    },
    /// Not TOML, or an unknown key.
    #[error("{0}")]
    Syntax(String),
    /// A value that makes no sense.
    #[error("{key}: {problem}")]
    Value {
        /// Which key.
        key: &'static str,
        /// What is wrong.
        problem: String,
    },
}

impl Scenario {
    /// Loads a file, or the built-in scenario of this name.
    ///
    /// # Errors
    /// When it cannot be read, or a value makes no sense.
    pub fn load(name: &str) -> Result<Self, ScenarioError> {
        if let Some(text) = builtin::find(name) {
            return Self::parse(name, text);
        }
        let text = std::fs::read_to_string(name).map_err(|source| ScenarioError::NotFound {
            name: name.to_owned(),
            known: builtin::SCENARIOS.iter().map(|known| known.0).collect::<Vec<_>>().join(", "),
            source,
        })?;
        let stem = Path::new(name).file_stem().map_or_else(|| name.into(), |stem| stem.to_string_lossy());
        Self::parse(&stem, &text)
    }

    /// Parses a scenario and checks its values.
    ///
    /// # Errors
    /// When the text is not a scenario, or a value makes no sense.
    pub fn parse(name: &str, text: &str) -> Result<Self, ScenarioError> {
        let mut scenario: Self =
            toml::from_str(text).map_err(|error| ScenarioError::Syntax(error.to_string()))?;
        if scenario.name.is_empty() {
            name.clone_into(&mut scenario.name);
        }
        scenario.check()?;
        Ok(scenario)
    }

    /// Returns the number of workers.
    pub fn workers(&self) -> u32 {
        if self.workers > 0 { self.workers } else { self.stations.div_ceil(STATIONS_PER_WORKER).max(1) }
    }

    /// Returns the time from the start of a run until no new CALLs are made.
    pub fn sending_time(&self) -> Duration {
        self.connect.over + self.duration
    }

    /// Returns how often everything is sampled: each second, or less often in a run of more than an hour.
    pub fn step(&self) -> Duration {
        const MOST_POINTS: u64 = 3600;
        Duration::from_secs(((self.sending_time() + self.settle).as_secs() / MOST_POINTS).max(1))
    }
}

impl Versions {
    /// Returns the sum of the shares.
    pub fn total(&self) -> u32 {
        self.v16.saturating_add(self.v201).saturating_add(self.v21)
    }
}

fn all_stations() -> f64 {
    1.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_scenario_can_be_used() {
        let scenario = Scenario::parse("empty", "").unwrap();
        assert_eq!(scenario.workers(), 1);
        assert_eq!(scenario.step(), Duration::from_secs(1));
    }

    #[test]
    fn mistakes_are_found_and_named() {
        for (text, named) in [
            ("station = 5", "station"),
            ("stations = 0", "stations"),
            ("name = '../x'", "name"),
            ("stations = 40000\nworkers = 2", "workers"),
            ("targets = ['http://x']", "targets"),
            ("[traffic]\nmessages_per_second = -1.0", "messages_per_second"),
            ("[[moments]]\nat = '1s'\nwhat = 'reconnect'\nshare = 2.0", "share"),
            ("[[moments]]\nat = '1s'\nwhat = 'nothing'", "nothing"),
            ("stations = 10\n[chatty]\nstations = 11", "chatty"),
            ("duration = '10 parsecs'", "parsecs"),
        ] {
            let error = Scenario::parse("wrong", text).unwrap_err().to_string();
            assert!(error.contains(named), "{text:?} gave {error:?}");
        }
    }

    #[test]
    fn a_plan_survives_its_way_to_a_worker() {
        let text =
            "stations = 7\n[limits]\np99 = '25ms'\n[[moments]]\nat = '5s'\nwhat = 'large-message'\nbytes = 9";
        let scenario = Scenario::parse("way", text).unwrap();
        let json = serde_json::to_string(&scenario).unwrap();
        let back: Scenario = serde_json::from_str(&json).unwrap();
        assert_eq!(back.name, "way");
        assert_eq!(back.limits.p99, scenario.limits.p99);
        assert_eq!(back.moments[0].at, scenario.moments[0].at);
        assert_eq!(back.stations, 7);
    }

    #[test]
    fn a_run_of_hours_is_looked_at_less_often() {
        let scenario = Scenario::parse("soak", "duration = '10h'").unwrap();
        assert_eq!(scenario.step(), Duration::from_secs(10));
    }

    #[test]
    fn the_manual_lists_every_key() {
        let manual = include_str!("../README.md");
        let scenario = serde_json::to_value(Scenario::default()).unwrap();
        for (key, value) in scenario.as_object().unwrap() {
            let keys: Vec<String> = match (key.as_str(), value.as_object()) {
                ("name", _) => continue,
                // Tables that have a line of their own.
                ("moments" | "versions" | "slow_readers" | "chatty", _) => vec![format!("[{key}]")],
                ("connect" | "reconnect", Some(table)) => {
                    table.keys().map(|inner| format!(".{inner}`")).collect()
                }
                (_, Some(table)) => table.keys().map(|inner| format!("`{key}.{inner}`")).collect(),
                (_, None) => vec![format!("`{key}`")],
            };
            for key in keys {
                assert!(manual.contains(&key), "{key} is missing");
            }
        }
    }
}
