//! The topic of commands: what a record is, and what it asks for.
//!
//! Owns telling a backend's answer, a batch and a command apart, once for each record, and the `invalid` command that stands
//! for a record that is none of them. Reading an answer is for whoever knows the CALL that it answers.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ocpp_bus::kafka::consumer::Delivery;
use ocpp_protocol::{Identity, IdentityKey};
use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::batch::{Addressees, Plan};
use crate::command::{Command, IfOffline};
use crate::limits::Limits;
use crate::request::{
    BatchRequest, CommandRequest, InvalidCommand, LONGEST_ACTION, LONGEST_ID, NOBODY, empty_object,
};
use crate::trace::CommandTrace;

/// What a record of the topic is meant as, right or wrong, by the members that it has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RecordKind {
    /// A backend's answer to a station's CALL: it has a `messageId` and no `action`.
    Answer,
    /// One command for many stations: it has a `to`.
    Batch,
    /// One command.
    Command,
}

impl RecordKind {
    /// What a record is, in one pass over it.
    ///
    /// # Errors
    /// When it is not a JSON object.
    pub fn of(json: &[u8]) -> Result<Self, InvalidCommand> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase", expecting = "a JSON object")]
        struct Marks {
            message_id: Option<IgnoredAny>,
            action: Option<IgnoredAny>,
            to: Option<IgnoredAny>,
        }
        if json.trim_ascii().is_empty() {
            return Err(InvalidCommand::Empty);
        }
        let marks: Marks = serde_json::from_slice(json)?;
        Ok(match marks {
            Marks { message_id: Some(_), action: None, .. } => Self::Answer,
            Marks { to: Some(_), .. } => Self::Batch,
            Marks { .. } => Self::Command,
        })
    }
}

/// What a record asks for that is no answer.
#[derive(Debug)]
pub enum Wanted {
    /// One command, perhaps an invalid one.
    Command(Command),
    /// One command for many stations.
    Batch(Plan),
}

impl Limits {
    /// Reads a record that [`RecordKind::of`] has looked at, and that is no answer. What is neither a command nor a batch
    /// becomes an invalid command.
    pub fn from_kafka(
        &self,
        topic: &str,
        kind: Result<RecordKind, InvalidCommand>,
        delivery: &Delivery,
        stations: impl FnOnce(&Addressees) -> Vec<String>,
    ) -> Wanted {
        let now = SystemTime::now();
        let taken_at = delivery.produced_ms.map_or(now, |ms| now.min(UNIX_EPOCH + Duration::from_millis(ms)));
        // The same record has the same name whenever it comes.
        let id = || format!("kafka:{topic}:{}:{}", delivery.place.partition, delivery.place.offset);
        match self.read(kind, delivery, id, taken_at, stations) {
            Ok(Wanted::Command(command)) => {
                Wanted::Command(Command { origin: Some(delivery.place), ..command })
            }
            Ok(batch) => batch,
            Err(error) => {
                let command = self.invalid(delivery, &error, id(), taken_at);
                Wanted::Command(Command { origin: Some(delivery.place), ..command })
            }
        }
    }

    fn read(
        &self,
        kind: Result<RecordKind, InvalidCommand>,
        delivery: &Delivery,
        id: impl FnOnce() -> String,
        taken_at: SystemTime,
        stations: impl FnOnce(&Addressees) -> Vec<String>,
    ) -> Result<Wanted, InvalidCommand> {
        if delivery.is_too_large {
            return Err(InvalidCommand::TooLarge(self.max_payload_bytes));
        }
        if kind? == RecordKind::Batch {
            let mut request: BatchRequest = serde_json::from_slice(&delivery.value)?;
            request.traceparent = request.traceparent.or_else(|| delivery.traceparent.clone());
            return self.plan(request, id, stations).map(Wanted::Batch);
        }
        let mut request: CommandRequest = serde_json::from_slice(&delivery.value)?;
        request.traceparent = request.traceparent.or_else(|| delivery.traceparent.clone());
        self.command(request, delivery.key.as_deref(), id, taken_at).map(Wanted::Command)
    }

    /// A command that can only end as invalid, under the names that can be read of it.
    fn invalid(
        &self,
        delivery: &Delivery,
        error: &InvalidCommand,
        id: String,
        taken_at: SystemTime,
    ) -> Command {
        #[derive(Default, Deserialize)]
        #[serde(rename_all = "camelCase", default)]
        struct Names {
            command_id: Option<serde_json::Value>,
            station_id: Option<serde_json::Value>,
            action: Option<serde_json::Value>,
        }
        let names: Names = serde_json::from_slice(&delivery.value).unwrap_or_default();
        let text = |value: Option<serde_json::Value>, longest: usize| {
            let text = value?.as_str()?.to_owned();
            (!text.is_empty() && text.len() <= longest).then_some(text)
        };
        let station = text(names.station_id, 4 * Identity::MAX_CHARS).or_else(|| delivery.key.clone());
        let station = station.filter(|station| Identity::parse(station).is_ok());
        let station = station.unwrap_or_else(|| NOBODY.to_owned());
        Command {
            id: text(names.command_id, LONGEST_ID).unwrap_or(id).into(),
            key: IdentityKey::of(&station),
            station,
            action: text(names.action, LONGEST_ACTION).unwrap_or_default(),
            payload: empty_object().into(),
            timeout: self.default_timeout,
            taken_at,
            expires_at: None,
            if_offline: IfOffline::Fail,
            sequence: 0,
            origin: None,
            batch: None,
            invalid: Some(error.to_string()),
            trace: CommandTrace::stated(delivery.traceparent.as_deref()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_known_by_its_members() {
        for (text, kind) in [
            (r#"{"messageId":"1"}"#, RecordKind::Answer),
            // A wrong one is still meant as one.
            (r#"{"messageId":7,"payload":[]}"#, RecordKind::Answer),
            (r#"{"messageId":"1","to":{}}"#, RecordKind::Answer),
            (r#"{"to":7,"action":"Reset"}"#, RecordKind::Batch),
            (r#"{"commandId":"c","action":"Reset"}"#, RecordKind::Command),
            (r#"{"messageId":"1","action":"Reset"}"#, RecordKind::Command),
            (r#"{"messageId":null,"to":null}"#, RecordKind::Command),
            ("{}", RecordKind::Command),
        ] {
            assert_eq!(RecordKind::of(text.as_bytes()).unwrap(), kind, "{text}");
        }
    }

    #[test]
    fn what_is_no_object_says_why() {
        for (text, reason) in [
            (" ", "the record is empty; it must be a JSON object like {\"action\""),
            ("{", "not a command: EOF"),
            ("7", "not a command: invalid type: integer `7`, expected a JSON object"),
            ("{} {}", "not a command: trailing characters"),
        ] {
            let error = RecordKind::of(text.as_bytes()).unwrap_err().to_string();
            assert!(error.starts_with(reason), "{text}: {error}");
        }
    }
}
