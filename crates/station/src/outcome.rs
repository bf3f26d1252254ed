//! How a command ended, in the closed sets of words that events and HTTP share. Does not decide anything.

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;

use crate::envelope::json_string;

/// How a command ended.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Status {
    /// The station answered CALLRESULT.
    Answered,
    /// The station answered CALLERROR, or something that is not an answer.
    Error,
    /// No answer in time.
    Timeout,
    /// The station is not connected, or its connection ended first.
    Offline,
    /// It expired before it could be sent, or its sender cancelled it.
    Expired,
    /// Too many commands wait for this station.
    QueueFull,
    /// It cannot be sent: not readable, unknown action, wrong direction, a payload that violates its schema, not allowed in
    /// the station's boot state.
    Invalid,
    /// A newer connection of the station took over before the station had answered.
    Replaced,
}

impl Status {
    /// Every status, for metrics.
    pub const ALL: [Self; 8] = [
        Self::Answered,
        Self::Error,
        Self::Timeout,
        Self::Offline,
        Self::Expired,
        Self::QueueFull,
        Self::Invalid,
        Self::Replaced,
    ];

    /// The word in events and over HTTP.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Answered => "answered",
            Self::Error => "error",
            Self::Timeout => "timeout",
            Self::Offline => "offline",
            Self::Expired => "expired",
            Self::QueueFull => "queueFull",
            Self::Invalid => "invalid",
            Self::Replaced => "replaced",
        }
    }
}

/// Whether a command went onto the wire: what a backend must know before it sends the like again.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Sent {
    /// It did not.
    No,
    /// It was handed to the station's connection, once.
    Yes,
    /// The gateway stopped while sending it: it was handed over once or not at all.
    Unknown,
}

impl Sent {
    /// The word in events and over HTTP.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::No => "no",
            Self::Yes => "yes",
            Self::Unknown => "unknown",
        }
    }
}

/// What went wrong, in the station's words or ours.
#[derive(Clone, Debug, Deserialize)]
pub struct CommandError {
    /// An OCPP error code, or the status again.
    pub code: String,
    /// For people.
    pub description: String,
    /// The station's `errorDetails`.
    #[serde(default, deserialize_with = "whatever_is_there")]
    pub details: Option<Box<RawValue>>,
}

impl CommandError {
    /// As events and HTTP show it.
    pub fn to_json(&self) -> String {
        let details = self.details.as_ref().map_or("{}", |details| details.get());
        format!(
            r#"{{"code":{},"description":{},"details":{details}}}"#,
            json_string(&self.code),
            json_string(&self.description)
        )
    }
}

/// A command's end.
#[derive(Clone, Debug, Deserialize)]
pub struct Outcome {
    /// How it ended.
    pub status: Status,
    /// Whether it went onto the wire.
    pub sent: Sent,
    /// The station's answer, byte for byte.
    #[serde(default, deserialize_with = "whatever_is_there")]
    pub payload: Option<Box<RawValue>>,
    /// How the answer violates its schema, if somebody looked.
    #[serde(default)]
    pub violation: Option<String>,
    /// What went wrong.
    pub error: Option<CommandError>,
}

/// Reads a member that may be `null`, which is not the same as missing: a station may answer `null`.
///
/// # Errors
/// When the value is not JSON.
pub fn whatever_is_there<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Box<RawValue>>, D::Error> {
    Box::<RawValue>::deserialize(deserializer).map(Some)
}

impl Outcome {
    /// The station's CALLRESULT.
    pub fn answered(payload: Box<RawValue>) -> Self {
        Self {
            status: Status::Answered,
            sent: Sent::Yes,
            payload: Some(payload),
            violation: None,
            error: None,
        }
    }

    /// The station's CALLERROR.
    pub fn error(error: CommandError) -> Self {
        Self { status: Status::Error, sent: Sent::Yes, payload: None, violation: None, error: Some(error) }
    }

    /// An end without a word from the station, before the command was sent.
    pub fn failed(status: Status, description: impl Into<String>) -> Self {
        let error =
            CommandError { code: status.as_str().into(), description: description.into(), details: None };
        Self { status, sent: Sent::No, payload: None, violation: None, error: Some(error) }
    }

    /// The same for a command that was sent, or may have been.
    #[must_use]
    pub fn after(self, sent: Sent) -> Self {
        Self { sent, ..self }
    }
}
