//! Sending a batch: station after station at its rate, until its last command has ended.
//!
//! Owns the pace and the way of a batch through the dispatcher; `batch.rs` owns what is remembered of it.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures_util::StreamExt;
use ocpp_station::envelope::EventWriter;
use ocpp_station::events::CommandResult;
use ocpp_station::{Outcome, Status};
use tokio::sync::{Notify, OwnedSemaphorePermit};
use tokio::time::Instant;

use super::Dispatcher;
use crate::batch::{Addressees, Plan, Refused, Summary};
use crate::kinds::result_record;
use crate::request::NOBODY;

/// After so many stations, at the latest, the progress of a batch is saved; what a restart sends again is known to the store.
const NOTED_EVERY: usize = 100;
/// Commands of a batch that are cancelled at the same time.
const CANCELLED_TOGETHER: usize = 256;
/// A batch looks at its end this often, whatever rings.
const LOOK: Duration = Duration::from_secs(1);
/// How far behind its pace a batch may be and catch up.
const CATCH_UP: Duration = Duration::from_millis(200);

impl Dispatcher {
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
        let accepted = self.store.batches.accept(Arc::clone(&plan), self.limits.max_batches);
        // Of one that is known, the first note may not be durable yet.
        let (record, is_new) = match accepted {
            Ok(record) => {
                self.traces.stated(plan.trace);
                (Some(record), true)
            }
            Err(Refused::Known) => (self.store.batches.again(&plan.id), false),
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
        permit: OwnedSemaphorePermit,
        done: impl FnOnce() + Send + 'static,
    ) {
        let this = Arc::clone(self);
        drop(self.tasks.spawn(async move {
            // Its commands will need permits: it must not hold one while it waits for its turn.
            drop(permit);
            let Ok(_waiting) = Arc::clone(&this.batch_permits).try_acquire_owned() else {
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

    /// Cancels a batch: what has not been sent is not. None if it is not known or has ended.
    pub async fn cancel_batch(self: &Arc<Self>, id: &str) -> Option<Summary> {
        let record = self.store.batches.cancel(id)?;
        // In a task of its own: whoever asked may go.
        let this = Arc::clone(self);
        let noting = self.tasks.spawn(async move { this.save(Some(record)).await });
        if let Err(error) = noting.await {
            tracing::error!(%error, "the cancellation of a batch was not saved");
        }
        self.store.batches.summary(id)
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
        let batches = &self.store.batches;
        let Some((plan, begun, changed)) = batches.running(id) else { return };
        let gap = Duration::from_secs_f64(1.0 / plan.rate);
        let mut due = Instant::now();
        for index in begun..plan.stations.len() {
            if batches.is_cancelled(id) {
                break;
            }
            self.wait_until(due, id, &changed).await;
            due = due.max(Instant::now() - CATCH_UP) + gap;
            let Some(command) = plan.command(index) else { break };
            self.submit_in_turn(command).await;
            if (index + 1) % NOTED_EVERY == 0 {
                self.save(batches.begun(id, index + 1)).await;
            }
        }
        self.see_off(&plan, &changed).await;
        if let Some(summary) = batches.summary(id) {
            self.publish_summary(&summary).await;
        }
        self.save(batches.finish(id)).await;
        self.store.release(id);
    }

    /// Waits for a moment, or for the batch to be cancelled.
    async fn wait_until(&self, due: Instant, id: &str, changed: &Notify) {
        let cancelled = async {
            while !self.store.batches.is_cancelled(id) {
                changed.notified().await;
            }
        };
        tokio::select! {
            () = tokio::time::sleep_until(due) => {}
            () = cancelled => {}
        }
    }

    /// Waits for the last commands; ends those that have not been sent when the batch is cancelled.
    async fn see_off(self: &Arc<Self>, plan: &Plan, changed: &Notify) {
        let batches = &self.store.batches;
        let total = plan.stations.len();
        let mut is_cancelled = false;
        if !batches.is_cancelled(&plan.id) {
            self.save(batches.begun(&plan.id, total)).await;
        }
        while !batches.is_complete(&plan.id) {
            if batches.is_cancelled(&plan.id) && !std::mem::replace(&mut is_cancelled, true) {
                futures_util::stream::iter((0..total).filter_map(|index| plan.command(index)))
                    .for_each_concurrent(CANCELLED_TOGETHER, |command| self.end_cancelled(command))
                    .await;
                self.save(batches.begun(&plan.id, total)).await;
                continue;
            }
            // What ends rings; a restart in between does not.
            drop(tokio::time::timeout(LOOK, changed.notified()).await);
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
