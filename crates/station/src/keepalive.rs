//! When to ping, and when a silent connection is dead.
//!
//! Any inbound frame is a sign of life: some stations never answer pings. A station that is gone without a word is
//! found by the kernel, too: a ping is data, and data that nobody acknowledges ends the connection after
//! the write timeout (TCP_USER_TIMEOUT), long before the idle limit, whether or not the station answers pings.

use std::time::{Duration, Instant};

/// Keeps the times of one connection. Time is passed in.
#[derive(Debug)]
pub(crate) struct Keepalive {
    interval: Duration,
    idle: Duration,
    last_seen: Instant,
    next_ping: Option<Instant>,
    outstanding: Option<(u64, Instant)>,
    nonce: u64,
}

/// What is due.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Due {
    Nothing,
    Ping([u8; 8]),
    Idle,
}

impl Keepalive {
    /// `seed` spreads the pings of many connections that began together over the interval.
    pub(crate) fn new(now: Instant, interval: Duration, idle: Duration, seed: u64) -> Self {
        let spread = interval.mul_f64((seed % 1024) as f64 / 2048.0);
        let next_ping = (!interval.is_zero()).then(|| now + interval - spread);
        Self { interval, idle, last_seen: now, next_ping, outstanding: None, nonce: seed }
    }

    /// Goes on with another interval and another limit.
    pub(crate) fn change(&mut self, now: Instant, interval: Duration, idle: Duration) {
        if interval != self.interval {
            self.next_ping = (!interval.is_zero()).then(|| {
                let next = now + interval;
                self.next_ping.map_or(next, |planned| planned.min(next))
            });
        }
        (self.interval, self.idle) = (interval, idle);
    }

    /// Something came in.
    pub(crate) fn seen(&mut self, now: Instant) {
        self.last_seen = now;
    }

    /// A pong came in; gives the round trip if it answers the last ping.
    pub(crate) fn pong(&mut self, now: Instant, payload: &[u8]) -> Option<Duration> {
        let (nonce, sent_at) = self.outstanding?;
        if payload != nonce.to_be_bytes() {
            return None;
        }
        self.outstanding = None;
        Some(now - sent_at)
    }

    /// What is due. A gateway that does not read cannot call a station silent.
    pub(crate) fn due(&mut self, now: Instant, reading: bool) -> Due {
        if !reading {
            self.last_seen = self.last_seen.max(now.checked_sub(self.idle / 2).unwrap_or(now));
        }
        if now >= self.last_seen + self.idle {
            return Due::Idle;
        }
        if self.next_ping.is_some_and(|at| now >= at) {
            self.next_ping = Some(now + self.interval);
            self.nonce = self.nonce.wrapping_add(1);
            self.outstanding = Some((self.nonce, now));
            return Due::Ping(self.nonce.to_be_bytes());
        }
        Due::Nothing
    }

    /// When to look again.
    pub(crate) fn deadline(&self) -> Instant {
        let idle = self.last_seen + self.idle;
        self.next_ping.map_or(idle, |ping| ping.min(idle))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_secs(60);
    const IDLE: Duration = Duration::from_secs(150);

    #[test]
    fn pings_come_in_time_and_their_pongs_are_timed() {
        let start = Instant::now();
        let mut keepalive = Keepalive::new(start, INTERVAL, IDLE, 0);
        assert_eq!(keepalive.due(start + INTERVAL / 2, true), Due::Nothing);
        let Due::Ping(payload) = keepalive.due(start + INTERVAL, true) else { panic!("a ping is due") };
        assert_eq!(keepalive.pong(start + INTERVAL, b"other"), None);
        let later = start + INTERVAL + Duration::from_millis(40);
        assert_eq!(keepalive.pong(later, &payload), Some(Duration::from_millis(40)));
        assert_eq!(keepalive.pong(later, &payload), None, "once");
    }

    #[test]
    fn silence_ends_a_connection_and_any_frame_prevents_it() {
        let start = Instant::now();
        let mut keepalive = Keepalive::new(start, Duration::ZERO, IDLE, 7);
        assert_eq!(keepalive.due(start + IDLE - Duration::from_millis(1), true), Due::Nothing);
        keepalive.seen(start + Duration::from_secs(100));
        assert_eq!(keepalive.due(start + IDLE, true), Due::Nothing);
        assert_eq!(keepalive.due(start + Duration::from_secs(250), true), Due::Idle);
    }

    #[test]
    fn a_gateway_that_does_not_read_calls_nobody_silent() {
        let start = Instant::now();
        let mut keepalive = Keepalive::new(start, Duration::ZERO, IDLE, 0);
        assert_eq!(keepalive.due(start + 10 * IDLE, false), Due::Nothing);
        assert_eq!(keepalive.due(start + 10 * IDLE + IDLE / 4, true), Due::Nothing);
        assert_eq!(keepalive.due(start + 11 * IDLE, true), Due::Idle);
    }

    #[test]
    fn another_interval_and_another_limit_hold_from_now_on() {
        let start = Instant::now();
        let mut keepalive = Keepalive::new(start, INTERVAL, IDLE, 0);
        let soon = Duration::from_secs(5);
        keepalive.change(start + soon, soon, IDLE / 2);
        assert_eq!(keepalive.deadline(), start + 2 * soon);
        assert!(matches!(keepalive.due(start + 2 * soon, true), Due::Ping(_)));
        keepalive.change(start + 2 * soon, Duration::ZERO, IDLE / 2);
        assert_eq!(keepalive.deadline(), start + IDLE / 2, "no ping is planned");
        assert_eq!(keepalive.due(start + IDLE / 2, true), Due::Idle);
    }

    #[test]
    fn connections_that_begin_together_do_not_ping_together() {
        let start = Instant::now();
        let first = Keepalive::new(start, INTERVAL, IDLE, 1).deadline();
        let second = Keepalive::new(start, INTERVAL, IDLE, 1000).deadline();
        assert!(first - second > INTERVAL / 4);
    }
}
