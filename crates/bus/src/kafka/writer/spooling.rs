//! Into the spool: records become durable there while Kafka does not acknowledge.

use std::time::{Duration, Instant};

use super::{GROUP_RECORDS, KafkaWriter, Mode, PROBE_EVERY, RETRY, TICK};
use crate::health::BusState;
use crate::kafka::client::{Retry, Returned};
use crate::queue::InFlight;
use crate::spool::SpoolError;

/// Records that share one sync of the spool, and that a nearly full spool takes or refuses together.
const SPOOL_RECORDS: usize = 2048;
/// The longest pause between two attempts to drain.
const LONGEST_PAUSE: Duration = Duration::from_secs(15);

impl KafkaWriter {
    /// Takes back what the client has, and turns to the spool.
    pub(super) fn begin_spooling(&mut self, why: String) {
        self.why.clone_from(&why);
        let recalled = self.client.recall(false);
        self.restore_order(recalled);
        self.unsent.clear();
        // Records get other positions in the spool.
        self.alone.clear();
        if let Some(spool) = &mut self.spool {
            spool.rewind();
        }
        self.pause = match self.mode {
            // The broker answered, and took nothing: not enough replicas, for example. It may stay so for long.
            Mode::Draining { drained_before } if self.queue.counters().drained.get() == drained_before => {
                (self.pause * 2).min(LONGEST_PAUSE)
            }
            _ => PROBE_EVERY,
        };
        self.mode = Mode::Spooling { next_probe: Instant::now() + self.pause };
        self.report(BusState::Spooling, Some(why));
    }

    pub(super) fn spooling(&mut self, next_probe: Instant) {
        self.take_now(GROUP_RECORDS, TICK);
        self.spool_backlog();
        if Instant::now() < next_probe || self.closed {
            return;
        }
        match self.client.probe() {
            None => {}
            Some(Ok(())) => {
                self.mode = Mode::Draining { drained_before: self.queue.counters().drained.get() };
                self.report(BusState::Draining, None);
            }
            Some(Err(error)) => {
                if error != self.why {
                    tracing::warn!(error, "Kafka is still away");
                    self.why.clone_from(&error);
                }
                if self.backlog.is_empty() {
                    self.report(BusState::Spooling, Some(error));
                }
                self.mode = Mode::Spooling { next_probe: Instant::now() + PROBE_EVERY };
            }
        }
    }

    /// Makes the backlog durable in the spool. What the spool does not take stays, and is held back.
    pub(super) fn spool_backlog(&mut self) {
        while !self.backlog.is_empty() {
            let durable = match self.spool_some() {
                Ok(durable) => durable,
                Err(error) => {
                    self.queue.counters().failures.inc();
                    self.report(BusState::Holding, Some(error.to_string()));
                    // While the spool drains, room may come back at any moment.
                    std::thread::sleep(if matches!(self.mode, Mode::Draining { .. }) {
                        Duration::from_millis(20)
                    } else {
                        RETRY
                    });
                    return;
                }
            };
            // Before anybody acts on it: who has been answered must not find the bus still holding.
            match self.mode {
                Mode::Draining { .. } => self.report(BusState::Draining, None),
                Mode::Direct | Mode::Spooling { .. } => {
                    self.report(BusState::Spooling, Some(self.why.clone()));
                }
            }
            let counters = self.queue.counters();
            for in_flight in durable {
                self.tail.publish(&in_flight.record);
                counters.latency_seconds.observe(in_flight.accepted_at.elapsed().as_secs_f64());
                in_flight.acknowledge();
            }
        }
        self.health.report_oldest(None);
    }

    /// Makes the first records of the backlog durable in the spool, and gives them to be acknowledged.
    fn spool_some(&mut self) -> Result<Vec<InFlight>, SpoolError> {
        let Some(spool) = &mut self.spool else { return Ok(Vec::new()) };
        let count =
            self.backlog.iter().take(SPOOL_RECORDS).take_while(|next| spool.takes(&next.record)).count();
        self.health.report_oldest(self.backlog.front().map(|in_flight| in_flight.accepted_at));
        if count == 0 {
            let too_large = self.backlog.pop_front().map(|in_flight| Returned {
                in_flight,
                retry: Retry::Never,
                reason: "larger than the spool's largest record".to_owned(),
            });
            self.give_up(too_large.into_iter().collect());
            return Ok(Vec::new());
        }
        spool.store(self.backlog.iter().take(count).map(|in_flight| &in_flight.record))?;
        let counters = self.queue.counters();
        counters.spooled.inc_by(count as u64);
        counters.durable.inc_by(count as u64);
        Ok(self.backlog.drain(..count).collect())
    }
}
