//! A process that simulates many stations.
//!
//! Owns their tasks and the worker's side of the protocol with the coordinator: it receives a plan and then the start, sends a
//! [`Tick`] every step, and at the end the stations' ledgers and the totals. It exits when the coordinator is gone.
//! One thread: a core serves many thousands of stations, and several processes use several cores.

mod lifecycle;
mod socket;
mod tally;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use thiserror::Error;
use tokio::io::Stdout;
use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::latency::Latency;
use crate::pipe::{self, Outgoing, PipeError};
use crate::process::Meter;
use crate::scenario::Scenario;
use crate::station::{Behaviour, Ledger, Settings, Station};
use socket::{Dialer, Target, TargetError};
pub use tally::{Counts, Tally, Totals};

/// A message to a worker.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ToWorker {
    /// What to do; answered with `Ready`.
    Plan(Box<Plan>),
    /// Begin at this time, in milliseconds since 1970: the same moment in all processes.
    Start(u64),
    /// Make no new CALLs; disconnect when everything is answered.
    Drain,
    /// Leave now.
    Stop,
}

/// The share of a run that a worker carries out.
#[derive(Debug, Serialize, Deserialize)]
pub struct Plan {
    /// The scenario.
    pub scenario: Scenario,
    /// Prefix of every message id.
    pub run: String,
    /// The index of this worker. It has every station whose number modulo the number of workers is this.
    pub worker: u32,
}

/// A message from a worker.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum FromWorker {
    /// The plan can be carried out.
    Ready,
    /// What happened in one step.
    Tick(Box<Tick>),
    /// The ledgers of some of its stations, at the end.
    Ledgers(Vec<Ledger>),
    /// Everything that was measured; the last message.
    Done(Box<Totals>),
    /// The plan cannot be carried out.
    Failed(String),
}

/// One step of one worker.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Tick {
    /// Which step, from 0.
    pub index: u64,
    /// Counters since the start.
    pub counts: Counts,
    /// Latency of CALLs answered in this step.
    pub latency: Latency,
    /// How late CALLs of this step were sent.
    pub lag: Latency,
    /// Share of a core that the worker used.
    pub cores: f64,
    /// Its processor time so far, in seconds.
    pub cpu_seconds: f64,
    /// Its resident memory, in bytes.
    pub memory: u64,
}

/// Why a worker stopped early.
#[derive(Debug, Error)]
pub enum WorkerError {
    /// The coordinator is gone, or sent an invalid message.
    #[error("the coordinator")]
    Pipe(#[from] PipeError),
    /// The first messages were not a plan and a start.
    #[error("the coordinator did not begin with a plan and a start")]
    Order,
}

/// What the stations of a worker share.
#[derive(Debug)]
pub(crate) struct Shared {
    tally: Mutex<Tally>,
    /// No new CALLs.
    drain: CancellationToken,
    /// Leave now.
    stop: CancellationToken,
}

impl Shared {
    fn tally(&self) -> MutexGuard<'_, Tally> {
        // Counters are whole at any time.
        self.tally.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Ledgers sent in one message.
const LEDGERS_PER_MESSAGE: usize = 512;

/// Does what the coordinator says on standard input.
///
/// # Errors
/// When the coordinator is gone or cannot be understood. Problems with the plan are reported to it.
pub async fn run() -> Result<(), WorkerError> {
    let (mut incoming, mut outgoing) = pipe::parent();
    let ToWorker::Plan(plan) = incoming.next().await? else { return Err(WorkerError::Order) };
    let targets = match resolve(&plan.scenario.targets).await {
        Ok(targets) => targets,
        Err(error) => return Ok(outgoing.send(&FromWorker::Failed(error.to_string())).await?),
    };
    outgoing.send(&FromWorker::Ready).await?;
    let ToWorker::Start(at) = incoming.next().await? else { return Err(WorkerError::Order) };
    let tasks = TaskTracker::new();
    let orders = incoming.into_channel(&tasks);
    Worker::start(*plan, &targets, at).work(orders, outgoing).await
}

async fn resolve(urls: &[String]) -> Result<Vec<Target>, TargetError> {
    let mut targets = Vec::new();
    for url in urls {
        targets.push(Target::resolve(url).await?);
    }
    Ok(targets)
}

struct Worker {
    shared: Arc<Shared>,
    settings: Arc<Settings>,
    stations: TaskTracker,
    ledgers: mpsc::Receiver<Ledger>,
    meter: Meter,
    /// The index of the next tick, and when the last one was.
    ticks: u64,
    last_tick: Instant,
}

impl Worker {
    /// Starts the stations; each waits until its first connection is due.
    fn start(plan: Plan, targets: &[Target], at: u64) -> Self {
        let wall = UNIX_EPOCH + Duration::from_millis(at);
        let start = Instant::now() + wall.duration_since(SystemTime::now()).unwrap_or_default();
        let settings = Arc::new(Settings { scenario: plan.scenario, run: plan.run, start, wall });
        let shared = Arc::new(Shared {
            tally: Mutex::default(),
            drain: CancellationToken::new(),
            stop: CancellationToken::new(),
        });
        let scenario = &settings.scenario;
        let numbers: Vec<u32> = (plan.worker..scenario.stations)
            .step_by(usize::try_from(scenario.workers()).unwrap_or(1))
            .collect();
        // Room for every ledger: a station at its end never waits.
        let (sender, ledgers) = mpsc::channel(numbers.len().max(1));
        let stations = TaskTracker::new();
        for (index, number) in (0..).zip(numbers) {
            let station = Station::new(number, Arc::clone(&settings));
            let dialer = Dialer {
                target: targets[number as usize % targets.len()].clone(),
                worker: plan.worker,
                index,
                timeout: scenario.connect.timeout,
                slow_reader: station.behaviour() == Behaviour::SlowReader,
            };
            let (shared, sender) = (Arc::clone(&shared), sender.clone());
            drop(stations.spawn(async move {
                let ledger = lifecycle::run(station, dialer, shared).await;
                // The receiver is gone only when the process exits anyway.
                drop(sender.try_send(ledger));
            }));
        }
        stations.close();
        Self {
            shared,
            settings,
            stations,
            ledgers,
            meter: Meter::new(std::process::id()),
            ticks: 0,
            last_tick: start,
        }
    }

