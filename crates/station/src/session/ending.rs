//! How a session ends: its commands fail, what is in flight is answered if it may be, the last event is published and the
//! close frame goes out. A successor may speak once the last event is on the bus.

use std::time::Instant;

use super::{Link, Session};
use crate::close::CloseReason;
use crate::host::{Backlog, Disconnected, Event, Host};
use crate::outcome::Status;
use crate::time::Now;

/// An end in progress.
#[derive(Debug)]
pub(super) struct Ending {
    reason: CloseReason,
    /// What the station said in its close frame, or what we say in ours.
    code: Option<u16>,
    /// What is in flight may still be answered until then; answers that are held, or that the station does not take, must
    /// not keep it longer.
    pub(super) give_up_at: Instant,
    /// The close frame is queued and the last event is published.
    pub(super) is_announced: bool,
    /// The connection is dropped at this moment, once the end is announced.
    pub(super) drop_link_at: Option<Instant>,
}

impl<H: Host> Session<H> {
    /// Somebody asked for the end.
    pub fn on_end(&mut self, now: Now, reason: CloseReason, host: &mut H) {
        self.end(now, reason, host);
    }

    /// The station's close frame came in; the answer to it is the connection's own affair.
    pub fn on_close(&mut self, now: Now, code: Option<u16>, host: &mut H) {
        self.keepalive.seen(now.monotonic);
        self.begin_end(now, CloseReason::StationClosed, code, host);
    }

    /// The station broke a rule of the WebSocket, for which the connection ends with this reason. Nothing more can be read.
    pub fn on_broken(&mut self, now: Now, reason: CloseReason, host: &mut H) {
        self.keepalive.seen(now.monotonic);
        self.end(now, reason, host);
    }

    /// The connection is gone.
    pub fn on_lost(&mut self, now: Now, host: &mut H) {
        self.end(now, CloseReason::ConnectionLost, host);
    }

    /// Whether the end has begun: the station no longer counts as connected by this session.
    pub fn is_ending(&self) -> bool {
        self.ending.is_some()
    }

    /// Whether everything that this session had to say is on the bus: a successor may speak.
    pub fn is_over(&self, host: &H) -> bool {
        self.ending.as_ref().is_some_and(|ending| ending.is_announced)
            && host.backlog() != Backlog::Unpublished
    }

    /// Whether the driver is to drop the connection: the station has not closed its side in time.
    pub fn gives_up_link(&self, now: Instant) -> bool {
        self.ending.as_ref().and_then(|ending| ending.drop_link_at).is_some_and(|at| now >= at)
    }

    /// The reason for the end, when nothing is left to do.
    pub fn ended(&self, link: Link, host: &H) -> Option<CloseReason> {
        let ending = self.ending.as_ref()?;
        let link_done = !link.is_open || (link.is_read_over && self.outbox.is_empty() && !link.is_writing);
        (self.is_over(host) && link_done && self.answers.is_empty()).then_some(ending.reason)
    }

    pub(super) fn end(&mut self, now: Now, reason: CloseReason, host: &mut H) {
        self.begin_end(now, reason, None, host);
    }

    /// Begins the end; the first reason counts. `code` is what the station's close frame said.
    fn begin_end(&mut self, now: Now, reason: CloseReason, code: Option<u16>, host: &mut H) {
        if self.ending.is_some() {
            return;
        }
        self.ending = Some(Ending {
            reason,
            code: code.or_else(|| reason.code()),
            is_announced: false,
            give_up_at: now.monotonic + host.options().close_timeout,
            drop_link_at: None,
        });
        let status = if reason == CloseReason::Replaced { Status::Replaced } else { Status::Offline };
        self.give_up_commands(now, status, host);
        if reason != CloseReason::Shutdown {
            // The station asks again on its next connection; nobody is left to hear these.
            self.stop_delegating(host);
            self.answers.clear();
            self.outbox.clear();
        }
    }

    /// Publishes the last event and queues the close frame, when what is in flight has been answered.
    pub(super) fn advance_ending(&mut self, now: Now, link: Link, host: &mut H) {
        let answers_in_flight = !self.answers.is_empty() || self.outbox.answers() > 0;
        let Some(ending) = &mut self.ending else { return };
        if !link.is_open {
            ending.drop_link_at = None;
        }
        let waits = (answers_in_flight && link.is_open) || host.has_unpublished_results();
        if ending.is_announced || (waits && now.monotonic < ending.give_up_at) {
            return;
        }
        ending.is_announced = true;
        ending.drop_link_at = link.is_open.then(|| now.monotonic + host.options().close_timeout);
        let (reason, close_code) = (ending.reason, ending.code);
        // Nobody is left to hear what was not sent by now.
        self.stop_delegating(host);
        self.answers.clear();
        if let Some(own) = reason.code() {
            self.outbox.close(own, reason.text());
        }
        let (messages_in, messages_out) = (self.messages_in, self.messages_out);
        let ended = Disconnected { at: now.wall, reason, close_code, messages_in, messages_out };
        host.publish(Event::Disconnected(ended));
    }
}
