//! What a station knows about its CALLs, and how their ids are written.

use serde::{Deserialize, Serialize};

use super::Habit;
use crate::ranges::Ranges;

/// What a station knows at the end about its CALLs, for the verification.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Account {
    /// The station.
    pub number: u32,
    /// How it behaved.
    pub habit: Habit,
    /// CALLs sent, each counted once: their numbers are `0..sent`.
    pub sent: u32,
    /// Those that were answered, with whatever.
    pub answered: Ranges,
    /// Those that were sent again: as many as there were open when connections were lost.
    pub again: Vec<Again>,
}

/// A CALL that was sent more than once.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Again {
    /// Its number.
    pub seq: u32,
    /// How often it was sent after the first time.
    pub times: u32,
    /// The gateway remembers no CALL of this action: each send is an event.
    pub never_remembered: bool,
}

/// The identity of a station.
pub fn identity(prefix: &str, number: u32) -> String {
    format!("{prefix}{number:06}")
}

/// The message id of a station's CALL. Ascending numbers, so that a reader needs no list of them.
pub fn message_id(run: &str, seq: u32) -> String {
    format!("{run}-{seq}")
}

/// The number in a message id of this run.
pub fn parse_message_id(run: &str, id: &str) -> Option<u32> {
    id.strip_prefix(run)?.strip_prefix('-')?.parse().ok()
}
