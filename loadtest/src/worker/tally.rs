//! What the stations of one worker did and measured.
//!
//! Owns counters and distributions, and how those of several workers add up. Misbehaving stations are counted apart: their
//! latency says nothing about the gateway.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::latency::Latency;
use crate::station::Behaviour;

/// Counters since the start, except `connected`, which is the present number.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Counts {
    /// Open connections.
    pub connected: u64,
    /// Stations that were accepted at least once.
    pub registered: u64,
    /// Attempts to connect that ended, successfully or not.
    pub attempts: u64,
    /// Attempts that succeeded.
    pub connects: u64,
    /// Connections cut by the scenario.
    pub cut: u64,
    /// Connections of well-behaved stations that ended otherwise.
    pub disconnects: u64,
    /// CALLs of well-behaved stations, each counted once.
    pub sent: u64,
    /// Of these, answered with a CALLRESULT or CALLERROR.
    pub answered: u64,
    /// Of these, answered with a CALLERROR.
    pub refused: u64,
    /// CALLs sent again after a lost connection.
    pub again: u64,
    /// CALLs of misbehaving stations.
    pub misbehaved_sent: u64,
    /// Of these, answered.
    pub misbehaved_answered: u64,
    /// Texts from the gateway that were neither asked for nor OCPP.
    pub unexpected: u64,
    /// Commands answered.
    pub commands: u64,
    /// Pings sent.
    pub pings: u64,
}

impl Counts {
    /// Adds the counters of another worker.
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

/// Everything that a worker reports at the end.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Totals {
    /// Counters.
    pub counts: Counts,
    /// Latency of CALLs of well-behaved stations, by action.
    pub actions: BTreeMap<String, Latency>,
    /// Latency of CALLs of flooding stations.
    pub chatty: Latency,
    /// From when a connection was due to the end of its handshake.
    pub connect: Latency,
    /// How late the load test itself sent CALLs.
    pub lag: Latency,
    /// Connections that ended against the scenario's will, by cause.
    pub ends: BTreeMap<String, u64>,
    /// Attempts to connect that failed, by cause.
    pub failures: BTreeMap<String, u64>,
}

impl Totals {
    /// Adds those of another worker: the sum is exactly what one worker would have measured.
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

/// The totals, and what was measured since the last tick.
#[derive(Debug, Default)]
pub struct Tally {
    /// Since the start.
    pub totals: Totals,
    /// Latency of CALLs of well-behaved stations, since the last tick.
    pub lately: Latency,
    /// How late CALLs were sent, since the last tick.
    pub lag_lately: Latency,
}

impl Tally {
    /// Counts a connection, established this long after it was due.
    pub fn connected(&mut self, after: Duration) {
        let counts = &mut self.totals.counts;
        counts.attempts += 1;
        counts.connects += 1;
        counts.connected += 1;
        self.totals.connect.record(after);
    }

    /// Counts a failed attempt.
    pub fn failed(&mut self, reason: &str) {
        self.totals.counts.attempts += 1;
        *self.totals.failures.entry(reason.to_owned()).or_default() += 1;
    }

    /// Counts the end of a connection; `reason` if the scenario did not want it.
    pub fn left(&mut self, behaviour: Behaviour, misbehaving: bool, reason: Option<&str>) {
        self.totals.counts.connected -= 1;
        let Some(reason) = reason else { return };
        let key = match behaviour {
            Behaviour::SlowReader if misbehaving => format!("slow reader: {reason}"),
            Behaviour::Chatty if misbehaving => format!("chatty: {reason}"),
            _ => {
                self.totals.counts.disconnects += 1;
                reason.to_owned()
            }
        };
        *self.totals.ends.entry(key).or_default() += 1;
    }

    /// Counts a CALL; `lag` on its first send only.
    pub fn sent(&mut self, behaviour: Behaviour, lag: Option<Duration>) {
        let counts = &mut self.totals.counts;
        match (lag, behaviour) {
            (None, _) => counts.again += 1,
            (Some(lag), Behaviour::Ordinary) => {
                counts.sent += 1;
                self.totals.lag.record(lag);
                self.lag_lately.record(lag);
            }
            (Some(_), Behaviour::SlowReader | Behaviour::Chatty) => counts.misbehaved_sent += 1,
        }
    }

    /// Counts an answer.
    pub fn answered(&mut self, behaviour: Behaviour, action: &'static str, latency: Duration, refused: bool) {
        let totals = &mut self.totals;
        match behaviour {
            Behaviour::Ordinary => {
                totals.counts.answered += 1;
                totals.counts.refused += u64::from(refused);
                self.lately.record(latency);
                // A look-up first: the name is copied once per action, not per answer.
                if let Some(known) = totals.actions.get_mut(action) {
                    known.record(latency);
                } else {
                    totals.actions.entry(action.to_owned()).or_default().record(latency);
                }
            }
            Behaviour::Chatty => {
                totals.counts.misbehaved_answered += 1;
                totals.chatty.record(latency);
            }
            Behaviour::SlowReader => totals.counts.misbehaved_answered += 1,
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
            let behaviour = if number % 10 == 0 { Behaviour::Chatty } else { Behaviour::Ordinary };
            let action = if number % 3 == 0 { "Heartbeat" } else { "MeterValues" };
            for tally in [&mut one, &mut halves[usize::from(number % 7 == 0)]] {
                tally.connected(latency);
                tally.sent(behaviour, Some(latency));
                tally.sent(behaviour, None);
                tally.answered(behaviour, action, latency, number == 5);
                tally.left(behaviour, true, (number % 4 == 0).then_some("closed 1001"));
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
    fn the_end_of_a_misbehaving_stations_connection_is_not_a_disconnect() {
        let mut tally = Tally::default();
        for (behaviour, misbehaving) in
            [(Behaviour::Ordinary, false), (Behaviour::SlowReader, true), (Behaviour::Chatty, false)]
        {
            tally.connected(Duration::ZERO);
            tally.left(behaviour, misbehaving, Some("reset"));
        }
        assert_eq!(tally.totals.counts.disconnects, 2);
        assert_eq!(tally.totals.ends["slow reader: reset"], 1);
    }
}
