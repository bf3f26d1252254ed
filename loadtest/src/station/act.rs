//! What a station does next, and when.
//!
//! Owns the choice between everything that may be due, and the numbering of CALLs.

use std::time::{Duration, Instant};

use super::script::Script;
use super::{Again, Behaviour, Message, Open, Station, Step, message_id};
use crate::frame;
use crate::scenario::{Misbehaviour, MomentKind};

/// The kinds of next steps.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Next {
    Misbehave,
    Moment,
    Resend,
    Ping,
    Boot,
    Report,
    Large,
    Scheduled,
}

/// Actions that the gateway does not deduplicate on a new connection, because nothing in them tells a repetition from a new
/// message. All others say when they were sent.
const NEVER_REMEMBERED: [&str; 4] = ["Authorize", "BootNotification", "DataTransfer", "Heartbeat"];

impl Station {
    /// Returns when `step` has something to do on the present connection; `None`: only an answer changes anything.
    pub fn next_at(&self) -> Option<Instant> {
        self.next().map(|next| next.0)
    }

    /// Takes the next step if it is due.
    pub fn step(&mut self, now: Instant) -> Option<Step> {
        let (at, next) = self.next().filter(|(at, _)| *at <= now)?;
        Some(match next {
            Next::Misbehave => {
                self.misbehaving = true;
                self.next_due = now;
                if self.has_stopped_reading() {
                    self.open.clear();
                    self.unsent = 0;
                }
                Step::Changed
            }
            Next::Moment => match self.moments.pop_front() {
                Some((_, MomentKind::Reconnect, _)) => Step::Cut,
                Some((at, MomentKind::LargeMessage, bytes)) => {
                    self.large.push_back((at, bytes));
                    Step::Changed
                }
                None => Step::Changed,
            },
            Next::Resend => self.resend()?,
            Next::Ping => {
                self.ping_due = now + self.settings.scenario.traffic.ping_every;
                Step::Ping
            }
            Next::Boot => self.send(self.script.boot(), at, now),
            Next::Report => {
                let report = self.script.report(self.reported, &self.settings.time(now));
                self.reported += 1;
                self.send(report, at, now)
            }
            Next::Large => {
                let (due, bytes) = self.large.pop_front()?;
                self.send(Script::large(bytes), due, now)
            }
            Next::Scheduled => self.send_scheduled(now),
        })
    }

    fn next(&self) -> Option<(Instant, Next)> {
        let mut first: Option<(Instant, Next)> = None;
        // On a tie, the one considered first wins.
        let mut consider = |at: Instant, next: Next| {
            if first.is_none_or(|(earliest, _)| at < earliest) {
                first = Some((at, next));
            }
        };
        if let Some(group) = self.group().filter(|_| !self.misbehaving) {
            consider(self.settings.start + group.after, Next::Misbehave);
        }
        if let Some(moment) = self.moments.front() {
            consider(moment.0, Next::Moment);
        }
        if !self.connected {
            return None;
        }
        if self.unsent < self.open.len() {
            consider(self.ready_since, Next::Resend);
            return first;
        }
        if !self.settings.scenario.traffic.ping_every.is_zero() && !self.has_stopped_reading() {
            consider(self.ping_due, Next::Ping);
        }
        if self.draining || self.open.len() >= self.window() {
            return first;
        }
        if !self.registered {
            if self.open.is_empty() {
                consider(self.boot_due, Next::Boot);
            }
        } else if self.reported < self.script.reports() {
            consider(self.ready_since, Next::Report);
        } else {
            if let Some(large) = self.large.front() {
                consider(large.0, Next::Large);
            }
            if self.misbehaving || self.interval.is_some() {
                consider(self.next_due, Next::Scheduled);
            }
        }
        first
    }

    fn send_scheduled(&mut self, now: Instant) -> Step {
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

    fn resend(&mut self) -> Option<Step> {
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
