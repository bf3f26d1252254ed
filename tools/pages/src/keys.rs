//! Every key of the configuration: its text and its group from the schema, its default and its place from the defaults.
//!
//! The schema has no order, so the order is that of the defaults as they are serialized, which is that of the code.

use ocpp_gateway::config::Config;
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use serde_json::value::RawValue;

use crate::Failure;

/// Names in the defaults that stand for whatever the operator names.
const PLACEHOLDERS: [(&str, &str); 2] =
    [("listeners.main", "listeners.NAME"), ("answers.Authorize", "answers.ACTION")];

/// One table of the configuration file.
#[derive(Debug)]
pub(crate) struct Section {
    /// As a dotted path, with placeholders.
    pub(crate) path: String,
    /// As it stands in the defaults.
    pub(crate) example: String,
    /// What it is about.
    pub(crate) text: String,
    /// Its keys in the order of the code.
    pub(crate) keys: Vec<Key>,
}

/// One key.
#[derive(Debug)]
pub(crate) struct Key {
    /// Without its section.
    pub(crate) name: String,
    /// What it means, and the words it may be set to.
    pub(crate) text: String,
    /// A piece of a configuration file, for a key that is a table.
    pub(crate) example: Option<String>,
    /// As it is written.
    pub(crate) default: String,
    /// Only tuning needs it.
    pub(crate) is_tuning: bool,
}

/// Every section that has keys.
pub(crate) fn sections() -> Result<Vec<Section>, Failure> {
    let schema = Config::schema().to_value();
    let defaults = serde_json::to_string(&Config::example())?;
    let mut sections = Vec::new();
    collect(&schema, &schema, "", &defaults, &mut sections)?;
    Ok(sections)
}

/// Adds the section of this schema and defaults, and those below it.
fn collect(
    root: &Value,
    schema: &Value,
    example: &str,
    defaults: &str,
    sections: &mut Vec<Section>,
) -> Result<(), Failure> {
    let mut section = Section {
        path: placeholder(example),
        example: example.to_owned(),
        text: description(schema).0,
        keys: Vec::new(),
    };
    let mut below = Vec::new();
    for (name, value) in members(defaults)? {
        let property = schema["properties"].get(&name).unwrap_or_else(|| &schema["additionalProperties"]);
        let target =
            referenced(root, property).ok_or_else(|| format!("{example}.{name} is not in the schema"))?;
        let is_table = value.get().starts_with('{') && value.get() != "{}";
        if is_table {
            let example = if example.is_empty() { name } else { format!("{example}.{name}") };
            below.push((target, example, value));
        } else {
            // The words of a list are those of its items.
            let words = referenced(root, &target["items"]).unwrap_or(target);
            section.keys.push(key(name, property, words, &value)?);
        }
    }
    if !section.keys.is_empty() {
        sections.push(section);
    }
    for (schema, example, defaults) in below {
        collect(root, schema, &example, defaults.get(), sections)?;
    }
    Ok(())
}

fn key(name: String, property: &Value, words: &Value, default: &RawValue) -> Result<Key, Failure> {
    let (mut text, example) = description(property);
    if text.is_empty() {
        return Err(format!("the key {name} has no text").into());
    }
    for word in words["oneOf"].as_array().into_iter().flatten() {
        let (meaning, _) = description(word);
        text.push_str(&format!(" `{}`: {meaning}.", word["const"].as_str().unwrap_or_default()));
    }
    let default = match serde_json::from_str(default.get())? {
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(Value::to_string).collect();
            format!("[{}]", items.join(", "))
        }
        _ => default.get().to_owned(),
    };
    Ok(Key { name, text, example, default, is_tuning: property["x-tuning"] == true })
}

/// The description of a schema as one line a paragraph, and the code block that it may end with.
fn description(schema: &Value) -> (String, Option<String>) {
    let text = schema["description"].as_str().unwrap_or_default();
    let (prose, code) = match text.split_once("```toml\n") {
        Some((prose, code)) => (prose, Some(code.trim_end_matches("```").trim_end().to_owned())),
        None => (text, None),
    };
    (prose.split_whitespace().collect::<Vec<_>>().join(" "), code)
}

/// What a property refers to; itself if it refers to nothing.
fn referenced<'a>(root: &'a Value, property: &'a Value) -> Option<&'a Value> {
    match property["$ref"].as_str() {
        Some(reference) => root.pointer(reference.trim_start_matches('#')),
        None => property.is_object().then_some(property),
    }
}

fn placeholder(example: &str) -> String {
    let known = PLACEHOLDERS.iter().find(|(given, _)| *given == example);
    known.map_or(example, |(_, placeholder)| placeholder).to_owned()
}

/// The members of a JSON object in the order in which they are written.
fn members(object: &str) -> Result<Vec<(String, Box<RawValue>)>, serde_json::Error> {
    struct Members(Vec<(String, Box<RawValue>)>);
    struct Ordered;

    impl<'de> Visitor<'de> for Ordered {
        type Value = Members;

        fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            formatter.write_str("an object")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members, A::Error> {
            let mut members = Vec::new();
            while let Some(member) = map.next_entry()? {
                members.push(member);
            }
            Ok(Members(members))
        }
    }

    impl<'de> Deserialize<'de> for Members {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            deserializer.deserialize_map(Ordered)
        }
    }

    serde_json::from_str::<Members>(object).map(|members| members.0)
}
