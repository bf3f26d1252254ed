//! Commands that end without a session: those that a restart has found without an end, and those whose time is over.
//!
//! Owns what a restart makes of each phase. Finishes many at once, within bounds.

use std::sync::Arc;
use std::time::SystemTime;

use futures_util::StreamExt;
use ocpp_station::{Outcome, Sent, Status};

use super::Dispatcher;
use crate::command::IfOffline;
use crate::dispatch::Dispatched;
use crate::store::Unfinished;

/// Commands that are ended at the same time: those of before a restart, those whose time is over.
const FINISHED_TOGETHER: usize = 256;

impl Dispatcher {
    /// Ends what a restart has found without an end, and publishes what was not published.
    pub async fn recover(self: Arc<Self>, unfinished: Vec<Unfinished>) {
        if !unfinished.is_empty() {
            tracing::info!(commands = unfinished.len(), "commands from before the restart come to their end");
        }
        // Before anything is waited for: offline queues are complete and in order when a station comes.
        let steps: Vec<_> = unfinished
            .into_iter()
            .map(|one| {
                let step = match &one {
                    Unfinished::Waiting(command) => Some(match command.if_offline {
                        IfOffline::Queue => self.queue(command),
                        IfOffline::Fail => {
                            let text = "the gateway stopped before the command could be sent";
                            Dispatched::Ended(Outcome::failed(Status::Offline, text), None)
                        }
                    }),
                    Unfinished::Sending(_) => {
                        let text = "the gateway stopped while the command was being sent; whether the station has it is \
                                    not known";
                        let outcome = Outcome::failed(Status::Offline, text).after(Sent::Unknown);
                        Some(Dispatched::Ended(outcome, None))
                    }
                    Unfinished::Unpublished(_) => None,
                };
                (one, step)
            })
            .collect();
        futures_util::stream::iter(steps)
            .for_each_concurrent(FINISHED_TOGETHER, |(one, step)| {
                let this = Arc::clone(&self);
                async move {
                    match (one, step) {
                        (Unfinished::Waiting(command) | Unfinished::Sending(command), Some(step)) => {
                            this.settle(&command, step).await;
                            this.drain_if_ready(&command.key);
                        }
                        (Unfinished::Unpublished(ended), _) => this.publish_result(&ended, None).await,
                        // Every other one has its step.
                        (_, None) => {}
                    }
                }
            })
            .await;
        for batch in self.store.batches.unfinished() {
            self.go_on(&batch);
        }
    }

    /// Ends what was queued for too long, and forgets what ended long ago.
    pub async fn sweep(&self) {
        futures_util::stream::iter(self.store.overdue(SystemTime::now()))
            .for_each_concurrent(FINISHED_TOGETHER, |command| async move {
                self.end(&command, command.overdue().outcome(), None).await;
            })
            .await;
        self.store.sweep();
    }
}
