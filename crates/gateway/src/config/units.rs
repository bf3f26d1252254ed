//! How durations, registration states, subprotocol lists and free-form options are written in the configuration.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;

use ocpp_protocol::Version;
use serde::de::{DeserializeOwned, Error};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Durations: `10s`, `5m`, `1h 30m`, `250ms`.
pub(super) mod duration {
    use std::time::Duration;

    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};

    /// Clocks overflow somewhere beyond.
    const LONGEST: Duration = Duration::from_secs(10 * 366 * 24 * 3600);

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        let text = String::deserialize(deserializer)?;
        let duration = humantime::parse_duration(text.trim()).map_err(|error| {
            D::Error::custom(format!("{text:?} is not a duration such as \"10s\" or \"5m\": {error}"))
        })?;
        if duration > LONGEST {
            return Err(D::Error::custom(format!("{text:?} is longer than ten years")));
        }
        Ok(duration)
    }

    pub(crate) fn serialize<S: Serializer>(value: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&humantime::format_duration(*value))
    }
}

/// One word out of a few, with the few in the error.
pub(super) fn word<'de, D: Deserializer<'de>, T: DeserializeOwned>(deserializer: D) -> Result<T, D::Error> {
    let text = String::deserialize(deserializer)?;
    serde_json::from_value(serde_json::Value::String(text)).map_err(D::Error::custom)
}

/// An address with its port.
pub(super) fn address<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SocketAddr, D::Error> {
    let text = String::deserialize(deserializer)?;
    text.parse()
        .map_err(|_| D::Error::custom(format!("{text:?} is not an address such as \"127.0.0.1:9000\"")))
}

/// Registration states by their OCPP words, in any case.
pub(super) mod registration {
    use ocpp_protocol::Registration;
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Registration, D::Error> {
        let text = String::deserialize(deserializer)?;
        [Registration::Accepted, Registration::Pending, Registration::Rejected]
            .into_iter()
            .find(|state| state.as_str().eq_ignore_ascii_case(&text))
            .ok_or_else(|| D::Error::custom(format!("{text:?} is not one of Accepted, Pending, Rejected")))
    }

    pub(crate) fn serialize<S: Serializer>(value: &Registration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(value.as_str())
    }
}

/// A list of words; in the environment separated by commas.
fn list<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Written {
        List(Vec<String>),
        Text(String),
    }
    Ok(match Written::deserialize(deserializer)? {
        Written::List(words) => words,
        Written::Text(text) => text.split(',').map(|word| word.trim().to_owned()).collect(),
    })
}

/// A set of words, shared by whoever asks for it often.
pub(super) fn words<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Arc<BTreeSet<String>>, D::Error> {
    list(deserializer).map(|words| Arc::new(words.into_iter().collect()))
}

/// A list of subprotocols; in the environment separated by commas.
#[derive(Clone, Debug)]
pub struct Subprotocols(pub Vec<Version>);

impl<'de> Deserialize<'de> for Subprotocols {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        list(deserializer)?
            .iter()
            .map(|token| {
                Version::from_subprotocol(token).ok_or_else(|| {
                    D::Error::custom(format!("{token:?} is not one of ocpp2.1, ocpp2.0.1, ocpp1.6"))
                })
            })
            .collect::<Result<_, _>>()
            .map(Self)
    }
}

impl Serialize for Subprotocols {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter().map(|version| version.subprotocol()))
    }
}

/// Options whose names have dots in them (`security.protocol`). Written quoted, or as nested tables, or in the
/// environment with `__` for the dot: all mean the same.
#[derive(Clone, Default, Serialize)]
pub struct DottedOptions(pub BTreeMap<String, String>);

/// Values may be passwords: only the names show.
impl std::fmt::Debug for DottedOptions {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_set().entries(self.0.keys()).finish()
    }
}

impl<'de> Deserialize<'de> for DottedOptions {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let tree = serde_json::Value::deserialize(deserializer)?;
        let mut options = BTreeMap::new();
        flatten(String::new(), &tree, &mut options).map_err(D::Error::custom)?;
        Ok(Self(options))
    }
}

fn flatten(
    name: String,
    tree: &serde_json::Value,
    options: &mut BTreeMap<String, String>,
) -> Result<(), String> {
    match tree {
        serde_json::Value::Object(members) => {
            for (member, value) in members {
                let name = if name.is_empty() { member.clone() } else { format!("{name}.{member}") };
                flatten(name, value, options)?;
            }
            Ok(())
        }
        serde_json::Value::String(text) => {
            options.insert(name, text.clone());
            Ok(())
        }
        serde_json::Value::Number(_) | serde_json::Value::Bool(_) => {
            options.insert(name, tree.to_string());
            Ok(())
        }
        serde_json::Value::Null | serde_json::Value::Array(_) => {
            Err(format!("the option {name:?} must be a string, a number or a boolean"))
        }
    }
}
