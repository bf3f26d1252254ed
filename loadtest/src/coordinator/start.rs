//! The start of a run: every process is started and has reported that it is ready before the clock starts.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::child::Child;
use super::commander::Commander;
use super::progress::ProgressLine;
use super::timeline::Timeline;
use super::{Input, Options, Run, RunError, TIMEOUT, watch};
use crate::http::Http;
use crate::verify::{FromVerifier, Setup, Source, ToVerifier};
use crate::worker::{FromWorker, Plan, ToWorker, Totals};

/// Time between everybody being ready and the start.
const START_DELAY: Duration = Duration::from_millis(300);
/// How long a gateway may take to become ready.
const GATEWAY_TIMEOUT: Duration = Duration::from_secs(20);
/// Time for the last station to boot, after it should have connected.
const BEFORE_COMMANDS: Duration = Duration::from_secs(2);

impl Run {
    /// Starts all processes.
    pub(super) async fn start(
        options: Options,
        gateways: Vec<Http>,
        tasks: TaskTracker,
        sender: mpsc::Sender<Input>,
        mut inputs: mpsc::Receiver<Input>,
    ) -> Result<Self, RunError> {
        let (interrupt, terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
        let mut progress = ProgressLine::new(options.quiet);
        let id = run_id();
        let verifier = match &options.source {
            None => None,
            Some(source) => {
                let mut verifier = Child::start("verifier", &tasks, sender.clone(), Input::Verifier)?;
                verifier.send(&ToVerifier::Setup(Box::new(setup(&options, source, &id)))).await;
                ready(&mut inputs, |input| match input {
                    Input::Verifier(Ok(FromVerifier::Ready)) => Ok(true),
                    Input::Verifier(Ok(FromVerifier::Failed(problem))) => Err(format!("the bus: {problem}")),
                    Input::Verifier(Err(error)) => Err(format!("the verifier: {error}")),
                    _ => Ok(false),
                })
                .await?;
                Some(verifier)
            }
        };
        let count = options.scenario.workers();
        progress.say(&format!(
            "{}: {} stations in {count} workers, connecting to {}",
            options.scenario.name,
            options.scenario.stations,
            options.scenario.targets.join(", ")
        ));
        let mut workers = Vec::new();
        for number in 0..count {
            let index = workers.len();
            let wrap = move |message| Input::Worker(index, message);
            let mut worker = Child::start("worker", &tasks, sender.clone(), wrap)?;
            let plan = Plan { scenario: options.scenario.clone(), run: id.clone(), worker: number };
            worker.send(&ToWorker::Plan(Box::new(plan))).await;
            workers.push(Some(worker));
        }
        let mut waiting = count;
        ready(&mut inputs, |input| match input {
            Input::Worker(_, Ok(FromWorker::Ready)) => {
                waiting -= 1;
                Ok(waiting == 0)
            }
            Input::Worker(_, Ok(FromWorker::Failed(problem))) => Err(problem.clone()),
            Input::Worker(number, Err(error)) => Err(format!("worker {number}: {error}")),
            _ => Ok(false),
        })
        .await?;
        let started = SystemTime::now() + START_DELAY;
        let at = started.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        let step = options.scenario.step();
        let mut run = Self {
            timeline: Timeline::new(step, workers.len(), options.watch.clone()),
            start: Instant::now() + START_DELAY,
            commander: Commander::default(),
            stop_commands: CancellationToken::new(),
            stop_sampling: CancellationToken::new(),
            totals: Totals::default(),
            verdict: None,
            interrupts: 0,
            stations_left: None,
            problems: Vec::new(),
            options,
            gateways,
            tasks,
            sender,
            inputs,
            interrupt,
            terminate,
            workers,
            verifier,
            id,
            started,
            progress,
        };
        run.broadcast(&ToWorker::Start(u64::try_from(at).unwrap_or_default())).await;
        let sampling =
            watch::sample(run.options.watch.clone(), run.gateways.clone(), step, run.sender.clone());
        let stop = run.stop_sampling.clone();
        drop(run.tasks.spawn(async move { stop.run_until_cancelled(sampling).await }));
        let commands_from = run.start + run.options.scenario.connect.over + BEFORE_COMMANDS;
        let stop = run.stop_commands.clone();
        run.commander.start(&run.options.scenario, run.gateways.clone(), commands_from, stop, &run.tasks);
        Ok(run)
    }
}

/// Waits until a gateway is ready, which takes a moment after its start.
pub(super) async fn await_ready(gateway: &Http) -> Result<(), RunError> {
    let deadline = Instant::now() + GATEWAY_TIMEOUT;
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

/// Waits until `is_ready` says that everybody is ready.
async fn ready(
    inputs: &mut mpsc::Receiver<Input>,
    mut is_ready: impl FnMut(&Input) -> Result<bool, String>,
) -> Result<(), RunError> {
    let waiting = async {
        while let Some(input) = inputs.recv().await {
            if is_ready(&input).map_err(RunError::Child)? {
                return Ok(());
            }
        }
        Err(RunError::Child("a process ended".into()))
    };
    let late = || RunError::Child("a process did not become ready in time".into());
    tokio::time::timeout(TIMEOUT, waiting).await.unwrap_or_else(|_| Err(late()))
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

/// Returns a prefix for message ids that no other run has: the time in base 36.
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
