//! What an operator sets for sessions, as the core needs it. Does not read configuration and does not check it.

use std::time::Duration;

use ocpp_protocol::{Action, ActionSet, IdRules, Tolerance, ViolationKind};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The rules that a session keeps. They may change while it runs ([`crate::Session::on_options`]).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Options {
    /// Answers that may wait for durability or for the socket; at this many the session stops reading.
    pub max_unacknowledged: usize,
    /// How often the gateway pings; zero means never.
    pub ping_interval: Duration,
    /// A connection without any inbound frame for this long is closed.
    pub idle_timeout: Duration,
    /// A station that takes nothing for this long is closed.
    pub write_timeout: Duration,
    /// How long the end of a session waits: for answers in flight, and then for the station's close frame.
    pub close_timeout: Duration,
    /// An answer held back for this long while storage does not acknowledge ends the session; zero means never.
    pub hold_limit: Duration,
    /// No command is sent until the station's first CALL was answered or this time has passed.
    pub grace: Duration,
    /// CALLs of a station that was never registered.
    pub before_boot: BeforeBoot,
    /// A station that is refused because it is not registered is asked to send BootNotification.
    pub trigger_boot: bool,
    /// The `interval` in answers to BootNotification.
    pub boot_interval: Duration,
    /// The status that built-in answers give to every idTag and idToken.
    pub authorization: Authorization,
    /// What is done about payloads that violate their schemas.
    pub validation: Validation,
    /// Binary messages that hold text are taken as text.
    pub lenient: bool,
    /// Times in built-in answers have milliseconds; some stations cannot parse them (ocpp-j 5).
    pub fractional_seconds: bool,
    /// The session ends when this many commands in a row were not answered in time; zero means never.
    pub close_after_timeouts: u32,
}

/// What happens to CALLs of a station that was never registered.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum BeforeBoot {
    /// CALLERROR SecurityError, as OCPP 2.x demands (B01.FR.10) and the errata of 1.6 recommend (3.8)
    Refuse,
    /// as if the station had been accepted; useful in the first days after a migration, when accepted stations reconnect without
    /// a BootNotification
    Accept,
}

/// What is done about payloads that violate their schemas.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Validation {
    /// What is done about those of stations.
    pub mode: ValidationMode,
    /// What is done about those of commands.
    pub commands: ValidationMode,
    /// Deviations of stations that are counted and no reason to refuse a message.
    pub tolerate: Tolerance,
    /// Actions whose messages and commands are never refused: what is enforced elsewhere is told of here.
    pub exempt: ActionSet,
    /// Which message ids are read besides those of the specification, whatever the mode.
    pub message_ids: IdRules,
}

impl Validation {
    /// Nothing is checked.
    pub const OFF: Self = Self {
        mode: ValidationMode::Off,
        commands: ValidationMode::Off,
        tolerate: Tolerance::NONE,
        exempt: ActionSet::NONE,
        message_ids: IdRules { long: false, numeric: false },
    };

    /// Whether a station's message is refused for a violation that is not tolerated.
    pub fn refuses(&self, action: &Action) -> bool {
        self.mode == ValidationMode::Enforce && !self.exempt.contains(action)
    }

    /// Whether a command is refused for a violation.
    pub fn refuses_command(&self, action: &Action) -> bool {
        self.commands == ValidationMode::Enforce && !self.exempt.contains(action)
    }
}

/// A deviation from the schemas that real stations show, and that can be let through.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Leniency {
    /// text that is too long
    LongStrings,
    /// text that is not one of the allowed values
    UnknownValues,
    /// a single value where a list is due
    SingleForList,
    /// text where a number is due, or a number where text is due
    NumbersAsStrings,
    /// `null` for an optional member
    Nulls,
    /// a time without a zone, or in another form of ISO 8601 that is not one of RFC 3339
    Times,
    /// members that the schema does not have
    Additional,
}

impl Leniency {
    /// Every one, in the order in which they are documented.
    pub const ALL: [Self; 7] = [
        Self::LongStrings,
        Self::UnknownValues,
        Self::SingleForList,
        Self::NumbersAsStrings,
        Self::Nulls,
        Self::Times,
        Self::Additional,
    ];

    /// What it lets through.
    pub fn kinds(self) -> &'static [ViolationKind] {
        match self {
            Self::LongStrings => &[ViolationKind::LongString],
            Self::UnknownValues => &[ViolationKind::UnknownValue],
            Self::SingleForList => &[ViolationKind::SingleForList],
            Self::NumbersAsStrings => &[ViolationKind::NumberAsString, ViolationKind::StringAsNumber],
            Self::Nulls => &[ViolationKind::Null],
            Self::Times => &[ViolationKind::OddTime],
            Self::Additional => &[ViolationKind::Additional],
        }
    }
}

/// A deviation in message ids that can be let through.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum IdLeniency {
    /// ids of more than 36 characters, up to 255
    Long,
    /// ids that are JSON numbers; the answer repeats the number, and in events and hooks it is text
    Numeric,
}

/// What is done about a payload that violates its schema.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ValidationMode {
    /// payloads are opaque
    Off,
    /// violations are told of, and the message goes on all the same
    Warn,
    /// the message is refused
    Enforce,
}

/// The status given to every idTag and idToken.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize, Serialize, JsonSchema)]
pub enum Authorization {
    /// everybody may charge
    Accepted,
    /// nobody may charge
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
