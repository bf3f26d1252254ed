//! The CALLs of a session that a backend is to answer: where its task and whoever brings the answer meet.
//!
//! Owns the decision which answer is the first, under one lock, so that everybody who brings one learns at once what became
//! of it. Does not answer anything: the session's task takes the verdicts and does (`session/awaiting.rs`). Bounded by
//! `session.max_unacknowledged`, since an awaited CALL is an unanswered one; costs an idle connection no allocation.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::Poll;

use futures_util::task::AtomicWaker;
use ocpp_protocol::Action;

use super::SessionId;
use crate::answers::Reply;

/// Ended waits that are remembered, to tell an answer that comes too late from one that nobody ever waited for.
const REMEMBERED: usize = 16;

/// A wait's number within its session.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ticket(u64);

/// Why no answer of a backend goes to the station.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Lapse {
    /// None came in time.
    Deadline,
    /// The hook's URL failed too often lately and is not asked for a while.
    BreakerOpen,
    /// The hook was asked, and what came is no answer.
    HookFailed,
    /// Too many CALLs wait for hooks already.
    Overloaded,
}

impl Lapse {
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

/// How a wait ended.
#[derive(Clone, Debug)]
pub enum Verdict {
    /// A backend answered.
    Answered(Reply),
    /// The fallback applies.
    Lapsed(Lapse),
}

/// What became of a CALL, as far as a session knows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Standing {
    /// It waits to be answered.
    Waits(&'static Action),
    /// A backend answered it.
    Answered,
    /// It was ended without.
    Lapsed,
    /// The session knows no such wait.
    Unknown,
}

/// The awaited CALLs of one session.
#[derive(Debug, Default)]
pub struct Waits {
    inner: Mutex<Inner>,
    has_news: AtomicBool,
    waker: AtomicWaker,
}

#[derive(Debug, Default)]
struct Inner {
    open: Vec<Wait>,
    /// Oldest first, and whether a backend answered.
    ended: VecDeque<(Question, bool)>,
    last_ticket: u64,
    shut: bool,
}

/// What an answer names.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Question {
    /// The CALL's message id, decoded.
    pub message_id: String,
    /// The session whose event told of the CALL: this one, or an earlier one whose CALL the station repeated here.
    pub asked_in: SessionId,
}

impl Question {
    fn is_meant(&self, message_id: &str, session: Option<SessionId>) -> bool {
        self.message_id == message_id && session.is_none_or(|session| session == self.asked_in)
    }
}

#[derive(Debug)]
struct Wait {
    ticket: Ticket,
    question: Question,
    action: &'static Action,
    verdict: Option<Verdict>,
}

impl Waits {
    /// Begins a wait.
    pub fn open(&self, question: Question, action: &'static Action) -> Ticket {
        let mut inner = self.lock();
        inner.last_ticket += 1;
        let ticket = Ticket(inner.last_ticket);
        inner.open.push(Wait { ticket, question, action, verdict: None });
        ticket
    }

    /// What became of a CALL. Of several with one message id, the oldest that still waits is meant.
    pub fn standing(&self, message_id: &str, session: Option<SessionId>) -> Standing {
        self.lock().standing(message_id, session)
    }

    /// Ends a wait, unless it is ended already; what became of the CALL before that. [`Standing::Waits`] means that this
    /// verdict counts.
    pub fn decide(&self, message_id: &str, session: Option<SessionId>, verdict: Verdict) -> Standing {
        let mut inner = self.lock();
        let standing = inner.standing(message_id, session);
        if let Standing::Waits(_) = standing
            && let Some(wait) = inner.open.iter_mut().find(|wait| wait.is_open(message_id, session))
        {
            wait.verdict = Some(verdict);
            drop(inner);
            self.has_news.store(true, Ordering::Release);
            self.waker.wake();
        }
        standing
    }

    /// Ends a wait whose time is over; false if it was decided before, and its verdict is among the news.
    pub fn lapse(&self, ticket: Ticket) -> bool {
        let mut inner = self.lock();
        let overdue = inner.open.iter().position(|wait| wait.ticket == ticket && wait.verdict.is_none());
        match overdue {
            Some(at) => {
                let wait = inner.open.remove(at);
                inner.remember(wait.question, false);
                true
            }
            None => false,
        }
    }

