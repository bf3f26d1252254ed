//! One command for many stations: a list, all that carry a tag, or all; paced, with one result each and a summary.
//!
//! Owns what a batch is, its progress, and what the journal says of it. A batch fixes its stations when it is accepted, and
//! sends station by station at its rate, so that not all of them answer in the same second (`dispatcher.rs` sends). Its
//! commands are commands like any other, named after the batch and their index in it: a restart that sends one again finds
//! it known, and does not send it twice. Cancelling a batch ends the commands that have not been sent.
//!
//! Bounded: so many at once, and so many stations each as fit into one record of the journal.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use ocpp_bus::Record;
use ocpp_station::Status;
use ocpp_station::time::millis;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tokio::sync::Notify;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::command::{Command, IfOffline};
use crate::kinds;
use crate::time::{from_ms, now_ms, unix_millis};
use crate::trace::CommandTrace;

/// Finished batches that are remembered.
const REMEMBERED: usize = 1000;

/// Whom a command is for.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum Addressees {
    /// These stations.
    Stations(Vec<String>),
    /// Every known station that carries the tag.
    Tag(String),
    /// `true`: every known station.
    All(bool),
}

/// A batch as it was taken in.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Plan {
    /// The backend's name for it.
    pub id: Arc<str>,
    /// The stations, in the order of sending.
    pub stations: Vec<String>,
    /// The OCPP action.
    pub action: String,
    /// A JSON object.
    pub payload: Box<RawValue>,
    /// Keeps the names of its commands apart from those of a batch that had its id long ago.
    salt: u32,
    timeout_ms: u64,
    expires_ms: Option<u64>,
    if_offline: IfOffline,
    #[serde(default, skip_serializing_if = "CommandTrace::is_empty")]
    /// The trace that its commands belong to.
    pub trace: CommandTrace,
    /// Commands a second.
    pub rate: f64,
}

impl Plan {
    /// A batch that sends what `model` says to these stations.
    pub fn new(id: Arc<str>, stations: Vec<String>, model: &Command, rate: f64) -> Self {
        Self {
            id,
            stations,
            action: model.action.clone(),
            payload: model.payload.as_ref().to_owned(),
            salt: Uuid::new_v4().as_fields().0,
            timeout_ms: millis(model.timeout),
            expires_ms: model.expires_at.map(unix_millis),
            if_offline: model.if_offline,
            trace: model.trace,
            rate,
        }
    }

    /// What it takes in the journal, about, in bytes.
    pub fn size(&self) -> u64 {
        let stations: usize = self.stations.iter().map(|station| station.len() + 3).sum();
        (stations + self.payload.get().len()) as u64
    }

    /// The command for one of its stations, whose time begins now.
    pub fn command(&self, index: usize) -> Option<Command> {
        let station = self.stations.get(index)?.clone();
        Some(Command {
            id: format!("{}:{:08x}/{}", self.id, self.salt, index + 1).into(),
            key: ocpp_protocol::IdentityKey::of(&station),
            station,
            action: self.action.clone(),
            payload: self.payload.clone().into(),
            timeout: Duration::from_millis(self.timeout_ms),
            taken_at: SystemTime::now(),
            expires_at: self.expires_ms.map(from_ms),
            if_offline: self.if_offline,
            sequence: 0,
            origin: None,
            invalid: None,
            batch: Some(Arc::clone(&self.id)),
            trace: self.trace.of_each(),
        })
    }
}

/// How a batch is going.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = Batch)]
#[serde(rename_all = "camelCase")]
pub struct Summary {
    /// The sender's name for it, or the gateway's.
    #[schema(value_type = String)]
    pub batch_id: Arc<str>,
    /// The OCPP action.
    pub action: String,
    /// `running`, `calledBack` (and not at its end yet) or `ended`.
    #[schema(pattern = "^(running|calledBack|ended)$")]
    pub state: &'static str,
    /// Stations in it.
    pub stations: usize,
    /// Stations whose turn has come.
    pub begun: usize,
    /// Commands that have ended.
    pub ended: u64,
    /// The same, by status; those that have none are left out.
    #[schema(value_type = std::collections::BTreeMap<String, u64>)]
    pub statuses: std::collections::BTreeMap<&'static str, u64>,
}

/// The batches.
#[derive(Debug, Default)]
pub struct Batches {
    inner: Mutex<HashMap<Arc<str>, Batch>>,
}

#[derive(Debug)]
struct Batch {
    plan: Arc<Plan>,
    progress: Progress,
    counts: HashMap<Status, u64>,
    /// Notified when it is cancelled and when its last command has ended.
    changed: Arc<Notify>,
}

/// What changes in a batch.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
struct Progress {
    revision: u64,
    begun: usize,
    #[serde(rename = "calledBack")]
    cancelled: bool,
    finished_ms: Option<u64>,
}

#[derive(Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
struct Saved<P> {
    batch: Arc<str>,
    /// Once, when it is taken in.
    plan: Option<P>,
    progress: Progress,
}

/// Why a batch is not taken in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refused {
    /// Its id is known: give its summary.
    Known,
    /// Too many are running.
    Busy,
}

impl Batches {
    /// Takes a batch in. Gives the record for the journal.
    ///
    /// # Errors
    /// When its id is known, or too many are running.
    pub fn accept(&self, plan: Arc<Plan>, most_running: usize) -> Result<Record, Refused> {
        let mut batches = self.lock();
        if batches.contains_key(&plan.id) {
            return Err(Refused::Known);
        }
        if batches.values().filter(|batch| batch.progress.finished_ms.is_none()).count() >= most_running {
            return Err(Refused::Busy);
        }
        let batch = Batch {
            plan: Arc::clone(&plan),
            progress: Progress { revision: 1, ..Progress::default() },
            counts: HashMap::new(),
            changed: Arc::default(),
        };
        let record = batch.whole();
        batches.insert(Arc::clone(&plan.id), batch);
        Ok(record)
    }

