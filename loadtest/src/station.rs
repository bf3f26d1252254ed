//! One simulated station as a state machine: what it does next and when, and what an answer changes.
//!
//! Owns the station's CALLs across all its connections: their ids, which are open, and which must be sent again. No sockets, no
//! tasks, no clock: time is an argument.
//!
//! Open loop: a CALL is due when the station's own schedule says so, never when an earlier one is answered. OCPP allows one
//! open CALL, so a CALL may have to wait for its turn; its latency still counts from when it was due. Only what a real station
//! does in sequence (boot, then the status reports) is due when the previous answer arrives.

mod act;
mod ledger;
mod payload;
mod receive;
mod script;
mod version;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use serde::{Deserialize, Serialize};

use crate::random::Random;
use crate::ranges::Ranges;
use crate::scenario::{MomentKind, Scenario};
pub use ledger::{Again, Ledger, identity, message_id, parse_message_id};
use script::Script;
pub use version::Version;

/// How a station behaves.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Behaviour {
    /// Conforms to OCPP.
    Ordinary,
    /// Stops reading after a while, and keeps sending.
    SlowReader,
    /// Floods the gateway after a while.
    Chatty,
}

/// What all stations of a run share.
#[derive(Debug)]
pub struct Settings {
    /// The scenario.
    pub scenario: Scenario,
    /// Prefix of every message id, unique to this run.
    pub run: String,
    /// When the run began.
    pub start: Instant,
    /// The same moment in wall-clock time.
    pub wall: SystemTime,
}

impl Settings {
    /// Formats the time of day as OCPP writes it.
    fn time(&self, now: Instant) -> String {
        let time = self.wall + now.saturating_duration_since(self.start);
        humantime::format_rfc3339_millis(time).to_string()
    }
}

/// A CALL that has no id yet.
#[derive(Debug)]
struct Message {
    action: &'static str,
    payload: String,
}

/// What a station does next.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// Sends a CALL.
    Send {
        /// The frame.
        text: String,
        /// On the first send: how long after it was due and could be sent.
        lag: Option<Duration>,
    },
    /// Sends a ping.
    Ping,
    /// Drops its connection.
    Cut,
    /// Only its state changed; call `step` again.
    Changed,
}

/// What a text from the gateway turned out to be.
#[derive(Debug, PartialEq, Eq)]
pub enum Received {
    /// The answer to a CALL.
    Answered {
        /// The CALL's action.
        action: &'static str,
        /// Time since the CALL was due.
        latency: Duration,
        /// Whether it was a CALLERROR.
        refused: bool,
    },
    /// A command, with the answer to send.
    Command(String),
    /// Neither asked for nor OCPP: a fault of the gateway.
    Unexpected,
}

/// A CALL without an answer.
#[derive(Debug)]
struct Open {
    seq: u32,
    action: &'static str,
    text: String,
    due: Instant,
}

/// One station.
#[derive(Debug)]
pub struct Station {
    number: u32,
    identity: String,
    version: Version,
    behaviour: Behaviour,
    settings: Arc<Settings>,
    random: Random,
    script: Script,
    /// Mean time between CALLs; `None` if the scenario has no traffic.
    interval: Option<Duration>,
    connected: bool,
    draining: bool,
    misbehaving: bool,
    registered: bool,
    /// Whether it has ever been registered; from then on it follows its schedule.
    has_registered: bool,
    boot_due: Instant,
    reported: u32,
    next_due: Instant,
    ping_due: Instant,
    /// Since when only its schedule keeps it from sending.
    ready_since: Instant,
    moments: VecDeque<(Instant, MomentKind, usize)>,
    large: VecDeque<(Instant, usize)>,
    /// Sent and unanswered, oldest first.
    open: VecDeque<Open>,
    /// Index of the first in `open` that was not sent on this connection.
    unsent: usize,
    failures: u32,
    ledger: Ledger,
}

