//! Answers that a session holds back until they may leave (P1).
//!
//! One queue in the order of the CALLs: answers leave in that order, so one that a backend has still to give holds up
//! those behind it. Owns the order and what each answer waits for; decides no answer and sends none.

use std::collections::VecDeque;
use std::time::Instant;

use ocpp_protocol::{Action, StartKey};

use crate::content::Content;
use crate::delegated_calls::{CallId, CallRef};
use crate::events::AnsweredBy;
use crate::host::{Delegation, Position};
use crate::recent_calls::{CallKey, DurablePoint};

/// The queue. Knows without a look at each entry whether there is one of the rarer kinds, because that is asked at every
/// turn. Bounded by `max_unacknowledged`: the session reads no more then.
#[derive(Debug)]
pub(crate) struct AnswerQueue<P, T> {
    queue: VecDeque<Queued<P, T>>,
    delegated: usize,
    repeated: usize,
}

/// What an answer waits for, and the answer or the place where it will stand.
#[derive(Debug)]
pub(crate) struct Queued<P, T> {
    pub(crate) after: After<P>,
    pub(crate) answer: Answer<P, T>,
}

/// What must be durable before an answer may leave.
#[derive(Debug)]
pub(crate) struct After<P> {
    /// This session's events and state changes up to here …
    pub(crate) position: Position,
    /// … and, for the answer to a repeated CALL, what its first answer waited for, perhaps in an earlier session.
    pub(crate) earlier: Option<P>,
}

/// An entry of the queue.
#[derive(Debug)]
pub(crate) enum Answer<P, T> {
    /// It leaves as soon as it may.
    Ready(Ready<T>),
    /// A backend is to give it.
    Delegated(Box<Delegated<P, T>>),
}

/// An answer that is known.
#[derive(Debug)]
pub(crate) struct Ready<T> {
    /// The station's message id as a JSON string literal, to be echoed byte for byte.
    pub(crate) id_json: String,
    /// The action answered: a name from the table, `None` if there is none.
    pub(crate) action: Option<&'static str>,
    pub(crate) content: Content,
    /// When the frame was read.
    pub(crate) read_at: Instant,
    /// No event tells of it: the station is told again what it was told before, or the operator has called such messages
    /// sheddable.
    pub(crate) without_event: bool,
    /// Who answers, where the CALL's event said that a backend would.
    pub(crate) by: Option<AnsweredBy>,
    /// It answers a BootNotification for which commands wait.
    pub(crate) settles_boot: bool,
    /// Ends when the answer is handed to the socket's writer.
    pub(crate) trace: T,
}

/// A CALL that a backend is to answer.
#[derive(Debug)]
pub(crate) struct Delegated<P, T> {
    pub(crate) call: CallId,
    pub(crate) name: CallRef,
    /// When the fallback applies.
    pub(crate) until: Instant,
    pub(crate) id_json: String,
    pub(crate) action: &'static Action,
    pub(crate) read_at: Instant,
    pub(crate) key: CallKey,
    /// What the CALL's event must reach, in this session or in the one that published it.
    pub(crate) point: P,
    pub(crate) fallback: PreparedFallback,
    /// Goes on with the answer.
    pub(crate) trace: T,
}

