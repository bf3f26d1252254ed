//! Reading a command: one format for Kafka and HTTP (design section 5), checked before anything is done.
//!
//! Owns the limits of its fields.

use std::time::{Duration, SystemTime};

use ocpp_protocol::Identity;
use serde::Deserialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;

use crate::batch::{Addressees, Plan};
use crate::command::{Command, IfOffline};
use crate::limits::Limits;
use crate::trace::CommandTrace;

/// The longest `commandId`, in bytes.
pub const LONGEST_ID: usize = 128;
/// The longest name in OCPP has 33 characters.
pub(crate) const LONGEST_ACTION: usize = 64;
/// The station in the result of a command that names none.
pub(crate) const NOBODY: &str = "unknown";
/// A command, for those who sent none.
pub const EXAMPLE: &str = r#"{"action":"Reset","payload":{"type":"Soft"}}"#;
/// Commands a second of a batch.
pub const RATES: std::ops::RangeInclusive<f64> = 0.01..=100_000.0;

/// A command as a backend writes it.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = Command)]
#[serde(rename_all = "camelCase", deny_unknown_fields, expecting = "a command, which is a JSON object")]
pub struct CommandRequest {
    /// The backend's name for it; the gateway makes one if there is none.
    #[schema(min_length = 1, max_length = 128)]
    pub command_id: Option<String>,
    /// The station; over HTTP it is in the path.
    pub station_id: Option<String>,
    /// The OCPP action.
    #[schema(max_length = 64)]
    pub action: String,
    /// A JSON object, sent byte for byte; `{}` if left out.
    #[serde(default, deserialize_with = "ocpp_station::outcome::whatever_is_there")]
    #[schema(value_type = Option<Object>)]
    pub payload: Option<Box<RawValue>>,
    /// How long it may take, in milliseconds; `commands.default_timeout` if it does not say, at most `commands.max_timeout`.
    #[schema(minimum = 1)]
    pub timeout_ms: Option<u64>,
    /// The same as text, such as `10s` or `1m 30s`, instead of `timeoutMs`.
    #[schema(example = "10s")]
    pub timeout: Option<String>,
    /// Not to be sent after this; RFC 3339 in UTC.
    #[schema(format = DateTime)]
    pub expires_at: Option<String>,
    /// `fail` (default) or `queue`.
    #[serde(default)]
    pub if_offline: IfOffline,
    /// The trace that it belongs to (W3C Trace Context). It counts more than the header of this name; one that breaks the rules is ignored.
    pub traceparent: Option<String>,
}

/// One command for many stations, as a backend writes it.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = BatchRequest)]
#[serde(rename_all = "camelCase", deny_unknown_fields, expecting = "a batch, which is a JSON object")]
pub struct BatchRequest {
    /// The backend's name for it; the gateway makes one if there is none.
    #[schema(min_length = 1, max_length = 128)]
    pub batch_id: Option<String>,
    /// Whom it is for.
    pub to: Addressees,
    /// Commands a second; `commands.batch_rate` if it does not say.
    #[schema(minimum = 0.01, maximum = 100_000)]
    pub rate_per_second: Option<f64>,
    /// The OCPP action.
    #[schema(max_length = 64)]
    pub action: String,
    /// A JSON object, sent byte for byte; `{}` if left out.
    #[serde(default, deserialize_with = "ocpp_station::outcome::whatever_is_there")]
    #[schema(value_type = Option<Object>)]
    pub payload: Option<Box<RawValue>>,
    /// How long each command may take, in milliseconds, from its station's turn.
    pub timeout_ms: Option<u64>,
    /// The same as text, such as `10s` or `1m 30s`, instead of `timeoutMs`.
    #[schema(example = "10s")]
    pub timeout: Option<String>,
    /// None is sent after this; RFC 3339 in UTC.
    #[schema(format = DateTime)]
    pub expires_at: Option<String>,
    /// `fail` (default) or `queue`.
    #[serde(default)]
    pub if_offline: IfOffline,
    /// The trace that its commands belong to (W3C Trace Context). One that breaks the rules is ignored.
    pub traceparent: Option<String>,
}

