//! A circuit breaker: a URL that failed too often in a row is not asked for a while, and then probed with one request.
//!
//! Owns that decision, and no clock: time is an argument. While the breaker is open nobody waits for the URL, so that a dead
//! backend delays no station.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Guards one URL.
#[derive(Debug)]
pub(super) struct Breaker {
    failures_to_open: u32,
    pause: Duration,
    state: Mutex<State>,
}

#[derive(Clone, Copy, Debug)]
enum State {
    Closed {
        /// In a row, up to the latest request.
        failures: u32,
    },
    Open {
        until: Instant,
    },
    /// One request probes the URL. If its outcome is never reported, the next probe is allowed at this moment.
    Probing {
        again_at: Instant,
    },
}

impl Breaker {
    pub(super) fn new(failures_to_open: u32, pause: Duration) -> Self {
        Self { failures_to_open, pause, state: Mutex::new(State::Closed { failures: 0 }) }
    }

    /// Whether a request would be refused at this moment.
    pub(super) fn is_open(&self, now: Instant) -> bool {
        match *self.state.lock().unwrap_or_else(PoisonError::into_inner) {
            State::Closed { .. } => false,
            State::Open { until: moment } | State::Probing { again_at: moment } => now < moment,
        }
    }

    /// Admits a request, or refuses it. After the pause it admits one, the probe, until the outcome of that is known.
    pub(super) fn admits(&self, now: Instant) -> bool {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        match *state {
            State::Closed { .. } => true,
            State::Open { until: moment } | State::Probing { again_at: moment } => {
                let is_probe = now >= moment;
                if is_probe {
                    *state = State::Probing { again_at: now + self.pause };
                }
                is_probe
            }
        }
    }

    /// Reports that a request was answered. If that closes the breaker, `closed` is called before anything else can change it.
    pub(super) fn succeeded(&self, closed: impl FnOnce()) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if !matches!(*state, State::Closed { .. }) {
            closed();
        }
        *state = State::Closed { failures: 0 };
    }

    /// Reports that a request failed. If that opens the breaker, `opened` is called before anything else can change it.
    pub(super) fn failed(&self, now: Instant, opened: impl FnOnce()) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        match *state {
            State::Closed { failures } if failures + 1 < self.failures_to_open => {
                *state = State::Closed { failures: failures + 1 };
            }
            State::Closed { .. } => {
                *state = State::Open { until: now + self.pause };
                opened();
            }
            // A request that was sent before the breaker opened. Only a failed probe restarts the pause.
            State::Open { .. } => {}
            State::Probing { .. } => *state = State::Open { until: now + self.pause },
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    const PAUSE: Duration = Duration::from_secs(5);

    /// Reports a failure; whether that opened the breaker.
    fn opens(breaker: &Breaker, now: Instant) -> bool {
        let mut has_opened = false;
        breaker.failed(now, || has_opened = true);
        has_opened
    }

    /// Reports an answer; whether that closed the breaker.
    fn closes(breaker: &Breaker) -> bool {
        let mut has_closed = false;
        breaker.succeeded(|| has_closed = true);
        has_closed
    }

    fn opened(now: Instant) -> Breaker {
        let breaker = Breaker::new(3, PAUSE);
        for count in 1..=3 {
            assert!(breaker.admits(now));
            assert_eq!(opens(&breaker, now), count == 3);
        }
        breaker
    }

    #[test]
    fn it_opens_after_so_many_failures_in_a_row() {
        let now = Instant::now();
        let breaker = Breaker::new(3, PAUSE);
        for _ in 0..5 {
            assert!(!opens(&breaker, now));
            assert!(!opens(&breaker, now));
            assert!(!closes(&breaker), "it was closed already");
            assert!(breaker.admits(now));
        }
        assert!(!opened(now).admits(now));
    }

    #[test]
    fn after_the_pause_one_request_tries() {
        let now = Instant::now();
        let breaker = opened(now);
        assert!(!breaker.admits(now + PAUSE - Duration::from_millis(1)));
        let later = now + PAUSE;
        assert!(breaker.is_open(now) && !breaker.is_open(later));
        assert!(breaker.admits(later));
        assert!(breaker.is_open(later), "for everybody else");
        assert!(!breaker.admits(later), "only one");
        assert!(!opens(&breaker, later), "it is open already");
        assert!(!breaker.admits(later + PAUSE / 2));
        assert!(breaker.admits(later + PAUSE));
        assert!(closes(&breaker), "this closes it");
        assert!(breaker.admits(later + PAUSE) && breaker.admits(later + PAUSE));
    }

    #[test]
    fn a_probe_that_is_never_heard_of_does_not_keep_it_open() {
        let now = Instant::now();
        let breaker = opened(now);
        assert!(breaker.admits(now + PAUSE));
        assert!(breaker.admits(now + 2 * PAUSE));
    }

    #[test]
    fn a_stray_failure_does_not_prolong_the_pause() {
        let now = Instant::now();
        let breaker = opened(now);
        assert!(!opens(&breaker, now + PAUSE / 2), "sent before it opened");
        assert!(breaker.admits(now + PAUSE));
    }

    #[test]
    fn what_is_shown_is_what_it_is() {
        let (breaker, now, is_shown_open) = (Breaker::new(1, PAUSE), Instant::now(), AtomicBool::new(false));
        let opened = || assert!(!is_shown_open.swap(true, Ordering::Relaxed), "it was shown as open");
        let closed = || assert!(is_shown_open.swap(false, Ordering::Relaxed), "it was shown as closed");
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..10_000 {
                        breaker.failed(now, opened);
                        breaker.succeeded(closed);
                    }
                });
            }
        });
        assert_eq!(is_shown_open.load(Ordering::Relaxed), breaker.is_open(now));
    }
}
