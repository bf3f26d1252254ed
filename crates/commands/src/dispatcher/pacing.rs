//! Sending a batch: station after station at its rate, to its last command's end.
//!
//! Owns the pace and the way of a batch through the router; `batch.rs` owns what is remembered of it.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures_util::StreamExt;
use ocpp_station::envelope::EventWriter;
use ocpp_station::events::CommandResult;
use ocpp_station::{Outcome, Status};
use tokio::sync::{Notify, OwnedSemaphorePermit};
use tokio::time::Instant;

use super::Router;
use crate::batch::{Addressees, Plan, Refused, Summary};
use crate::kinds::result_record;
use crate::request::NOBODY;

/// After so many stations, at the latest, it is noted how far a batch is; what a restart begins anew is known to the book.
const NOTED_EVERY: usize = 100;
/// Commands of a batch that are called back at the same time.
const CALLED_BACK_TOGETHER: usize = 256;
/// A batch looks at its end this often, whatever rings.
const LOOK: Duration = Duration::from_secs(1);
/// How far behind its pace a batch may be and catch up.
const CATCH_UP: Duration = Duration::from_millis(200);

impl Router {
    /// The stations that are meant, in the order of sending.
    pub fn addressed(&self, to: &Addressees) -> Vec<String> {
        match to {
            Addressees::Stations(stations) => stations.clone(),
            Addressees::Tag(tag) => self.stations.members(Some(tag)),
            Addressees::All(true) => {
                let mut all = self.stations.members(None);
                all.extend(self.sessions.connected());
                all.sort_unstable();
                all.dedup_by(|one, other| one.eq_ignore_ascii_case(other));
                all
            }
            Addressees::All(false) => Vec::new(),
        }
    }

    /// Takes a batch in, durably, and begins to send it.
    ///
    /// # Errors
    /// When its id is known or too many are running.
    pub async fn begin_batch(self: &Arc<Self>, plan: Arc<Plan>) -> Result<(), Refused> {
        let begun = self.book.batches.begin(Arc::clone(&plan), self.limits.max_batches);
        // Of one that is known, the first note may not be durable yet.
        let (record, is_new) = match begun {
            Ok(record) => {
                self.traces.stated(plan.trace);
                (Some(record), true)
            }
            Err(Refused::Known) => (self.book.batches.again(&plan.id), false),
            Err(Refused::Busy) => return Err(Refused::Busy),
        };
        // In a task of its own: whoever asked may go.
        let this = Arc::clone(self);
        let noting = self.tasks.spawn(async move {
            this.save(record).await;
            if is_new {
                this.go_on(&plan.id);
            }
        });
        if let Err(error) = noting.await {
            tracing::error!(%error, "a batch was not begun");
        }
        if is_new { Ok(()) } else { Err(Refused::Known) }
    }

    /// Takes in a batch that comes again after a crash as long as `done` was not called. It waits until fewer are running.
    pub fn take_batch(
        self: &Arc<Self>,
        plan: Arc<Plan>,
        place: OwnedSemaphorePermit,
        done: impl FnOnce() + Send + 'static,
    ) {
        let this = Arc::clone(self);
        drop(self.tasks.spawn(async move {
            // Its commands will need places: it must not hold one while it waits for its turn.
            drop(place);
            let Ok(_waiting) = Arc::clone(&this.batch_places).try_acquire_owned() else {
                let outcome = Outcome::failed(Status::QueueFull, "too many batches wait for their turn");
                this.metrics.command_ended(outcome.status);
                let result = CommandResult {
                    id: &plan.id,
                    action: &plan.action,
                    outcome: &outcome,
                    traceparent: None,
                };
                let event = this.events.command_result(SystemTime::now(), NOBODY, None, result);
                this.publish(result_record(event)).await;
                return done();
            };
            while this.begin_batch(Arc::clone(&plan)).await == Err(Refused::Busy) {
                if this.stop.run_until_cancelled(tokio::time::sleep(LOOK)).await.is_none() {
                    return;
                }
            }
            done();
        }));
    }

