//! The CALLs of a session that a backend is to answer: where the session and whoever brings a response meet.
//!
//! Owns the decision which response is the first, under one lock, so that everybody who brings one learns at once what
//! became of it. Answers nothing: the session takes what was decided and does (`session/delegation.rs`). Bounded by
//! `max_unacknowledged`, since a delegated CALL is an unanswered one; an idle connection has no allocation here.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use futures_util::task::AtomicWaker;
use ocpp_protocol::Action;

use crate::response::Response;
use crate::session_id::SessionId;

/// Decided CALLs that are remembered, to tell a response that comes too late from one that nobody ever waited for.
const REMEMBERED: usize = 16;

/// The number of a delegated CALL within its session.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CallId(u64);

/// Why the fallback applies instead of a backend's response.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FallbackReason {
    /// No response came in time.
    Deadline,
    /// The hook's URL failed too often lately and is not asked for a while.
    BreakerOpen,
    /// The hook was asked, and what came is not a response.
    HookFailed,
    /// Too many CALLs wait for hooks already.
    Overloaded,
}

impl FallbackReason {
    /// Every one, for metrics.
    pub const ALL: [Self; 4] = [Self::Deadline, Self::BreakerOpen, Self::HookFailed, Self::Overloaded];

    /// The word on the metric.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Deadline => "deadline",
            Self::BreakerOpen => "breakerOpen",
            Self::HookFailed => "hookFailed",
            Self::Overloaded => "overloaded",
        }
    }
}

/// What was decided about a delegated CALL.
#[derive(Clone, Debug)]
pub enum Decided {
    /// A backend responded.
    Response(Response),
    /// The fallback applies.
    Fallback(FallbackReason),
}

/// What became of a CALL, as far as a session knows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CallStatus {
    /// It waits for a response.
    Waiting(&'static Action),
    /// A backend responded to it.
    Answered,
    /// The fallback was applied.
    FellBack,
    /// The session has delegated no such CALL.
    Unknown,
}

/// The delegated CALLs of one session.
#[derive(Debug, Default)]
pub struct DelegatedCalls {
    inner: Mutex<Inner>,
    has_news: AtomicBool,
    waker: AtomicWaker,
}

#[derive(Debug, Default)]
struct Inner {
    open: Vec<Open>,
    /// Oldest first, and whether a backend responded.
    ended: VecDeque<(CallRef, bool)>,
    last_call: u64,
    closed: bool,
}

/// How a response names the CALL that it answers.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CallRef {
    /// The CALL's message id, decoded.
    pub message_id: String,
    /// The session whose event told of the CALL: this one, or an earlier one whose CALL the station repeated here.
    pub asked_in: SessionId,
}

impl CallRef {
    fn is_meant(&self, message_id: &str, session: Option<SessionId>) -> bool {
        self.message_id == message_id && session.is_none_or(|session| session == self.asked_in)
    }
}

#[derive(Debug)]
struct Open {
    call: CallId,
    name: CallRef,
    action: &'static Action,
    decided: Option<Decided>,
}

impl DelegatedCalls {
    /// Begins to wait for a backend's response.
    pub fn open(&self, name: CallRef, action: &'static Action) -> CallId {
        let mut inner = self.lock();
        inner.last_call += 1;
        let call = CallId(inner.last_call);
        inner.open.push(Open { call, name, action, decided: None });
        call
    }

    /// What became of a CALL. Of several with one message id, the oldest that still waits is meant.
    pub fn status(&self, message_id: &str, session: Option<SessionId>) -> CallStatus {
        self.lock().status(message_id, session)
    }

    /// Decides about a CALL, unless that was done before, and gives its status before this call:
    /// [`CallStatus::Waiting`] means that this decision counts.
    pub fn decide(&self, message_id: &str, session: Option<SessionId>, decided: Decided) -> CallStatus {
        let mut inner = self.lock();
        let status = inner.status(message_id, session);
        if let CallStatus::Waiting(_) = status
            && let Some(wait) = inner.open.iter_mut().find(|wait| wait.is_open(message_id, session))
        {
            wait.decided = Some(decided);
            drop(inner);
            self.has_news.store(true, Ordering::Release);
            self.waker.wake();
        }
        status
    }

