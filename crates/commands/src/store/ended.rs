//! A command that has ended: what is remembered of it.
//!
//! Owns what it costs in memory, and its result event, which is the same however often it is published.

use std::sync::Arc;

use ocpp_bus::Record;
use ocpp_bus::kafka::consumer::RecordPlace;
use ocpp_station::Outcome;
use serde_json::value::RawValue;

use crate::command::Command;
use crate::kinds;

/// A command that has ended.
#[derive(Debug)]
pub struct Ended {
    /// The backend's name for it.
    pub id: Arc<str>,
    /// Its station, in the spelling of the result event.
    pub station: String,
    /// Where it was in Kafka.
    pub origin: Option<RecordPlace>,
    /// The batch that it was part of.
    pub batch: Option<Arc<str>>,
    /// How it ended. None if the journal holds an event that cannot be read.
    pub outcome: Option<Outcome>,
    /// Its result event, the same whenever it is published.
    pub event: Box<RawValue>,
    /// When it ended, in milliseconds since 1970.
    pub at_ms: u64,
}

impl Ended {
    pub(super) fn new(command: &Command, outcome: Outcome, event: &Record) -> Arc<Self> {
        let text = String::from_utf8(event.value.to_vec()).unwrap_or_default();
        Arc::new(Self {
            id: Arc::clone(&command.id),
            station: event.key.as_ref().to_owned(),
            origin: command.origin,
            batch: command.batch.clone(),
            outcome: Some(outcome),
            event: RawValue::from_string(text).unwrap_or_else(|_| RawValue::NULL.to_owned()),
            at_ms: event.time_ms,
        })
    }

    /// Its result event as a record for the bus.
    pub fn record(&self) -> Record {
        Record {
            kind: kinds::COMMAND_RESULT,
            time_ms: self.at_ms,
            key: self.station.as_str().into(),
            value: self.event.get().to_owned().into(),
        }
    }

    pub(super) fn cost(&self) -> u64 {
        let payload = self.outcome.as_ref().and_then(|outcome| outcome.payload.as_ref());
        let payload = payload.map_or(0, |payload| payload.get().len());
        (self.id.len() + self.station.len() + self.event.get().len() + payload + 256) as u64
    }
}
