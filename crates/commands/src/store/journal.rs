//! What the journal says of a command, and reading it back.

use std::borrow::Cow;
use std::collections::HashMap;
use std::collections::hash_map::Entry as Slot;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use ocpp_bus::Record;
use ocpp_bus::kafka::consumer::RecordPlace;
use ocpp_log::{LogError, LogView};
use ocpp_protocol::IdentityKey;
use ocpp_station::Outcome;
use ocpp_station::time::millis;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::state::{Entry, Phase};
use super::{CommandStore, Ended};
use crate::batch::Batches;
use crate::command::{Command, IfOffline};
use crate::kinds;
use crate::limits::Limits;
use crate::time::{from_ms, now_ms, unix_millis};
use crate::trace::CommandTrace;

/// A command that a restart has found without an end.
#[derive(Debug)]
pub enum Unfinished {
    /// Taken in, and not sent.
    Waiting(Arc<Command>),
    /// Sent, or not: the gateway stopped at that moment.
    Sending(Arc<Command>),
    /// Its end is known, and may not have been published.
    Unpublished(Arc<Ended>),
}

/// One command's whole state. `J` is JSON text, borrowed to write it and owned when it was read.
#[derive(Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
struct Saved<'a, J> {
    revision: u64,
    id: Cow<'a, str>,
    phase: Word,
    station: Cow<'a, str>,
    /// Where it is in Kafka.
    partition: Option<i32>,
    offset: Option<i64>,
    batch: Option<Arc<str>>,
    /// Until it has ended.
    request: Option<SavedRequest<'a, J>>,
    /// From then on.
    result: Option<SavedResult<J>>,
}

#[derive(Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
struct SavedRequest<'a, J> {
    action: Cow<'a, str>,
    /// None once it is being sent: it is not sent again.
    payload: Option<J>,
    timeout_ms: u64,
    taken_ms: u64,
    expires_ms: Option<u64>,
    if_offline: IfOffline,
    #[serde(default, skip_serializing_if = "CommandTrace::is_empty")]
    trace: CommandTrace,
    sequence: u64,
    /// It is, or was, in its station's offline queue.
    #[serde(rename = "inLine")]
    is_queued: bool,
}

#[derive(Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
struct SavedResult<J> {
    at_ms: u64,
    event: J,
}

#[derive(Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
enum Word {
    Waiting,
    #[serde(rename = "kept")]
    Queued,
    Sending,
    Ended,
    #[serde(rename = "told")]
    Published,
}

impl Entry {
    /// Its record for the journal; none where whoever sent the command brings it again after a crash.
    pub(super) fn record(&self, id: &Arc<str>) -> Option<Record> {
        let saved = match &self.phase {
            Phase::Waiting { saved: false, .. } => return None,
            Phase::Waiting { command, .. } => self.running(id, Word::Waiting, command, true, false),
            Phase::Queued { command } => self.running(id, Word::Queued, command, true, true),
            Phase::Sending { command, is_queued } => {
                self.running(id, Word::Sending, command, false, *is_queued)
            }
            Phase::Ended { ended, published } => Saved {
                revision: self.revision,
                id: Cow::Borrowed(&**id),
                phase: if *published { Word::Published } else { Word::Ended },
                station: Cow::Borrowed(&ended.station),
                partition: ended.origin.map(|place| place.partition),
                offset: ended.origin.map(|place| place.offset),
                batch: ended.batch.clone(),
                request: None,
                result: Some(SavedResult { at_ms: ended.at_ms, event: &*ended.event }),
            },
        };
        // Plain structs always serialize; an empty value would be reported at replay.
        let value = Bytes::from(serde_json::to_vec(&saved).unwrap_or_default());
        Some(Record { kind: kinds::COMMAND, time_ms: now_ms(), key: Arc::clone(id), value })
    }

    fn running<'a>(
        &self,
        id: &'a str,
        phase: Word,
        command: &'a Command,
        with_payload: bool,
        is_queued: bool,
    ) -> Saved<'a, &'a RawValue> {
        Saved {
            revision: self.revision,
            id: Cow::Borrowed(id),
            phase,
            station: Cow::Borrowed(&command.station),
            partition: command.origin.map(|place| place.partition),
            offset: command.origin.map(|place| place.offset),
            batch: command.batch.clone(),
            request: Some(SavedRequest {
                action: Cow::Borrowed(&command.action),
                payload: with_payload.then_some(&*command.payload),
                timeout_ms: millis(command.timeout),
                taken_ms: unix_millis(command.taken_at),
                expires_ms: command.expires_at.map(unix_millis),
                if_offline: command.if_offline,
                trace: command.trace,
                sequence: command.sequence,
                is_queued,
            }),
            result: None,
        }
    }
}

type Found = Saved<'static, Box<RawValue>>;

