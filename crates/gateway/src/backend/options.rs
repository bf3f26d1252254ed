//! Options of answers: the built-in ones, which actions a backend answers, and how its URLs are asked.
//!
//! Owns the two shapes that stand side by side under `[answers]`: a few keys, and one table for each action. The name of an
//! action is accepted in any case, because the environment has no other. What the environment says wins there, too.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use bytesize::ByteSize;
use hyper::Uri;
use ocpp_options::{DurationText, Problems, SizeText, word};
use ocpp_protocol::{Action, Version, refusals};
use ocpp_station::host::Fallback;
use ocpp_station::options::Authorization;
use schemars::JsonSchema;
use serde::de::{DeserializeOwned, Error};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

/// A backend that has less time could never answer.
const SHORTEST_WAIT: Duration = Duration::from_millis(10);
/// OCPP 2.1 Part 2, 3.2, suggests that a station waits 30 s for an answer; nobody waits longer than this.
const LONGEST_WAIT: Duration = Duration::from_secs(120);

/// Who answers the CALLs of stations: the gateway, unless an action has a table of its own, `[answers.ACTION]`
/// (`[answers.Authorize]`, …; any action that stations call). In the environment the action may be in any case:
/// `OCPP_GATEWAY__ANSWERS__AUTHORIZE__URL`. How it works is in [operations.md](operations.md#answers-by-a-backend), why in
/// [ADR 0010](adr/0010-backend-answers.md).
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct AnswersOptions {
    /// The status of every idTag and idToken in a built-in answer.
    pub authorization: Authorization,
    /// Whether times in built-in answers have milliseconds. Some stations cannot parse them.
    pub fractional_seconds: bool,
    /// By action, in the spelling of OCPP. The gateway answers what is not here.
    #[serde(flatten)]
    pub actions: BTreeMap<String, ActionOptions>,
}

impl Default for AnswersOptions {
    fn default() -> Self {
        Self { authorization: Authorization::Accepted, fractional_seconds: true, actions: BTreeMap::new() }
    }
}

impl<'de> Deserialize<'de> for AnswersOptions {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut written = serde_json::Map::deserialize(deserializer)?;
        let default = Self::default();
        let authorization = member(&mut written, "authorization")?.unwrap_or(default.authorization);
        let fractional_seconds =
            member(&mut written, "fractional_seconds")?.unwrap_or(default.fractional_seconds);
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
                ActionOptions::deserialize(Value::Object(keys))
                    .map(|answer| (name.to_owned(), answer))
                    .map_err(|error| D::Error::custom(format!("answers.{name}: {error}")))
            })
            .collect::<Result<_, _>>()?;
        Ok(Self { authorization, fractional_seconds, actions })
    }
}

/// A key beside the tables. The environment has texts only.
fn member<T: DeserializeOwned, E: Error>(
    written: &mut serde_json::Map<String, Value>,
    key: &str,
) -> Result<Option<T>, E> {
    let Some(value) = written.remove(key) else { return Ok(None) };
    serde_json::from_value(value).map(Some).map_err(|error| E::custom(format!("answers.{key}: {error}")))
}

impl AnswersOptions {
    /// What is wrong with these values.
    pub fn check(&self, problems: &mut Problems) {
        for (name, answer) in &self.actions {
            problems.demand(
                action_named(name).is_some_and(is_from_station),
                format!("answers.{name}: stations never call {name}; remove the table"),
            );
            answer.check(name, problems);
        }
    }
}

/// The action of this name in any case.
pub(crate) fn action_named(name: &str) -> Option<&'static Action> {
    Action::all().iter().find(|action| action.name.eq_ignore_ascii_case(name))
}

/// Whether a station calls this action in any version.
pub(crate) fn is_from_station(action: &Action) -> bool {
    Version::ALL.iter().any(|version| action.station_may_call(*version))
}

/// An action with a table of its own; any that stations call may have one.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(default)]
pub struct ActionOptions {
    /// Who answers.
    #[serde(deserialize_with = "word")]
    pub by: AnsweredBy,
    /// How long a backend may take, from 10 ms to 2 minutes after the CALL was read. Keep it below the time that stations wait for
    /// an answer (commonly 30 s), with a margin for storing the event.
    #[serde(with = "DurationText")]
    pub deadline: Duration,
    /// What the station gets when no backend answered in time, or its hook failed.
    #[serde(deserialize_with = "word")]
    pub fallback: Fallback,
    /// The status with which `fallback = "reject"` refuses: one of the action's own, such as `Blocked`; a version that does not
    /// have it gets the usual one. Empty: `Invalid` for a token, `Pending` for a station that never booted (others keep the
    /// registration that they have), `Rejected` or `Failed` for the rest.
    pub fallback_status: String,
    /// An HTTP hook that is asked about every CALL: `http://…` or `https://…` (with the system's root certificates). Implies
    /// `by = "backend"`.
    pub url: String,
    /// A file with the token that the hook is sent in `Authorization: Bearer …`. Read at start.
    pub bearer_token_file: PathBuf,
}

