//! What others want of a session: commands to send, and the wish that it ends.
//!
//! Owns the station's command queue, bounded, urgent commands first. A mutex-guarded queue with one waker: it costs
//! nothing while a connection is idle, where a channel would preallocate. The session's task is the only reader.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::Poll;

use futures_util::task::AtomicWaker;

use super::close::CloseReason;
use crate::command::PendingCommand;

/// A session's letterbox.
#[derive(Debug)]
pub struct Mailbox {
    inner: Mutex<Inner>,
    waker: AtomicWaker,
    capacity: usize,
}

#[derive(Debug, Default)]
struct Inner {
    urgent: VecDeque<PendingCommand>,
    normal: VecDeque<PendingCommand>,
    end: Option<CloseReason>,
    /// The wish to end was read; it is not read twice.
    end_read: bool,
    /// Something came since the reader last looked.
    arrived: bool,
    shut: bool,
}

/// Why a command was not taken.
#[derive(Debug)]
pub enum Refused {
    /// The queue is full.
    Full(PendingCommand),
    /// The session has ended.
    Ended(PendingCommand),
}

/// What the session finds.
#[derive(Debug)]
pub enum Letter {
    /// It is to end.
    End(CloseReason),
    /// A command to send.
    Command(PendingCommand),
    /// A command came and is not wanted yet, so its deadline counts; or something else has changed.
    Arrived,
}

impl Mailbox {
    /// An empty one that holds so many commands.
    pub fn new(capacity: usize) -> Self {
        Self { inner: Mutex::default(), waker: AtomicWaker::new(), capacity }
    }

    /// Queues a command.
    ///
    /// # Errors
    /// Gives it back when the queue is full or the session has ended.
    // The command comes back whole so that its sender can be told; boxing it would cost every command.
    #[allow(clippy::result_large_err)]
    pub fn submit(&self, command: PendingCommand) -> Result<(), Refused> {
        let mut inner = self.lock();
        if inner.shut {
            return Err(Refused::Ended(command));
        }
        if inner.urgent.len() + inner.normal.len() >= self.capacity {
            return Err(Refused::Full(command));
        }
        let queue = if command.is_urgent() { &mut inner.urgent } else { &mut inner.normal };
        // Nearly always the end: only what comes from an earlier session may be older than what is here.
        let sequence = command.command.sequence;
        let after = queue.iter().rposition(|other| other.command.sequence < sequence).map_or(0, |at| at + 1);
        queue.insert(after, command);
        inner.arrived = true;
        drop(inner);
        self.waker.wake();
        Ok(())
    }

    /// Asks the session to end. The first wish counts.
    pub fn end(&self, reason: CloseReason) {
        self.lock().end.get_or_insert(reason);
        self.waker.wake();
    }

    /// Makes the session look at how things are.
    pub fn nudge(&self) {
        self.lock().arrived = true;
        self.waker.wake();
    }

    /// Waits for the wish to end, or for a command if one is wanted. Cancel-safe; one waiter.
    pub async fn next(&self, commands: bool) -> Letter {
        poll_fn(|context| {
            self.waker.register(context.waker());
            let mut inner = self.lock();
            if let Some(reason) = inner.end
                && !inner.end_read
            {
                inner.end_read = true;
                return Poll::Ready(Letter::End(reason));
            }
            if commands && let Some(command) = inner.urgent.pop_front().or_else(|| inner.normal.pop_front()) {
                return Poll::Ready(Letter::Command(command));
            }
            if std::mem::take(&mut inner.arrived) { Poll::Ready(Letter::Arrived) } else { Poll::Pending }
        })
        .await
    }

    /// Takes out the commands whose time has run out.
    pub fn take_expired(&self, now: std::time::Instant) -> Vec<PendingCommand> {
        let mut inner = self.lock();
        let mut expired = Vec::new();
        let Inner { urgent, normal, .. } = &mut *inner;
        for queue in [urgent, normal] {
            if queue.iter().any(|pending| pending.send_by <= now) {
                let (over, kept): (VecDeque<_>, _) =
                    std::mem::take(queue).into_iter().partition(|pending| pending.send_by <= now);
                *queue = kept;
                expired.extend(over);
            }
        }
        expired
    }

    /// Takes a command out that has not been asked for yet.
    pub fn withdraw(&self, id: &str) -> Option<PendingCommand> {
        let mut inner = self.lock();
        let Inner { urgent, normal, .. } = &mut *inner;
        [urgent, normal].into_iter().find_map(|queue| {
            let at = queue.iter().position(|pending| &*pending.command.id == id)?;
            queue.remove(at)
        })
    }

    /// The earliest moment at which a queued command runs out of time.
    pub fn next_deadline(&self) -> Option<std::time::Instant> {
        let inner = self.lock();
        inner.urgent.iter().chain(&inner.normal).map(|pending| pending.send_by).min()
    }

    /// Takes nothing any more, and gives what is left.
    pub fn shut(&self) -> Vec<PendingCommand> {
        let mut inner = self.lock();
        inner.shut = true;
        let urgent = std::mem::take(&mut inner.urgent);
        let normal = std::mem::take(&mut inner.normal);
        urgent.into_iter().chain(normal).collect()
    }

    /// Commands that wait.
    pub fn waiting(&self) -> usize {
        let inner = self.lock();
        inner.urgent.len() + inner.normal.len()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
