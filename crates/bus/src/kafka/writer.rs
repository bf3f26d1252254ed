//! The writer of a Kafka bus: queue → Kafka, and queue → spool → Kafka while Kafka does not acknowledge.
//!
//! Owns one OS thread's loop and the decision where records go. Does not know the client library (`client.rs`) nor the spool's
//! files (`spool.rs`).
//!
//! ```text
//!             no acknowledgement for spool.after,          the broker answers
//!             or a record came back                        a probe
//!   Direct ───────────────────────────────► Spooling ───────────────────────► Draining
//!     ▲                                        ▲                                 │  │
//!     │                                        └──────── no acknowledgement ─────┘  │
//!     └─────────────────────────── Kafka has the whole spool ──────────────────────┘
//! ```
//!
//! This file is the loop and the direct way, `writer/spooling.rs` the way into the spool, `writer/draining.rs` the way out of it,
//! and `writer/returned.rs` deals with what Kafka did not take.
//!
//! Order: one thread sends, the producer is idempotent, and after any failed record nothing further is sent until
//! everything in flight has come back and the order is restored. While the spool is not empty every new record goes
//! behind it. What comes back from Kafka and is in the spool already stays there; the rest follows it in order.
//!
//! A record that trying again cannot mend (too large, unknown topic, not allowed) becomes a dead letter on disk, which counts as
//! durable. Without a spool, or when the spool is full, records are held back: they keep their permits, so the queue fills
//! up and the sessions stop reading.

mod draining;
mod returned;
mod spooling;

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::client::KafkaClient;
use super::options::KafkaOptions;
use crate::dead_letter::DeadLetters;
use crate::error::StartError;
use crate::health::{BusState, HealthCell};
use crate::queue::{Batches, InFlight, Queue, Taken};
use crate::spool::Spool;
use crate::tail::Tail;

/// Records handed to the client before the writer looks at what came back.
const BATCH_RECORDS: usize = 1024;
/// Records taken from the queue at once to be spooled.
const GROUP_RECORDS: usize = 16_384;
/// How often the writer looks around when nothing comes.
const TICK: Duration = Duration::from_millis(200);
/// How often an idle or unreachable broker is asked for a sign of life.
const PROBE_EVERY: Duration = Duration::from_secs(2);
/// Pause before something that failed is tried again.
const RETRY: Duration = Duration::from_millis(500);
/// How often the spool's figures are reported while the state stays the same.
const REPORT_EVERY: Duration = Duration::from_millis(500);

enum Mode {
    Direct,
    Spooling {
        next_probe: Instant,
    },
    /// `drained_before`: the count of drained records when it began.
    Draining {
        drained_before: u64,
    },
}

pub(crate) struct KafkaWriter {
    client: KafkaClient,
    spool: Option<Spool>,
    dead_letters: DeadLetters,
    queue: Arc<Queue>,
    /// Lets records gather in the queue and not in the client, where a thread that is woken for each of them costs more than
    /// everything else it does with a record.
    batches: Batches,
    health: Arc<HealthCell>,
    tail: Tail,
    mode: Mode,
    /// Records taken from the queue that neither the client nor the spool has, in order.
    backlog: VecDeque<InFlight>,
    /// Records read from the spool that the client has not taken yet, in order.
    unsent: VecDeque<InFlight>,
    closed: bool,
    probed_at: Option<Instant>,
    pause: Duration,
    /// Why records go to the spool.
    why: String,
    /// Records that are sent alone, because a batch with them was refused.
    alone: BTreeSet<(bool, u64)>,
    /// Whether the record that the client has was sent alone.
    is_alone: bool,
    /// The smallest record that was refused alone: a record as large goes alone from the start, or it would take a batch with it.
    refused_bytes: usize,
    reported_at: Instant,
}

impl KafkaWriter {
    /// Opens the spool and creates the client, without waiting for Kafka.
    pub(crate) fn open(
        options: KafkaOptions,
        queue: Arc<Queue>,
        health: Arc<HealthCell>,
        tail: Tail,
    ) -> Result<Self, StartError> {
        let dead_letters = DeadLetters::new(options.dead_letter_dir.clone());
        let batches = Batches::new(Arc::clone(&queue), options.linger);
        let spool = options.spool.clone().map(|spool| Spool::open(spool, queue.counters())).transpose()?;
        let client = KafkaClient::create(options, queue.limits(), queue.counters().clone(), tail.clone())?;
        let mut writer = Self {
            client,
            spool,
            dead_letters,
            queue,
            batches,
            health,
            tail,
            mode: Mode::Direct,
            backlog: VecDeque::new(),
            unsent: VecDeque::new(),
            closed: false,
            probed_at: None,
            pause: PROBE_EVERY,
            why: "the spool is not empty".into(),
            alone: BTreeSet::new(),
            is_alone: false,
            refused_bytes: usize::MAX,
            reported_at: Instant::now(),
        };
        if let Some(records) = writer.spool.as_ref().map(Spool::remaining).filter(|records| *records > 0) {
            tracing::info!(records, "the spool is not empty; it is sent first");
            writer.mode = Mode::Spooling { next_probe: Instant::now() };
            writer.report(BusState::Spooling, Some(writer.why.clone()));
        }
        Ok(writer)
    }