    /// Waits until there are verdicts. Cancel-safe; one waiter.
    pub async fn news(&self) {
        poll_fn(|context| {
            self.waker.register(context.waker());
            if self.has_news.load(Ordering::Acquire) { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }

    /// The verdicts since the last time.
    pub fn take_news(&self) -> Vec<(Ticket, Verdict)> {
        // Before the look: a verdict that comes after it sets the flag again.
        self.has_news.store(false, Ordering::Release);
        self.lock().take_decided()
    }

    /// Ends every wait: the session ends. Gives the verdicts that nobody took.
    pub fn shut(&self) -> Vec<(Ticket, Verdict)> {
        let mut inner = self.lock();
        let decided = inner.take_decided();
        inner.open.clear();
        inner.shut = true;
        decided
    }

    /// Whether the session has ended them all.
    pub fn is_shut(&self) -> bool {
        self.lock().shut
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Wait {
    fn is_open(&self, message_id: &str, session: Option<SessionId>) -> bool {
        self.verdict.is_none() && self.question.is_meant(message_id, session)
    }
}

impl Inner {
    fn standing(&self, message_id: &str, session: Option<SessionId>) -> Standing {
        if self.shut {
            // What is known about its CALLs is in the memory of repeated ones.
            return Standing::Unknown;
        }
        if let Some(wait) = self.open.iter().find(|wait| wait.is_open(message_id, session)) {
            return Standing::Waits(wait.action);
        }
        let of_verdict = |wait: &Wait| matches!(wait.verdict, Some(Verdict::Answered(_)));
        let decided = self
            .open
            .iter()
            .rev()
            .find(|wait| wait.question.is_meant(message_id, session))
            .map(of_verdict)
            .or_else(|| {
                let mut ended = self.ended.iter().rev();
                ended
                    .find(|(question, _)| question.is_meant(message_id, session))
                    .map(|(_, answered)| *answered)
            });
        match decided {
            Some(true) => Standing::Answered,
            Some(false) => Standing::Lapsed,
            None => Standing::Unknown,
        }
    }

    fn take_decided(&mut self) -> Vec<(Ticket, Verdict)> {
        let mut taken = Vec::new();
        let mut at = 0;
        while let Some(wait) = self.open.get_mut(at) {
            let Some(verdict) = wait.verdict.take() else {
                at += 1;
                continue;
            };
            let wait = self.open.remove(at);
            self.remember(wait.question, matches!(verdict, Verdict::Answered(_)));
            taken.push((wait.ticket, verdict));
        }
        taken
    }

    fn remember(&mut self, question: Question, answered: bool) {
        if self.ended.len() >= REMEMBERED {
            self.ended.pop_front();
        }
        self.ended.push_back((question, answered));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn authorize() -> &'static Action {
        Action::find("Authorize").unwrap()
    }

    fn reply() -> Verdict {
        Verdict::Answered(Reply::parse(br#"{"payload":{}}"#).unwrap())
    }

    fn asked(message_id: &str) -> (Waits, SessionId, Ticket) {
        let (waits, session) = (Waits::default(), SessionId::next());
        let question = Question { message_id: message_id.to_owned(), asked_in: session };
        let ticket = waits.open(question, authorize());
        (waits, session, ticket)
    }

    #[test]
    fn the_first_answer_wins_and_the_others_are_told() {
        let (waits, session, ticket) = asked("1");
        assert_eq!(waits.decide("2", None, reply()), Standing::Unknown);
        assert_eq!(waits.decide("1", Some(SessionId::next()), reply()), Standing::Unknown);
        assert_eq!(waits.decide("1", Some(session), reply()), Standing::Waits(authorize()));
        assert_eq!(waits.decide("1", None, reply()), Standing::Answered, "before the session took it");
        let news = waits.take_news();
        assert!(matches!(news.as_slice(), [(one, Verdict::Answered(_))] if *one == ticket));
        assert_eq!(waits.decide("1", None, reply()), Standing::Answered, "and after");
        assert!(waits.take_news().is_empty());
    }

    #[test]
    fn racing_answers_have_one_winner() {
        let (waits, ..) = asked("1");
        let winners: usize = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8)
                .map(|_| scope.spawn(|| matches!(waits.decide("1", None, reply()), Standing::Waits(_))))
                .collect();
            threads.into_iter().map(|thread| usize::from(thread.join().unwrap())).sum()
        });
        assert_eq!(winners, 1);
    }

    #[test]
    fn the_deadline_and_an_answer_exclude_each_other() {
        let (waits, _, ticket) = asked("1");
        assert!(waits.lapse(ticket));
        assert_eq!(waits.decide("1", None, reply()), Standing::Lapsed);
        let (waits, _, ticket) = asked("1");
        assert_eq!(waits.decide("1", None, reply()), Standing::Waits(authorize()));
        assert!(!waits.lapse(ticket), "the answer was in time");
        assert_eq!(waits.take_news().len(), 1);
    }

    #[test]
    fn a_message_id_in_use_twice_means_the_older_wait_first() {
        let (waits, session, first) = asked("1");
        let second = waits.open(Question { message_id: "1".into(), asked_in: session }, authorize());
        assert_eq!(waits.decide("1", None, reply()), Standing::Waits(authorize()));
        assert_eq!(waits.decide("1", None, reply()), Standing::Waits(authorize()));
        assert_eq!(waits.decide("1", None, reply()), Standing::Answered);
        let tickets: Vec<_> = waits.take_news().into_iter().map(|(ticket, _)| ticket).collect();
        assert_eq!(tickets, [first, second]);
    }

    #[test]
    fn memory_of_ended_waits_is_bounded() {
        let waits = Waits::default();
        let session = SessionId::next();
        for number in 0..=REMEMBERED {
            let question = Question { message_id: number.to_string(), asked_in: session };
            let ticket = waits.open(question, authorize());
            assert!(waits.lapse(ticket));
        }
        assert_eq!(waits.standing("0", None), Standing::Unknown);
        assert_eq!(waits.standing("1", None), Standing::Lapsed);
    }

    #[test]
    fn a_session_that_ends_gives_what_was_not_taken() {
        let (waits, session, ticket) = asked("1");
        waits.open(Question { message_id: "2".into(), asked_in: session }, authorize());
        waits.decide("1", None, reply());
        let left = waits.shut();
        assert!(matches!(left.as_slice(), [(one, _)] if *one == ticket));
        assert_eq!(waits.standing("2", None), Standing::Unknown);
    }

    #[tokio::test]
    async fn news_wake_the_session() {
        let (waits, ..) = asked("1");
        let woken = async {
            waits.news().await;
            waits.take_news().len()
        };
        let ((), count) = tokio::join!(
            async {
                tokio::task::yield_now().await;
                waits.decide("1", None, reply());
            },
            woken
        );
        assert_eq!(count, 1);
    }
}
