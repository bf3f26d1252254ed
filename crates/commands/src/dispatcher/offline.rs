//! A station's offline queue is sent when the station is ready, and what a session gave back goes on from here.
//!
//! Owns the way between offline queues and sessions, one command after the other, each to its end. The store (`store.rs`)
//! owns the order of a queue.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use ocpp_protocol::IdentityKey;
use ocpp_station::{OutboundCall, Outcome, Status};

use super::Dispatcher;
use crate::command::IfOffline;
use crate::dispatch::{Carried, Dispatch, Dispatched, Report};

/// How long the way to a station waits when its session's own queue is full.
const QUEUE_FULL_PAUSE: Duration = Duration::from_millis(100);

impl Dispatcher {
    /// A station has booted, or spoken for the first time on its connection: its offline queue may go.
    pub fn station_ready(self: &Arc<Self>, station: &IdentityKey) {
        self.drain(station);
    }

    /// Queues a command that its station may not be sent now, if it is one to be queued.
    ///
    /// # Errors
    /// Gives back one that is not.
    // The command comes back whole so that it can be ended; boxing it would cost every command.
    #[allow(clippy::result_large_err)]
    pub fn defer(&self, call: OutboundCall<Dispatch>) -> Result<(), OutboundCall<Dispatch>> {
        if call.dispatch.command.if_offline != IfOffline::Queue {
            return Err(call);
        }
        let dispatch = call.dispatch;
        let report = match dispatch.is_queued {
            true => Report::NotSent,
            false => Report::Redirected(self.queue(&dispatch.command)),
        };
        dispatch.tell(report);
        Ok(())
    }

    /// Takes over what had not left when a session ended: to the station's next connection, or into its offline queue.
    /// No wait, and in the order in which they were taken in.
    pub fn hand_back(&self, mut waiting: Vec<OutboundCall<Dispatch>>, status: Status) {
        waiting.sort_by_key(|call| call.sequence);
        for dispatch in waiting.into_iter().map(|call| call.dispatch) {
            if dispatch.is_queued {
                dispatch.tell(Report::NotSent);
                continue;
            }
            // The journal hears of it with the next step. Until then a crash leaves open what is known here.
            drop(self.store.not_sent(&dispatch.command));
            let step = match self.dispatch(&dispatch.command) {
                Dispatched::Ended(outcome, _) if outcome.status == Status::Offline => {
                    let text = "the station's connection ended before the command was sent";
                    Dispatched::Ended(Outcome::failed(status, text), None)
                }
                step => step,
            };
            dispatch.tell(Report::Redirected(step));
        }
    }

    /// For a station that may have come back just before its command was queued.
    pub(super) fn drain_if_ready(self: &Arc<Self>, key: &IdentityKey) {
        if self.sessions.session(key).is_some_and(|session| session.is_ready()) {
            self.drain(key);
        }
    }

    pub(super) fn drain(self: &Arc<Self>, key: &IdentityKey) {
        if self.store.start_draining(key) {
            let (this, key) = (Arc::clone(self), key.clone());
            drop(self.tasks.spawn(async move { this.drain_queue(&key).await }));
        }
    }

    /// Sends a station's offline queue, one command after the other, each to its end.
    async fn drain_queue(&self, key: &IdentityKey) {
        loop {
            let session = self.sessions.session(key).filter(|session| session.is_ready());
            let (Some(head), Some(session)) = (self.store.head(key), session) else {
                self.store.stop_draining(key);
                // Something may have come between the look and the stop.
                let is_ready = self.sessions.session(key).is_some_and(|session| session.is_ready());
                if is_ready && self.store.has_queued(key) && self.store.start_draining(key) {
                    continue;
                }
                return;
            };
            if head.send_by() <= SystemTime::now() {
                self.end(&head, head.overdue().outcome(), None).await;
                continue;
            }
            match self.to_session(&head, session, true) {
                Dispatched::Handed(report, session) => match report.await {
                    Ok(Report::Ended(outcome, guard)) => {
                        self.end(&head, outcome, Some(Carried { session, guard })).await;
                    }
                    // It stays at the head.
                    Ok(Report::NotSent | Report::Redirected(_)) => {
                        self.save(self.store.not_sent(&head)).await
                    }
                    Err(_) => self.lost(&head).await,
                },
                Dispatched::Ended(outcome, _) if outcome.status == Status::QueueFull => {
                    tokio::time::sleep(QUEUE_FULL_PAUSE).await;
                }
                // The connection has just ended; the next one takes over the queue.
                Dispatched::Ended(outcome, _) if outcome.status == Status::Offline => {
                    tokio::task::yield_now().await
                }
                Dispatched::Ended(outcome, carried) => drop(self.end(&head, outcome, carried).await),
                Dispatched::Queued(_) => return,
            }
        }
    }
}
