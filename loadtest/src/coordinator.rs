//! One run, from the plan to the report.
//!
//! Owns the processes and their order: the bus is opened before anything else happens, all workers start at the same moment,
//! and the verification ends after the last station has left. Measures nothing itself.

mod child;
mod commander;
mod finish;
mod progress;
mod start;
mod timeline;
mod watch;

use std::time::{Duration, Instant, SystemTime};

use thiserror::Error;
use tokio::signal::unix::Signal;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::http::{Http, HttpError};
use crate::pipe::PipeError;
use crate::report::Report;
use crate::scenario::Scenario;
use crate::verify::checker::Verdict;
use crate::verify::{FromVerifier, Source, ToVerifier};
use crate::worker::{FromWorker, ToWorker, Totals};
use child::Child;
use commander::Commander;
use progress::ProgressLine;
use timeline::Timeline;
use watch::Sample;
pub use watch::Watch;

/// What to run.
#[derive(Debug)]
pub struct Options {
    /// The scenario, checked.
    pub scenario: Scenario,
    /// The gateways' admin listeners, `http://HOST:PORT`. If there are none, nothing is scraped and no commands are sent.
    pub admins: Vec<String>,
    /// Where events are stored; `None`: no verification.
    pub source: Option<Source>,
    /// Whether the bus is read during the run.
    pub during: bool,
    /// Whether the gateway may be restarted during the run.
    pub restarts_allowed: bool,
    /// Processes to watch. The first is the gateway.
    pub watch: Vec<Watch>,
    /// Print no progress.
    pub quiet: bool,
}

