//! Finding a key that nothing reads, and the key that was probably meant.

use serde_json::Value;

use crate::backend::options::{action_named, is_from_station};

/// Subtrees whose keys the operator chooses.
const FREE: [&str; 1] = ["bus.kafka.options"];
/// Subtrees whose first level the operator names, each entry having the keys of the default one.
const NAMED: [(&str, &str); 1] = [("listeners", "main")];
/// The subtree with a table for each action beside its keys, and the action whose table is in `known`.
const BY_ACTION: (&str, &str) = ("answers", super::EXAMPLE_ACTION);

/// The first key of `given` that `known` does not have, as a dotted path, with the nearest known one.
pub(super) fn first_unknown(given: &Value, known: &Value) -> Option<(String, Option<String>)> {
    let mut paths = Vec::new();
    collect(String::new(), known, &mut paths);
    if let Some(entry) = known.get(BY_ACTION.0).and_then(|answers| answers.get(BY_ACTION.1)) {
        for action in ocpp_protocol::Action::all().iter().filter(|action| is_from_station(action)) {
            collect(join(BY_ACTION.0, action.name), entry, &mut paths);
        }
    }
    visit(String::new(), given, known).map(|key| {
        let nearest = nearest(&key, &paths);
        (key, nearest)
    })
}

fn visit(path: String, given: &Value, known: &Value) -> Option<String> {
    let (Value::Object(given), Value::Object(known)) = (given, known) else { return None };
    if FREE.contains(&path.as_str()) {
        return None;
    }
    let template = NAMED.iter().find(|(named, _)| *named == path).and_then(|(_, entry)| known.get(*entry));
    given.iter().find_map(|(key, value)| {
        let here = join(&path, key);
        // Whether it is a station's action is for the checks, which can say more about it.
        let is_action = path == BY_ACTION.0 && action_named(key).is_some();
        let entry = is_action.then(|| known.get(BY_ACTION.1)).flatten();
        match template.or(entry).or_else(|| known.get(key)) {
            Some(below) => visit(here, value, below),
            None => Some(here),
        }
    })
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