impl Default for ActionOptions {
    fn default() -> Self {
        Self {
            by: AnsweredBy::Gateway,
            deadline: Duration::from_secs(5),
            fallback: Fallback::Reject,
            fallback_status: String::new(),
            url: String::new(),
            bearer_token_file: PathBuf::new(),
        }
    }
}

impl ActionOptions {
    /// Whether a backend is asked.
    pub fn is_by_backend(&self) -> bool {
        self.by == AnsweredBy::Backend || !self.url.is_empty()
    }

    /// The status of refusals; none for the usual one.
    pub fn refusal_status(&self, action: &'static Action) -> Option<&'static str> {
        refusals_of(action).into_iter().find(|word| *word == self.fallback_status)
    }

    fn check(&self, name: &str, problems: &mut Problems) {
        if !self.fallback_status.is_empty()
            && let Some(problem) = action_named(name).and_then(|action| self.status_problem(action))
        {
            problems.demand(false, format!("answers.{name}.fallback_status: {problem}"));
        }
        problems.demand(
            (SHORTEST_WAIT..=LONGEST_WAIT).contains(&self.deadline),
            format!(
                "answers.{name}.deadline must be between {SHORTEST_WAIT:?} and {LONGEST_WAIT:?}: stations stop waiting, too"
            ),
        );
        if !self.url.is_empty()
            && let Err(problem) = hook_target(&self.url)
        {
            problems.demand(false, format!("answers.{name}.url: {problem}"));
        }
        problems.demand(
            !self.url.is_empty() || self.bearer_token_file.as_os_str().is_empty(),
            format!("answers.{name}.bearer_token_file needs answers.{name}.url"),
        );
    }

    /// What is wrong with `fallback_status` of this action.
    fn status_problem(&self, action: &'static Action) -> Option<String> {
        let (name, words) = (action.name, refusals_of(action));
        if self.fallback != Fallback::Reject {
            Some(format!("needs answers.{name}.fallback = \"reject\""))
        } else if words.is_empty() {
            Some(format!("a response to {name} has no status to refuse with"))
        } else if self.refusal_status(action).is_none() {
            Some(format!("{:?} is not one of {}", self.fallback_status, words.join(", ")))
        } else {
            None
        }
    }
}

/// The statuses with which a response to this action may refuse, in any version.
fn refusals_of(action: &'static Action) -> Vec<&'static str> {
    let mut words: Vec<_> = Version::ALL.iter().flat_map(|version| refusals(*version, action)).collect();
    words.sort_unstable();
    words.dedup();
    words
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

/// Who answers an action.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum AnsweredBy {
    /// the built-in answer
    Gateway,
    /// the CALL's event says `answeredBy: "backend"` and until when, and a backend answers through
    /// `POST /api/v1/stations/{id}/answers` or the topic of commands
    Backend,
}

/// How the URLs of `[answers.ACTION]` are asked.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(default)]
pub struct HookOptions {
    /// Requests to one URL at once, and idle connections kept for each host.
    #[schemars(extend("x-tuning" = true))]
    pub max_in_flight: usize,
    /// CALLs that may wait until such a request may start. For the next one the fallback applies at once.
    #[schemars(extend("x-tuning" = true))]
    pub max_waiting: usize,
    /// How long a connection may take to be established.
    #[serde(with = "DurationText")]
    #[schemars(extend("x-tuning" = true))]
    pub connect_timeout: Duration,
    /// How long one attempt may take. Connection failures, timeouts, 5xx and 429 are retried until the action's deadline.
    #[serde(with = "DurationText")]
    pub request_timeout: Duration,
    /// The pause before the second attempt. It doubles with every attempt, up to 2 s, less up to half of it at random.
    #[serde(with = "DurationText")]
    #[schemars(extend("x-tuning" = true))]
    pub retry_pause: Duration,
    /// The largest response. A larger one is no answer.
    #[serde(with = "SizeText")]
    #[schemars(extend("x-tuning" = true))]
    pub max_response_size: ByteSize,
    /// After this many failed attempts in a row a URL is no longer asked, and the fallback applies at once.
    #[schemars(extend("x-tuning" = true))]
    pub breaker_failures: u32,
    /// How long it is not asked. Then it is asked about one CALL, and used again if that succeeds.
    #[serde(with = "DurationText")]
    #[schemars(extend("x-tuning" = true))]
    pub breaker_pause: Duration,
}

impl Default for HookOptions {
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

impl HookOptions {
    /// What is wrong with these values.
    pub fn check(&self, problems: &mut Problems) {
        problems.demand_count("hooks.max_in_flight", self.max_in_flight);
        problems.demand_count("hooks.max_waiting", self.max_waiting);
        problems.demand(
            [self.connect_timeout, self.request_timeout, self.retry_pause].iter().all(|time| !time.is_zero()),
            "hooks.connect_timeout, hooks.request_timeout and hooks.retry_pause must be positive",
        );
        problems.demand(self.breaker_failures > 0, "hooks.breaker_failures must be positive");
        problems.demand(
            (1024..=64 << 20).contains(&self.max_response_size.as_u64()),
            "hooks.max_response_size must be between 1 KiB and 64 MiB",
        );
    }
}
