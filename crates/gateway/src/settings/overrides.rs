//! What may be set for some stations otherwise than for all.
//!
//! Owns the names of these settings, in the rules file and in the API alike, and their limits. A setting that is left out leaves
//! what holds for all.

use std::collections::BTreeMap;
use std::time::Duration;

use ocpp_options::{DurationText, Problems, word, words_of};
use ocpp_protocol::{Action, Version};
use ocpp_station::host::Fallback;
use ocpp_station::options::{Authorization, BeforeBoot, IdLeniency, Leniency, ValidationMode};
use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;
use utoipa::ToSchema;

use super::Settings;
use crate::validation::{ActionNames, id_leniencies, id_rules, leniencies, tolerance};

/// Settings for some stations; each is optional. Names and values are those of the configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
#[schema(as = StationSettings)]
#[serde(default, deny_unknown_fields)]
pub struct Overrides {
    /// `validation.mode`: `off`, `warn` or `enforce`.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "one")]
    #[schema(value_type = Option<String>)]
    pub validation: Option<ValidationMode>,
    /// `validation.commands`: `off`, `warn` or `enforce`.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "one")]
    #[schema(value_type = Option<String>)]
    pub validate_commands: Option<ValidationMode>,
    /// `validation.tolerate`.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "several")]
    #[schema(value_type = Option<Vec<String>>)]
    pub tolerate: Option<Vec<Leniency>>,
    /// `validation.exempt`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Vec<String>>)]
    pub exempt: Option<ActionNames>,
    /// `validation.message_ids`.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "several")]
    #[schema(value_type = Option<Vec<String>>)]
    pub message_ids: Option<Vec<IdLeniency>>,
    /// `registration.before_boot`: `refuse` or `accept`.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "one")]
    #[schema(value_type = Option<String>)]
    pub before_boot: Option<BeforeBoot>,
    /// `registration.trigger_boot`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trigger_boot: Option<bool>,
    /// `registration.interval`, such as `"5m"`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub boot_interval: Option<Span>,
    /// `answers.authorization`: `Accepted` or `Invalid`.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "one")]
    #[schema(value_type = Option<String>)]
    pub authorization: Option<Authorization>,
    /// `answers.ACTION.fallback` by action, for actions that a backend answers: `reject`, `builtin`, `error` or `silence`. Layers
    /// are not mixed: the last that sets any holds.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<std::collections::BTreeMap<String, String>>)]
    pub fallback: Option<Fallbacks>,
    /// `answers.fractional_seconds`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fractional_seconds: Option<bool>,
    /// `session.ping_interval`; `"0s"` for none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub ping_interval: Option<Span>,
    /// `session.idle_timeout`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub idle_timeout: Option<Span>,
    /// `commands.grace`; counts from the station's next connection.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub grace: Option<Span>,
    /// `commands.close_after_timeouts`; 0 for never.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub close_after_timeouts: Option<u32>,
    /// `listeners.NAME.lenient`. What concerns the handshake counts from the station's next connection.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lenient: Option<bool>,
    /// `listeners.NAME.subprotocols`, from the station's next connection. A lenient one that offers none is taken to speak the only
    /// version here, or 1.6.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Vec<String>>)]
    pub subprotocols: Option<Subprotocols>,
}

impl Overrides {
    /// All settings of this, as one would write them.
    pub(super) fn of(settings: &Settings) -> Self {
        let session = &settings.session;
        Self {
            validation: Some(session.validation.mode),
            validate_commands: Some(session.validation.commands),
            tolerate: Some(leniencies(session.validation.tolerate)),
            exempt: Some(ActionNames(session.validation.exempt)),
            message_ids: Some(id_leniencies(session.validation.message_ids)),
            before_boot: Some(session.before_boot),
            trigger_boot: Some(session.trigger_boot),
            boot_interval: Some(Span(session.boot_interval)),
            authorization: Some(session.authorization),
            fallback: Some(settings.fallback.clone()),
            fractional_seconds: Some(session.fractional_seconds),
            ping_interval: Some(Span(session.ping_interval)),
            idle_timeout: Some(Span(session.idle_timeout)),
            grace: Some(Span(session.grace)),
            close_after_timeouts: Some(session.close_after_timeouts),
            lenient: Some(session.lenient),
            subprotocols: Some(Subprotocols(settings.subprotocols.clone())),
        }
    }