    /// Decides for the fallback because the deadline has passed. False if it was decided before: then
    /// [`DelegatedCalls::take_decided`] gives what.
    pub fn fall_back(&self, call: CallId) -> bool {
        let mut inner = self.lock();
        let overdue = inner.open.iter().position(|wait| wait.call == call && wait.decided.is_none());
        match overdue {
            Some(at) => {
                let wait = inner.open.remove(at);
                inner.remember(wait.name, false);
                true
            }
            None => false,
        }
    }

    /// Waits until something was decided. One waiter.
    pub fn poll_decided(&self, context: &Context<'_>) -> Poll<()> {
        self.waker.register(context.waker());
        if self.has_news.load(Ordering::Acquire) { Poll::Ready(()) } else { Poll::Pending }
    }

    /// What was decided since the last time.
    pub fn take_decided(&self) -> Vec<(CallId, Decided)> {
        // Before the look: a decision that comes after it sets the flag again.
        self.has_news.store(false, Ordering::Release);
        self.lock().take_decided()
    }

    /// The session ends: nothing more is decided here. Gives the decisions that were not taken.
    pub fn close(&self) -> Vec<(CallId, Decided)> {
        let mut inner = self.lock();
        let decided = inner.take_decided();
        inner.open.clear();
        inner.closed = true;
        decided
    }

