//! What every feature's options need: how values are written in a configuration, and a list of what is wrong with them.
//!
//! Owns reading and writing durations, sizes, addresses, words and lists, with an error that shows the value and what was
//! expected. Knows no key: a feature's options name these types in `#[serde(with = "…")]`, and `JsonSchema`, from which the
//! documentation of keys is generated, follows the same attribute.

mod problems;

use std::borrow::Cow;
use std::net::SocketAddr;
use std::time::Duration;

use bytesize::ByteSize;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{DeserializeOwned, Error};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

pub use crate::problems::Problems;

/// The largest duration that can be written. Clocks overflow somewhere beyond.
const LONGEST: Duration = Duration::from_secs(10 * 366 * 24 * 3600);

/// Durations: `10s`, `5m`, `1h 30m`, `250ms`; at most ten years.
#[derive(Debug)]
pub struct DurationText;

impl DurationText {
    /// Reads a duration.
    ///
    /// # Errors
    /// If the value is no text, or the text no duration.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        let text = String::deserialize(deserializer)?;
        let duration = humantime::parse_duration(text.trim()).map_err(|error| {
            D::Error::custom(format!("{text:?} is not a duration such as \"10s\" or \"5m\": {error}"))
        })?;
        if duration > LONGEST {
            return Err(D::Error::custom(format!("{text:?} is longer than ten years")));
        }
        Ok(duration)
    }

    /// Writes a duration so that it reads back the same.
    ///
    /// # Errors
    /// Those of the serializer.
    pub fn serialize<S: Serializer>(value: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&humantime::format_duration(*value))
    }
}

/// Sizes in bytes: `4KiB`, `1MiB`, `10GiB`, or a number.
#[derive(Debug)]
pub struct SizeText;

impl SizeText {
    /// Reads a size.
    ///
    /// # Errors
    /// If the value is neither a number nor the text of a size.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ByteSize, D::Error> {
        ByteSize::deserialize(deserializer)
    }

    /// Writes a size in the largest unit that suits it.
    ///
    /// # Errors
    /// Those of the serializer.
    pub fn serialize<S: Serializer>(value: &ByteSize, serializer: S) -> Result<S::Ok, S::Error> {
        value.serialize(serializer)
    }
}

/// Reads one word out of a few; the error names them. For enums.
///
/// # Errors
/// If the value is no text, or none of the words.
pub fn word<'de, D: Deserializer<'de>, T: DeserializeOwned>(deserializer: D) -> Result<T, D::Error> {
    let text = String::deserialize(deserializer)?;
    serde_json::from_value(serde_json::Value::String(text)).map_err(D::Error::custom)
}

/// Reads a list of words out of a few, as [`words`] reads one of any; the error names them. For lists of enums.
///
/// # Errors
/// If the value is neither a list of texts nor a text, or has another word.
pub fn words_of<'de, D: Deserializer<'de>, T: DeserializeOwned>(deserializer: D) -> Result<Vec<T>, D::Error> {
    let words = words(deserializer)?.into_iter().filter(|word| !word.is_empty());
    words
        .map(|word| serde_json::from_value(serde_json::Value::String(word)).map_err(D::Error::custom))
        .collect()
}

/// Reads an address with its port.
///
/// # Errors
/// If the value is no text, or the text no address.
pub fn address<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SocketAddr, D::Error> {
    let text = String::deserialize(deserializer)?;
    text.parse()
        .map_err(|_| D::Error::custom(format!("{text:?} is not an address such as \"127.0.0.1:9000\"")))
}

/// Reads a list of words. In the environment, which has no lists, they are separated by commas.
///
/// # Errors
/// If the value is neither a list of texts nor a text.
pub fn words<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
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

impl JsonSchema for DurationText {
    fn schema_name() -> Cow<'static, str> {
        "Duration".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string" })
    }
}

impl JsonSchema for SizeText {
    fn schema_name() -> Cow<'static, str> {
        "Size".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": ["string", "integer"] })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[derive(Debug, Deserialize, Serialize)]
    #[serde(default)]
    struct Options {
        #[serde(with = "DurationText")]
        pause: Duration,
        #[serde(with = "SizeText")]
        size: ByteSize,
        #[serde(deserialize_with = "address")]
        address: SocketAddr,
        #[serde(deserialize_with = "word")]
        mode: Mode,
        #[serde(deserialize_with = "words")]
        tags: Vec<String>,
    }

    #[derive(Clone, Copy, PartialEq, Debug, Deserialize, Serialize)]
    #[serde(rename_all = "lowercase")]
    enum Mode {
        Off,
        Warn,
    }

    impl Default for Options {
        fn default() -> Self {
            Self {
                pause: Duration::from_secs(90),
                size: ByteSize::mib(1),
                address: SocketAddr::from(([127, 0, 0, 1], 9000)),
                mode: Mode::Off,
                tags: vec!["a".into()],
            }
        }
    }

    #[test]
    fn what_is_written_reads_back() {
        let written = serde_json::to_value(Options::default()).unwrap();
        assert_eq!(written["pause"], "1m 30s");
        assert_eq!(written["size"], "1.0 MiB");
        let read: Options = serde_json::from_value(written.clone()).unwrap();
        assert_eq!(serde_json::to_value(read).unwrap(), written);
    }

    #[test]
    fn a_list_may_be_one_text_as_in_the_environment() {
        let read: Options = serde_json::from_value(json!({ "tags": "a, b" })).unwrap();
        assert_eq!(read.tags, ["a", "b"]);
    }

    #[test]
    fn an_error_shows_the_value_and_what_was_expected() {
        for (key, value, words) in [
            ("pause", json!("soon"), ["soon", "10s"]),
            ("pause", json!("11y"), ["11y", "ten years"]),
            ("pause", json!(30), ["30", "string"]),
            ("size", json!("much"), ["much", "parsable"]),
            ("address", json!("here"), ["here", "127.0.0.1:9000"]),
            ("mode", json!("of"), ["of", "warn"]),
        ] {
            let error = serde_json::from_value::<Options>(json!({ key: value })).unwrap_err().to_string();
            assert!(words.iter().all(|word| error.contains(word)), "{key}: {error}");
        }
    }
}