    /// Sets what is here.
    pub(super) fn apply(&self, settings: &mut Settings) {
        fn set<T: Clone>(target: &mut T, value: Option<&T>) {
            if let Some(value) = value {
                target.clone_from(value);
            }
        }
        let span = |span: &Option<Span>| span.map(|span| span.0);
        let session = &mut settings.session;
        set(&mut session.validation.mode, self.validation.as_ref());
        set(&mut session.validation.commands, self.validate_commands.as_ref());
        set(&mut session.validation.tolerate, self.tolerate.as_deref().map(tolerance).as_ref());
        set(&mut session.validation.exempt, self.exempt.as_ref().map(|actions| &actions.0));
        set(&mut session.validation.message_ids, self.message_ids.as_deref().map(id_rules).as_ref());
        set(&mut session.before_boot, self.before_boot.as_ref());
        set(&mut session.trigger_boot, self.trigger_boot.as_ref());
        set(&mut session.boot_interval, span(&self.boot_interval).as_ref());
        set(&mut session.authorization, self.authorization.as_ref());
        set(&mut settings.fallback, self.fallback.as_ref());
        set(&mut session.fractional_seconds, self.fractional_seconds.as_ref());
        set(&mut session.ping_interval, span(&self.ping_interval).as_ref());
        set(&mut session.idle_timeout, span(&self.idle_timeout).as_ref());
        set(&mut session.grace, span(&self.grace).as_ref());
        set(&mut session.close_after_timeouts, self.close_after_timeouts.as_ref());
        set(&mut session.lenient, self.lenient.as_ref());
        set(&mut settings.subprotocols, self.subprotocols.as_ref().map(|versions| &versions.0));
    }

    /// The settings that are here, by name.
    pub(crate) fn members(&self) -> Vec<(String, Value)> {
        // A plain struct always serializes to an object.
        match serde_json::to_value(self) {
            Ok(Value::Object(members)) => members.into_iter().collect(),
            _ => Vec::new(),
        }
    }

    /// Whether nothing is set.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// What is wrong with these values: they have the limits of the configuration.
    pub fn check(&self, problems: &mut Problems) {
        if let Some(Span(interval)) = self.boot_interval {
            problems.demand(
                (1..=86_400 * 365).contains(&interval.as_secs()),
                "boot_interval must be between 1s and a year",
            );
        }
        if let Some(Span(interval)) = self.ping_interval {
            problems.demand(
                interval.is_zero() || interval >= Duration::from_millis(10),
                "ping_interval must be 0s or at least 10ms",
            );
        }
        if let Some(Span(limit)) = self.idle_timeout {
            problems.demand_positive("idle_timeout", limit);
        }
        if let (Some(Span(interval)), Some(Span(limit))) = (self.ping_interval, self.idle_timeout) {
            problems.demand(
                interval.is_zero() || interval < limit,
                "ping_interval must be shorter than idle_timeout",
            );
        }
        if let Some(versions) = &self.subprotocols {
            problems.demand(!versions.0.is_empty(), "subprotocols must not be empty");
        }
    }
}

/// A duration as it is written: `10s`, `5m`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize, Serialize)]
#[serde(transparent)]
pub struct Span(#[serde(with = "DurationText")] pub Duration);

/// What stations get when no backend answers, by action.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fallbacks(BTreeMap<&'static str, Fallback>);

impl Fallbacks {
    /// What is set for this action.
    pub fn of(&self, action: &Action) -> Option<Fallback> {
        self.0.get(action.name).copied()
    }
}

impl<'de> Deserialize<'de> for Fallbacks {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let named = |(name, fallback): (String, Fallback)| match Action::find(&name) {
            Some(action) => Ok((action.name, fallback)),
            None => Err(D::Error::custom(format!("{name:?} is not an action"))),
        };
        BTreeMap::deserialize(deserializer)?.into_iter().map(named).collect::<Result<_, _>>().map(Self)
    }
}

impl Serialize for Fallbacks {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

/// OCPP versions, by the names of their subprotocols.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Subprotocols(pub Vec<Version>);

impl<'de> Deserialize<'de> for Subprotocols {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        ocpp_options::words(deserializer)?
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

/// Several words, where they are there.
fn several<'de, D: Deserializer<'de>, T: serde::de::DeserializeOwned>(
    deserializer: D,
) -> Result<Option<Vec<T>>, D::Error> {
    words_of(deserializer).map(Some)
}

/// One word, where it is there.
fn one<'de, D: Deserializer<'de>, T: serde::de::DeserializeOwned>(
    deserializer: D,
) -> Result<Option<T>, D::Error> {
    word(deserializer).map(Some)
}
