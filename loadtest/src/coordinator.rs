//! One run, from the plan to the report.
//!
//! Owns the processes and their order: the bus is opened before anything happens, all workers start at the same moment, the
//! verification ends after the last station has left. Measures nothing itself.

mod child;
mod commander;
mod progress;
mod timeline;
mod watch;

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use thiserror::Error;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::http::{Http, HttpError};
use crate::pipe::PipeError;
use crate::process::Usage;
use crate::report::judge::judge;
use crate::report::{Cost, Judgement, Load, Outcome, Report, SCHEMA, Verification};
use crate::scenario::Scenario;
use crate::verify::ledger::Verdict;
use crate::verify::{FromVerifier, Setup, Source, ToVerifier};
use crate::worker::{FromWorker, Plan, ToWorker, Totals};
use child::Child;
use commander::Commander;
use progress::Progress;
use timeline::Timeline;
use watch::Sample;
pub use watch::Watch;

/// What is to be done.
#[derive(Debug)]
pub struct Options {
    /// The scenario, checked.
    pub scenario: Scenario,
    /// The gateways' admin listeners, `http://HOST:PORT`; none: nothing is scraped and no commands are sent.
    pub admins: Vec<String>,
    /// Where events are; none: no verification.
    pub source: Option<Source>,
    /// The bus is read while the run goes on.
    pub during: bool,
    /// The gateway may be restarted during the run.
    pub restarts_allowed: bool,
    /// Processes to watch. The first is the gateway.
    pub watch: Vec<Watch>,
    /// No progress.
    pub quiet: bool,
}

