//! What others want of a session: commands to send, and that it ends.
//!
//! Owns the station's command queue, bounded, urgent commands first. A mutex-guarded queue with one waker: it costs
//! nothing while a connection is idle, where a channel would preallocate. The session is the only reader.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Instant;

use futures_util::task::AtomicWaker;
use ocpp_protocol::Action;

use crate::close::CloseReason;
use crate::outbound_call::OutboundCall;

/// A session's inbox.
#[derive(Debug)]
pub struct Inbox<D> {
    inner: Mutex<Inner<D>>,
    waker: AtomicWaker,
    capacity: usize,
}

#[derive(Debug)]
struct Inner<D> {
    urgent: VecDeque<OutboundCall<D>>,
    normal: VecDeque<OutboundCall<D>>,
    end: Option<CloseReason>,
    /// The request to end was read; it is not read twice.
    end_read: bool,
    /// An operator has decided since the reader last looked.
    decided: bool,
    /// Something came since the reader last looked.
    arrived: bool,
    closed: bool,
}

/// Why a command was not queued.
#[derive(Debug)]
pub enum Refused<D> {
    /// The queue is full.
    Full(OutboundCall<D>),
    /// The session has ended.
    Ended(OutboundCall<D>),
}

/// What the session finds in its inbox.
#[derive(Debug)]
pub enum Signal<D> {
    /// It is to end.
    End(CloseReason),
    /// A command to send.
    Command(OutboundCall<D>),
    /// An operator has decided about the station's registration.
    Decided,
    /// A command arrived and is not wanted yet, so its deadline counts; or something else has changed.
    Changed,
}

impl<D> Inbox<D> {
    /// An empty inbox for at most `capacity` commands.
    pub fn new(capacity: usize) -> Self {
        let inner = Inner {
            urgent: VecDeque::new(),
            normal: VecDeque::new(),
            end: None,
            end_read: false,
            decided: false,
            arrived: false,
            closed: false,
        };
        Self { inner: Mutex::new(inner), waker: AtomicWaker::new(), capacity }
    }

    /// Queues a command, in the order in which commands were taken in.
    ///
    /// # Errors
    /// Gives it back when the queue is full or the session has ended.
    // The command comes back whole so that its sender can be told; boxing it would cost every command.
    #[allow(clippy::result_large_err)]
    pub fn submit(&self, call: OutboundCall<D>) -> Result<(), Refused<D>> {
        let mut inner = self.lock();
        if inner.closed {
            return Err(Refused::Ended(call));
        }
        if inner.urgent.len() + inner.normal.len() >= self.capacity {
            return Err(Refused::Full(call));
        }
        let queue = if call.is_urgent { &mut inner.urgent } else { &mut inner.normal };
        // Nearly always the end: only what comes from an earlier session may be older than what is here.
        let after = queue.iter().rposition(|other| other.sequence < call.sequence).map_or(0, |at| at + 1);
        queue.insert(after, call);
        inner.arrived = true;
        drop(inner);
        self.waker.wake();
        Ok(())
    }

    /// Asks the session to end. The first reason counts.
    pub fn end(&self, reason: CloseReason) {
        self.lock().end.get_or_insert(reason);
        self.waker.wake();
    }

    /// Says that an operator has decided about the station's registration.
    pub fn decide(&self) {
        self.lock().decided = true;
        self.waker.wake();
    }

    /// Makes the session look at how things are.
    pub fn nudge(&self) {
        self.lock().arrived = true;
        self.waker.wake();
    }

    /// Waits for the request to end, for a decision, for a command that is wanted, or for a change. One waiter.
    pub fn poll_next(
        &self,
        context: &Context<'_>,
        wants_command: impl Fn(&Action) -> bool,
    ) -> Poll<Signal<D>> {
        self.waker.register(context.waker());
        let mut inner = self.lock();
        if let Some(reason) = inner.end
            && !inner.end_read
        {
            inner.end_read = true;
            return Poll::Ready(Signal::End(reason));
        }
        if std::mem::take(&mut inner.decided) {
            return Poll::Ready(Signal::Decided);
        }
        let Inner { urgent, normal, .. } = &mut *inner;
        let wanted = [urgent, normal].into_iter().find_map(|queue| {
            let at = queue.iter().position(|call| wants_command(call.action))?;
            queue.remove(at)
        });
        if let Some(call) = wanted {
            return Poll::Ready(Signal::Command(call));
        }
        if std::mem::take(&mut inner.arrived) { Poll::Ready(Signal::Changed) } else { Poll::Pending }
    }

    /// Takes out the commands whose time has run out.
    pub fn take_overdue(&self, now: Instant) -> Vec<OutboundCall<D>> {
        let mut inner = self.lock();
        let mut overdue = Vec::new();
        let Inner { urgent, normal, .. } = &mut *inner;
        for queue in [urgent, normal] {
            if queue.iter().any(|call| call.send_by <= now) {
                let (over, kept): (VecDeque<_>, _) =
                    std::mem::take(queue).into_iter().partition(|call| call.send_by <= now);
                *queue = kept;
                overdue.extend(over);
            }
        }
        overdue
    }

    /// Takes out a command that the session has not asked for yet.
    pub fn withdraw(&self, id: &str) -> Option<OutboundCall<D>> {
        let mut inner = self.lock();
        let Inner { urgent, normal, .. } = &mut *inner;
        [urgent, normal].into_iter().find_map(|queue| {
            let at = queue.iter().position(|call| &*call.id == id)?;
            queue.remove(at)
        })
    }

