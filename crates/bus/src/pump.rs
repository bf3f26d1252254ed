//! The pump of a Kafka bus: queue → Kafka, and queue → spool → Kafka while Kafka does not acknowledge.
//!
//! Owns one OS thread and the decision where records go. Does not know the client library (`kafka.rs`) nor the spool's
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
//! Order: one thread sends, the producer is idempotent, and after any failed record nothing further is sent until
//! everything in flight has come back and the order is restored. While the spool is not empty every new record goes
//! behind it. What comes back from Kafka and is in the spool already stays there; the rest follows it in order.
//!
//! A record that trying again cannot mend (too large, unknown topic, not allowed) is set aside on disk, which counts as
//! durable. Without a spool, or when the spool is full, records are held back: they keep their places on the bus, so
//! the queue fills up and the sessions stop reading.

mod returned;

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::StartError;
use crate::feed::Feed;
use crate::health::HealthCell;
use crate::kafka::{KafkaClient, KafkaOptions, Returned, Verdict};
use crate::queue::{InFlight, Queue, Taken};
use crate::set_aside::SetAside;
use crate::spool::{Spool, SpoolError};

/// Records handed to the client between two looks at what came back.
const BATCH_RECORDS: usize = 1024;
/// Records taken from the queue at once.
const GROUP_RECORDS: usize = 16_384;
/// Records that share one sync of the spool, and that a spool which is nearly full takes or does not take together.
const SPOOL_RECORDS: usize = 2048;
/// How often the pump looks around when nothing comes.
const TICK: Duration = Duration::from_millis(200);
/// How long new records may wait while the spool is being sent.
const DRAIN_TICK: Duration = Duration::from_millis(5);
/// How often an idle or unreachable broker is asked for a sign of life.
const PROBE_EVERY: Duration = Duration::from_secs(2);
/// Records of the spool on their way to Kafka at once, and their bytes.
const DRAIN_WINDOW: usize = 8192;
const DRAIN_CHUNK_BYTES: usize = 1 << 20;
/// As many are sent until the first acknowledgement comes: a broker that answers probes may still refuse records.
const DRAIN_CANARY: usize = 16;
/// With fewer left than this, nothing new is taken until Kafka has the whole spool.
const DRAIN_FINISH: u64 = 2048;
/// Waiting before something that failed is tried again.
const RETRY: Duration = Duration::from_millis(500);
/// The longest pause between two attempts to drain.
const LONGEST_PAUSE: Duration = Duration::from_secs(15);

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

pub(crate) struct Pump {
    client: KafkaClient,
    spool: Option<Spool>,
    set_aside: SetAside,
    queue: Arc<Queue>,
    health: Arc<HealthCell>,
    feed: Feed,
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
    /// The record that the client has was sent alone.
    is_alone: bool,
    /// The smallest record that was refused alone: one as large goes alone from the start, or it would take a batch with it.
    refused_bytes: usize,
    reported_at: Instant,
    /// Until then what comes gathers in the queue.
    next_take: Instant,
}

impl Pump {
    pub(crate) fn spawn(
        options: KafkaOptions,
        queue: Arc<Queue>,
        health: Arc<HealthCell>,
        feed: Feed,
    ) -> Result<JoinHandle<()>, StartError> {
        let set_aside = SetAside::new(options.set_aside_dir.clone());
        let spool = options.spool.clone().map(|spool| Spool::open(spool, queue.metrics())).transpose()?;
        let client = KafkaClient::create(options, queue.limits(), queue.metrics().clone(), feed.clone())?;
        let mode = match &spool {
            Some(spool) if !spool.is_empty() => {
                tracing::info!(records = spool.remaining(), "the spool is not empty; it is sent first");
                health.spooling("the spool is not empty".into());
                Mode::Spooling { next_probe: Instant::now() }
            }
            _ => Mode::Direct,
        };
        let pump = Self {
            client,
            spool,
            set_aside,
            queue,
            health,
            feed,
            mode,
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
            next_take: Instant::now(),
        };
        Ok(std::thread::Builder::new().name("bus-kafka".into()).spawn(move || pump.run())?)
    }

