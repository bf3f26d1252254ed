//! The one CALL that may be outstanding towards a station, and what becomes of each answer.
//!
//! Owns the rule that a sender waits for the answer, or for its timeout, before it sends the next
//! CALL (OCPP-J 4.1.1). Knows no clock, socket or queue: time is an argument, the caller sends, and a
//! token of the caller's choice says what an answer is for.
//!
//! ```text
//!            begin(id, deadline, token)
//!     Idle ───────────────────────────────▶ Waiting
//!       ▲                                      │
//!       └── on_answer(id) · on_uncorrelated_error · on_timeout · abandon
//!           each gives the token back once, and remembers the id
//! ```

use std::collections::VecDeque;
use std::time::Instant;

/// The outstanding CALL in one direction of one connection.
///
/// Invariant: every token given to [`Exchange::begin`] comes back exactly once, from `begin`
/// itself or from the call that ends the wait.
#[derive(Debug)]
pub struct Exchange<T> {
    outstanding: Option<Outstanding<T>>,
    /// Ids whose wait has ended, oldest first.
    ended: VecDeque<String>,
    remember: usize,
}

#[derive(Debug)]
struct Outstanding<T> {
    id: String,
    deadline: Instant,
    token: T,
}

/// Another CALL is outstanding. Holds the token of the one that was refused.
#[derive(PartialEq, Eq, Debug)]
pub struct Busy<T>(pub T);

/// Which CALL an answer belongs to.
#[derive(PartialEq, Eq, Debug)]
pub enum Answered<T> {
    /// The outstanding CALL, which ends with it.
    Matched(T),
    /// An earlier CALL, which timed out, was abandoned, or was answered already.
    Late,
    /// No CALL that the exchange remembers.
    Unknown,
}

impl<T> Exchange<T> {
    /// An idle exchange that remembers the ids of the last `remember` ended CALLs, to tell a late
    /// answer from an invented one.
    pub fn new(remember: usize) -> Self {
        // No capacity is reserved: most connections never receive a CALL.
        Self { outstanding: None, ended: VecDeque::new(), remember }
    }

    /// Whether no CALL is outstanding, so that one may begin.
    pub fn is_idle(&self) -> bool {
        self.outstanding.is_none()
    }

    /// Records that a CALL is being sent, to be answered before `deadline`.
    ///
    /// # Errors
    /// [`Busy`], which returns the token, if another CALL is outstanding. That CALL is not affected.
    pub fn begin(&mut self, id: String, deadline: Instant, token: T) -> Result<(), Busy<T>> {
        if self.outstanding.is_some() {
            return Err(Busy(token));
        }
        self.outstanding = Some(Outstanding { id, deadline, token });
        Ok(())
    }

    /// A CALLRESULT or CALLERROR arrived with this id (decoded, not as JSON).
    pub fn on_answer(&mut self, id: &str) -> Answered<T> {
        match self.outstanding.take_if(|outstanding| outstanding.id == id) {
            Some(outstanding) => Answered::Matched(self.end(outstanding)),
            None if self.ended.iter().any(|ended| ended == id) => Answered::Late,
            None => Answered::Unknown,
        }
    }

    /// A CALLERROR with the id `-1` arrived: the peer could not read the id of what it refuses. With
    /// one CALL outstanding, that one is the likely cause, and it ends.
    pub fn on_uncorrelated_error(&mut self) -> Option<T> {
        self.abandon()
    }

    /// When the outstanding CALL times out; `None` while idle.
    pub fn deadline(&self) -> Option<Instant> {
        self.outstanding.as_ref().map(|outstanding| outstanding.deadline)
    }

    /// Ends the outstanding CALL if its deadline has passed.
    pub fn on_timeout(&mut self, now: Instant) -> Option<T> {
        let outstanding = self.outstanding.take_if(|outstanding| outstanding.deadline <= now)?;
        Some(self.end(outstanding))
    }

    /// Ends the outstanding CALL whatever its deadline, because the connection or the caller is gone.
    pub fn abandon(&mut self) -> Option<T> {
        let outstanding = self.outstanding.take()?;
        Some(self.end(outstanding))
    }

    fn end(&mut self, outstanding: Outstanding<T>) -> T {
        if self.remember > 0 {
            if self.ended.len() >= self.remember {
                self.ended.pop_front();
            }
            self.ended.push_back(outstanding.id);
        }
        outstanding.token
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn id(text: &str) -> String {
        text.to_owned()
    }

    #[test]
    fn one_call_at_a_time() {
        let now = Instant::now();
        let mut exchange = Exchange::new(4);
        assert!(exchange.is_idle());
        assert_eq!(exchange.begin(id("a"), now, 1), Ok(()));
        assert_eq!(exchange.begin(id("b"), now, 2), Err(Busy(2)));
        assert_eq!(exchange.on_answer("b"), Answered::Unknown);
        assert_eq!(exchange.on_answer("a"), Answered::Matched(1));
        assert!(exchange.is_idle());
        assert_eq!(exchange.on_answer("a"), Answered::Late);
    }

    #[test]
    fn a_timeout_frees_the_slot_and_its_answer_is_late() {
        let now = Instant::now();
        let later = now + Duration::from_secs(30);
        let mut exchange = Exchange::new(4);
        exchange.begin(id("a"), later, 1).unwrap();
        assert_eq!(exchange.deadline(), Some(later));
        assert_eq!(exchange.on_timeout(now), None);
        assert_eq!(exchange.on_timeout(later), Some(1));
        assert_eq!((exchange.deadline(), exchange.on_timeout(later)), (None, None));
        exchange.begin(id("b"), later, 2).unwrap();
        assert_eq!(exchange.on_answer("a"), Answered::Late);
        assert_eq!(exchange.on_answer("b"), Answered::Matched(2));
    }

    #[test]
    fn an_uncorrelated_error_ends_the_only_candidate() {
        let mut exchange = Exchange::new(4);
        assert_eq!(exchange.on_uncorrelated_error(), None);
        exchange.begin(id("a"), Instant::now(), 1).unwrap();
        assert_eq!(exchange.on_uncorrelated_error(), Some(1));
        assert_eq!(exchange.on_answer("a"), Answered::Late);
    }

    #[test]
    fn memory_is_bounded() {
        let mut exchange = Exchange::new(2);
        for name in ["a", "b", "c"] {
            exchange.begin(id(name), Instant::now(), ()).unwrap();
            assert_eq!(exchange.abandon(), Some(()));
        }
        assert_eq!(exchange.on_answer("a"), Answered::Unknown);
        assert_eq!(exchange.on_answer("b"), Answered::Late);
        assert_eq!(exchange.on_answer("c"), Answered::Late);
        let mut forgetful = Exchange::new(0);
        forgetful.begin(id("a"), Instant::now(), ()).unwrap();
        assert_eq!(forgetful.on_answer("a"), Answered::Matched(()));
        assert_eq!(forgetful.on_answer("a"), Answered::Unknown);
    }
}
