//! The one queue in front of a socket's only writer (P4): what goes out, most urgent first.
//!
//! Owns the order: close, then ping, then answers, then commands (pongs go ahead of all, inside the connection). Bounded
//! by its user: one close, one ping, `max_unacknowledged` answers (the session stops reading there) and the one
//! command that may be outstanding.

use std::collections::VecDeque;

/// One thing for the writer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Outgoing {
    /// A text message.
    Text(String),
    /// A ping with this payload.
    Ping([u8; 8]),
    /// A close frame; nothing follows it.
    Close {
        /// Its code.
        code: u16,
        /// Its text.
        reason: &'static str,
    },
}

/// What waits for the writer.
#[derive(Debug, Default)]
pub struct Outbox {
    close: Option<(u16, &'static str)>,
    closed: bool,
    ping: Option<[u8; 8]>,
    answers: VecDeque<String>,
    command: Option<String>,
}

impl Outbox {
    /// Queues the close frame; nothing queued before or after it is written any more (RFC 6455 section 5.5.1), except
    /// what [`Outbox::pop`] has given out already. A second one is ignored.
    pub fn close(&mut self, code: u16, reason: &'static str) {
        if !self.closed {
            self.closed = true;
            self.close = Some((code, reason));
            self.clear();
        }
    }

    /// Drops what waits for a station that nobody will answer any more.
    pub fn clear(&mut self) {
        self.ping = None;
        self.answers.clear();
        self.command = None;
    }

    /// Queues a ping, in place of one that has not left.
    pub fn ping(&mut self, payload: [u8; 8]) {
        if !self.closed {
            self.ping = Some(payload);
        }
    }

    /// Queues an answer: CALLRESULT, CALLERROR or CALLRESULTERROR.
    pub fn answer(&mut self, frame: String) {
        if !self.closed {
            self.answers.push_back(frame);
        }
    }

    /// Queues the one CALL that may be outstanding.
    pub fn command(&mut self, frame: String) {
        if !self.closed {
            self.command = Some(frame);
        }
    }

    /// Takes the CALL back if it has not left. Whether it was here.
    pub fn withdraw_command(&mut self) -> bool {
        self.command.take().is_some()
    }

    /// The most urgent thing.
    pub fn pop(&mut self) -> Option<Outgoing> {
        if let Some((code, reason)) = self.close.take() {
            return Some(Outgoing::Close { code, reason });
        }
        if let Some(payload) = self.ping.take() {
            return Some(Outgoing::Ping(payload));
        }
        let text = self.answers.pop_front().or_else(|| self.command.take());
        if self.answers.is_empty() {
            // A queue keeps its room otherwise.
            self.answers = VecDeque::new();
        }
        text.map(Outgoing::Text)
    }

    /// Nothing waits.
    pub fn is_empty(&self) -> bool {
        self.close.is_none() && self.ping.is_none() && self.answers.is_empty() && self.command.is_none()
    }

    /// Answers that wait.
    pub fn answers(&self) -> usize {
        self.answers.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(outbox: &mut Outbox) -> Vec<String> {
        std::iter::from_fn(|| outbox.pop())
            .map(|outgoing| match outgoing {
                Outgoing::Text(text) => text,
                Outgoing::Ping(_) => "ping".into(),
                Outgoing::Close { code, .. } => code.to_string(),
            })
            .collect()
    }

    #[test]
    fn the_most_urgent_leaves_first() {
        let mut outbox = Outbox::default();
        outbox.command("command".into());
        outbox.answer("first".into());
        outbox.answer("second".into());
        outbox.ping([0; 8]);
        assert_eq!(order(&mut outbox), ["ping", "first", "second", "command"]);
        assert!(outbox.is_empty());
    }

    #[test]
    fn a_call_is_withdrawn_unless_it_has_left() {
        let mut outbox = Outbox::default();
        outbox.command("command".into());
        assert!(outbox.withdraw_command());
        outbox.command("next".into());
        assert_eq!(order(&mut outbox), ["next"]);
        assert!(!outbox.withdraw_command());
    }

    #[test]
    fn nothing_follows_a_close() {
        let mut outbox = Outbox::default();
        outbox.answer("answer".into());
        outbox.close(1001, "");
        outbox.close(1008, "");
        outbox.ping([0; 8]);
        outbox.answer("late".into());
        outbox.command("late".into());
        assert_eq!(order(&mut outbox), ["1001"]);
    }
}