/// Why a request is no command.
#[derive(Debug, thiserror::Error)]
pub enum InvalidCommand {
    /// Its id is empty or too long.
    #[error("commandId must have 1 to {LONGEST_ID} bytes")]
    Id,
    /// There is no such action: the name is too long for one.
    #[error("no such action: the name is too long")]
    Action,
    /// The station's identity is not one.
    #[error("stationId: {0}")]
    Station(#[from] ocpp_protocol::IdentityError),
    /// No station is named.
    #[error("stationId is missing")]
    NoStation,
    /// The payload is not a JSON object.
    #[error("payload must be an object")]
    Payload,
    /// The payload is larger than a station's messages may be.
    #[error("the payload may have {0} bytes (session.max_message_size)")]
    TooLarge(u64),
    /// More stations than ended commands are remembered.
    #[error("a batch may have {0} stations (commands.remembered)")]
    TooMany(usize),
    /// The rate is not one.
    #[error("ratePerSecond must be between 0.01 and 100000")]
    Rate,
    /// It would be over at once.
    #[error("timeoutMs must be at least 1")]
    Timeout,
    /// The timeout is not a duration.
    #[error("timeout {0:?} is not a duration of at least 1 ms, such as \"10s\" or \"500ms\"")]
    NoDuration(String),
    /// There are two timeouts.
    #[error("timeout and timeoutMs say the same: leave one out")]
    TwoTimeouts,
    /// The time is not one.
    #[error("expiresAt {0:?} is not an RFC 3339 time in UTC")]
    Time(String),
    /// There is nothing.
    #[error("the record is empty; it must be a JSON object like {EXAMPLE}")]
    Empty,
    /// Not JSON, or not the fields of a command.
    #[error("not a command: {0}")]
    Unreadable(#[from] serde_json::Error),
}

impl Limits {
    /// Checks a request and completes it. `station` and `id` are used where the request itself names none.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn command(
        &self,
        request: CommandRequest,
        station: Option<&str>,
        id: impl FnOnce() -> String,
        taken_at: SystemTime,
    ) -> Result<Command, InvalidCommand> {
        let CommandRequest {
            command_id,
            station_id,
            action,
            payload,
            timeout_ms,
            timeout,
            expires_at,
            if_offline,
            traceparent,
        } = request;
        let id = command_id.unwrap_or_else(id);
        if id.is_empty() || id.len() > LONGEST_ID {
            return Err(InvalidCommand::Id);
        }
        let station = match (&station_id, station) {
            (Some(named), _) => named.as_str(),
            (None, Some(station)) => station,
            (None, None) => return Err(InvalidCommand::NoStation),
        };
        let identity = Identity::parse(station)?;
        if action.len() > LONGEST_ACTION {
            return Err(InvalidCommand::Action);
        }
        if payload.as_ref().is_some_and(|payload| payload.get().len() as u64 > self.max_payload_bytes) {
            return Err(InvalidCommand::TooLarge(self.max_payload_bytes));
        }
        let payload = match payload {
            None => empty_object(),
            Some(payload) if payload.get().starts_with('{') => payload,
            Some(_) => return Err(InvalidCommand::Payload),
        };
        let stated = stated_timeout(timeout_ms, timeout.as_deref())?;
        let timeout = stated.unwrap_or(self.default_timeout).min(self.max_timeout);
        let mut expires_at = expires_at.map(|text| time(&text)).transpose()?;
        if if_offline == IfOffline::Queue {
            let latest = taken_at + self.offline_ttl;
            expires_at = Some(expires_at.map_or(latest, |at| at.min(latest)));
        }
        Ok(Command {
            id: id.into(),
            station: station.to_owned(),
            key: identity.folded(),
            action,
            payload: payload.into(),
            timeout,
            taken_at,
            expires_at,
            if_offline,
            sequence: 0,
            origin: None,
            batch: None,
            invalid: None,
            trace: CommandTrace::stated(traceparent.as_deref()),
        })
    }

    /// Checks a batch and completes it; `stations` finds whom it is for.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn plan(
        &self,
        request: BatchRequest,
        id: impl FnOnce() -> String,
        stations: impl FnOnce(&Addressees) -> Vec<String>,
    ) -> Result<Plan, InvalidCommand> {
        let BatchRequest {
            batch_id,
            to,
            rate_per_second,
            action,
            payload,
            timeout_ms,
            timeout,
            expires_at,
            if_offline,
            traceparent,
        } = request;
        let id = batch_id.unwrap_or_else(id);
        let rate = rate_per_second.unwrap_or(self.batch_rate);
        if !RATES.contains(&rate) {
            return Err(InvalidCommand::Rate);
        }
        let stations = stations(&to);
        if stations.len() > self.remembered {
            return Err(InvalidCommand::TooMany(self.remembered));
        }
        for station in &stations {
            Identity::parse(station)?;
        }
        let one = CommandRequest {
            command_id: Some(id.clone()),
            station_id: None,
            action,
            payload,
            timeout_ms,
            timeout,
            expires_at,
            if_offline,
            traceparent,
        };
        // Every command of the batch is like this one, but for its station.
        let model = self.command(one, Some(NOBODY), || id.clone(), SystemTime::now())?;
        let plan = Plan::new(id.into(), stations, &model, rate);
        let size = plan.size();
        let most = self.max_payload_bytes;
        if size > most { Err(InvalidCommand::TooLarge(most)) } else { Ok(plan) }
    }
}

