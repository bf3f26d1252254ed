//! What the stations of one process did and measured.
//!
//! Owns counters and distributions, and how those of several processes add up. Stations that misbehave are counted apart:
//! what they wait for says nothing about the gateway.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::latency::Latency;
use crate::station::Habit;

/// Counters since the start. `connected` and `registered` are what is now.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Counts {
    /// Connections that stand.
    pub connected: u64,
    /// Stations that were accepted, once.
    pub registered: u64,
    /// Attempts to connect that ended, well or not.
    pub attempts: u64,
    /// Attempts that succeeded.
    pub connects: u64,
    /// Connections cut by the stations, as the scenario wants.
    pub cut: u64,
    /// Connections of stations that behave which ended otherwise.
    pub disconnects: u64,
    /// CALLs of stations that behave, each counted once.
    pub sent: u64,
    /// Of these, answered, with whatever.
    pub answered: u64,
    /// Of these, answered with CALLERROR.
    pub refused: u64,
    /// CALLs sent again after a connection was lost.
    pub again: u64,
    /// CALLs of stations that misbehave.
    pub misbehaved_sent: u64,
    /// Of these, answered.
    pub misbehaved_answered: u64,
    /// Texts from the gateway that nobody asked for, or that are no OCPP.
    pub unexpected: u64,
    /// Commands answered.
    pub commands: u64,
    /// Pings sent.
    pub pings: u64,
}

impl Counts {
    /// Adds those of another process.
    pub fn add(&mut self, other: &Self) {
        let Self { connected, registered, attempts, connects, cut, disconnects, sent, answered, .. } = other;
        self.connected += connected;
        self.registered += registered;
        self.attempts += attempts;
        self.connects += connects;
        self.cut += cut;
        self.disconnects += disconnects;
        self.sent += sent;
        self.answered += answered;
        let Self {
            refused, again, misbehaved_sent, misbehaved_answered, unexpected, commands, pings, ..
        } = other;
        self.refused += refused;
        self.again += again;
        self.misbehaved_sent += misbehaved_sent;
        self.misbehaved_answered += misbehaved_answered;
        self.unexpected += unexpected;
        self.commands += commands;
        self.pings += pings;
    }
}

/// Everything that a process has to tell at its end.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Totals {
    /// Counters.
    pub counts: Counts,
    /// Latency of CALLs of stations that behave, by action.
    pub actions: BTreeMap<String, Latency>,
    /// Latency of CALLs of stations that flood.
    pub chatty: Latency,
    /// From when a connection was due to the end of its handshake.
    pub connect: Latency,
    /// How late CALLs were sent, through the fault of the load test.
    pub lag: Latency,
    /// How connections ended that nobody here wanted to end, by what happened.
    pub ends: BTreeMap<String, u64>,
    /// Why attempts failed.
    pub failures: BTreeMap<String, u64>,
}

impl Totals {
    /// Adds those of another process: the sum is what one process would have measured.
    pub fn add(&mut self, other: &Self) {
        self.counts.add(&other.counts);
        for (action, latency) in &other.actions {
            self.actions.entry(action.clone()).or_default().add(latency);
        }
        self.chatty.add(&other.chatty);
        self.connect.add(&other.connect);
        self.lag.add(&other.lag);
        for (mine, theirs) in [(&mut self.ends, &other.ends), (&mut self.failures, &other.failures)] {
            for (what, count) in theirs {
                *mine.entry(what.clone()).or_default() += count;
            }
        }
    }

    /// Latency of all actions together.
    pub fn latency(&self) -> Latency {
        let mut sum = Latency::new();
        for latency in self.actions.values() {
            sum.add(latency);
        }
        sum
    }
}

/// The totals, and what happened since the last look.
#[derive(Debug, Default)]
pub struct Tally {
    /// Since the start.
    pub totals: Totals,
    /// Latency of CALLs of stations that behave, since the last look.
    pub lately: Latency,
    /// How late CALLs were sent, since the last look.
    pub lag_lately: Latency,
}

