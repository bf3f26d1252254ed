//! A record: what the bus carries. Owns its parts and its cost; does not know what the value says.

use std::sync::Arc;

use bytes::Bytes;

/// Which of the configured topics a record belongs to. The number is what the local log stores as the record's kind.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Class {
    /// Station and message events.
    Event = 0,
    /// Outcomes of commands.
    CommandResult = 1,
    /// A station's state, in the journal only; never sent to Kafka.
    StationState = 2,
    /// A command's state, in a journal only; never sent to Kafka.
    Command = 3,
    /// One command for many stations, in a journal only; never sent to Kafka.
    CommandBatch = 4,
}

impl Class {
    /// The class that the local log stored under this number.
    pub fn from_kind(kind: u8) -> Option<Self> {
        match kind {
            0 => Some(Self::Event),
            1 => Some(Self::CommandResult),
            2 => Some(Self::StationState),
            3 => Some(Self::Command),
            4 => Some(Self::CommandBatch),
            _ => None,
        }
    }
}

/// One record: its partition key and its value.
#[derive(Clone, Debug)]
pub struct Record {
    /// The topic it belongs to.
    pub class: Class,
    /// When the gateway saw it, in milliseconds since 1970; retention by age counts from it.
    pub time_ms: u64,
    /// The station's identity: records of one key stay in order.
    pub key: Arc<str>,
    /// The value, opaque to the bus.
    pub value: Bytes,
}

impl Record {
    /// What a record costs beside its key and value: its place in the queue and its bookkeeping, rounded up.
    const OVERHEAD: usize = 128;

    /// The bytes that count against the bus's byte limit.
    pub fn cost(&self) -> u32 {
        u32::try_from(Self::OVERHEAD + self.key.len() + self.value.len()).unwrap_or(u32::MAX)
    }
}
