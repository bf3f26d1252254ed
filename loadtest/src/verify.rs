//! The process that reads the bus and compares it with what the stations know.
//!
//! Owns its side of the protocol with the coordinator: the setup comes first, and the source is opened at its end before
//! anything happens; it is read during the run or after it, and then compared with the stations' ledgers. A process of its own,
//! so that the cost of reading is kept apart.

pub mod checker;
pub mod event;
pub mod kafka;
pub mod local;
pub mod sse;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use thiserror::Error;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::error::chain;
use crate::http::Http;
use crate::pipe::{self, PipeError};
use crate::process::Meter;
use crate::station::Ledger;
use checker::{Checker, Verdict};
use kafka::Topic;
use local::Log;

/// A message to the verifier.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ToVerifier {
    /// What to read; answered with `Ready` once it is open.
    Setup(Box<Setup>),
    /// The ledgers of some stations at their end.
    Ledgers(Vec<Ledger>),
    /// The run is over; answered with the verdict.
    Finish,
}

/// What to read, and what to expect there.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Setup {
    /// Where events are stored.
    pub source: Source,
    /// Prefix of every identity.
    pub prefix: String,
    /// Prefix of every message id.
    pub run: String,
    /// Number of stations.
    pub stations: u32,
    /// Whether to read during the run rather than after it.
    pub during: bool,
    /// Whether the gateway may be restarted during the run.
    pub restarts_allowed: bool,
    /// Interval between progress messages.
    pub step: Duration,
}

/// Where events are stored.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Source {
    /// A Kafka topic.
    Kafka {
        /// `host:port`, separated by commas.
        brokers: String,
        /// Its name.
        topic: String,
    },
    /// The local logs behind these admin listeners.
    Local {
        /// `http://HOST:PORT` of each.
        admins: Vec<String>,
    },
}

/// A message from the verifier.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum FromVerifier {
    /// The source is open.
    Ready,
    /// How far it has read.
    Progress(ReadProgress),
    /// The result of the comparison.
    Verdict(Box<Verdict>),
    /// The bus cannot be read.
    Failed(String),
}

/// How far the verification has come, and what it costs.
#[derive(Clone, Copy, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ReadProgress {
    /// Events read.
    pub events: u64,
    /// CALLs of this run found.
    pub calls: u64,
    /// Share of a core that the process used recently.
    pub cores: f64,
    /// Its processor time so far, in seconds.
    pub cpu_seconds: f64,
    /// Its resident memory, in bytes.
    pub memory: u64,
}

/// Why the verifier stopped early.
#[derive(Debug, Error)]
pub enum VerifierError {
    /// The coordinator is gone, or sent an invalid message.
    #[error("the coordinator")]
    Pipe(#[from] PipeError),
    /// The first message was not the setup.
    #[error("the coordinator did not begin with the setup")]
    Order,
}

/// The checker, written by whoever reads the bus.
type SharedChecker = Arc<Mutex<Checker>>;

/// Does what the coordinator says on standard input.
///
/// # Errors
/// When the coordinator is gone or cannot be understood. Problems with the bus are reported to it.
pub async fn run() -> Result<(), VerifierError> {
    let (mut incoming, mut outgoing) = pipe::parent();
    let ToVerifier::Setup(setup) = incoming.next().await? else { return Err(VerifierError::Order) };
    let tasks = TaskTracker::new();
    let opened = match Opened::open(&setup, &tasks).await {
        Ok(opened) => opened,
        Err(problem) => return Ok(outgoing.send(&FromVerifier::Failed(problem)).await?),
    };
    outgoing.send(&FromVerifier::Ready).await?;
    let checker = Checker::new(&setup.prefix, &setup.run, setup.stations, setup.restarts_allowed);
    let checker: SharedChecker = Arc::new(Mutex::new(checker));
    let finish = CancellationToken::new();
    let mut reading = std::pin::pin!(opened.read(&setup, Arc::clone(&checker), &finish));
    let mut orders = incoming.into_channel(&tasks);
    let mut ledgers = Vec::new();
    let mut meter = Meter::new(std::process::id());
    let mut steps = tokio::time::interval(setup.step);
    steps.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let read = loop {
        tokio::select! {
            read = reading.as_mut() => break read,
            _ = steps.tick() => outgoing.send(&FromVerifier::Progress(progress(&checker, &mut meter))).await?,
            order = orders.recv() => match order {
                Some(Ok(ToVerifier::Ledgers(some))) => ledgers.extend::<Vec<Ledger>>(some),
                Some(Ok(ToVerifier::Finish)) => finish.cancel(),
                Some(Ok(ToVerifier::Setup(_))) => return Err(VerifierError::Order),
                Some(Err(error)) => return Err(error.into()),
                None => return Err(PipeError::Ended.into()),
            }
        }
    };
    outgoing.send(&FromVerifier::Progress(progress(&checker, &mut meter))).await?;
    if let Err(problem) = read {
        return Ok(outgoing.send(&FromVerifier::Failed(problem)).await?);
    }
    let empty = Checker::new("", "", 0, false);
    let checker = std::mem::replace(&mut *checker.lock().unwrap_or_else(PoisonError::into_inner), empty);
    Ok(outgoing.send(&FromVerifier::Verdict(Box::new(checker.compare(&ledgers)))).await?)
}

fn progress(checker: &SharedChecker, meter: &mut Meter) -> ReadProgress {
    let (events, calls) = checker.lock().unwrap_or_else(PoisonError::into_inner).read();
    let usage = meter.read().unwrap_or_default();
    ReadProgress { events, calls, cores: usage.cores, cpu_seconds: usage.cpu_seconds, memory: usage.memory }
}

/// A source that was opened at its end.
enum Opened {
    Kafka(Box<Topic>),
    Local(Vec<Log>),
}

impl Opened {
    async fn open(setup: &Setup, tasks: &TaskTracker) -> Result<Self, String> {
        match &setup.source {
            Source::Kafka { brokers, topic } => {
                let (brokers, topic, run) = (brokers.clone(), topic.clone(), setup.run.clone());
                let opening = tasks.spawn_blocking(move || Topic::open(&brokers, &topic, &run));
                match opening.await {
                    Ok(Ok(topic)) => Ok(Self::Kafka(Box::new(topic))),
                    Ok(Err(error)) => Err(chain(&error)),
                    Err(error) => Err(chain(&error)),
                }
            }
            Source::Local { admins } => {
                let mut logs = Vec::new();
                for admin in admins {
                    let http = Http::new(admin, tasks.clone());
                    logs.push(Log::open(http, setup.during).await.map_err(|error| chain(&error))?);
                }
                Ok(Self::Local(logs))
            }
        }
    }

    /// Reads until `finish`, and then up to the end.
    async fn read(
        self,
        setup: &Setup,
        checker: SharedChecker,
        finish: &CancellationToken,
    ) -> Result<(), String> {
        if !setup.during {
            finish.cancelled().await;
        }
        match self {
            Self::Kafka(topic) => {
                let finish = finish.clone();
                let reading = tokio::task::spawn_blocking(move || topic.read(&checker, &finish));
                match reading.await {
                    Ok(read) => read.map_err(|error| chain(&error)),
                    Err(error) => Err(chain(&error)),
                }
            }
            Self::Local(logs) => {
                let reading = logs.into_iter().map(|log| log.read(&checker, finish));
                let read = futures_util::future::try_join_all(reading).await;
                read.map(drop).map_err(|error| chain(&error))
            }
        }
    }
}
