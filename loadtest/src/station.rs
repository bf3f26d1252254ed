//! One simulated station as a state machine: what it does next, and when; what an answer changes.
//!
//! Owns the station's CALLs over all its connections: their ids, which are open, which must be sent again. No sockets, no
//! tasks, no clock: time is an argument.
//!
//! Open loop: when a CALL is due is decided by the station's own schedule and never by how fast others were answered; a CALL
//! that waits for its turn (one is open at a time, as OCPP wants) counts its latency from when it was due. Only what
//! a real station does one after another (boot, then the status reports) is due when the one before is answered.

mod account;
mod acting;
mod hearing;
mod payload;
mod script;
mod version;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use serde::{Deserialize, Serialize};

use crate::random::Random;
use crate::ranges::Ranges;
use crate::scenario::{Happening, Scenario};
pub use account::{Account, Again, identity, message_id, parse_message_id};
use script::Script;
pub use version::Version;

/// How a station behaves.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Habit {
    /// As OCPP wants.
    Ordinary,
    /// After a time it sends and reads nothing any more.
    SlowReader,
    /// After a time it floods.
    Chatty,
}

/// What all stations of a run share.
#[derive(Debug)]
pub struct Settings {
    /// The scenario.
    pub scenario: Scenario,
    /// The beginning of every message id, which no other run has.
    pub run: String,
    /// When the run began.
    pub start: Instant,
    /// The same by the clock on the wall.
    pub wall: SystemTime,
}

impl Settings {
    /// The time of day, as OCPP writes it.
    fn time(&self, now: Instant) -> String {
        let time = self.wall + now.saturating_duration_since(self.start);
        humantime::format_rfc3339_millis(time).to_string()
    }
}

/// One thing that a station says.
#[derive(Debug)]
struct Message {
    action: &'static str,
    payload: String,
}

/// What a station does now.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// It sends a CALL.
    Send {
        /// The frame.
        text: String,
        /// For the first time: how late, seen from when it was due and could be sent.
        lag: Option<Duration>,
    },
    /// It pings.
    Ping,
    /// Its connection breaks.
    Cut,
    /// Something inside changed; ask again.
    Changed,
}

/// What a text from the gateway was.
#[derive(Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The answer to a CALL.
    Answered {
        /// The CALL's action.
        action: &'static str,
        /// Time since it was due.
        latency: Duration,
        /// It was a CALLERROR.
        refused: bool,
    },
    /// A command, and what to say to it.
    Command(String),
    /// Nothing that was asked for, or no OCPP: a fault of the gateway.
    Unexpected,
}

/// A CALL that has no answer yet.
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
    habit: Habit,
    settings: Arc<Settings>,
    random: Random,
    script: Script,
    /// Mean time between CALLs; none: it has nothing to say.
    interval: Option<Duration>,
    connected: bool,
    resting: bool,
    misbehaving: bool,
    registered: bool,
    /// Whether it was registered before: from then on it talks.
    talking: bool,
    boot_due: Instant,
    reported: u32,
    next_due: Instant,
    ping_due: Instant,
    /// Since when nothing but its schedule keeps it from sending.
    ready_since: Instant,
    moments: VecDeque<(Instant, Happening, usize)>,
    large: VecDeque<(Instant, usize)>,
    /// Sent and not answered, oldest first.
    open: VecDeque<Open>,
    /// The first of `open` that was not sent on this connection.
    unsent: usize,
    failures: u32,
    account: Account,
}

impl Station {
    /// The station of this number.
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
        let habit = habit(number, scenario);
        Self {
            number,
            identity,
            version,
            habit,
            random,
            script,
            interval: interval(scenario),
            connected: false,
            resting: false,
            misbehaving: false,
            registered: false,
            talking: false,
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
            account: Account { number, habit, sent: 0, answered: Ranges::default(), again: Vec::new() },
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

    /// How it behaves, sooner or later.
    pub fn habit(&self) -> Habit {
        self.habit
    }

    /// Whether it has begun to misbehave.
    pub fn is_misbehaving(&self) -> bool {
        self.misbehaving
    }

    /// Whether it has stopped reading.
    pub fn is_deaf(&self) -> bool {
        self.misbehaving && self.habit == Habit::SlowReader
    }

    /// Whether it was ever told that it may talk.
    pub fn was_registered(&self) -> bool {
        self.talking
    }

    /// When its first connection is due: the stations share the time evenly.
    pub fn connect_due(&self) -> Instant {
        let share = f64::from(self.number) / f64::from(self.settings.scenario.stations);
        self.settings.start + self.settings.scenario.connect.over.mul_f64(share)
    }

    /// It makes no new CALLs from here on.
    pub fn rest(&mut self) {
        self.resting = true;
    }

    /// Whether it has nothing left to do.
    pub fn is_done(&self) -> bool {
        self.resting && (self.open.is_empty() || self.is_deaf())
    }

    /// What it knows at its end.
    pub fn into_account(self) -> Account {
        self.account
    }

    /// A connection stands.
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
        // What breaks connections has nothing to break while there is none.
        while self.moments.front().is_some_and(|moment| moment.0 <= now && moment.1 == Happening::Reconnect) {
            self.moments.pop_front();
        }
    }

    /// The connection is gone.
    pub fn lost(&mut self) {
        self.connected = false;
        if self.is_deaf() {
            self.open.clear();
        }
    }

    /// How long to wait before the next attempt.
    pub fn pause(&mut self) -> Duration {
        let reconnect = self.settings.scenario.reconnect;
        let doubled = reconnect.first.saturating_mul(1 << self.failures.min(16)).min(reconnect.longest);
        self.failures += 1;
        self.random.around(doubled)
    }
}

/// The first are slow readers, the next are chatty.
fn habit(number: u32, scenario: &Scenario) -> Habit {
    if number < scenario.slow_readers.stations {
        Habit::SlowReader
    } else if number < scenario.slow_readers.stations + scenario.chatty.stations {
        Habit::Chatty
    } else {
        Habit::Ordinary
    }
}

fn interval(scenario: &Scenario) -> Option<Duration> {
    let rate = scenario.traffic.messages_per_second;
    (rate > 0.0).then(|| Duration::from_secs_f64(f64::from(scenario.stations) / rate))
}

#[cfg(test)]
mod tests;