impl CommandStore {
    /// Reads the journal. Gives the store and what is to be finished now.
    ///
    /// # Errors
    /// When a segment cannot be read at all. Damaged regions are logged; what is behind them is read.
    pub fn replay(journal: &LogView, limits: Limits) -> Result<(Self, Vec<Unfinished>), LogError> {
        let mut latest = HashMap::<String, Found>::new();
        let batches = Batches::default();
        ocpp_bus::replay(journal, "commands", |record| {
            if record.kind == kinds::COMMAND_BATCH.0 {
                batches.restore(&record.value);
                return;
            }
            match serde_json::from_slice(&record.value) {
                Ok(found) => keep_latest(&mut latest, found),
                Err(error) => tracing::error!(%error, "a command in the journal is not readable"),
            }
        })?;
        Ok(Self::restore(latest.into_values().collect(), batches, limits))
    }

    fn restore(mut found: Vec<Found>, batches: Batches, limits: Limits) -> (Self, Vec<Unfinished>) {
        // Offline queues as they were, and what has ended in the order in which it did.
        found.sort_by_key(|found| found.request.as_ref().map_or(found.revision, |request| request.sequence));
        let store = Self { batches, ..Self::new(limits) };
        let mut unfinished = Vec::new();
        let mut inner = store.lock();
        for Saved { revision, id, phase: word, station, partition, offset, batch, request, result } in found {
            let sequence = request.as_ref().map_or(0, |request| request.sequence);
            inner.revision = inner.revision.max(revision).max(sequence);
            let id: Arc<str> = id.as_ref().into();
            let station = station.into_owned();
            let origin = partition.zip(offset).map(|(partition, offset)| RecordPlace { partition, offset });
            let phase = match (request, result) {
                (None, Some(SavedResult { at_ms, event })) => {
                    let outcome = outcome(&event);
                    let id = Arc::clone(&id);
                    let ended = Arc::new(Ended { id, station, origin, batch, outcome, event, at_ms });
                    Phase::Ended { ended, published: word == Word::Published }
                }
                (Some(request), None) => {
                    let is_queued = request.is_queued;
                    let command = Arc::new(command(Arc::clone(&id), station, origin, batch, request));
                    match word {
                        Word::Queued => Phase::Queued { command },
                        Word::Sending => Phase::Sending { command, is_queued },
                        _ => Phase::Waiting { command, saved: true },
                    }
                }
                _ => {
                    tracing::error!(id = &*id, "a command in the journal is not whole");
                    continue;
                }
            };
            if let Phase::Ended { ended, .. } = &phase {
                store.count_in_batch(ended);
            }
            inner.entries.insert(id, Entry { revision, phase: phase.clone(), waiters: Vec::new() });
            match phase {
                Phase::Queued { command } => inner.add_queued(&command),
                Phase::Sending { command, .. } => unfinished.push(Unfinished::Sending(command)),
                Phase::Waiting { command, .. } => unfinished.push(Unfinished::Waiting(command)),
                Phase::Ended { ended, published: false } => unfinished.push(Unfinished::Unpublished(ended)),
                Phase::Ended { ended, published: true } if store.is_of_running_batch(&ended) => {}
                Phase::Ended { ended, published: true } => inner.remember(&ended),
            }
        }
        inner.forget(&store.limits, now_ms());
        drop(inner);
        (store, unfinished)
    }
}

fn keep_latest(latest: &mut HashMap<String, Found>, found: Found) {
    match latest.entry(found.id.to_string()) {
        Slot::Vacant(slot) => drop(slot.insert(found)),
        Slot::Occupied(mut slot) if found.revision > slot.get().revision => drop(slot.insert(found)),
        Slot::Occupied(_) => {}
    }
}

/// The outcome that a result event tells of.
fn outcome(event: &RawValue) -> Option<Outcome> {
    #[derive(Deserialize)]
    struct Event {
        data: Outcome,
    }
    match serde_json::from_str::<Event>(event.get()) {
        Ok(event) => Some(event.data),
        Err(error) => {
            tracing::error!(%error, "the result of a command in the journal is not readable");
            None
        }
    }
}

fn command(
    id: Arc<str>,
    station: String,
    origin: Option<RecordPlace>,
    batch: Option<Arc<str>>,
    request: SavedRequest<'static, Box<RawValue>>,
) -> Command {
    Command {
        id,
        key: IdentityKey::of(&station),
        station,
        action: request.action.into_owned(),
        payload: request.payload.unwrap_or_else(|| RawValue::NULL.to_owned()).into(),
        timeout: Duration::from_millis(request.timeout_ms),
        taken_at: from_ms(request.taken_ms),
        expires_at: request.expires_ms.map(from_ms),
        if_offline: request.if_offline,
        sequence: request.sequence,
        origin,
        batch,
        invalid: None,
        trace: request.trace,
    }
}
