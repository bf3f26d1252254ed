//! A station's line: what is kept for it leaves when it is there, and what a session has not sent goes on from here.
//!
//! Owns the way between lines and sessions, one command after the other, each to its end. The order of a line is the
//! book's (`book.rs`).

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use ocpp_protocol::IdentityKey;
use ocpp_station::{OutboundCall, Outcome, Status};

use super::Router;
use crate::command::IfOffline;
use crate::dispatch::{Carried, Dispatch, Report, Step};

/// How long the way to a station waits when its session's own queue is full.
const QUEUE_FULL_PAUSE: Duration = Duration::from_millis(100);

impl Router {
    /// A station has booted, or spoken for the first time on its connection: what is kept for it may go.
    pub fn station_ready(self: &Arc<Self>, station: &IdentityKey) {
        self.drain(station);
    }

    /// Keeps a command that its station may not be sent now, if it is one to be kept. Else gives it back.
    // The command comes back whole so that it can be ended; boxing it would cost every command.
    #[allow(clippy::result_large_err)]
    pub fn keep_for_later(&self, call: OutboundCall<Dispatch>) -> Result<(), OutboundCall<Dispatch>> {
        if call.dispatch.command.if_offline != IfOffline::Queue {
            return Err(call);
        }
        let dispatch = call.dispatch;
        let report = match dispatch.is_queued {
            true => Report::NotSent,
            false => Report::Redirected(self.keep(&dispatch.command)),
        };
        dispatch.tell(report);
        Ok(())
    }

    /// Takes over what had not left when a session ended: to the connection that took its place, or onto the station's line.
    /// No wait, and in the order in which they were taken in.
    pub fn move_on(&self, mut waiting: Vec<OutboundCall<Dispatch>>, status: Status) {
        waiting.sort_by_key(|call| call.sequence);
        for dispatch in waiting.into_iter().map(|call| call.dispatch) {
            if dispatch.is_queued {
                dispatch.tell(Report::NotSent);
                continue;
            }
            // The journal hears of it with the next step. Until then a crash leaves open what is known here.
            drop(self.book.not_sent(&dispatch.command));
            let step = match self.hand_over(&dispatch.command) {
                Step::Over(outcome, _) if outcome.status == Status::Offline => {
                    let text = "the station's connection ended before the command was sent";
                    Step::Over(Outcome::failed(status, text), None)
                }
                step => step,
            };
            dispatch.tell(Report::Redirected(step));
        }
    }

    /// For a station that may have come back between the look and the line.
    pub(super) fn drain_if_ready(self: &Arc<Self>, key: &IdentityKey) {
        if self.sessions.session(key).is_some_and(|session| session.is_ready()) {
            self.drain(key);
        }
    }

    pub(super) fn drain(self: &Arc<Self>, key: &IdentityKey) {
        if self.book.start_draining(key) {
            let (this, key) = (Arc::clone(self), key.clone());
            drop(self.tasks.spawn(async move { this.take_line(&key).await }));
        }
    }

    /// Takes a station's line to it, one after the other, each to its end.
    pub(super) async fn take_line(&self, key: &IdentityKey) {
        loop {
            let session = self.sessions.session(key).filter(|session| session.is_ready());
            let (Some(head), Some(session)) = (self.book.head(key), session) else {
                self.book.stop_draining(key);
                // Something may have come between the look and the stop.
                let is_ready = self.sessions.session(key).is_some_and(|session| session.is_ready());
                if is_ready && self.book.keeps(key) && self.book.start_draining(key) {
                    continue;
                }
                return;
            };
            if head.send_by() <= SystemTime::now() {
                self.end(&head, head.overdue().outcome(), None).await;
                continue;
            }
            match self.to_session(&head, session, true) {
                Step::Handed(report, session) => match report.await {
                    Ok(Report::Ended(outcome, guard)) => {
                        self.end(&head, outcome, Some(Carried { session, guard })).await;
                    }
                    // It keeps its place.
                    Ok(Report::NotSent | Report::Redirected(_)) => self.save(self.book.not_sent(&head)).await,
                    Err(_) => self.lost(&head).await,
                },
                Step::Over(outcome, _) if outcome.status == Status::QueueFull => {
                    tokio::time::sleep(QUEUE_FULL_PAUSE).await;
                }
                // The connection has just ended; the next one takes the line up.
                Step::Over(outcome, _) if outcome.status == Status::Offline => tokio::task::yield_now().await,
                Step::Over(outcome, carried) => drop(self.end(&head, outcome, carried).await),
                Step::Kept(_) => return,
            }
        }
    }
}