    fn run(mut self) {
        while !self.is_done() {
            self.deal_with_returned();
            match self.mode {
                Mode::Direct => self.direct(),
                Mode::Spooling { next_probe } => self.spooling(next_probe),
                Mode::Draining { drained_before } => self.draining(drained_before),
            }
            self.report();
        }
        if let Some(spool) = &mut self.spool {
            spool.settle(true);
        }
        self.health.oldest(None);
    }

    /// Nothing more comes, and everything is durable: with Kafka, or in the spool for the next start.
    fn is_done(&self) -> bool {
        let durable = match self.mode {
            Mode::Direct => self.client.outstanding() == 0 && !self.client.has_returned(),
            Mode::Spooling { .. } | Mode::Draining { .. } => true,
        };
        self.closed && self.backlog.is_empty() && durable
    }

    /// Takes records from the queue into the backlog, unless some are there already.
    fn take(&mut self, most: usize, patience: Duration) {
        if !self.backlog.is_empty() {
            return;
        }
        match self.queue.take(most, patience) {
            Taken::Closed => {
                self.closed = true;
                std::thread::sleep(Duration::from_millis(5));
            }
            Taken::Batch(batch) => {
                if !batch.is_empty() {
                    self.queue.metrics().batch_records.observe(batch.len() as f64);
                }
                self.backlog.extend(batch);
            }
        }
    }

    /// Lets records gather here and not in the client: a thread that is woken for each costs more than all else the client does
    /// with a record. What comes after a pause does not wait.
    fn gather(&self) {
        if self.backlog.is_empty() {
            std::thread::sleep(self.next_take.saturating_duration_since(Instant::now()));
        }
    }

    fn direct(&mut self) {
        self.gather();
        // An acknowledgement that does not come must be noticed in time to spool.
        self.take(BATCH_RECORDS, TICK);
        if (1..BATCH_RECORDS).contains(&self.backlog.len()) {
            self.next_take = Instant::now() + self.client.options().linger;
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
            self.health.oldest(Some(self.client.last_sign()));
            self.judge_silence();
        } else {
            self.health.oldest(None);
            self.probe_when_idle();
        }
    }

    /// Records wait for an acknowledgement: is it overdue?
    fn judge_silence(&mut self) {
        let silence = self.client.silence();
        if let Some(after) = self.spool.as_ref().map(Spool::after)
            && silence >= after
        {
            self.begin_spooling(self.client.trouble());
        } else if silence >= self.client.options().unready_after {
            self.health.holding(self.client.trouble());
        } else if self.queue.metrics().durable.get() > 0 {
            self.health.direct();
        }
    }

    fn probe_when_idle(&mut self) {
        if self.probed_at.is_some_and(|at| at.elapsed() < PROBE_EVERY) {
            return;
        }
        let Some(found) = self.client.probe() else { return };
        self.probed_at = Some(Instant::now());
        match found.map_err(|error| format!("{} ({error})", self.client.trouble())) {
            Ok(()) => self.health.direct(),
            Err(trouble) if self.spool.is_some() => self.begin_spooling(trouble),
            Err(trouble) => self.health.holding(trouble),
        }
    }

    fn begin_spooling(&mut self, why: String) {
        self.why.clone_from(&why);
        let recalled = self.client.recall(false);
        self.restore_order(recalled);
        self.unsent.clear();
        // Records get other places in the spool.
        self.alone.clear();
        if let Some(spool) = &mut self.spool {
            spool.rewind();
        }
        self.pause = match self.mode {
            // It answered, and took nothing: not enough replicas, for example. It may stay so for long.
            Mode::Draining { drained_before } if self.queue.metrics().drained.get() == drained_before => {
                (self.pause * 2).min(LONGEST_PAUSE)
            }
            _ => PROBE_EVERY,
        };
        self.mode = Mode::Spooling { next_probe: Instant::now() + self.pause };
        self.health.spooling(why);
    }

    fn spooling(&mut self, next_probe: Instant) {
        self.take(GROUP_RECORDS, TICK);
        self.spool_backlog();
        if Instant::now() < next_probe || self.closed {
            return;
        }
        match self.client.probe() {
            None => {}
            Some(Ok(())) => {
                self.mode = Mode::Draining { drained_before: self.queue.metrics().drained.get() };
                self.health.draining();
            }
            Some(Err(error)) => {
                if error != self.why {
                    tracing::warn!(error, "Kafka is still away");
                    self.why.clone_from(&error);
                }
                if self.backlog.is_empty() {
                    self.health.spooling(error);
                }
                self.mode = Mode::Spooling { next_probe: Instant::now() + PROBE_EVERY };
            }
        }
    }

