//! The rules file: settings for some stations, in TOML.
//!
//! Owns its format, its limits, and which stations a rule is for. What the settings mean is `overrides.rs`'s.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use ocpp_options::Problems;
use ocpp_protocol::IdentityKey;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Who;
use super::overrides::Overrides;

/// Bytes that the file may have.
const LARGEST: u64 = 4 << 20;
/// Rules that it may have.
const MOST: usize = 1000;

/// Settings, and the stations that they are for: those that match every condition that is given.
#[derive(Clone, Debug, Deserialize, Serialize, ToSchema)]
#[schema(as = SettingsRule)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// Stations that come to one of these listeners.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    listeners: Vec<String>,
    /// Stations that carry one of these tags.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    tags: Vec<String>,
    /// These stations, in any case. `CP-1*` is every station whose identity begins with `CP-1`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    stations: Vec<String>,
    /// What is set.
    pub set: Overrides,
    #[serde(skip)]
    names: Names,
}

/// The stations of a rule, for looking one up.
#[derive(Clone, Debug, Default)]
struct Names {
    exact: HashSet<IdentityKey>,
    prefixes: Vec<IdentityKey>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    #[serde(default)]
    rule: Vec<Rule>,
}

/// Why a rules file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RulesError {
    /// It cannot be read.
    #[error("cannot read the rules file {file}", file = file.display())]
    Unreadable {
        /// The file.
        file: PathBuf,
        /// What the operating system says.
        source: std::io::Error,
    },
    /// It is not what a rules file is.
    #[error("rules file {file}: {problem}", file = file.display())]
    Wrong {
        /// The file.
        file: PathBuf,
        /// What is wrong, and where.
        problem: String,
    },
}

/// Reads a rules file; `is_listener` says which listeners there are.
///
/// # Errors
/// When it cannot be read, or the first thing that is wrong in it.
pub(super) fn read(file: &Path, is_listener: impl Fn(&str) -> bool) -> Result<Vec<Rule>, RulesError> {
    let unreadable = |source| RulesError::Unreadable { file: file.to_owned(), source };
    let wrong = |problem| RulesError::Wrong { file: file.to_owned(), problem };
    let size = std::fs::metadata(file).map_err(unreadable)?.len();
    if size > LARGEST {
        return Err(wrong(format!("it has {size} bytes; {LARGEST} are the most")));
    }
    let rules = parse(&std::fs::read_to_string(file).map_err(unreadable)?).map_err(wrong)?;
    let unknown = |rule: &Rule| rule.listeners.iter().find(|name| !is_listener(name)).cloned();
    match rules.iter().enumerate().find_map(|(at, rule)| Some((at + 1, unknown(rule)?))) {
        Some((number, name)) => Err(wrong(format!("rule {number}: there is no listener {name:?}"))),
        None => Ok(rules),
    }
}

fn parse(text: &str) -> Result<Vec<Rule>, String> {
    let Written { rule: mut rules } =
        toml::from_str(text).map_err(|error| error.to_string().trim_end().replace('\n', " "))?;
    if rules.len() > MOST {
        return Err(format!("it has {} rules; {MOST} are the most", rules.len()));
    }
    for (at, rule) in rules.iter_mut().enumerate() {
        let mut problems = Problems::default();
        rule.set.check(&mut problems);
        problems.demand(!rule.set.is_empty(), "it sets nothing");
        let problems = problems.into_vec();
        if !problems.is_empty() {
            return Err(format!("rule {}: {}", at + 1, problems.join("; ")));
        }
        rule.names = Names::of(&rule.stations);
    }
    Ok(rules)
}

impl Names {
    fn of(stations: &[String]) -> Self {
        let mut names = Self::default();
        for station in stations {
            match station.strip_suffix('*') {
                Some(prefix) => names.prefixes.push(IdentityKey::of(prefix)),
                None => drop(names.exact.insert(IdentityKey::of(station))),
            }
        }
        names
    }

    fn matches(&self, station: &IdentityKey) -> bool {
        self.exact.contains(station)
            || self.prefixes.iter().any(|prefix| station.as_str().starts_with(prefix.as_str()))
    }
}

impl Rule {
    /// Whether it is for this station.
    pub(super) fn applies(&self, who: &Who<'_>) -> bool {
        (self.listeners.is_empty() || self.listeners.iter().any(|name| name == who.listener))
            && (self.tags.is_empty() || self.tags.iter().any(|tag| who.tags.contains(tag)))
            && (self.stations.is_empty() || self.names.matches(who.station))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn a_rule_is_for_those_that_match_every_condition() {
        let rules = parse(
            r#"
            [[rule]]
            listeners = ["main"]
            set.lenient = true
            [[rule]]
            tags = ["growatt", "huawei"]
            stations = ["CP-1*", "X"]
            set.ping_interval = "20s"
            "#,
        )
        .unwrap();
        let applying = |listener: &str, station: &str, tag: &str| {
            let (station, tags) = (IdentityKey::of(station), BTreeSet::from([tag.to_owned()]));
            let who = Who { listener, station: &station, tags: &tags, own: None };
            rules.iter().map(|rule| rule.applies(&who)).collect::<Vec<_>>()
        };
        assert_eq!(applying("main", "cp-12", "huawei"), [true, true]);
        assert_eq!(applying("other", "x", "growatt"), [false, true]);
        assert_eq!(applying("main", "CP-2", "growatt"), [true, false]);
        assert_eq!(applying("main", "CP-1", "other"), [true, false]);
    }

    #[test]
    fn what_is_wrong_is_told_with_its_place() {
        for (text, words) in [
            ("[[rule]]\nset.pings = 1", "pings"),
            ("[[rule]]\nset.ping_interval = \"soon\"", "soon"),
            ("[[rule]]\nset.validation = \"hard\"", "enforce"),
            ("[[rule]]\nset.lenient = true\n[[rule]]\nset.idle_timeout = \"0s\"", "rule 2"),
            ("[[rule]]\nset = {}", "sets nothing"),
            ("[[rule]]\nset.subprotocols = [\"ocpp1.5\"]", "ocpp1.5"),
            ("[[rule]]\nset.fallback = { Charge = \"reject\" }", "Charge"),
            ("[[rules]]", "rules"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(words), "{text}: {error}");
        }
    }
}