    /// When the first queued command runs out of time.
    pub fn next_deadline(&self) -> Option<Instant> {
        let inner = self.lock();
        inner.urgent.iter().chain(&inner.normal).map(|call| call.send_by).min()
    }

    /// Takes nothing any more, and gives what is left, urgent commands first.
    pub fn close(&self) -> Vec<OutboundCall<D>> {
        let mut inner = self.lock();
        inner.closed = true;
        let urgent = std::mem::take(&mut inner.urgent);
        let normal = std::mem::take(&mut inner.normal);
        urgent.into_iter().chain(normal).collect()
    }

    /// Commands that wait.
    pub fn waiting(&self) -> usize {
        let inner = self.lock();
        inner.urgent.len() + inner.normal.len()
    }

    fn lock(&self) -> MutexGuard<'_, Inner<D>> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outbound_call::{Overdue, Patience};
    use serde_json::value::RawValue;
    use std::time::Duration;

    fn call(id: &str, sequence: u64, is_urgent: bool, send_by: Instant) -> OutboundCall<()> {
        OutboundCall {
            id: id.into(),
            action: Action::find("Reset").unwrap(),
            payload: RawValue::NULL.to_owned().into(),
            sequence,
            is_urgent,
            send_by,
            patience: Patience::FromSending(Duration::from_secs(1)),
            overdue: Overdue::TimedOut,
            dispatch: (),
        }
    }

    fn next(inbox: &Inbox<()>, wants_command: bool) -> Option<String> {
        next_of(inbox, |_| wants_command)
    }

    fn next_of(inbox: &Inbox<()>, wants_command: impl Fn(&Action) -> bool) -> Option<String> {
        let context = Context::from_waker(std::task::Waker::noop());
        match inbox.poll_next(&context, wants_command) {
            Poll::Ready(Signal::End(reason)) => Some(reason.as_str().into()),
            Poll::Ready(Signal::Command(call)) => Some(call.id.as_ref().into()),
            Poll::Ready(Signal::Decided) => Some("decided".into()),
            Poll::Ready(Signal::Changed) => Some("changed".into()),
            Poll::Pending => None,
        }
    }

    #[test]
    fn urgent_commands_leave_first_and_each_kind_in_the_order_of_its_sequence() {
        let (inbox, now) = (Inbox::new(8), Instant::now());
        for (id, sequence, is_urgent) in [("b", 2, false), ("a", 1, false), ("d", 4, true), ("c", 3, true)] {
            inbox.submit(call(id, sequence, is_urgent, now)).unwrap();
        }
        let order: Vec<_> = std::iter::from_fn(|| next(&inbox, true)).collect();
        assert_eq!(order, ["c", "d", "a", "b", "changed"]);
    }

    #[test]
    fn a_full_queue_and_a_closed_one_give_the_command_back() {
        let (inbox, now) = (Inbox::new(1), Instant::now());
        inbox.submit(call("a", 1, false, now)).unwrap();
        assert!(
            matches!(inbox.submit(call("b", 2, true, now)), Err(Refused::Full(call)) if &*call.id == "b")
        );
        assert_eq!(inbox.close().len(), 1);
        assert!(
            matches!(inbox.submit(call("c", 3, true, now)), Err(Refused::Ended(call)) if &*call.id == "c")
        );
    }

    #[test]
    fn the_first_reason_to_end_counts_and_is_read_once_ahead_of_commands() {
        let (inbox, now) = (Inbox::new(1), Instant::now());
        inbox.submit(call("a", 1, true, now)).unwrap();
        inbox.end(CloseReason::Operator);
        inbox.end(CloseReason::Shutdown);
        let read: Vec<_> = std::iter::from_fn(|| next(&inbox, true)).collect();
        assert_eq!(read, ["operator", "a", "changed"]);
    }

    #[test]
    fn a_command_that_is_not_wanted_lets_others_pass() {
        let (inbox, now) = (Inbox::new(8), Instant::now());
        let start = Action::find("RemoteStartTransaction").unwrap();
        inbox.submit(OutboundCall { action: start, ..call("start", 1, true, now) }).unwrap();
        inbox.submit(call("reset", 2, false, now)).unwrap();
        inbox.decide();
        let without_start = |action: &Action| action.name != start.name;
        let order: Vec<_> = std::iter::from_fn(|| next_of(&inbox, without_start)).collect();
        assert_eq!(order, ["decided", "reset", "changed"]);
        assert_eq!(next(&inbox, true).as_deref(), Some("start"));
    }

    #[test]
    fn overdue_commands_come_out_and_the_next_deadline_is_the_earliest() {
        let (inbox, now) = (Inbox::new(8), Instant::now());
        let later = now + Duration::from_secs(1);
        inbox.submit(call("a", 1, false, later)).unwrap();
        inbox.submit(call("b", 2, true, now)).unwrap();
        assert_eq!(inbox.next_deadline(), Some(now));
        let overdue: Vec<_> = inbox.take_overdue(now).into_iter().map(|call| call.id.to_string()).collect();
        assert_eq!(overdue, ["b"]);
        assert_eq!((inbox.next_deadline(), inbox.waiting()), (Some(later), 1));
        assert!(inbox.withdraw("a").is_some() && inbox.withdraw("a").is_none());
    }
}
