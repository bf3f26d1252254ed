//! A record: what a bus carries. Owns its parts and its cost; does not know what the value says.

use std::sync::Arc;

use bytes::Bytes;
use ocpp_log::NewRecord;

/// What a record's value is, in the publishers' own numbering. Logs store the number, so it never changes its meaning; the
/// options of a Kafka bus say which topic each kind belongs to.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct RecordKind(pub u8);

/// One record: a key and a value.
#[derive(Clone, Debug)]
pub struct Record {
    /// What the value is.
    pub kind: RecordKind,
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

    /// The bytes that count against the byte limit of a bus.
    pub fn cost(&self) -> u32 {
        u32::try_from(Self::OVERHEAD + self.key.len() + self.value.len()).unwrap_or(u32::MAX)
    }

    /// The record as a log stores it.
    pub(crate) fn to_log(&self) -> NewRecord<'_> {
        NewRecord { kind: self.kind.0, time_ms: self.time_ms, key: &self.key, value: &self.value }
    }

    /// The record that a log stored.
    pub(crate) fn from_log(stored: ocpp_log::Record) -> Self {
        Self {
            kind: RecordKind(stored.kind),
            time_ms: stored.time_ms,
            key: stored.key.into(),
            value: stored.value,
        }
    }
}
