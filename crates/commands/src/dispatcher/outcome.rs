//! How a command ends: its end is saved, durably, then its result event is published, and then whoever waits is notified.
//!
//! Owns the order of these steps and the result event's content. The first end counts (`store.rs`).

use std::sync::Arc;
use std::time::SystemTime;

use ocpp_bus::Record;
use ocpp_protocol::Identity;
use ocpp_station::events::CommandResult;
use ocpp_station::{Outcome, Sent, Status};

use super::Dispatcher;
use crate::command::Command;
use crate::dispatch::{Carried, Session};
use crate::kinds::result_record;
use crate::port::ResultGuard;
use crate::store::Ended;

impl Dispatcher {
    /// The session has gone without a report, or the command was cancelled and has ended.
    pub(super) async fn lost(&self, command: &Arc<Command>) {
        if self.store.has_ended(&command.id) {
            return self.wait_published(&command.id).await;
        }
        let sent = if self.store.is_sending(&command.id) { Sent::Unknown } else { Sent::No };
        let outcome = Outcome::failed(Status::Offline, "the station's session has ended").after(sent);
        self.end(command, outcome, None).await;
    }

    /// Notes a command's end, durably, and then publishes its result. The first end counts.
    pub(super) async fn end(
        &self,
        command: &Command,
        outcome: Outcome,
        carried: Option<Carried>,
    ) -> Arc<Ended> {
        let session = carried.as_ref().map(|carried| &*carried.session);
        let event = self.result(command, &outcome, session);
        let (ended, record) = self.store.end(command, outcome, &event);
        if record.is_some() {
            self.count(command, &ended);
            self.save(record).await;
            self.publish_result(&ended, carried.map(|carried| carried.guard)).await;
        } else {
            self.wait_published(&command.id).await;
        }
        ended
    }

    /// Counts a command's end and records its span.
    pub(super) fn count(&self, command: &Command, ended: &Ended) {
        if let Some(outcome) = &ended.outcome {
            self.metrics.command_ended(outcome.status);
            self.traces.ended(command, outcome);
        }
    }

    pub(super) fn result(
        &self,
        command: &Command,
        outcome: &Outcome,
        session: Option<&dyn Session>,
    ) -> Record {
        let station = match session {
            Some(session) => session.subject().identity.as_str().to_owned(),
            None => Identity::parse(&command.station)
                .map(|identity| self.stations.canonical(identity).as_str().to_owned())
                .unwrap_or_else(|_| command.station.clone()),
        };
        let traceparent = command.trace.context();
        let result = CommandResult { id: &command.id, action: &command.action, outcome, traceparent };
        let event =
            self.events.command_result(SystemTime::now(), &station, session.map(Session::subject), result);
        result_record(event)
    }

    /// Waits until the result event of a command that has ended is durable.
    pub(super) async fn wait_published(&self, id: &str) {
        if let Some(published) = self.store.until_published(id) {
            // An error means that the process is leaving.
            drop(published.await);
        }
    }

    pub(super) async fn publish_result(&self, ended: &Arc<Ended>, guard: Option<ResultGuard>) {
        let mut lane = self.bus.publisher();
        let ordinal = lane.publish(ended.record()).await;
        // The session's own last event may follow.
        drop(guard);
        lane.watermark().wait(ordinal).await;
        if let Some(record) = self.store.published(ended) {
            // Nothing waits for it: without it, a restart publishes the result once more.
            self.journal.publisher().publish(record).await;
        }
    }

    pub(super) async fn publish(&self, record: Record) {
        self.bus.store(record).await;
    }

    pub(super) async fn save(&self, record: Option<Record>) {
        if let Some(record) = record {
            self.journal.store(record).await;
        }
    }
}

/// The end of a command that was cancelled before it was sent.
pub(super) fn cancelled() -> Outcome {
    let mut outcome = Outcome::failed(Status::Expired, "called back before it was sent");
    if let Some(error) = &mut outcome.error {
        error.code = "calledBack".to_owned();
    }
    outcome
}
