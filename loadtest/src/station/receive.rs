//! How a station handles what the gateway sends.
//!
//! Owns closing a CALL when its answer arrives, and what the station learns from it.

use std::time::{Duration, Instant};

use serde::Deserialize;

use super::{Open, Received, Station, parse_message_id};
use crate::frame::{self, Frame};

/// The least delay before another BootNotification, whatever the answer says.
const SHORTEST_BOOT_WAIT: Duration = Duration::from_secs(1);

impl Station {
    /// Handles a text from the gateway.
    pub fn receive(&mut self, text: &str, now: Instant) -> Received {
        match frame::parse(text) {
            Frame::CallResult { id, payload } => {
                let Some(open) = self.take(id, now) else { return Received::Unexpected };
                self.learn(&open, payload.get(), now);
                Received::Answered { action: open.action, latency: now - open.due, refused: false }
            }
            Frame::CallError { id, code } => {
                let Some(open) = self.take(id, now) else { return Received::Unexpected };
                if open.action == "BootNotification" {
                    self.boot_due = now + SHORTEST_BOOT_WAIT;
                } else if code == "SecurityError" {
                    // The gateway no longer knows the station.
                    self.registered = false;
                    self.boot_due = now;
                }
                Received::Answered { action: open.action, latency: now - open.due, refused: true }
            }
            Frame::Call { id, action } => Received::Command(frame::answer(id, action)),
            Frame::Invalid => Received::Unexpected,
        }
    }

    /// Removes the open CALL with this id; `None` if there is none, or if it was not sent on this connection.
    fn take(&mut self, id: &str, now: Instant) -> Option<Open> {
        let seq = parse_message_id(&self.settings.run, id)?;
        let at = self.open.iter().take(self.unsent).position(|open| open.seq == seq)?;
        if self.open.len() >= self.window() {
            self.ready_since = now;
        }
        self.unsent -= 1;
        self.ledger.answered.insert(seq);
        self.open.remove(at)
    }

    fn learn(&mut self, open: &Open, payload: &str, now: Instant) {
        #[derive(Deserialize)]
        struct Boot<'a> {
            status: &'a str,
            interval: u64,
        }
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Start {
            transaction_id: i64,
        }
        match open.action {
            "BootNotification" => match serde_json::from_str::<Boot<'_>>(payload) {
                Ok(boot) if boot.status == "Accepted" => self.registered(now),
                Ok(boot) => self.boot_due = now + SHORTEST_BOOT_WAIT.max(Duration::from_secs(boot.interval)),
                Err(_) => self.boot_due = now + SHORTEST_BOOT_WAIT,
            },
            "StartTransaction" => {
                if let Ok(start) = serde_json::from_str::<Start>(payload) {
                    self.script.transaction_is(start.transaction_id);
                }
            }
            _ => {}
        }
    }

    fn registered(&mut self, now: Instant) {
        self.registered = true;
        self.reported = 0;
        if !self.has_registered {
            self.has_registered = true;
            self.next_due =
                now + self.interval.map_or(Duration::ZERO, |interval| self.random.up_to(interval));
        }
    }
}