/// What a station gets if no backend responds. Prepared when the CALL is read, so that its payload need not be kept.
#[derive(Debug)]
pub(crate) enum PreparedFallback {
    Content(Content),
    /// The gateway's answer to BootNotification.
    Boot(Delegation),
    /// The gateway's answer to a 1.6 StartTransaction, with a transaction id that is given out only then, and the status
    /// that refuses it, if any does.
    Start(StartKey, Option<&'static str>),
    Silence,
}

impl<P, T> Default for AnswerQueue<P, T> {
    fn default() -> Self {
        Self { queue: VecDeque::new(), delegated: 0, repeated: 0 }
    }
}

impl<P: DurablePoint, T> AnswerQueue<P, T> {
    pub(crate) fn len(&self) -> usize {
        self.queue.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// How many wait for a backend.
    pub(crate) fn delegated_len(&self) -> usize {
        self.delegated
    }

    pub(crate) fn front(&self) -> Option<&Queued<P, T>> {
        self.queue.front()
    }

    pub(crate) fn push(&mut self, queued: Queued<P, T>) {
        self.count(&queued);
        self.queue.push_back(queued);
    }

    /// Takes the first if it is ready. Gives the room back with the last: most stations have nothing here most of the time.
    pub(crate) fn pop_ready(&mut self) -> Option<Ready<T>> {
        let first = self.queue.pop_front_if(|first| matches!(first.answer, Answer::Ready(_)))?;
        self.discount(&first);
        if self.queue.is_empty() {
            self.queue = VecDeque::new();
        }
        match first.answer {
            Answer::Ready(ready) => Some(ready),
            Answer::Delegated(_) => None,
        }
    }

    /// Those that wait for a backend, in order.
    pub(crate) fn delegated(&self) -> impl Iterator<Item = &Delegated<P, T>> {
        let all = if self.delegated > 0 { self.queue.iter() } else { Default::default() };
        all.filter_map(|queued| match &queued.answer {
            Answer::Delegated(delegated) => Some(&**delegated),
            Answer::Ready(_) => None,
        })
    }

    pub(crate) fn delegated_mut(&mut self, call: CallId) -> Option<&mut Delegated<P, T>> {
        self.queue.iter_mut().find_map(|queued| match &mut queued.answer {
            Answer::Delegated(delegated) if delegated.call == call => Some(&mut **delegated),
            Answer::Delegated(_) | Answer::Ready(_) => None,
        })
    }

    /// Takes one out that waits for a backend, with its place and what its answer waits for.
    pub(crate) fn take_delegated(&mut self, call: CallId) -> Option<(usize, After<P>, Delegated<P, T>)> {
        let is_meant =
            |queued: &Queued<P, T>| matches!(&queued.answer, Answer::Delegated(it) if it.call == call);
        let at = self.queue.iter().position(is_meant)?;
        let queued = self.queue.remove(at)?;
        self.discount(&queued);
        match queued.answer {
            Answer::Delegated(delegated) => Some((at, queued.after, *delegated)),
            Answer::Ready(_) => None,
        }
    }

    /// Puts an entry where another was taken out.
    pub(crate) fn insert(&mut self, at: usize, queued: Queued<P, T>) {
        self.count(&queued);
        self.queue.insert(at, queued);
    }

    /// Drops those that wait for a backend.
    pub(crate) fn drop_delegated(&mut self) {
        self.queue.retain(|queued| matches!(queued.answer, Answer::Ready(_)));
        self.delegated = 0;
        self.repeated = self.queue.iter().filter(|queued| queued.after.earlier.is_some()).count();
    }

    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }

    /// Whether one waits for what an earlier session published.
    pub(crate) fn waits_for_earlier(&self) -> bool {
        self.repeated > 0 && self.queue.iter().any(|queued| queued.after.waits_for_earlier())
    }

    /// When the CALL was read that has waited longest for its answer.
    pub(crate) fn oldest(&self) -> Option<Instant> {
        self.front().map(|first| match &first.answer {
            Answer::Ready(ready) => ready.read_at,
            Answer::Delegated(delegated) => delegated.read_at,
        })
    }

    fn count(&mut self, queued: &Queued<P, T>) {
        self.delegated += usize::from(matches!(queued.answer, Answer::Delegated(_)));
        self.repeated += usize::from(queued.after.earlier.is_some());
    }

    fn discount(&mut self, queued: &Queued<P, T>) {
        self.delegated -= usize::from(matches!(queued.answer, Answer::Delegated(_)));
        self.repeated -= usize::from(queued.after.earlier.is_some());
    }
}

impl<P: DurablePoint> After<P> {
    /// What the first answer waited for is not durable yet.
    pub(crate) fn waits_for_earlier(&self) -> bool {
        self.earlier.as_ref().is_some_and(|point| !point.is_reached())
    }

    /// Whether everything it waits for is durable.
    pub(crate) fn is_over(&self, durable: Position) -> bool {
        self.position.events <= durable.events
            && self.position.states <= durable.states
            && !self.waits_for_earlier()
    }
}
