//! Commands and answers from Kafka: record by record to whom they concern, and the offset behind each that is dealt with.
//!
//! Owns the order: records are taken in one after the other, so commands of one station reach it in the order of its
//! partition. Waits for nothing but a place for one more command. A record that is no command ends as `invalid`, is counted
//! like any other, and holds up nothing.

use std::collections::VecDeque;
use std::sync::Arc;

use ocpp_bus::kafka::consumer::Delivery;
use ocpp_commands::Dispatcher;
use ocpp_commands::record::{RecordKind, Wanted};
use ocpp_commands::request::InvalidCommand;
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio_util::sync::CancellationToken;

use crate::backend::Answers;

/// Takes commands in until told to stop.
pub async fn serve(
    dispatcher: Arc<Dispatcher>,
    backend: Arc<Answers>,
    topic: String,
    mut deliveries: mpsc::Receiver<Delivery>,
    stop: CancellationToken,
) {
    // Commands that wait for a place; what is open at all bounds them. Answers, which have a deadline, do not stand behind them.
    let mut held = VecDeque::new();
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            delivery = deliveries.recv() => match delivery {
                Some(delivery) => match RecordKind::of(&delivery.value) {
                    Ok(RecordKind::Answer) => {
                        if let Err(error) = backend.take(&delivery.value) {
                            tracing::debug!(%error, place = ?delivery.place, "not an answer");
                        }
                        delivery.receipt.ack();
                    }
                    kind => held.push_back((kind, delivery)),
                },
                None => return,
            },
            // The semaphore is never closed.
            Some(permit) = dispatcher.permit(), if !held.is_empty() => {
                if let Some((kind, delivery)) = held.pop_front() {
                    take(&dispatcher, &topic, kind, delivery, permit);
                }
            }
        }
    }
}

fn take(
    dispatcher: &Arc<Dispatcher>,
    topic: &str,
    kind: Result<RecordKind, InvalidCommand>,
    delivery: Delivery,
    permit: OwnedSemaphorePermit,
) {
    match dispatcher.limits.from_kafka(topic, kind, &delivery, |to| dispatcher.addressed(to)) {
        Wanted::Command(command) => {
            if let Some(reason) = &command.invalid {
                tracing::debug!(station = command.station, id = &*command.id, reason, "not a command");
            }
            dispatcher.take(command, permit, || delivery.receipt.ack());
        }
        Wanted::Batch(plan) => dispatcher.take_batch(Arc::new(plan), permit, || delivery.receipt.ack()),
    }
}