/// Why a run could not start.
#[derive(Debug, Error)]
pub enum RunError {
    /// A gateway does not answer.
    #[error("the gateway's admin listener {0}")]
    Gateway(String, #[source] HttpError),
    /// A process could not be started.
    #[error("a process could not be started")]
    Start(#[from] std::io::Error),
    /// A child process failed.
    #[error("{0}")]
    Child(String),
}

/// What the coordinator's loop receives.
#[derive(Debug)]
enum Input {
    Worker(usize, Result<FromWorker, PipeError>),
    Verifier(Result<FromVerifier, PipeError>),
    Sample(Box<Sample>),
}

/// Capacity of the loop's channel.
const CAPACITY: usize = 64;
/// How long processes may take to become ready, and to exit after their time.
const TIMEOUT: Duration = Duration::from_secs(60);

/// Runs a scenario and returns its report.
///
/// # Errors
/// When it could not start. Whatever happens later is in the report.
pub async fn run(options: Options) -> Result<Report, RunError> {
    let tasks = TaskTracker::new();
    let gateways: Vec<Http> = options.admins.iter().map(|base| Http::new(base, tasks.clone())).collect();
    for gateway in &gateways {
        start::await_ready(gateway).await?;
    }
    let (sender, inputs) = mpsc::channel(CAPACITY);
    let mut run = Run::start(options, gateways, tasks, sender, inputs).await?;
    run.until_stations_left().await;
    run.until_verified().await;
    Ok(run.finish().await)
}

/// A run in progress.
struct Run {
    options: Options,
    gateways: Vec<Http>,
    tasks: TaskTracker,
    sender: mpsc::Sender<Input>,
    inputs: mpsc::Receiver<Input>,
    interrupt: Signal,
    terminate: Signal,
    workers: Vec<Option<Child>>,
    verifier: Option<Child>,
    id: String,
    started: SystemTime,
    start: Instant,
    timeline: Timeline,
    progress: ProgressLine,
    totals: Totals,
    verdict: Option<Verdict>,
    commander: Commander,
    stop_commands: CancellationToken,
    stop_sampling: CancellationToken,
    interrupts: u32,
    stations_left: Option<Instant>,
    problems: Vec<String>,
}

impl Run {
    /// Handles input until every worker is done, or gone.
    async fn until_stations_left(&mut self) {
        let scenario = &self.options.scenario;
        let sending_until = self.start + scenario.sending_time();
        let mut deadline = sending_until + scenario.settle + TIMEOUT;
        while self.workers.iter().any(Option::is_some) {
            tokio::select! {
                input = self.inputs.recv() => match input {
                    Some(input) => self.handle(input).await,
                    None => return,
                },
                () = tokio::time::sleep_until(sending_until.into()), if !self.stop_commands.is_cancelled() => {
                    self.stop_commands.cancel();
                }
                () = tokio::time::sleep_until(deadline.into()) => {
                    self.add_problem("workers did not end in time".into());
                    self.workers.clear();
                }
                _ = self.interrupt.recv() => deadline = self.interrupted().await,
                _ = self.terminate.recv() => deadline = self.interrupted().await,
            }
        }
        self.stations_left = Some(Instant::now());
        self.stop_commands.cancel();
        self.stop_sampling.cancel();
    }

    /// Handles an interrupt: the first drains, the second stops at once. Returns the new deadline.
    async fn interrupted(&mut self) -> Instant {
        self.interrupts += 1;
        self.stop_commands.cancel();
        if self.interrupts == 1 {
            self.progress.say("draining: waiting for answers (interrupt again to stop at once)");
            self.broadcast(&ToWorker::Drain).await;
            return Instant::now() + self.options.scenario.settle + TIMEOUT;
        }
        self.broadcast(&ToWorker::Stop).await;
        Instant::now() + TIMEOUT
    }

    async fn until_verified(&mut self) {
        if let Some(verifier) = &mut self.verifier {
            self.progress.say("the stations have left; reading the bus to its end");
            verifier.send(&ToVerifier::Finish).await;
        }
        while self.verifier.is_some() {
            tokio::select! {
                input = self.inputs.recv() => match input {
                    Some(input) => self.handle(input).await,
                    None => return,
                },
                _ = self.interrupt.recv() => self.no_verification("interrupted").await,
                _ = self.terminate.recv() => self.no_verification("interrupted").await,
            }
        }
    }

    async fn handle(&mut self, input: Input) {
        match input {
            Input::Sample(sample) => {
                // A later sample is no part of the run.
                if self.stations_left.is_none() {
                    self.timeline.sample(*sample);
                }
            }
            Input::Worker(number, Ok(FromWorker::Tick(tick))) => {
                self.timeline.tick(number, &tick);
                self.progress.show(&self.options.scenario, &self.timeline);
            }
            Input::Worker(_, Ok(FromWorker::Ledgers(ledgers))) => {
                if let Some(verifier) = &mut self.verifier {
                    verifier.send(&ToVerifier::Ledgers(ledgers)).await;
                }
            }
            Input::Worker(number, Ok(FromWorker::Done(totals))) => {
                self.totals.add(&totals);
                self.worker_ended(number).await;
            }
            Input::Worker(_, Ok(FromWorker::Ready)) | Input::Verifier(Ok(FromVerifier::Ready)) => {}
            Input::Worker(number, Ok(FromWorker::Failed(problem))) => {
                self.add_problem(format!("worker {number}: {problem}"));
                self.worker_ended(number).await;
            }
            Input::Worker(number, Err(error)) => {
                // The pipe of a worker that is done ends with this error.
                if self.workers.get(number).is_some_and(Option::is_some) {
                    self.add_problem(format!("worker {number} ended before its time: {error}"));
                    self.worker_ended(number).await;
                }
            }
            Input::Verifier(Ok(FromVerifier::Progress(progress))) => self.timeline.progress(progress),
            Input::Verifier(Ok(FromVerifier::Verdict(verdict))) => {
                self.verdict = Some(*verdict);
                self.verifier_ended().await;
            }
            Input::Verifier(Ok(FromVerifier::Failed(problem))) => self.no_verification(&problem).await,
            Input::Verifier(Err(error)) => {
                if self.verifier.is_some() {
                    self.no_verification(&error.to_string()).await;
                }
            }
        }
    }

    /// Notes a fault of the load test itself: the run goes on, but says nothing about the gateway.
    fn add_problem(&mut self, what: String) {
        self.progress.say(&what);
        self.problems.push(what);
    }

    async fn worker_ended(&mut self, number: usize) {
        self.timeline.ended(number);
        if let Some(worker) = self.workers.get_mut(number).and_then(Option::take) {
            worker.end().await;
        }
    }

    async fn no_verification(&mut self, why: &str) {
        self.add_problem(format!("the bus could not be read to its end: {why}"));
        self.verifier_ended().await;
    }

    async fn verifier_ended(&mut self) {
        if let Some(verifier) = self.verifier.take() {
            verifier.end().await;
        }
    }

    async fn broadcast(&mut self, message: &ToWorker) {
        for worker in self.workers.iter_mut().flatten() {
            worker.send(message).await;
        }
    }
}