    /// Calls a batch back: what has not been sent is not. None if it is not known or has ended.
    pub async fn call_batch_back(self: &Arc<Self>, id: &str) -> Option<Summary> {
        let record = self.book.batches.call_back(id)?;
        // In a task of its own: whoever asked may go.
        let this = Arc::clone(self);
        let noting = self.tasks.spawn(async move { this.save(Some(record)).await });
        if let Err(error) = noting.await {
            tracing::error!(%error, "that a batch is called back was not noted");
        }
        self.book.batches.summary(id)
    }

    /// Sends a batch from where it is.
    pub(super) fn go_on(self: &Arc<Self>, id: &Arc<str>) {
        let (this, id) = (Arc::clone(self), Arc::clone(id));
        drop(self.tasks.spawn(async move {
            let stop = this.stop.clone();
            // A batch that the gateway's end interrupts goes on at the next start.
            stop.run_until_cancelled(this.send_batch(&id)).await;
        }));
    }

    async fn send_batch(self: &Arc<Self>, id: &Arc<str>) {
        let batches = &self.book.batches;
        let Some((plan, begun, bell)) = batches.running(id) else { return };
        let gap = Duration::from_secs_f64(1.0 / plan.rate);
        let mut due = Instant::now();
        for place in begun..plan.stations.len() {
            if batches.is_called_back(id) {
                break;
            }
            self.wait_until(due, id, &bell).await;
            due = due.max(Instant::now() - CATCH_UP) + gap;
            let Some(command) = plan.command(place) else { break };
            self.submit_in_turn(command).await;
            if (place + 1) % NOTED_EVERY == 0 {
                self.save(batches.begun(id, place + 1)).await;
            }
        }
        self.see_off(&plan, &bell).await;
        if let Some(summary) = batches.summary(id) {
            self.publish_summary(&summary).await;
        }
        self.save(batches.finish(id)).await;
        self.book.release(id);
    }

    /// Waits for a moment, or for the batch to be called back.
    async fn wait_until(&self, due: Instant, id: &str, bell: &Notify) {
        let called_back = async {
            while !self.book.batches.is_called_back(id) {
                bell.notified().await;
            }
        };
        tokio::select! {
            () = tokio::time::sleep_until(due) => {}
            () = called_back => {}
        }
    }

    /// Waits for the last commands; ends those that have not been sent when the batch is called back.
    async fn see_off(self: &Arc<Self>, plan: &Plan, bell: &Notify) {
        let batches = &self.book.batches;
        let total = plan.stations.len();
        let mut is_called_back = false;
        if !batches.is_called_back(&plan.id) {
            self.save(batches.begun(&plan.id, total)).await;
        }
        while !batches.is_complete(&plan.id) {
            if batches.is_called_back(&plan.id) && !std::mem::replace(&mut is_called_back, true) {
                futures_util::stream::iter((0..total).filter_map(|place| plan.command(place)))
                    .for_each_concurrent(CALLED_BACK_TOGETHER, |command| self.end_called_back(command))
                    .await;
                self.save(batches.begun(&plan.id, total)).await;
                continue;
            }
            // What ends rings; a restart in between does not.
            drop(tokio::time::timeout(LOOK, bell.notified()).await);
        }
    }

    async fn publish_summary(&self, summary: &Summary) {
        let statuses = serde_json::to_string(&summary.statuses).unwrap_or_else(|_| "{}".to_owned());
        let event = self.events.batch_ended(SystemTime::now(), &summary.batch_id, |writer: EventWriter| {
            writer
                .string("batchId", &summary.batch_id)
                .string("action", &summary.action)
                .number("stations", summary.stations as u64)
                .raw("statuses", &statuses)
        });
        self.publish(result_record(event)).await;
    }
}
