//! Finding keys and environment variables that nothing reads, and what was probably meant.

use config::Source;
use serde_json::Value;

use super::ENVIRONMENT_PREFIX;
use crate::backend::options::{action_named, is_from_station};

/// Subtrees whose keys the operator chooses.
const FREE: [&str; 1] = ["bus.kafka.options"];
/// Subtrees whose first level the operator names, each entry having the keys of the default one.
const NAMED: [(&str, &str); 1] = [("listeners", "main")];
/// The subtree with a table for each action beside its keys, and the action whose table is in `known`.
const BY_ACTION: (&str, &str) = ("answers", super::EXAMPLE_ACTION);

/// Every key of `given` that `known` does not have, with the nearest one that it has.
pub(super) fn keys(given: &Value, known: &Value) -> Vec<String> {
    let mut unknown = Vec::new();
    visit(String::new(), given, known, &mut unknown);
    let paths = if unknown.is_empty() { Vec::new() } else { paths(given, known) };
    let problem = |key: &String| match nearest(key, &paths) {
        Some(nearest) => format!("unknown key `{key}`; did you mean `{nearest}`?"),
        None => format!("unknown key `{key}`"),
    };
    unknown.iter().map(problem).collect()
}

/// The environment's variables that name a key, but with single underscores, so that nothing reads them.
///
/// Others that begin like ours are let be: Kubernetes makes some for a service of the gateway's name.
pub(super) fn variables(given: &Value, known: &Value) -> Vec<String> {
    let all = config::Environment::with_prefix(ENVIRONMENT_PREFIX).prefix_separator("_").ignore_empty(true);
    let names = all.collect().unwrap_or_default().into_keys();
    misspelt(names, &paths(given, known))
}

/// The names are without the prefix and in lower case.
fn misspelt(names: impl Iterator<Item = String>, paths: &[String]) -> Vec<String> {
    let free = FREE.map(|path| format!("{}_", path.replace('.', "_")));
    // The others begin with the prefix's second underscore.
    let mut found: Vec<_> = names
        .filter(|name| !name.starts_with('_'))
        .filter_map(|name| {
            let flat = name.replace("__", "_");
            let path = paths.iter().find(|path| path.to_lowercase().replace('.', "_") == flat).cloned();
            let option = || {
                FREE.iter().zip(&free).find_map(|(path, free)| {
                    Some(format!("{path}.{}", flat.strip_prefix(free)?.replace('_', ".")))
                })
            };
            let right = path.or_else(option)?.to_uppercase().replace('.', "__");
            let (prefix, name) = (ENVIRONMENT_PREFIX, name.to_uppercase());
            Some(format!("the variable {prefix}_{name} is not read; write {prefix}__{right}"))
        })
        .collect();
    found.sort();
    found
}

/// The paths of every known key, those of what the operator has named included.
fn paths(given: &Value, known: &Value) -> Vec<String> {
    let mut paths = Vec::new();
    collect(String::new(), known, &mut paths);
    if let Some(entry) = known.get(BY_ACTION.0).and_then(|answers| answers.get(BY_ACTION.1)) {
        for action in ocpp_protocol::Action::all().iter().filter(|action| is_from_station(action)) {
            collect(join(BY_ACTION.0, action.name), entry, &mut paths);
        }
    }
    for (named, template) in NAMED {
        let entry = known.get(named).and_then(|known| known.get(template));
        let names = given.get(named).and_then(Value::as_object).into_iter().flatten().map(|(name, _)| name);
        for name in names.filter(|name| *name != template) {
            entry.into_iter().for_each(|entry| collect(join(named, name), entry, &mut paths));
        }
    }
    paths
}

fn visit(path: String, given: &Value, known: &Value, unknown: &mut Vec<String>) {
    let (Value::Object(given), Value::Object(known)) = (given, known) else { return };
    if FREE.contains(&path.as_str()) {
        return;
    }
    let template = NAMED.iter().find(|(named, _)| *named == path).and_then(|(_, entry)| known.get(*entry));
    for (key, value) in given {
        let here = join(&path, key);
        // Whether it is a station's action is for the checks, which can say more about it.
        let is_action = path == BY_ACTION.0 && action_named(key).is_some();
        let entry = is_action.then(|| known.get(BY_ACTION.1)).flatten();
        match template.or(entry).or_else(|| known.get(key)) {
            Some(below) => visit(here, value, below, unknown),
            None => unknown.push(here),
        }
    }
}

fn collect(path: String, known: &Value, paths: &mut Vec<String>) {
    if !path.is_empty() {
        paths.push(path.clone());
    }
    if let Value::Object(members) = known {
        for (key, value) in members {
            collect(join(&path, key), value, paths);
        }
    }
}

fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

/// The known path whose own name is nearest, preferring the same section.
fn nearest(key: &str, paths: &[String]) -> Option<String> {
    paths
        .iter()
        .map(|path| {
            (strsim::jaro_winkler(key, path).max(0.95 * strsim::jaro_winkler(last(key), last(path))), path)
        })
        .filter(|(likeness, _)| *likeness > 0.75)
        .max_by(|(one, _), (other, _)| one.total_cmp(other))
        .map(|(_, path)| path.clone())
}

fn last(path: &str) -> &str {
    path.rsplit('.').next().unwrap_or(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_variable_with_single_underscores_is_told_its_right_spelling() {
        let known = serde_json::json!({
            "bus": {"kind": 1, "queue_events": 1, "kafka": {"options": {}}},
            "listeners": {"main": {"address": 1}},
        });
        let given = serde_json::json!({"listeners": {"lan": {"address": "127.0.0.1:1"}}});
        let told = |names: &[&str]| {
            misspelt(names.iter().map(|name| (*name).to_owned()), &paths(&given, &known))
                .iter()
                .map(|problem| problem.rsplit(' ').next().unwrap().to_owned())
                .collect::<Vec<_>>()
        };
        assert_eq!(told(&["bus_kind"]), ["OCPP_GATEWAY__BUS__KIND"]);
        assert_eq!(told(&["bus__queue_events"]), ["OCPP_GATEWAY__BUS__QUEUE_EVENTS"]);
        assert_eq!(told(&["listeners_lan_address"]), ["OCPP_GATEWAY__LISTENERS__LAN__ADDRESS"]);
        let option = told(&["bus_kafka_options_sasl_password"]);
        assert_eq!(option, ["OCPP_GATEWAY__BUS__KAFKA__OPTIONS__SASL__PASSWORD"]);
        let others = ["_bus__kind", "bin", "admin", "port", "service_host", "port_9000_tcp_addr"];
        assert_eq!(told(&others), Vec::<String>::new(), "those are spelt right, or are not ours");
    }
}
