//! Samples the watched processes and the gateways' metrics once per step.

use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;

use super::Input;
use crate::http::Http;
use crate::process::{Meter, Reading};
use crate::scrape::Scrape;

/// A process to watch: its name in the report, and its process id.
pub type Watch = (String, u32);

/// One sample.
#[derive(Clone, Debug, Default)]
pub(super) struct Sample {
    /// Each watched process; `None` when it is gone.
    pub(super) watched: Vec<Option<Reading>>,
    /// The gateways' metrics; `None` when one does not answer.
    pub(super) gateway: Option<Scrape>,
}

/// Takes a sample each step until nobody receives them.
pub(super) async fn sample(
    watches: Vec<Watch>,
    gateways: Vec<Http>,
    step: Duration,
    sender: mpsc::Sender<Input>,
) {
    let mut meters: Vec<Meter> = watches.into_iter().map(|(_, pid)| Meter::new(pid)).collect();
    let mut steps = tokio::time::interval(step);
    steps.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        steps.tick().await;
        let watched = meters.iter_mut().map(Meter::read).collect();
        // A gateway that is too busy to answer leaves a gap in the plot.
        let asking = tokio::time::timeout(step, Scrape::of(&gateways));
        let gateway = match asking.await {
            Ok(Ok(scrape)) if !gateways.is_empty() => Some(scrape),
            _ => None,
        };
        if sender.send(Input::Sample(Box::new(Sample { watched, gateway }))).await.is_err() {
            return;
        }
    }
}