pub(crate) fn empty_object() -> Box<RawValue> {
    serde_json::value::to_raw_value(&serde_json::Map::new()).unwrap_or_else(|_| RawValue::NULL.to_owned())
}

/// The timeout in either spelling.
fn stated_timeout(millis: Option<u64>, text: Option<&str>) -> Result<Option<Duration>, InvalidCommand> {
    match (millis, text) {
        (Some(_), Some(_)) => Err(InvalidCommand::TwoTimeouts),
        (Some(0), None) => Err(InvalidCommand::Timeout),
        (millis, None) => Ok(millis.map(Duration::from_millis)),
        (None, Some(text)) => {
            let duration = humantime::parse_duration(text).ok().filter(|it| *it >= Duration::from_millis(1));
            duration.map(Some).ok_or_else(|| InvalidCommand::NoDuration(text.to_owned()))
        }
    }
}

fn time(text: &str) -> Result<SystemTime, InvalidCommand> {
    humantime::parse_rfc3339_weak(text).map_err(|_| InvalidCommand::Time(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits() -> Limits {
        Limits { max_payload_bytes: 100, ..Limits::sample() }
    }

    fn read(json: &str) -> Result<Command, InvalidCommand> {
        limits().command(serde_json::from_str(json)?, None, || "generated".into(), SystemTime::now())
    }

    #[test]
    fn a_command_is_completed_with_the_defaults() {
        let command = read(r#"{"stationId":"CP-1","action":"Reset"}"#).unwrap();
        assert_eq!((&*command.id, command.payload.get()), ("generated", "{}"));
        assert_eq!(command.timeout, limits().default_timeout);
        assert_eq!(command.send_by(), command.taken_at + command.timeout);
    }

    #[test]
    fn a_timeout_has_two_spellings() {
        for (text, millis) in [
            (r#""timeoutMs":1500"#, 1500),
            (r#""timeout":"1s 500ms""#, 1500),
            (r#""timeout":"1500ms""#, 1500),
            (r#""timeout":"1year""#, u64::MAX),
        ] {
            let command = read(&format!(r#"{{"stationId":"CP-1","action":"Reset",{text}}}"#)).unwrap();
            assert_eq!(command.timeout, Duration::from_millis(millis).min(limits().max_timeout), "{text}");
        }
    }

    #[test]
    fn a_queued_command_has_an_end() {
        let command =
            read(r#"{"stationId":"CP-1","action":"Reset","ifOffline":"queue","timeoutMs":1000}"#).unwrap();
        assert_eq!(command.send_by(), command.taken_at + limits().offline_ttl);
    }

    #[test]
    fn the_payload_is_kept_byte_for_byte() {
        let command = read(r#"{"stationId":"CP-1","action":"Reset","payload":{ "a" : 1.0 }}"#).unwrap();
        assert_eq!(command.payload.get(), r#"{ "a" : 1.0 }"#);
    }

    #[test]
    fn what_is_no_command_says_why() {
        for (json, word) in [
            (r#"{"stationId":"CP-1"}"#, "action"),
            (r#"{"action":"Reset"}"#, "stationId"),
            (r#"{"stationId":"","action":"Reset"}"#, "stationId"),
            (r#"{"stationId":"CP-1","action":"Reset","payload":[]}"#, "payload"),
            (r#"{"stationId":"CP-1","action":"Reset","payload":null}"#, "payload"),
            (r#"{"stationId":"CP-1","action":"Reset","timeoutMs":0}"#, "timeoutMs"),
            (r#"{"stationId":"CP-1","action":"Reset","timeout":"soon"}"#, "such as \"10s\""),
            (r#"{"stationId":"CP-1","action":"Reset","timeout":"10"}"#, "such as \"10s\""),
            (r#"{"stationId":"CP-1","action":"Reset","timeout":"0s"}"#, "at least 1 ms"),
            (r#"{"stationId":"CP-1","action":"Reset","timeout":"1s","timeoutMs":1000}"#, "leave one out"),
            (r#"{"stationId":"CP-1","action":"Reset","commandId":""}"#, "commandId"),
            ("7", "expected a command"),
            (r#"{"stationId":"CP-1","action":"Reset","expiresAt":"soon"}"#, "expiresAt"),
            (r#"{"stationId":"CP-1","action":"Reset","ifOffline":"wait"}"#, "wait"),
            (r#"{"stationId":"CP-1","action":"Reset","timoutMs":1}"#, "timoutMs"),
            ("{", "EOF"),
        ] {
            let error = read(json).unwrap_err().to_string();
            assert!(error.contains(word), "{json}: {error}");
        }
        let large =
            format!(r#"{{"stationId":"CP-1","action":"Reset","payload":{{"a":"{}"}}}}"#, "x".repeat(100));
        assert!(matches!(read(&large), Err(InvalidCommand::TooLarge(100))));
    }
}
