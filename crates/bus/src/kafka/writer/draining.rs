//! Out of the spool: what it has is sent to Kafka, and new records go behind it until it is empty.

use std::time::Duration;

use super::{BATCH_RECORDS, GROUP_RECORDS, KafkaWriter, Mode, PROBE_EVERY, RETRY};
use crate::error::chain;
use crate::health::BusState;

/// How long new records may wait while the spool is being sent.
const DRAIN_TICK: Duration = Duration::from_millis(5);
/// Records of the spool on their way to Kafka at once.
const DRAIN_WINDOW: usize = 8192;
/// Bytes read from the spool at once.
const DRAIN_CHUNK_BYTES: usize = 1 << 20;
/// Records sent until the first acknowledgement comes: a broker that answers probes may still refuse records.
const DRAIN_CANARY: usize = 16;
/// With fewer left than this, nothing new is taken until Kafka has the whole spool.
const DRAIN_FINISH: u64 = 2048;

impl KafkaWriter {
    pub(super) fn draining(&mut self, drained_before: u64) {
        let Some(spool) = &mut self.spool else {
            self.mode = Mode::Direct;
            return;
        };
        let (remaining, silence, after) = (spool.remaining(), self.client.silence(), spool.after());
        let outstanding = self.client.outstanding();
        if remaining == 0 && outstanding == 0 && self.unsent.is_empty() {
            spool.settle(true);
            self.mode = Mode::Direct;
            self.pause = PROBE_EVERY;
            tracing::info!("Kafka has the whole spool");
            self.report(BusState::Direct, None);
            return;
        }
        if outstanding > 0 && silence >= after {
            self.begin_spooling(self.client.trouble());
            return;
        }
        spool.settle(false);
        let is_taking = self.queue.counters().drained.get() > drained_before;
        if let Err(trouble) = self.send_spooled(if is_taking { DRAIN_WINDOW } else { DRAIN_CANARY }) {
            self.report(BusState::Holding, Some(trouble));
            std::thread::sleep(RETRY);
        }
        // New records go behind the spool; at its end they wait in the queue for the moment until it is empty.
        if remaining > DRAIN_FINISH {
            // Of the records that are sent alone, each takes a turn of this loop.
            let patience = if self.alone.is_empty() { DRAIN_TICK } else { Duration::from_millis(1) };
            self.take_now(GROUP_RECORDS, patience);
            self.spool_backlog();
        } else {
            std::thread::sleep(Duration::from_millis(1));
            if silence > after / 4 || self.queue.is_closed() {
                self.take_now(GROUP_RECORDS, Duration::ZERO);
                self.spool_backlog();
            }
        }
    }

    /// Hands records of the spool to the client, up to the window.
    fn send_spooled(&mut self, window: usize) -> Result<(), String> {
        loop {
            if self.unsent.is_empty() && !self.read_spool(window)? {
                return Ok(());
            }
            let Some(in_flight) = self.unsent.pop_front() else { return Ok(()) };
            if !self.may_send(&in_flight, window) {
                self.unsent.push_front(in_flight);
                return Ok(());
            }
            if let Err(in_flight) = self.client.send(in_flight, self.is_alone) {
                self.unsent.push_front(in_flight);
                return Ok(());
            }
        }
    }

    /// Reads the records of the spool to send next; false when there are none.
    fn read_spool(&mut self, window: usize) -> Result<bool, String> {
        let Some(spool) = &mut self.spool else { return Ok(false) };
        while !spool.is_read() && self.unsent.is_empty() {
            let before = spool.read_position();
            let records = spool.read(window.min(BATCH_RECORDS), DRAIN_CHUNK_BYTES);
            self.unsent.extend(records.map_err(|error| chain(&error))?);
            if spool.read_position() == before {
                break;
            }
        }
        Ok(!self.unsent.is_empty())
    }
}
