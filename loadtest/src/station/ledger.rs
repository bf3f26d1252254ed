//! What a station knows about its CALLs, and the form of their ids.

use serde::{Deserialize, Serialize};

use super::Behaviour;
use crate::ranges::Ranges;

/// A station's record of its CALLs, which is compared with the bus at the end.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Ledger {
    /// The station's number.
    pub number: u32,
    /// How it behaved.
    pub behaviour: Behaviour,
    /// Number of CALLs sent, each counted once: their sequence numbers are `0..sent`.
    pub sent: u32,
    /// CALLs that were answered with a CALLRESULT or CALLERROR.
    pub answered: Ranges,
    /// CALLs that were sent again: at most those that were open when a connection was lost.
    pub again: Vec<Again>,
}

/// A CALL that was sent more than once.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Again {
    /// Its sequence number.
    pub seq: u32,
    /// How often it was sent after the first time.
    pub times: u32,
    /// The gateway does not deduplicate this action: each send is an event.
    pub never_remembered: bool,
}

/// Returns the identity of a station.
pub fn identity(prefix: &str, number: u32) -> String {
    format!("{prefix}{number:06}")
}

/// Returns the message id of a station's CALL. The numbers ascend, so that a reader can keep ranges instead of a list.
pub fn message_id(run: &str, seq: u32) -> String {
    format!("{run}-{seq}")
}

/// Returns the sequence number in a message id of this run.
pub fn parse_message_id(run: &str, id: &str) -> Option<u32> {
    id.strip_prefix(run)?.strip_prefix('-')?.parse().ok()
}