    /// Makes the backlog durable in the spool. What the spool does not take stays, and is held back.
    fn spool_backlog(&mut self) {
        while !self.backlog.is_empty() {
            if let Err(error) = self.spool_some() {
                self.queue.metrics().failures.inc();
                self.health.holding(error.to_string());
                // While the spool drains, room may come back at any moment.
                std::thread::sleep(if matches!(self.mode, Mode::Draining { .. }) {
                    4 * DRAIN_TICK
                } else {
                    RETRY
                });
                return;
            }
            match self.mode {
                Mode::Draining { .. } => self.health.draining(),
                Mode::Direct | Mode::Spooling { .. } => self.health.spooling(self.why.clone()),
            }
        }
        self.health.oldest(None);
    }

    /// Makes the first records of the backlog durable in the spool.
    fn spool_some(&mut self) -> Result<(), SpoolError> {
        let Some(spool) = &mut self.spool else { return Ok(()) };
        let count =
            self.backlog.iter().take(SPOOL_RECORDS).take_while(|next| spool.takes(&next.record)).count();
        self.health.oldest(self.backlog.front().map(|in_flight| in_flight.accepted_at));
        if count == 0 {
            let reason = "larger than the spool's largest record".to_owned();
            let too_large = self.backlog.pop_front();
            self.set_aside_all(
                too_large
                    .into_iter()
                    .map(|in_flight| Returned {
                        in_flight,
                        verdict: Verdict::Hopeless,
                        reason: reason.clone(),
                    })
                    .collect(),
            );
            return Ok(());
        }
        spool.store(self.backlog.iter().take(count).map(|in_flight| &in_flight.record))?;
        let metrics = self.queue.metrics();
        metrics.spooled.inc_by(count as u64);
        metrics.durable.inc_by(count as u64);
        for in_flight in self.backlog.drain(..count) {
            self.feed.show(&in_flight.record);
            metrics.latency_seconds.observe(in_flight.accepted_at.elapsed().as_secs_f64());
            in_flight.durable();
        }
        Ok(())
    }

    fn draining(&mut self, drained_before: u64) {
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
            self.health.direct();
            return;
        }
        if outstanding > 0 && silence >= after {
            self.begin_spooling(self.client.trouble());
            return;
        }
        spool.settle(false);
        let is_taking = self.queue.metrics().drained.get() > drained_before;
        if let Err(trouble) = self.send_spooled(if is_taking { DRAIN_WINDOW } else { DRAIN_CANARY }) {
            self.health.holding(trouble);
            std::thread::sleep(RETRY);
        }
        // New records go behind the spool; at its end they wait in the queue for the moment until it is empty.
        if remaining > DRAIN_FINISH {
            // Records that go alone go one for each turn.
            self.take(
                GROUP_RECORDS,
                if self.alone.is_empty() { DRAIN_TICK } else { Duration::from_millis(1) },
            );
            self.spool_backlog();
        } else {
            std::thread::sleep(Duration::from_millis(1));
            if silence > after / 4 || self.queue.is_closed() {
                self.take(GROUP_RECORDS, Duration::ZERO);
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

    /// Reads records of the spool to send next; false when there are none.
    fn read_spool(&mut self, window: usize) -> Result<bool, String> {
        let Some(spool) = &mut self.spool else { return Ok(false) };
        while !spool.is_read() && self.unsent.is_empty() {
            let before = spool.read_position();
            let records = spool.read(window.min(BATCH_RECORDS), DRAIN_CHUNK_BYTES);
            self.unsent.extend(records.map_err(|error| crate::chain(&error))?);
            if spool.read_position() == before {
                break;
            }
        }
        Ok(!self.unsent.is_empty())
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

    fn report(&mut self) {
        if self.reported_at.elapsed() < Duration::from_millis(500) {
            return;
        }
        self.reported_at = Instant::now();
        if let Some(spool) = &mut self.spool {
            self.health.spool(spool.health());
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