impl Tally {
    /// A connection stands, so long after it was due.
    pub fn connected(&mut self, after: Duration) {
        let counts = &mut self.totals.counts;
        counts.attempts += 1;
        counts.connects += 1;
        counts.connected += 1;
        self.totals.connect.record(after);
    }

    /// An attempt failed.
    pub fn failed(&mut self, reason: &str) {
        self.totals.counts.attempts += 1;
        *self.totals.failures.entry(reason.to_owned()).or_default() += 1;
    }

    /// A connection is gone; `reason` when nobody here wanted that.
    pub fn left(&mut self, habit: Habit, misbehaving: bool, reason: Option<&str>) {
        self.totals.counts.connected -= 1;
        let Some(reason) = reason else { return };
        let key = match habit {
            Habit::SlowReader if misbehaving => format!("slow reader: {reason}"),
            Habit::Chatty if misbehaving => format!("chatty: {reason}"),
            _ => {
                self.totals.counts.disconnects += 1;
                reason.to_owned()
            }
        };
        *self.totals.ends.entry(key).or_default() += 1;
    }

    /// A CALL was sent; `lag` for the first time only.
    pub fn sent(&mut self, habit: Habit, lag: Option<Duration>) {
        let counts = &mut self.totals.counts;
        match (lag, habit) {
            (None, _) => counts.again += 1,
            (Some(lag), Habit::Ordinary) => {
                counts.sent += 1;
                self.totals.lag.record(lag);
                self.lag_lately.record(lag);
            }
            (Some(_), Habit::SlowReader | Habit::Chatty) => counts.misbehaved_sent += 1,
        }
    }

    /// A CALL was answered.
    pub fn answered(&mut self, habit: Habit, action: &'static str, latency: Duration, refused: bool) {
        let totals = &mut self.totals;
        match habit {
            Habit::Ordinary => {
                totals.counts.answered += 1;
                totals.counts.refused += u64::from(refused);
                self.lately.record(latency);
                // A look-up first: the name is copied once for each action, not for each answer.
                if let Some(known) = totals.actions.get_mut(action) {
                    known.record(latency);
                } else {
                    totals.actions.entry(action.to_owned()).or_default().record(latency);
                }
            }
            Habit::Chatty => {
                totals.counts.misbehaved_answered += 1;
                totals.chatty.record(latency);
            }
            Habit::SlowReader => totals.counts.misbehaved_answered += 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_processes_add_up_to_one() {
        let mut one = Tally::default();
        let mut halves = [Tally::default(), Tally::default()];
        for number in 0..100_u64 {
            let latency = Duration::from_millis(number);
            let habit = if number % 10 == 0 { Habit::Chatty } else { Habit::Ordinary };
            let action = if number % 3 == 0 { "Heartbeat" } else { "MeterValues" };
            for tally in [&mut one, &mut halves[usize::from(number % 7 == 0)]] {
                tally.connected(latency);
                tally.sent(habit, Some(latency));
                tally.sent(habit, None);
                tally.answered(habit, action, latency, number == 5);
                tally.left(habit, true, (number % 4 == 0).then_some("closed 1001"));
                tally.failed("HTTP 503");
            }
        }
        let mut sum = Totals::default();
        for half in halves {
            let text = serde_json::to_string(&half.totals).unwrap();
            sum.add(&serde_json::from_str(&text).unwrap());
        }
        assert_eq!(serde_json::to_value(&sum).unwrap(), serde_json::to_value(&one.totals).unwrap());
        assert_eq!(sum.counts.sent, 90);
        assert_eq!(sum.latency().count(), 90);
        assert_eq!(sum.counts.connected, 0);
    }

    #[test]
    fn the_end_of_a_connection_that_misbehaved_is_no_fault() {
        let mut tally = Tally::default();
        for (habit, misbehaving) in
            [(Habit::Ordinary, false), (Habit::SlowReader, true), (Habit::Chatty, false)]
        {
            tally.connected(Duration::ZERO);
            tally.left(habit, misbehaving, Some("reset"));
        }
        assert_eq!(tally.totals.counts.disconnects, 2);
        assert_eq!(tally.totals.ends["slow reader: reset"], 1);
    }
}
