//! The `[answers]` section: built-in answers, and which actions a backend answers; and `[hooks]`, how its URLs are asked.
//!
//! Owns the two shapes that live side by side under `[answers]`: a few keys, and one table for each action. An action's
//! name is taken in any case, because the environment has no other; what the environment says comes last there, too.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use bytesize::ByteSize;
use hyper::Uri;
use ocpp_protocol::{Action, Version};
use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

/// Who answers the CALLs of stations.
#[derive(Clone, Debug, Serialize)]
pub struct Answers {
    /// The status given to every idTag and idToken by a built-in answer: `Accepted` or `Invalid`.
    pub authorization: Authorization,
    /// By action, in the spelling of OCPP. What is not here the gateway answers.
    #[serde(flatten)]
    pub actions: BTreeMap<String, ActionAnswer>,
}

impl Default for Answers {
    fn default() -> Self {
        Self { authorization: Authorization::Accepted, actions: BTreeMap::new() }
    }
}

impl<'de> Deserialize<'de> for Answers {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut written = serde_json::Map::deserialize(deserializer)?;
        let authorization = match written.remove("authorization") {
            Some(word) => serde_json::from_value(word)
                .map_err(|error| D::Error::custom(format!("answers.authorization: {error}")))?,
            None => Self::default().authorization,
        };
        let mut tables: BTreeMap<&str, serde_json::Map<String, Value>> = BTreeMap::new();
        // Exact names first: a name in another case is the environment's, and lies over the file's.
        let (exact, others): (Vec<_>, Vec<_>) =
            written.iter().partition(|(name, _)| Action::find(name).is_some());
        for (name, table) in exact.into_iter().chain(others) {
            let Value::Object(keys) = table else {
                return Err(D::Error::custom(format!("answers.{name} must be a table")));
            };
            let spelling = action_named(name).map_or(name.as_str(), |action| action.name);
            tables.entry(spelling).or_default().extend(keys.clone());
        }
        let actions = tables
            .into_iter()
            .map(|(name, keys)| {
                ActionAnswer::deserialize(Value::Object(keys))
                    .map(|answer| (name.to_owned(), answer))
                    .map_err(|error| D::Error::custom(format!("answers.{name}: {error}")))
            })
            .collect::<Result<_, _>>()?;
        Ok(Self { authorization, actions })
    }
}

/// The action of this name in any case.
pub(super) fn action_named(name: &str) -> Option<&'static Action> {
    Action::all().iter().find(|action| action.name.eq_ignore_ascii_case(name))
}

/// Whether a station calls this action in any version.
pub(super) fn is_stations(action: &Action) -> bool {
    Version::ALL.iter().any(|version| action.station_may_call(*version))
}

/// The status given to every idTag and idToken.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize, Serialize)]
pub enum Authorization {
    /// Everybody may charge.
    Accepted,
    /// Nobody may charge.
    Invalid,
}

impl Authorization {
    /// The OCPP word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Accepted => "Accepted",
            Self::Invalid => "Invalid",
        }
    }
}

/// Who answers one action.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default)]
pub struct ActionAnswer {
    /// `gateway` or `backend`.
    #[serde(deserialize_with = "super::units::word")]
    pub by: AnsweredBy,
    /// How long a backend may take, from the moment at which the CALL was read.
    #[serde(with = "super::units::duration")]
    pub deadline: Duration,
    /// What the station gets then.
    #[serde(deserialize_with = "super::units::word")]
    pub fallback: Fallback,
    /// Where the gateway asks by HTTP; empty means that the backend answers on its own. A URL implies `by = "backend"`.
    pub url: String,
    /// A file with the token for `Authorization: Bearer …`; empty means none.
    pub bearer_token_file: PathBuf,
}

impl Default for ActionAnswer {
    fn default() -> Self {
        Self {
            by: AnsweredBy::Gateway,
            deadline: Duration::from_secs(5),
            fallback: Fallback::Builtin,
            url: String::new(),
            bearer_token_file: PathBuf::new(),
        }
    }
}

impl ActionAnswer {
    /// Whether a backend is asked.
    pub fn is_by_backend(&self) -> bool {
        self.by == AnsweredBy::Backend || !self.url.is_empty()
    }
}

/// The URL of a hook.
///
/// # Errors
/// What is wrong with it.
pub fn hook_target(url: &str) -> Result<Uri, String> {
    let uri: Uri = url.parse().map_err(|error| format!("{url:?} is not a URL: {error}"))?;
    let is_http = matches!(uri.scheme_str(), Some("http" | "https"));
    match uri.authority() {
        Some(authority) if is_http && !authority.as_str().contains('@') => Ok(uri),
        Some(_) if is_http => Err("a password in the URL is not used; see bearer_token_file".to_owned()),
        _ => Err(format!("{url:?} is not a URL that begins with http:// or https://")),
    }
}

/// Who answers.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum AnsweredBy {
    /// The gateway, from its built-in table.
    Gateway,
    /// A backend service.
    Backend,
}

/// What a station gets when no backend answered in time.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Fallback {
    /// The built-in answer.
    Builtin,
    /// CALLERROR InternalError.
    Error,
    /// Nothing: the station asks again, or gives up.
    Silence,
}

impl From<Fallback> for ocpp_station::host::Fallback {
    fn from(fallback: Fallback) -> Self {
        match fallback {
            Fallback::Builtin => Self::Builtin,
            Fallback::Error => Self::Error,
            Fallback::Silence => Self::Silence,
        }
    }
}

/// How the URLs of `[answers]` are asked.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default)]
pub struct Hooks {
    /// Requests to one URL at once.
    pub max_in_flight: usize,
    /// CALLs that may wait for one of these; for the next the fallback applies at once.
    pub max_waiting: usize,
    /// How long a connection may take to be established.
    #[serde(with = "super::units::duration")]
    pub connect_timeout: Duration,
    /// How long one attempt may take.
    #[serde(with = "super::units::duration")]
    pub request_timeout: Duration,
    /// The pause before the second attempt; it doubles from there.
    #[serde(with = "super::units::duration")]
    pub retry_pause: Duration,
    /// The largest response.
    pub max_response_size: ByteSize,
    /// Failures of a URL in a row after which it is not asked for a while.
    pub breaker_failures: u32,
    /// For how long.
    #[serde(with = "super::units::duration")]
    pub breaker_pause: Duration,
}

impl Default for Hooks {
    fn default() -> Self {
        Self {
            max_in_flight: 256,
            max_waiting: 10_000,
            connect_timeout: Duration::from_secs(1),
            request_timeout: Duration::from_secs(2),
            retry_pause: Duration::from_millis(100),
            max_response_size: ByteSize::mib(1),
            breaker_failures: 10,
            breaker_pause: Duration::from_secs(5),
        }
    }
}
