//! What holds for one station: the configuration, what the rules file says of it, and what an operator set for the station alone.
//!
//! Owns the order of these sources (the later wins), the rules in force, and reading their file again when it changes. What is set
//! for a station alone is kept with its state (`stations.rs`). Sessions ask here when they begin and when they are told that
//! something has changed; stations for which the same holds share one copy.

pub mod file;
pub mod metrics;
pub mod options;
pub mod overrides;

use std::collections::{BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use dashmap::DashMap;
use ocpp_protocol::{IdentityKey, Version};
use tokio_util::sync::CancellationToken;

use self::file::{Rule, RulesError};
use self::metrics::SettingsMetrics;
use self::overrides::{Fallbacks, Overrides};
use crate::file_stamp::FileStamp;

/// Combinations of rules whose settings are kept for the next station. Beyond, each station has a copy of its own.
const MOST_SHARED: usize = 1024;

/// What holds for a station.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Settings {
    /// The rules of its session.
    pub session: ocpp_station::Options,
    /// The OCPP versions that it may speak.
    pub subprotocols: Vec<Version>,
    /// What it gets when no backend answers, where that differs from the configuration.
    pub fallback: Fallbacks,
}

/// Whom settings are for.
#[derive(Clone, Copy, Debug)]
pub struct Who<'a> {
    /// The listener that the station came to.
    pub listener: &'a str,
    /// The station.
    pub station: &'a IdentityKey,
    /// Its tags.
    pub tags: &'a BTreeSet<String>,
    /// What an operator set for it alone.
    pub own: Option<&'a Overrides>,
}

/// A listener, as far as settings depend on it.
#[derive(Clone, Copy, Debug)]
pub struct ListenerTags<'a> {
    /// Its name in the configuration.
    pub name: &'a str,
    /// The groups that its stations belong to.
    pub tags: &'a BTreeSet<String>,
}

/// Where a value comes from, for people.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Source {
    /// The configuration, or its default.
    Configuration,
    /// The rule of this number in the rules file; the first is 1.
    Rule(usize),
    /// Set for this station.
    Station,
}

/// Finds what holds for a station.
#[derive(Debug)]
pub struct Resolver {
    /// What the configuration says, by listener …
    configured: HashMap<String, Arc<Settings>>,
    /// … and for one that it does not name, which no station comes to.
    default: Arc<Settings>,
    file: Option<PathBuf>,
    /// As the file was just before it was first read: a change during the start is not missed.
    first_stamp: Option<FileStamp>,
    current: ArcSwap<InForce>,
    metrics: SettingsMetrics,
}

/// The rules in force.
#[derive(Debug)]
pub struct InForce {
    /// In the order of the file.
    pub rules: Vec<Rule>,
    /// When they were read.
    pub read_at: SystemTime,
    /// By listener and the numbers of the rules that apply.
    shared: DashMap<(String, Vec<usize>), Arc<Settings>>,
}

impl InForce {
    fn new(rules: Vec<Rule>) -> Self {
        Self { rules, read_at: SystemTime::now(), shared: DashMap::new() }
    }

    fn applying(&self, who: &Who<'_>) -> Vec<usize> {
        let applies = |(_, rule): &(usize, &Rule)| rule.applies(who);
        self.rules.iter().enumerate().filter(applies).map(|(at, _)| at).collect()
    }
}

impl Resolver {
    /// Reads the rules file, if there is one.
    ///
    /// # Errors
    /// When the file cannot be used, with the place that is wrong.
    pub fn open(
        default: Settings,
        configured: HashMap<String, Settings>,
        file: Option<PathBuf>,
        metrics: SettingsMetrics,
    ) -> Result<Self, RulesError> {
        let first_stamp = file.as_deref().map(FileStamp::of);
        let rules = file
            .as_deref()
            .map(|file| file::read(file, |name| configured.contains_key(name)))
            .transpose()?
            .unwrap_or_default();
        if let Some(file) = &file {
            tracing::info!(file = %file.display(), rules = rules.len(), "rules for stations read");
        }
        metrics.in_force(rules.len());
        let configured = configured.into_iter().map(|(name, settings)| (name, Arc::new(settings))).collect();
        let default = Arc::new(default);
        Ok(Self {
            configured,
            default,
            file,
            first_stamp,
            current: ArcSwap::from_pointee(InForce::new(rules)),
            metrics,
        })
    }