/// Why a run could not begin.
#[derive(Debug, Error)]
pub enum RunError {
    /// A gateway does not answer.
    #[error("the gateway's admin listener {0}")]
    Gateway(String, #[source] HttpError),
    /// A process could not be started.
    #[error("a process could not be started")]
    Start(#[from] std::io::Error),
    /// A process does not do what it should.
    #[error("{0}")]
    Child(String),
}

/// What the coordinator hears.
#[derive(Debug)]
enum News {
    Worker(usize, Result<FromWorker, PipeError>),
    Verifier(Result<FromVerifier, PipeError>),
    Sample(Box<Sample>),
}

/// News that may wait.
const WAITING: usize = 64;
/// From the moment everybody is ready to the start.
const RUN_UP: Duration = Duration::from_millis(300);
/// How long processes may take to get ready, and to end after their time.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long a gateway may take to get ready.
const GATEWAY_PATIENCE: Duration = Duration::from_secs(20);
/// After the last station should have connected: it needs a moment to boot.
const BEFORE_COMMANDS: Duration = Duration::from_secs(2);

/// Runs.
///
/// # Errors
/// When it could not begin. Whatever happens after that is in the report.
pub async fn run(options: Options) -> Result<Report, RunError> {
    let tasks = TaskTracker::new();
    let gateways: Vec<Http> = options.admins.iter().map(|base| Http::new(base, tasks.clone())).collect();
    for gateway in &gateways {
        await_ready(gateway).await?;
    }
    let (sender, news) = mpsc::channel(WAITING);
    let mut run = Run::start(options, gateways, tasks, sender, news).await?;
    run.until_stations_left().await;
    run.until_verified().await;
    Ok(run.finish().await)
}

/// A run that has begun.
struct Run {
    options: Options,
    gateways: Vec<Http>,
    tasks: TaskTracker,
    sender: mpsc::Sender<News>,
    news: mpsc::Receiver<News>,
    interrupt: Signal,
    terminate: Signal,
    workers: Vec<Option<Child>>,
    verifier: Option<Child>,
    id: String,
    started: SystemTime,
    start: Instant,
    timeline: Timeline,
    progress: Progress,
    totals: Totals,
    verdict: Option<Verdict>,
    commander: Commander,
    no_more_commands: CancellationToken,
    no_more_looks: CancellationToken,
    interrupts: u32,
    left: Option<Instant>,
    broken: Vec<String>,
}

impl Run {
    async fn start(
        options: Options,
        gateways: Vec<Http>,
        tasks: TaskTracker,
        sender: mpsc::Sender<News>,
        mut news: mpsc::Receiver<News>,
    ) -> Result<Self, RunError> {
        let (interrupt, terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
        let mut progress = Progress::new(options.quiet);
        let id = run_id();
        let verifier = match &options.source {
            None => None,
            Some(source) => {
                let mut verifier = Child::start("verifier", &tasks, sender.clone(), News::Verifier)?;
                verifier.say(&ToVerifier::Setup(Box::new(setup(&options, source, &id)))).await;
                ready(&mut news, |news| match news {
                    News::Verifier(Ok(FromVerifier::Ready)) => Ok(true),
                    News::Verifier(Ok(FromVerifier::Failed(problem))) => Err(format!("the bus: {problem}")),
                    News::Verifier(Err(error)) => Err(format!("the verifier: {error}")),
                    _ => Ok(false),
                })
                .await?;
                Some(verifier)
            }
        };
        let count = options.scenario.workers();
        progress.say(&format!(
            "{}: {} stations from {count} processes to {}",
            options.scenario.name,
            options.scenario.stations,
            options.scenario.targets.join(", ")
        ));
        let mut workers = Vec::new();
        for number in 0..count {
            let index = workers.len();
            let form = move |message| News::Worker(index, message);
            let mut worker = Child::start("worker", &tasks, sender.clone(), form)?;
            let plan = Plan { scenario: options.scenario.clone(), run: id.clone(), worker: number };
            worker.say(&ToWorker::Plan(Box::new(plan))).await;
            workers.push(Some(worker));
        }
        let mut waiting = count;
        ready(&mut news, |news| match news {
            News::Worker(_, Ok(FromWorker::Ready)) => {
                waiting -= 1;
                Ok(waiting == 0)
            }
            News::Worker(_, Ok(FromWorker::Failed(problem))) => Err(problem.clone()),
            News::Worker(number, Err(error)) => Err(format!("worker {number}: {error}")),
            _ => Ok(false),
        })
        .await?;
        let started = SystemTime::now() + RUN_UP;
        let at = started.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        let step = options.scenario.step();
        let mut run = Self {
            timeline: Timeline::new(step, workers.len()),
            start: Instant::now() + RUN_UP,
            commander: Commander::default(),
            no_more_commands: CancellationToken::new(),
            no_more_looks: CancellationToken::new(),
            totals: Totals::default(),
            verdict: None,
            interrupts: 0,
            left: None,
            broken: Vec::new(),
            options,
            gateways,
            tasks,
            sender,
            news,
            interrupt,
            terminate,
            workers,
            verifier,
            id,
            started,
            progress,
        };
        run.tell_workers(&ToWorker::Start(u64::try_from(at).unwrap_or_default())).await;
        let looking = watch::look(run.options.watch.clone(), run.gateways.clone(), step, run.sender.clone());
        let stop = run.no_more_looks.clone();
        drop(run.tasks.spawn(async move { stop.run_until_cancelled(looking).await }));
        let commands_from = run.start + run.options.scenario.connect.over + BEFORE_COMMANDS;
        let stop = run.no_more_commands.clone();
        run.commander.start(&run.options.scenario, run.gateways.clone(), commands_from, stop, &run.tasks);
        Ok(run)
    }

    /// Until every worker is done, or gone.
    async fn until_stations_left(&mut self) {
        let scenario = &self.options.scenario;
        let talking = self.start + scenario.talking();
        let mut deadline = talking + scenario.settle + PATIENCE;
        while self.workers.iter().any(Option::is_some) {
            tokio::select! {
                news = self.news.recv() => match news {
                    Some(news) => self.hear(news).await,
                    None => return,
                },
                () = tokio::time::sleep_until(talking.into()), if !self.no_more_commands.is_cancelled() => {
                    self.no_more_commands.cancel();
                }
                () = tokio::time::sleep_until(deadline.into()) => {
                    self.broken.push("processes of stations did not end in time".into());
                    self.workers.clear();
                }
                _ = self.interrupt.recv() => deadline = self.interrupted().await,
                _ = self.terminate.recv() => deadline = self.interrupted().await,
            }
        }
        self.left = Some(Instant::now());
        self.no_more_commands.cancel();
        self.no_more_looks.cancel();
    }

    /// Somebody wants it to end: first gently, then at once. Until when that may take.
    async fn interrupted(&mut self) -> Instant {
        self.interrupts += 1;
        self.no_more_commands.cancel();
        if self.interrupts == 1 {
            self.progress.say("ending: waiting for answers (once more to wait no longer)");
            self.tell_workers(&ToWorker::Rest).await;
            return Instant::now() + self.options.scenario.settle + PATIENCE;
        }
        self.tell_workers(&ToWorker::End).await;
        Instant::now() + PATIENCE
    }

    async fn until_verified(&mut self) {
        if let Some(verifier) = &mut self.verifier {
            self.progress.say("the stations have left; reading the bus to its end");
            verifier.say(&ToVerifier::Finish).await;
        }
        while self.verifier.is_some() {
            tokio::select! {
                news = self.news.recv() => match news {
                    Some(news) => self.hear(news).await,
                    None => return,
                },
                _ = self.interrupt.recv() => self.no_verification("it was interrupted").await,
                _ = self.terminate.recv() => self.no_verification("it was interrupted").await,
            }
        }
    }

    async fn hear(&mut self, news: News) {
        match news {
            News::Sample(sample) => {
                // What comes later is no part of the run.
                if self.left.is_none() {
                    self.timeline.sample(*sample);
                }
            }
            News::Worker(number, Ok(FromWorker::Tick(tick))) => {
                self.timeline.tick(number, &tick);
                self.progress.show(&self.options.scenario, &self.timeline);
            }
            News::Worker(_, Ok(FromWorker::Accounts(accounts))) => {
                if let Some(verifier) = &mut self.verifier {
                    verifier.say(&ToVerifier::Accounts(accounts)).await;
                }
            }
            News::Worker(number, Ok(FromWorker::Done(totals))) => {
                self.totals.add(&totals);
                self.worker_ended(number).await;
            }
            News::Worker(_, Ok(FromWorker::Ready)) | News::Verifier(Ok(FromVerifier::Ready)) => {}
            News::Worker(number, Ok(FromWorker::Failed(problem))) => {
                self.broken.push(format!("worker {number}: {problem}"));
                self.worker_ended(number).await;
            }
            News::Worker(number, Err(error)) => {
                // The last word of one that is done is the end of its pipe.
                if self.workers.get(number).is_some_and(Option::is_some) {
                    self.broken.push(format!("worker {number} ended before its time: {error}"));
                    self.worker_ended(number).await;
                }
            }
            News::Verifier(Ok(FromVerifier::Progress(progress))) => self.timeline.progress(progress),
            News::Verifier(Ok(FromVerifier::Verdict(verdict))) => {
                self.verdict = Some(*verdict);
                self.verifier_ended().await;
            }
            News::Verifier(Ok(FromVerifier::Failed(problem))) => self.no_verification(&problem).await,
            News::Verifier(Err(error)) => {
                if self.verifier.is_some() {
                    self.no_verification(&error.to_string()).await;
                }
            }
        }
    }

    async fn worker_ended(&mut self, number: usize) {
        self.timeline.ended(number);
        if let Some(worker) = self.workers.get_mut(number).and_then(Option::take) {
            worker.end().await;
        }
    }

    async fn no_verification(&mut self, why: &str) {
        self.broken.push(format!("the bus could not be read to its end: {why}"));
        self.verifier_ended().await;
    }

    async fn verifier_ended(&mut self) {
        if let Some(verifier) = self.verifier.take() {
            verifier.end().await;
        }
    }

    async fn tell_workers(&mut self, message: &ToWorker) {
        for worker in self.workers.iter_mut().flatten() {
            worker.say(message).await;
        }
    }

    async fn finish(mut self) -> Report {
        // Commands have their own time limits.
        self.news.close();
        self.tasks.close();
        self.tasks.wait().await;
        self.progress.clear();
        let end = self.left.unwrap_or_else(Instant::now);
        let seconds = end.saturating_duration_since(self.start).as_secs_f64();
        let finished = self.timeline.finish(seconds, &self.options.watch);
        let own = Usage::of(std::process::id());
        let latency = self.totals.latency();
        let mut report = Report {
            schema: SCHEMA.into(),
            version: env!("CARGO_PKG_VERSION").into(),
            run: self.id,
            started: humantime::format_rfc3339_millis(self.started).to_string(),
            seconds,
            interrupted: self.interrupts > 0,
            outcome: Outcome { judgement: Judgement::Invalid, faults: Vec::new(), invalid: Vec::new() },
            counts: self.totals.counts,
            connect: self.totals.connect.percentiles(),
            failures: self.totals.failures,
            ends: self.totals.ends,
            latency: latency.percentiles(),
            latency_histogram: latency,
            actions: self
                .totals
                .actions
                .iter()
                .map(|(action, latency)| (action.clone(), latency.percentiles()))
                .collect(),
            chatty: self.totals.chatty.percentiles(),
            commands: self.commander.outcome(),
            verification: self.verdict.map(|verdict| Verification {
                source: self.options.source.as_ref().map(shown).unwrap_or_default(),
                during: self.options.during,
                verdict,
            }),
            load: Load {
                send_lag: self.totals.lag.percentiles(),
                workers: finished.workers,
                verifier: finished.verifier,
                coordinator: own.map_or_else(Cost::default, |own| Cost {
                    cpu_seconds: own.cpu.as_secs_f64(),
                    cores: own.cpu.as_secs_f64() / seconds.max(1.0),
                    pegged_seconds: 0.0,
                    memory_max: own.memory,
                }),
            },
            watched: finished.watched,
            timeline: finished.points,
            scenario: self.options.scenario,
        };
        report.outcome = judge(&report, &self.broken);
        report
    }
}

/// Waits until a gateway is ready, which takes a moment after its start.
async fn await_ready(gateway: &Http) -> Result<(), RunError> {
    let deadline = Instant::now() + GATEWAY_PATIENCE;
    loop {
        match gateway.get("/readyz").await {
            Ok(_) => return Ok(()),
            Err(error) if Instant::now() > deadline => {
                return Err(RunError::Gateway(gateway.base().to_owned(), error));
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(200)).await,
        }
    }
}

/// Waits for the news that everybody is ready.
async fn ready(
    news: &mut mpsc::Receiver<News>,
    mut is_it: impl FnMut(&News) -> Result<bool, String>,
) -> Result<(), RunError> {
    let waiting = async {
        while let Some(one) = news.recv().await {
            if is_it(&one).map_err(RunError::Child)? {
                return Ok(());
            }
        }
        Err(RunError::Child("a process ended".into()))
    };
    let late = || RunError::Child("a process did not get ready in time".into());
    tokio::time::timeout(PATIENCE, waiting).await.unwrap_or_else(|_| Err(late()))
}

fn setup(options: &Options, source: &Source, run: &str) -> Setup {
    Setup {
        source: source.clone(),
        prefix: options.scenario.prefix.clone(),
        run: run.to_owned(),
        stations: options.scenario.stations,
        during: options.during,
        restarts_allowed: options.restarts_allowed,
        step: options.scenario.step(),
    }
}

fn shown(source: &Source) -> String {
    match source {
        Source::Kafka { brokers, topic } => format!("Kafka {brokers}, topic {topic}"),
        Source::Local { admins } => format!("the local log of {}", admins.join(", ")),
    }
}

/// What no other run has at the beginning of its message ids: the time, in as few characters as it takes.
fn run_id() -> String {
    let millis = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
    let mut rest = u64::try_from(millis).unwrap_or_default();
    let mut digits = Vec::new();
    while rest > 0 {
        digits.push(char::from_digit(u32::try_from(rest % 36).unwrap_or_default(), 36).unwrap_or('0'));
        rest /= 36;
    }
    digits.into_iter().rev().collect()
}