    /// A batch's record for the journal once more: the first may not be durable yet.
    pub fn again(&self, id: &str) -> Option<Record> {
        self.lock().get(id).map(Batch::whole)
    }

    /// A batch's plan, where it is, and its changed.
    pub fn running(&self, id: &str) -> Option<(Arc<Plan>, usize, Arc<Notify>)> {
        let batches = self.lock();
        let batch = batches.get(id).filter(|batch| batch.progress.finished_ms.is_none())?;
        Some((Arc::clone(&batch.plan), batch.progress.begun, Arc::clone(&batch.changed)))
    }

    /// Notes that so many stations had their turn.
    pub fn begun(&self, id: &str, begun: usize) -> Option<Record> {
        self.lock().get_mut(id)?.change(|progress| progress.begun = begun)
    }

    /// Counts one command's end.
    pub fn count(&self, id: &str, status: Status) {
        if let Some(batch) = self.lock().get_mut(id) {
            *batch.counts.entry(status).or_default() += 1;
            if batch.is_complete() {
                batch.changed.notify_one();
            }
        }
    }

    /// Whether every station had its turn and every command has ended.
    pub fn is_complete(&self, id: &str) -> bool {
        self.lock().get(id).is_none_or(Batch::is_complete)
    }

    /// Whether it was cancelled.
    pub fn is_cancelled(&self, id: &str) -> bool {
        self.lock().get(id).is_some_and(|batch| batch.progress.cancelled)
    }

    /// Cancels it. None if it is not known or has ended.
    pub fn cancel(&self, id: &str) -> Option<Record> {
        let mut batches = self.lock();
        let batch = batches.get_mut(id).filter(|batch| batch.progress.finished_ms.is_none())?;
        batch.changed.notify_one();
        batch.change(|progress| progress.cancelled = true)
    }

    /// Notes its end.
    pub fn finish(&self, id: &str) -> Option<Record> {
        let mut batches = self.lock();
        let record = batches.get_mut(id)?.change(|progress| progress.finished_ms = Some(now_ms()));
        while batches.len() > REMEMBERED {
            let ended = batches.iter().filter_map(|(id, batch)| Some((batch.progress.finished_ms?, id)));
            let Some(oldest) = ended.min_by_key(|(at, _)| *at).map(|(_, id)| Arc::clone(id)) else { break };
            batches.remove(&oldest);
        }
        record
    }

    /// How it is going.
    pub fn summary(&self, id: &str) -> Option<Summary> {
        self.lock().get(id).map(Batch::summary)
    }

    /// Reads a record of the journal.
    pub(crate) fn restore(&self, value: &[u8]) {
        let saved: Saved<Plan> = match serde_json::from_slice(value) {
            Ok(saved) => saved,
            Err(error) => {
                tracing::error!(%error, "a batch of commands in the journal is not readable");
                return;
            }
        };
        let mut batches = self.lock();
        if let Some(plan) = saved.plan {
            batches.entry(Arc::clone(&saved.batch)).or_insert_with(|| Batch {
                plan: Arc::new(plan),
                progress: Progress::default(),
                counts: HashMap::new(),
                changed: Arc::default(),
            });
        }
        if let Some(batch) = batches.get_mut(&saved.batch)
            && saved.progress.revision > batch.progress.revision
        {
            batch.progress = saved.progress;
        }
    }

    /// The batches that go on after a restart.
    pub(crate) fn unfinished(&self) -> Vec<Arc<str>> {
        let batches = self.lock();
        batches
            .values()
            .filter(|batch| batch.progress.finished_ms.is_none())
            .map(|batch| Arc::clone(&batch.plan.id))
            .collect()
    }

    pub(crate) fn records(&self) -> Vec<Record> {
        self.lock().values().map(Batch::whole).collect()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Arc<str>, Batch>> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Batch {
    fn ended(&self) -> u64 {
        self.counts.values().sum()
    }

    fn is_complete(&self) -> bool {
        self.progress.begun >= self.plan.stations.len() && self.ended() >= self.plan.stations.len() as u64
    }

    fn change(&mut self, change: impl FnOnce(&mut Progress)) -> Option<Record> {
        self.progress.revision += 1;
        change(&mut self.progress);
        Some(self.record(None))
    }

    fn whole(&self) -> Record {
        self.record(Some(&self.plan))
    }

    fn record(&self, plan: Option<&Plan>) -> Record {
        let saved = Saved { batch: Arc::clone(&self.plan.id), plan, progress: self.progress };
        // Plain structs always serialize; an empty value would be reported at replay.
        let value = serde_json::to_vec(&saved).unwrap_or_default();
        let key = Arc::clone(&self.plan.id);
        Record { kind: kinds::COMMAND_BATCH, time_ms: now_ms(), key, value: Bytes::from(value) }
    }

    fn summary(&self) -> Summary {
        Summary {
            batch_id: Arc::clone(&self.plan.id),
            action: self.plan.action.clone(),
            state: match (self.progress.finished_ms, self.progress.cancelled) {
                (Some(_), _) => "ended",
                (None, true) => "calledBack",
                (None, false) => "running",
            },
            stations: self.plan.stations.len(),
            begun: self.progress.begun,
            ended: self.ended(),
            statuses: self.counts.iter().map(|(status, count)| (status.as_str(), *count)).collect(),
        }
    }
}