    /// What holds for a station.
    pub fn resolve(&self, who: &Who<'_>) -> Arc<Settings> {
        let configured = self.configured(who.listener);
        let in_force = self.current.load();
        let applying = in_force.applying(who);
        if applying.is_empty() && who.own.is_none() {
            return Arc::clone(configured);
        }
        let rules = applying.iter().filter_map(|at| in_force.rules.get(*at)).map(|rule| &rule.set);
        let make = || {
            let mut settings = Settings::clone(configured);
            rules.clone().chain(who.own).for_each(|set| set.apply(&mut settings));
            Arc::new(settings)
        };
        if who.own.is_some() || in_force.shared.len() >= MOST_SHARED {
            return make();
        }
        let key = (who.listener.to_owned(), applying.clone());
        Arc::clone(&in_force.shared.entry(key).or_insert_with(make))
    }

    /// Every setting that holds for a station, by name: its value, and where that comes from.
    pub fn explain(&self, who: &Who<'_>) -> Vec<(String, serde_json::Value, Source)> {
        let in_force = self.current.load();
        let base = Overrides::of(self.configured(who.listener)).members();
        let mut effective: Vec<_> =
            base.into_iter().map(|(name, value)| (name, value, Source::Configuration)).collect();
        let rules = in_force.applying(who).into_iter().filter_map(|at| Some((at, in_force.rules.get(at)?)));
        let layers = rules.map(|(at, rule)| (&rule.set, Source::Rule(at + 1)));
        for (set, source) in layers.chain(who.own.map(|own| (own, Source::Station))) {
            for (name, value) in set.members() {
                match effective.iter_mut().find(|(known, ..)| *known == name) {
                    Some(known) => *known = (name, value, source.clone()),
                    None => effective.push((name, value, source.clone())),
                }
            }
        }
        effective
    }

    fn configured(&self, listener: &str) -> &Arc<Settings> {
        self.configured.get(listener).unwrap_or(&self.default)
    }

    /// The rules in force.
    pub fn in_force(&self) -> Arc<InForce> {
        self.current.load_full()
    }

    /// Reads the rules again whenever their file has changed, until stopped, and calls `changed` when they are in force. If the
    /// changed file is wrong, the former rules stay.
    pub async fn watch(self: Arc<Self>, every: Duration, stop: CancellationToken, changed: impl Fn()) {
        let (Some(file), Some(mut seen)) = (self.file.clone(), self.first_stamp) else { return };
        while stop.run_until_cancelled(tokio::time::sleep(every)).await.is_some() {
            let now = FileStamp::of(&file);
            if now != seen {
                seen = now;
                if self.reload(&file) {
                    changed();
                }
            }
        }
    }

    fn reload(&self, file: &std::path::Path) -> bool {
        match file::read(file, |name| self.configured.contains_key(name)) {
            Ok(rules) => {
                tracing::info!(file = %file.display(), rules = rules.len(), "rules for stations read again");
                self.metrics.in_force(rules.len());
                self.metrics.reloaded("loaded");
                self.current.store(Arc::new(InForce::new(rules)));
                true
            }
            Err(error) => {
                tracing::error!(
                    error = ocpp_bus::chain(&error),
                    "the changed rules are not used; the former ones stay in force"
                );
                self.metrics.reloaded("failed");
                false
            }
        }
    }
}

/// Settings and resolvers for tests of what uses them.
#[cfg(test)]
pub(crate) mod test_support {
    use super::*;
    use ocpp_bus::Registrar;
    use ocpp_station::options::{Authorization, BeforeBoot, Validation};
    use std::io::Write as _;

    pub(crate) fn session_options() -> ocpp_station::Options {
        ocpp_station::Options {
            max_unacknowledged: 8,
            ping_interval: Duration::from_secs(60),
            idle_timeout: Duration::from_secs(900),
            write_timeout: Duration::from_secs(60),
            close_timeout: Duration::from_secs(5),
            hold_limit: Duration::ZERO,
            grace: Duration::from_secs(2),
            before_boot: BeforeBoot::Refuse,
            trigger_boot: true,
            boot_interval: Duration::from_secs(300),
            authorization: Authorization::Accepted,
            validation: Validation::OFF,
            lenient: false,
            fractional_seconds: true,
            close_after_timeouts: 0,
        }
    }