impl Station {
    /// Creates the station with this number.
    pub fn new(number: u32, settings: Arc<Settings>) -> Self {
        let scenario = &settings.scenario;
        let identity = identity(&scenario.prefix, number);
        let version = Version::of(number, scenario.versions);
        let mut random = Random::new(u64::from(number) ^ 0x5EED);
        let script = Script::new(version, &identity, &scenario.traffic, &mut random);
        let mut moments: Vec<_> = scenario
            .moments
            .iter()
            .filter_map(|moment| {
                let at = settings.start + moment.at + random.up_to(moment.over);
                (random.unit() < moment.share).then_some((at, moment.what, moment.bytes))
            })
            .collect();
        moments.sort_by_key(|moment| moment.0);
        let behaviour = behaviour(number, scenario);
        Self {
            number,
            identity,
            version,
            behaviour,
            random,
            script,
            interval: interval(scenario),
            connected: false,
            draining: false,
            misbehaving: false,
            registered: false,
            has_registered: false,
            boot_due: settings.start,
            reported: 0,
            next_due: settings.start,
            ping_due: settings.start,
            ready_since: settings.start,
            moments: moments.into(),
            large: VecDeque::new(),
            open: VecDeque::new(),
            unsent: 0,
            failures: 0,
            ledger: Ledger { number, behaviour, sent: 0, answered: Ranges::default(), again: Vec::new() },
            settings,
        }
    }

    /// Its identity.
    pub fn identity(&self) -> &str {
        &self.identity
    }

    /// Its version.
    pub fn version(&self) -> Version {
        self.version
    }

    /// The behaviour it was given, even before it begins to misbehave.
    pub fn behaviour(&self) -> Behaviour {
        self.behaviour
    }

    /// Whether it has begun to misbehave.
    pub fn is_misbehaving(&self) -> bool {
        self.misbehaving
    }

    /// Whether it has stopped reading.
    pub fn has_stopped_reading(&self) -> bool {
        self.misbehaving && self.behaviour == Behaviour::SlowReader
    }

    /// Whether the gateway has ever accepted its boot.
    pub fn was_registered(&self) -> bool {
        self.has_registered
    }

    /// When its first connection is due: first connections are spread evenly over the scenario's time.
    pub fn connect_due(&self) -> Instant {
        let share = f64::from(self.number) / f64::from(self.settings.scenario.stations);
        self.settings.start + self.settings.scenario.connect.over.mul_f64(share)
    }

    /// Makes no new CALLs from now on.
    pub fn drain(&mut self) {
        self.draining = true;
    }

    /// Whether nothing is left to do.
    pub fn is_done(&self) -> bool {
        self.draining && (self.open.is_empty() || self.has_stopped_reading())
    }

    /// Returns the ledger of its CALLs.
    pub fn into_ledger(self) -> Ledger {
        self.ledger
    }

    /// Its connection is established.
    pub fn connected(&mut self, now: Instant) {
        self.connected = true;
        self.failures = 0;
        self.unsent = 0;
        self.ready_since = now;
        if !self.registered {
            self.boot_due = now;
        }
        let every = self.settings.scenario.traffic.ping_every;
        self.ping_due = now + self.random.around(every);
        // A cut that fell due without a connection has nothing to cut.
        while self.moments.front().is_some_and(|moment| moment.0 <= now && moment.1 == MomentKind::Reconnect)
        {
            self.moments.pop_front();
        }
    }

    /// Its connection was lost.
    pub fn lost(&mut self) {
        self.connected = false;
        if self.has_stopped_reading() {
            self.open.clear();
        }
    }

    /// Returns how long to back off before the next attempt.
    pub fn backoff(&mut self) -> Duration {
        let reconnect = self.settings.scenario.reconnect;
        let doubled = reconnect.first.saturating_mul(1 << self.failures.min(16)).min(reconnect.longest);
        self.failures += 1;
        self.random.around(doubled)
    }
}

/// The first numbers are slow readers, the next ones chatty.
fn behaviour(number: u32, scenario: &Scenario) -> Behaviour {
    if number < scenario.slow_readers.stations {
        Behaviour::SlowReader
    } else if number < scenario.slow_readers.stations + scenario.chatty.stations {
        Behaviour::Chatty
    } else {
        Behaviour::Ordinary
    }
}

fn interval(scenario: &Scenario) -> Option<Duration> {
    let rate = scenario.traffic.messages_per_second;
    (rate > 0.0).then(|| Duration::from_secs_f64(f64::from(scenario.stations) / rate))
}

#[cfg(test)]
mod tests;