    /// Whether the session has ended, and knows nothing more of its CALLs.
    pub fn is_closed(&self) -> bool {
        self.lock().closed
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Open {
    fn is_open(&self, message_id: &str, session: Option<SessionId>) -> bool {
        self.decided.is_none() && self.name.is_meant(message_id, session)
    }
}

impl Inner {
    fn status(&self, message_id: &str, session: Option<SessionId>) -> CallStatus {
        if self.closed {
            // What is known about its CALLs is in the memory of repeated ones.
            return CallStatus::Unknown;
        }
        if let Some(wait) = self.open.iter().find(|wait| wait.is_open(message_id, session)) {
            return CallStatus::Waiting(wait.action);
        }
        let of_decided = |wait: &Open| matches!(wait.decided, Some(Decided::Response(_)));
        let decided = self
            .open
            .iter()
            .rev()
            .find(|wait| wait.name.is_meant(message_id, session))
            .map(of_decided)
            .or_else(|| {
                let mut ended = self.ended.iter().rev();
                ended.find(|(name, _)| name.is_meant(message_id, session)).map(|(_, answered)| *answered)
            });
        match decided {
            Some(true) => CallStatus::Answered,
            Some(false) => CallStatus::FellBack,
            None => CallStatus::Unknown,
        }
    }

    fn take_decided(&mut self) -> Vec<(CallId, Decided)> {
        let mut taken = Vec::new();
        let mut at = 0;
        while let Some(wait) = self.open.get_mut(at) {
            let Some(decided) = wait.decided.take() else {
                at += 1;
                continue;
            };
            let wait = self.open.remove(at);
            self.remember(wait.name, matches!(decided, Decided::Response(_)));
            taken.push((wait.call, decided));
        }
        taken
    }

    fn remember(&mut self, name: CallRef, answered: bool) {
        if self.ended.len() >= REMEMBERED {
            self.ended.pop_front();
        }
        self.ended.push_back((name, answered));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn authorize() -> &'static Action {
        Action::find("Authorize").unwrap()
    }

    fn response() -> Decided {
        Decided::Response(Response::Payload(serde_json::value::RawValue::from_string("{}".into()).unwrap()))
    }

    fn session_id() -> SessionId {
        SessionId::new(uuid::Uuid::now_v7())
    }

    fn asked(message_id: &str) -> (DelegatedCalls, SessionId, CallId) {
        let (waits, session) = (DelegatedCalls::default(), session_id());
        let name = CallRef { message_id: message_id.to_owned(), asked_in: session };
        let call = waits.open(name, authorize());
        (waits, session, call)
    }

    #[test]
    fn the_first_answer_wins_and_the_others_are_told() {
        let (waits, session, call) = asked("1");
        assert_eq!(waits.decide("2", None, response()), CallStatus::Unknown);
        assert_eq!(waits.decide("1", Some(session_id()), response()), CallStatus::Unknown);
        assert_eq!(waits.decide("1", Some(session), response()), CallStatus::Waiting(authorize()));
        assert_eq!(waits.decide("1", None, response()), CallStatus::Answered, "before the session took it");
        let news = waits.take_decided();
        assert!(matches!(news.as_slice(), [(one, Decided::Response(_))] if *one == call));
        assert_eq!(waits.decide("1", None, response()), CallStatus::Answered, "and after");
        assert!(waits.take_decided().is_empty());
    }

    #[test]
    fn racing_answers_have_one_winner() {
        let (waits, ..) = asked("1");
        let winners: usize = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8)
                .map(|_| {
                    scope.spawn(|| matches!(waits.decide("1", None, response()), CallStatus::Waiting(_)))
                })
                .collect();
            threads.into_iter().map(|thread| usize::from(thread.join().unwrap())).sum()
        });
        assert_eq!(winners, 1);
    }

    #[test]
    fn the_deadline_and_an_answer_exclude_each_other() {
        let (waits, _, call) = asked("1");
        assert!(waits.fall_back(call));
        assert_eq!(waits.decide("1", None, response()), CallStatus::FellBack);
        let (waits, _, call) = asked("1");
        assert_eq!(waits.decide("1", None, response()), CallStatus::Waiting(authorize()));
        assert!(!waits.fall_back(call), "the answer was in time");
        assert_eq!(waits.take_decided().len(), 1);
    }

    #[test]
    fn a_message_id_in_use_twice_means_the_older_wait_first() {
        let (waits, session, first) = asked("1");
        let second = waits.open(CallRef { message_id: "1".into(), asked_in: session }, authorize());
        assert_eq!(waits.decide("1", None, response()), CallStatus::Waiting(authorize()));
        assert_eq!(waits.decide("1", None, response()), CallStatus::Waiting(authorize()));
        assert_eq!(waits.decide("1", None, response()), CallStatus::Answered);
        let calls: Vec<_> = waits.take_decided().into_iter().map(|(call, _)| call).collect();
        assert_eq!(calls, [first, second]);
    }

    #[test]
    fn memory_of_ended_waits_is_bounded() {
        let waits = DelegatedCalls::default();
        let session = session_id();
        for number in 0..=REMEMBERED {
            let name = CallRef { message_id: number.to_string(), asked_in: session };
            let call = waits.open(name, authorize());
            assert!(waits.fall_back(call));
        }
        assert_eq!(waits.status("0", None), CallStatus::Unknown);
        assert_eq!(waits.status("1", None), CallStatus::FellBack);
    }

    #[test]
    fn a_session_that_ends_gives_what_was_not_taken() {
        let (waits, session, call) = asked("1");
        waits.open(CallRef { message_id: "2".into(), asked_in: session }, authorize());
        waits.decide("1", None, response());
        let left = waits.close();
        assert!(matches!(left.as_slice(), [(one, _)] if *one == call));
        assert_eq!(waits.status("2", None), CallStatus::Unknown);
    }

    #[test]
    fn a_decision_wakes_the_session() {
        let (calls, ..) = asked("1");
        let context = Context::from_waker(std::task::Waker::noop());
        assert!(calls.poll_decided(&context).is_pending());
        calls.decide("1", None, response());
        assert!(calls.poll_decided(&context).is_ready());
        assert_eq!(calls.take_decided().len(), 1);
        assert!(calls.poll_decided(&context).is_pending());
    }
}
