//! What a station does next, and when.
//!
//! Owns the choice between everything that may be due, and the numbering of CALLs.

use std::time::{Duration, Instant};

use super::script::Script;
use super::{Again, Behaviour, Message, Open, Station, Step, message_id};
use crate::frame;
use crate::scenario::{Happening, Misbehaviour};

/// The kinds of next steps.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Act {
    Misbehave,
    Happen,
    Resend,
    Ping,
    Boot,
    Report,
    Large,
    Talk,
}

/// Actions that the gateway does not deduplicate: a boot begins a new registration, and a heartbeat asks for the time.
const NEVER_REMEMBERED: [&str; 2] = ["BootNotification", "Heartbeat"];

impl Station {
    /// Returns when `step` has something to do on the present connection; `None`: only an answer changes anything.
    pub fn next_at(&self) -> Option<Instant> {
        self.next().map(|next| next.0)
    }

    /// Takes the next step if it is due.
    pub fn step(&mut self, now: Instant) -> Option<Step> {
        let (at, act) = self.next().filter(|next| next.0 <= now)?;
        Some(match act {
            Act::Misbehave => {
                self.misbehaving = true;
                self.next_due = now;
                if self.has_stopped_reading() {
                    self.open.clear();
                    self.unsent = 0;
                }
                Step::Changed
            }
            Act::Happen => match self.moments.pop_front() {
                Some((_, Happening::Reconnect, _)) => Step::Cut,
                Some((at, Happening::LargeMessage, bytes)) => {
                    self.large.push_back((at, bytes));
                    Step::Changed
                }
                None => Step::Changed,
            },
            Act::Resend => self.send_again()?,
            Act::Ping => {
                self.ping_due = now + self.settings.scenario.traffic.ping_every;
                Step::Ping
            }
            Act::Boot => self.send(self.script.boot(), at, now),
            Act::Report => {
                let report = self.script.report(self.reported, &self.settings.time(now));
                self.reported += 1;
                self.send(report, at, now)
            }
            Act::Large => {
                let (due, bytes) = self.large.pop_front()?;
                self.send(Script::large(bytes), due, now)
            }
            Act::Talk => self.talk(now),
        })
    }

    fn next(&self) -> Option<(Instant, Act)> {
        let mut first: Option<(Instant, Act)> = None;
        // On a tie, the one considered first wins.
        let mut consider = |at: Instant, act: Act| {
            if first.is_none_or(|(earliest, _)| at < earliest) {
                first = Some((at, act));
            }
        };
        if let Some(group) = self.group().filter(|_| !self.misbehaving) {
            consider(self.settings.start + group.after, Act::Misbehave);
        }
        if let Some(moment) = self.moments.front() {
            consider(moment.0, Act::Happen);
        }
        if !self.connected {
            return None;
        }
        if self.unsent < self.open.len() {
            consider(self.ready_since, Act::Resend);
            return first;
        }
        if !self.settings.scenario.traffic.ping_every.is_zero() && !self.has_stopped_reading() {
            consider(self.ping_due, Act::Ping);
        }
        if self.draining || self.open.len() >= self.window() {
            return first;
        }
        if !self.registered {
            if self.open.is_empty() {
                consider(self.boot_due, Act::Boot);
            }
        } else if self.reported < self.script.reports() {
            consider(self.ready_since, Act::Report);
        } else {
            if let Some(large) = self.large.front() {
                consider(large.0, Act::Large);
            }
            if self.misbehaving || self.interval.is_some() {
                consider(self.next_due, Act::Talk);
            }
        }
        first
    }

    fn talk(&mut self, now: Instant) -> Step {
        let due = self.next_due;
        let time = self.settings.time(now);
        let group = self.group().filter(|_| self.misbehaving);
        match (self.behaviour, group) {
            (Behaviour::SlowReader, Some(group)) => {
                // It reads no answers: there is no latency to measure, and no lag.
                self.next_due = now + group.every;
                let step = self.send(Script::heartbeat(), now, now);
                self.open.clear();
                self.unsent = 0;
                step
            }
            (Behaviour::Chatty, Some(group)) => {
                self.next_due = due + self.random.around(group.every);
                let message = self.script.flood(&time);
                self.send(message, due, now)
            }
            _ => {
                let interval = self.interval.unwrap_or(Duration::MAX);
                self.next_due = due + self.random.around(interval);
                let message = self.script.next(&time);
                self.send(message, due, now)
            }
        }
    }

    fn send(&mut self, message: Message, due: Instant, now: Instant) -> Step {
        let seq = self.ledger.sent;
        self.ledger.sent += 1;
        let id = message_id(&self.settings.run, seq);
        let text = frame::call(&id, message.action, &message.payload);
        let lag = now.saturating_duration_since(due.max(self.ready_since));
        self.open.push_back(Open { seq, action: message.action, text: text.clone(), due });
        self.unsent = self.open.len();
        Step::Send { text, lag: Some(lag) }
    }

    fn send_again(&mut self) -> Option<Step> {
        let open = self.open.get(self.unsent)?;
        self.unsent += 1;
        match self.ledger.again.iter_mut().rev().find(|again| again.seq == open.seq) {
            Some(again) => again.times += 1,
            None => self.ledger.again.push(Again {
                seq: open.seq,
                times: 1,
                never_remembered: NEVER_REMEMBERED.contains(&open.action),
            }),
        }
        Some(Step::Send { text: open.text.clone(), lag: None })
    }

    fn group(&self) -> Option<&Misbehaviour> {
        match self.behaviour {
            Behaviour::Ordinary => None,
            Behaviour::SlowReader => Some(&self.settings.scenario.slow_readers),
            Behaviour::Chatty => Some(&self.settings.scenario.chatty),
        }
    }

    pub(super) fn window(&self) -> usize {
        if self.misbehaving && self.behaviour == Behaviour::Chatty {
            self.settings.scenario.chatty.window
        } else {
            1
        }
    }
}