    /// Writes until the queue is closed and everything is durable. Blocks.
    pub(crate) fn run(mut self) {
        while !self.is_done() {
            self.handle_returned();
            match self.mode {
                Mode::Direct => self.direct(),
                Mode::Spooling { next_probe } => self.spooling(next_probe),
                Mode::Draining { drained_before } => self.draining(drained_before),
            }
            self.report_spool();
        }
        if let Some(spool) = &mut self.spool {
            spool.settle(true);
        }
        self.health.report_oldest(None);
    }

    /// Nothing more comes, and everything is durable: with Kafka, or in the spool for the next start.
    fn is_done(&self) -> bool {
        let durable = match self.mode {
            Mode::Direct => self.client.outstanding() == 0 && !self.client.has_returned(),
            Mode::Spooling { .. } | Mode::Draining { .. } => true,
        };
        self.closed && self.backlog.is_empty() && durable
    }

    fn direct(&mut self) {
        if self.backlog.is_empty() {
            // An acknowledgement that does not come must be noticed in time to spool.
            let taken = self.batches.take(BATCH_RECORDS, TICK);
            self.add_to_backlog(taken);
        }
        while let Some(in_flight) = self.backlog.pop_front() {
            if !self.may_send(&in_flight, usize::MAX) {
                self.backlog.push_front(in_flight);
                std::thread::sleep(Duration::from_millis(1));
                break;
            }
            if let Err(in_flight) = self.client.send(in_flight, self.is_alone) {
                self.backlog.push_front(in_flight);
                std::thread::sleep(Duration::from_millis(2));
                break;
            }
        }
        let waiting = self.client.outstanding() > 0 || !self.backlog.is_empty();
        if waiting {
            self.health.report_oldest(Some(self.client.last_sign()));
            self.check_silence();
        } else {
            self.health.report_oldest(None);
            self.probe_when_idle();
        }
    }

    /// Takes records from the queue into the backlog without letting them gather, unless some are there already.
    fn take_now(&mut self, most: usize, patience: Duration) {
        if self.backlog.is_empty() {
            let taken = self.queue.take(most, patience);
            self.add_to_backlog(taken);
        }
    }

    fn add_to_backlog(&mut self, taken: Taken) {
        match taken {
            Taken::Closed => {
                self.closed = true;
                std::thread::sleep(Duration::from_millis(5));
            }
            Taken::Batch(batch) => {
                if !batch.is_empty() {
                    self.queue.counters().batch_records.observe(batch.len() as f64);
                }
                self.backlog.extend(batch);
            }
        }
    }

    /// Records wait for an acknowledgement: is it overdue?
    fn check_silence(&mut self) {
        let silence = self.client.silence();
        if let Some(after) = self.spool.as_ref().map(Spool::after)
            && silence >= after
        {
            self.begin_spooling(self.client.trouble());
        } else if silence >= self.client.options().unready_after {
            self.report(BusState::Holding, Some(self.client.trouble()));
        } else if self.queue.counters().durable.get() > 0 {
            self.report(BusState::Direct, None);
        }
    }

    fn probe_when_idle(&mut self) {
        if self.probed_at.is_some_and(|at| at.elapsed() < PROBE_EVERY) {
            return;
        }
        let Some(found) = self.client.probe() else { return };
        self.probed_at = Some(Instant::now());
        match found.map_err(|error| format!("{} ({error})", self.client.trouble())) {
            Ok(()) => self.report(BusState::Direct, None),
            Err(trouble) if self.spool.is_some() => self.begin_spooling(trouble),
            Err(trouble) => self.report(BusState::Holding, Some(trouble)),
        }
    }

    /// Whether this record may be handed to the client now: alone, if its batch was refused.
    fn may_send(&mut self, next: &InFlight, window: usize) -> bool {
        let outstanding = self.client.outstanding();
        let place = order(next);
        let alone = self.alone.contains(&place) || size(next) >= self.refused_bytes;
        let must_wait = outstanding > 0 && (alone || self.is_alone);
        if self.client.has_returned() || must_wait || outstanding >= window {
            return false;
        }
        self.alone.remove(&place);
        self.is_alone = alone;
        true
    }

    /// Reports the state, and with it the spool as it is then.
    fn report(&mut self, state: BusState, detail: Option<String>) {
        let spool = &mut self.spool;
        self.health.report_with(state, detail, || spool.as_mut().map(Spool::health));
    }

    fn report_spool(&mut self) {
        if self.reported_at.elapsed() < REPORT_EVERY {
            return;
        }
        self.reported_at = Instant::now();
        if let Some(spool) = &mut self.spool {
            self.health.report_spool(spool.health());
        }
    }
}

/// The order of records: what the spool has is older than what it has not.
fn order(in_flight: &InFlight) -> (bool, u64) {
    (!in_flight.is_spooled(), in_flight.sequence)
}

fn size(in_flight: &InFlight) -> usize {
    in_flight.record.key.len() + in_flight.record.value.len()
}