    async fn work(
        mut self,
        mut orders: mpsc::Receiver<Result<ToWorker, PipeError>>,
        mut outgoing: Outgoing<Stdout>,
    ) -> Result<(), WorkerError> {
        let start = self.settings.start;
        let scenario = &self.settings.scenario;
        let (step, sending, settle) = (scenario.step(), scenario.sending_time(), scenario.settle);
        let mut ticks = tokio::time::interval_at((start + step).into(), step);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let mut drain_at = start + sending;
        let stations = self.stations.clone();
        loop {
            let draining = self.shared.drain.is_cancelled();
            let next = if draining { drain_at + settle } else { drain_at };
            tokio::select! {
                () = stations.wait() => break,
                _ = ticks.tick() => outgoing.send(&FromWorker::Tick(Box::new(self.tick()))).await?,
                () = tokio::time::sleep_until(next.into()), if !self.shared.stop.is_cancelled() => {
                    if draining { self.shared.stop.cancel() } else { self.shared.drain.cancel() }
                }
                order = orders.recv() => match order {
                    Some(Ok(ToWorker::Drain)) => {
                        drain_at = Instant::now();
                        self.shared.drain.cancel();
                    }
                    Some(Ok(ToWorker::Stop)) => self.shared.stop.cancel(),
                    Some(Ok(ToWorker::Plan(_) | ToWorker::Start(_))) => return Err(WorkerError::Order),
                    Some(Err(error)) => return Err(error.into()),
                    None => return Err(PipeError::Ended.into()),
                }
            }
        }
        outgoing.send(&FromWorker::Tick(Box::new(self.tick()))).await?;
        let mut some = Vec::new();
        while self.ledgers.recv_many(&mut some, LEDGERS_PER_MESSAGE).await > 0 {
            outgoing.send(&FromWorker::Ledgers(std::mem::take(&mut some))).await?;
        }
        let totals = std::mem::take(&mut self.shared.tally().totals);
        Ok(outgoing.send(&FromWorker::Done(Box::new(totals))).await?)
    }

    fn tick(&mut self) -> Tick {
        let usage = self.meter.read().unwrap_or_default();
        // By the clock rather than by counting: a skipped tick leaves its step empty.
        let step = self.settings.scenario.step().as_secs_f64();
        let elapsed = (self.settings.start.elapsed().as_secs_f64() / step).round();
        let index = (elapsed as u64).saturating_sub(1).max(self.ticks);
        self.ticks = index + 1;
        // The last step is shorter than the others: its usage is scaled to a whole one.
        let passed = self.last_tick.elapsed().as_secs_f64();
        self.last_tick = Instant::now();
        let mut tally = self.shared.tally();
        Tick {
            index,
            counts: tally.totals.counts,
            latency: std::mem::take(&mut tally.lately),
            lag: std::mem::take(&mut tally.lag_lately),
            cores: usage.cores * (passed / step).min(1.0),
            cpu_seconds: usage.cpu_seconds,
            memory: usage.memory,
        }
    }
}

#[cfg(test)]
mod tests;
