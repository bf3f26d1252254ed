//! Sends commands to stations through the admin listeners, as a backend would.
//!
//! Owns their schedule (open loop, like that of the stations) and their outcomes.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde::Deserialize;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::http::Http;
use crate::latency::Latency;
use crate::random::Random;
use crate::report::Commands;
use crate::scenario::Scenario;
use crate::station::identity;

/// Limit on commands without an outcome. Further ones wait, which their latency shows.
const MAX_IN_FLIGHT: usize = 64;
/// The body of every command: valid in every version, and it changes nothing.
const BODY: &str = r#"{"action":"DataTransfer","payload":{"vendorId":"Loadtest","data":"are you there?"}}"#;

/// The commands sent so far.
#[derive(Debug, Default)]
pub(super) struct Commander {
    stats: Arc<Mutex<Stats>>,
}

#[derive(Debug, Default)]
struct Stats {
    sent: u64,
    outcomes: BTreeMap<String, u64>,
    latency: Latency,
}

impl Commander {
    /// Sends commands from `start` until `stop`; `tasks` waits for every command that was sent.
    pub(super) fn start(
        &self,
        scenario: &Scenario,
        gateways: Vec<Http>,
        start: Instant,
        stop: CancellationToken,
        tasks: &TaskTracker,
    ) {
        let rate = scenario.commands.per_second;
        // Misbehaving stations answer late, or not at all.
        let first = scenario.slow_readers.stations + scenario.chatty.stations;
        let range = scenario.stations - first;
        if rate <= 0.0 || gateways.is_empty() || range == 0 {
            return;
        }
        let (stats, targets) = (Arc::clone(&self.stats), scenario.targets.len());
        let prefix = scenario.prefix.clone();
        let every = Duration::from_secs_f64(1.0 / rate);
        let own = tasks.clone();
        drop(tasks.spawn(async move {
            let permits = Arc::new(Semaphore::new(MAX_IN_FLIGHT));
            let mut random = Random::new(0xC0);
            let mut due = start;
            while stop.run_until_cancelled(tokio::time::sleep_until(due.into())).await.is_some() {
                let Ok(permit) = Arc::clone(&permits).acquire_owned().await else { return };
                let number = first + random.below(range);
                // The gateway that this station connects to, if each has its own admin listener here.
                let at = if gateways.len() == targets { number as usize % targets } else { 0 };
                let gateway = gateways[at].clone();
                let path = format!("/api/v1/stations/{}/commands", identity(&prefix, number));
                let (stats, this) = (Arc::clone(&stats), due);
                drop(own.spawn(async move {
                    let _permit = permit;
                    command(&gateway, &path, this, &stats).await;
                }));
                due += random.around(every);
            }
        }));
    }

    /// Returns how the commands ended.
    pub(super) fn outcome(&self) -> Commands {
        let stats = self.stats.lock().unwrap_or_else(PoisonError::into_inner);
        Commands { sent: stats.sent, outcomes: stats.outcomes.clone(), latency: stats.latency.percentiles() }
    }
}

async fn command(gateway: &Http, path: &str, due: Instant, stats: &Mutex<Stats>) {
    #[derive(Deserialize)]
    struct Answer {
        status: String,
    }
    let outcome = match gateway.post(path, BODY.to_owned()).await {
        Ok(body) => serde_json::from_slice::<Answer>(&body)
            .map_or_else(|_| "no status".into(), |answer| answer.status),
        Err(error) => error.to_string(),
    };
    let mut stats = stats.lock().unwrap_or_else(PoisonError::into_inner);
    stats.sent += 1;
    stats.latency.record(due.elapsed());
    *stats.outcomes.entry(outcome).or_default() += 1;
}