    /// With one listener, `main`, for which this holds, and these rules.
    pub(crate) fn resolver(configured: Settings, rules: &str) -> Resolver {
        resolver_with_file(configured, rules).0
    }

    pub(crate) fn resolver_with_file(
        configured: Settings,
        rules: &str,
    ) -> (Resolver, tempfile::NamedTempFile) {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(rules.as_bytes()).unwrap();
        let metrics = SettingsMetrics::register(&Registrar::default()).unwrap();
        let listeners = HashMap::from([("main".to_owned(), configured.clone())]);
        (Resolver::open(configured, listeners, Some(file.path().into()), metrics).unwrap(), file)
    }
}

#[cfg(test)]
mod tests {
    use super::test_support::{resolver_with_file, session_options};
    use super::*;
    use ocpp_station::options::ValidationMode;
    use std::io::Write as _;

    fn configured() -> Settings {
        Settings {
            session: session_options(),
            subprotocols: vec![Version::V16],
            fallback: Fallbacks::default(),
        }
    }

    fn who<'a>(station: &'a IdentityKey, tags: &'a BTreeSet<String>, own: Option<&'a Overrides>) -> Who<'a> {
        Who { listener: "main", station, tags, own }
    }

    const RULES: &str = r#"
        [[rule]]
        tags = ["odd"]
        set.validation = "warn"
        set.ping_interval = "20s"
        [[rule]]
        stations = ["CP-1"]
        set.ping_interval = "0s"
    "#;

    #[test]
    fn the_later_source_wins_setting_by_setting() {
        let (resolver, _file) = resolver_with_file(configured(), RULES);
        let (station, tags) = (IdentityKey::of("CP-1"), BTreeSet::from(["odd".to_owned()]));
        let own: Overrides = serde_json::from_str(r#"{"lenient":true}"#).unwrap();
        let settings = resolver.resolve(&who(&station, &tags, Some(&own)));
        let mut expected = configured();
        expected.session.validation.mode = ValidationMode::Warn;
        expected.session.ping_interval = Duration::ZERO;
        expected.session.lenient = true;
        assert_eq!(*settings, expected);

        let explained = resolver.explain(&who(&station, &tags, Some(&own)));
        let source = |name: &str| explained.iter().find(|(known, ..)| known == name).unwrap().2.clone();
        assert_eq!(source("validation"), Source::Rule(1));
        assert_eq!(source("ping_interval"), Source::Rule(2));
        assert_eq!(source("lenient"), Source::Station);
        assert_eq!(source("idle_timeout"), Source::Configuration);
    }

    #[test]
    fn stations_for_which_the_same_holds_share_it() {
        let (resolver, _file) = resolver_with_file(configured(), RULES);
        let (odd, none) = (BTreeSet::from(["odd".to_owned()]), BTreeSet::new());
        let [one, two] = ["A", "B"].map(IdentityKey::of);
        let resolve = |station, tags| resolver.resolve(&who(station, tags, None));
        assert!(Arc::ptr_eq(&resolve(&one, &odd), &resolve(&two, &odd)));
        assert!(Arc::ptr_eq(&resolve(&one, &none), &resolve(&two, &none)));
    }

    #[test]
    fn what_is_explained_is_what_holds() {
        let mut settings = configured();
        let all = Overrides::of(&settings);
        all.apply(&mut settings);
        assert_eq!(settings, configured(), "writing and applying is the identity");
        let written = serde_json::to_value(&all).unwrap();
        assert_eq!(serde_json::from_value::<Overrides>(written).unwrap(), all);
    }

    #[test]
    fn a_rule_for_a_listener_that_does_not_exist_is_a_mistake() {
        let (resolver, mut file) = resolver_with_file(configured(), "");
        file.write_all(b"[[rule]]\nlisteners = [\"mian\"]\nset.lenient = true").unwrap();
        let error = file::read(file.path(), |name| name == "main").unwrap_err().to_string();
        assert!(error.contains("mian"), "{error}");
        assert!(!resolver.reload(file.path()));
    }

    #[test]
    fn a_wrong_file_leaves_the_rules_in_force() {
        let (resolver, mut file) = resolver_with_file(configured(), RULES);
        file.write_all(b"[[rule]]\nset.nothing = 1").unwrap();
        assert!(!resolver.reload(file.path()));
        assert_eq!(resolver.in_force().rules.len(), 2);
    }
}
