//! What happens to records that came back from Kafka: set aside, sent again in their former order, or sent each alone.

use super::{Pump, RETRY, order, size};
use crate::kafka::{Returned, Verdict};

impl Pump {
    /// Deals with the records that Kafka did not take.
    pub(super) fn deal_with_returned(&mut self) {
        if !self.client.has_returned() {
            return;
        }
        let (hopeless, others): (Vec<_>, Vec<_>) =
            self.client.take_returned().into_iter().partition(|returned| self.is_hopeless(returned));
        for returned in hopeless.iter().filter(|returned| returned.verdict == Verdict::Alone) {
            self.refused_bytes = self.refused_bytes.min(size(&returned.in_flight));
        }
        self.set_aside_all(hopeless);
        let Some(first) = others.first() else { return };
        // Trying again can mend these. First get everything back, so that the order can be restored.
        let reason = format!("{} ({})", first.reason, self.client.trouble());
        self.queue.metrics().failures.inc_by(others.len() as u64);
        let refused_as_a_batch = others.iter().any(|returned| returned.verdict == Verdict::Alone);
        if refused_as_a_batch {
            self.send_each_alone(others);
        } else if self.spool.is_some() {
            self.restore_order(others);
            self.begin_spooling(reason);
        } else {
            self.health.holding(reason);
            let mut all = others;
            all.extend(self.client.recall(false));
            self.restore_order(all);
            std::thread::sleep(RETRY);
        }
    }

    /// A record that was sent alone and refused is what it was refused for.
    fn is_hopeless(&self, returned: &Returned) -> bool {
        match returned.verdict {
            Verdict::Hopeless => true,
            Verdict::Alone => self.is_alone,
            Verdict::Again => false,
        }
    }

    /// The broker refused a whole batch, for one of its records or for its size: its records go again, each alone.
    fn send_each_alone(&mut self, refused: Vec<Returned>) {
        let mut all = refused;
        all.extend(self.client.recall(true));
        let refused = all.iter().filter(|returned| returned.verdict == Verdict::Alone);
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
        self.set_aside_all(hopeless);
        let mut again: Vec<_> = others
            .into_iter()
            .map(|returned| returned.in_flight)
            .filter(|in_flight| !in_flight.is_spooled())
            .collect();
        again.extend(self.backlog.drain(..));
        again.sort_by_key(order);
        self.backlog = again.into();
    }

    pub(super) fn set_aside_all(&self, hopeless: Vec<Returned>) {
        for returned in hopeless {
            self.queue.metrics().failures.inc();
            self.set_aside_one(returned);
        }
    }

    fn set_aside_one(&self, Returned { in_flight, reason, .. }: Returned) {
        let topic = self.client.options().topic(in_flight.record.class);
        self.set_aside.keep(&in_flight.record, topic, &reason, &self.health);
        self.queue.metrics().set_aside.inc();
        if !in_flight.is_spooled() {
            self.queue.metrics().durable.inc();
        }
        in_flight.durable();
    }
}
