//! What Kafka did not take: it becomes a dead letter, or is sent again in its former order, or each record alone.

use super::{KafkaWriter, RETRY, order, size};
use crate::health::BusState;
use crate::kafka::client::{Retry, Returned};

impl KafkaWriter {
    pub(super) fn handle_returned(&mut self) {
        if !self.client.has_returned() {
            return;
        }
        let (hopeless, others): (Vec<_>, Vec<_>) =
            self.client.take_returned().into_iter().partition(|returned| self.is_hopeless(returned));
        for returned in hopeless.iter().filter(|returned| returned.retry == Retry::Alone) {
            self.refused_bytes = self.refused_bytes.min(size(&returned.in_flight));
        }
        self.give_up(hopeless);
        let Some(first) = others.first() else { return };
        // Trying again can mend these. First take everything back, so that the order can be restored.
        let reason = format!("{} ({})", first.reason, self.client.trouble());
        self.queue.counters().failures.inc_by(others.len() as u64);
        let refused_as_a_batch = others.iter().any(|returned| returned.retry == Retry::Alone);
        if refused_as_a_batch {
            self.send_each_alone(others);
        } else if self.spool.is_some() {
            self.restore_order(others);
            self.begin_spooling(reason);
        } else {
            self.report(BusState::Holding, Some(reason));
            let mut all = others;
            all.extend(self.client.recall(false));
            self.restore_order(all);
            std::thread::sleep(RETRY);
        }
    }

    /// A record that was sent alone and refused is itself what was refused.
    fn is_hopeless(&self, returned: &Returned) -> bool {
        match returned.retry {
            Retry::Never => true,
            Retry::Alone => self.is_alone,
            Retry::Again => false,
        }
    }

    /// The broker refused a whole batch, for one of its records or for its size: its records go again, each alone.
    fn send_each_alone(&mut self, refused: Vec<Returned>) {
        let mut all = refused;
        all.extend(self.client.recall(true));
        let refused = all.iter().filter(|returned| returned.retry == Retry::Alone);
        self.alone.extend(refused.map(|returned| order(&returned.in_flight)));
        tracing::warn!(records = self.alone.len(), "Kafka refused a batch; its records are sent one by one");
        self.unsent.clear();
        self.restore_order(all);
        if let Some(spool) = &mut self.spool {
            spool.rewind();
        }
    }

    /// Puts what came back in front of the backlog, in its former order. What the spool has is dropped: it is read from
    /// there again.
    pub(super) fn restore_order(&mut self, returned: Vec<Returned>) {
        let (hopeless, others): (Vec<_>, Vec<_>) =
            returned.into_iter().partition(|returned| self.is_hopeless(returned));
        self.give_up(hopeless);
        let mut again: Vec<_> = others
            .into_iter()
            .map(|returned| returned.in_flight)
            .filter(|in_flight| !in_flight.is_spooled())
            .collect();
        again.extend(self.backlog.drain(..));
        again.sort_by_key(order);
        self.backlog = again.into();
    }

    /// Makes dead letters of records that can never be sent.
    pub(super) fn give_up(&self, hopeless: Vec<Returned>) {
        let counters = self.queue.counters();
        for Returned { in_flight, reason, .. } in hopeless {
            let topic = self.client.options().topics.of(in_flight.record.kind);
            counters.failures.inc();
            self.dead_letters.store(&in_flight.record, topic, &reason, &self.health);
            counters.dead_letters.inc();
            if !in_flight.is_spooled() {
                counters.durable.inc();
            }
            in_flight.acknowledge();
        }
    }
}
