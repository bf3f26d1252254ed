//! Two devices under one identity, which push each other out for as long as both run (P5 lets the newest win, every time).
//!
//! Owns noticing it, from how often sessions that were alive are replaced, and how long the next connection has to wait then.
//! Touches no session: the listener asks before it admits, and tells who was replaced. Time is an argument.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use dashmap::DashMap;
use ocpp_options::{DurationText, Problems};
use ocpp_protocol::IdentityKey;
use prometheus::IntGauge;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A replaced session that was silent for longer than this was most likely dead: its station came back, nothing more.
const ALIVE: Duration = Duration::from_secs(60);
/// Identities that are watched at once. Beyond, further ones are not.
const MOST: usize = 10_000;
/// Addresses that are named.
const MOST_ADDRESSES: usize = 4;

/// Two devices under one identity, which push each other out. They are noticed, told of as `ocpp.station.twins`, and damped.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(default)]
pub struct TwinOptions {
    /// Living sessions of one identity that are replaced within `window`; at this many it has twins. 0: nobody is watched.
    #[schemars(extend("x-tuning" = true))]
    pub replacements: usize,
    /// See `replacements`.
    #[serde(with = "DurationText")]
    #[schemars(extend("x-tuning" = true))]
    pub window: Duration,
    /// How long the serving session of an identity with twins is left alone: another connection is refused with 503 and
    /// `Retry-After`. `0s`: never.
    #[serde(with = "DurationText")]
    pub pause: Duration,
    /// Damp also where all connections come from one IP address, as two devices behind one router do, but also one device that
    /// reconnects all the time.
    pub same_address: bool,
}

impl Default for TwinOptions {
    fn default() -> Self {
        Self {
            replacements: 10,
            window: Duration::from_secs(30),
            pause: Duration::from_secs(10),
            same_address: false,
        }
    }
}

impl TwinOptions {
    /// What is wrong with these values.
    pub fn check(&self, problems: &mut Problems) {
        problems.demand(self.replacements <= 1000, "twins.replacements must be at most 1000");
        problems.demand_positive("twins.window", self.window);
    }
}

/// The identities whose living sessions were replaced lately.
#[derive(Debug)]
pub struct Twins {
    options: TwinOptions,
    stations: DashMap<IdentityKey, Contest>,
    /// Identities that have twins now.
    noticed: IntGauge,
}

#[derive(Debug)]
struct Contest {
    /// When living sessions were replaced, within the window.
    replaced: VecDeque<Instant>,
    addresses: Vec<IpAddr>,
    /// Since when it has twins.
    since: Option<Instant>,
    last_admitted: Instant,
}

/// Twins, for people.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Noticed {
    /// Living sessions that were replaced within the window.
    pub replacements: usize,
    /// Where connections came from.
    pub addresses: Vec<IpAddr>,
    /// Further connections have to wait.
    pub is_damped: bool,
    /// How long ago it was noticed.
    pub for_long: Duration,
}

impl Twins {
    /// Watches as the options say.
    pub fn new(options: TwinOptions, noticed: IntGauge) -> Self {
        Self { options, stations: DashMap::new(), noticed }
    }

    /// How long a further connection of this identity has to wait; none if it may be admitted.
    pub fn wait(&self, station: &IdentityKey, now: Instant) -> Option<Duration> {
        let contest = self.stations.get(station)?;
        self.is_damped(&contest).then_some(())?;
        let left = (contest.last_admitted + self.options.pause).checked_duration_since(now)?;
        (!left.is_zero()).then_some(left)
    }

    /// A session of this identity was replaced by one from another connection. Gives the twins when they are noticed by this, once
    /// for as long as they go on.
    pub fn replaced(
        &self,
        station: &IdentityKey,
        now: Instant,
        silence: Duration,
        addresses: [IpAddr; 2],
    ) -> Option<Noticed> {
        let options = &self.options;
        if options.replacements == 0 || silence > ALIVE {
            return None;
        }
        if self.stations.len() >= MOST && !self.stations.contains_key(station) {
            return None;
        }
        let mut contest = self.stations.entry(station.clone()).or_insert_with(|| Contest {
            replaced: VecDeque::new(),
            addresses: Vec::new(),
            since: None,
            last_admitted: now,
        });
        contest.last_admitted = now;
        contest.forget_before(now, options.window);
        if contest.replaced.len() == options.replacements {
            contest.replaced.pop_front();
        }
        contest.replaced.push_back(now);
        for address in addresses {
            if !contest.addresses.contains(&address) && contest.addresses.len() < MOST_ADDRESSES {
                contest.addresses.push(address);
            }
        }
        if contest.since.is_some() || contest.replaced.len() < options.replacements {
            return None;
        }
        contest.since = Some(now);
        self.noticed.inc();
        Some(self.show(&contest, now))
    }

    /// The twins that an identity has now.
    pub fn of(&self, station: &IdentityKey, now: Instant) -> Option<Noticed> {
        let contest = self.stations.get(station)?;
        contest.since.is_some().then(|| self.show(&contest, now))
    }

    /// Forgets identities that were left in peace for the window and the pause.
    pub fn sweep(&self, now: Instant) {
        let peace = self.options.window + self.options.pause;
        self.stations.retain(|_, contest| {
            let goes_on = contest.replaced.back().is_some_and(|last| now.duration_since(*last) < peace);
            if !goes_on && contest.since.is_some() {
                self.noticed.dec();
            }
            goes_on
        });
    }

    fn is_damped(&self, contest: &Contest) -> bool {
        contest.since.is_some()
            && !self.options.pause.is_zero()
            && (self.options.same_address || contest.addresses.len() > 1)
    }

    fn show(&self, contest: &Contest, now: Instant) -> Noticed {
        Noticed {
            replacements: contest.replaced.len(),
            addresses: contest.addresses.clone(),
            is_damped: self.is_damped(contest),
            for_long: contest.since.map_or(Duration::ZERO, |since| now.duration_since(since)),
        }
    }
}

impl Contest {
    fn forget_before(&mut self, now: Instant, window: Duration) {
        while self.replaced.front().is_some_and(|at| now.duration_since(*at) > window) {
            self.replaced.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1));
    const B: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 2));
    const SECOND: Duration = Duration::from_secs(1);

    fn twins(options: TwinOptions) -> Twins {
        Twins::new(TwinOptions { replacements: 3, ..options }, IntGauge::new("twins", "twins").unwrap())
    }

    #[test]
    fn twins_are_noticed_once_and_have_to_wait() {
        let (twins, key, start) = (twins(TwinOptions::default()), IdentityKey::of("CP-1"), Instant::now());
        let replace = |after: u32| twins.replaced(&key, start + after * SECOND, SECOND, [A, B]);
        assert_eq!(replace(1), None);
        assert_eq!(replace(2), None);
        assert_eq!(twins.wait(&key, start + 2 * SECOND), None, "not yet");
        let noticed = replace(3).unwrap();
        assert_eq!((noticed.replacements, noticed.is_damped), (3, true));
        assert_eq!(noticed.addresses, [A, B]);
        assert_eq!(twins.wait(&key, start + 4 * SECOND), Some(9 * SECOND));
        assert_eq!(twins.wait(&IdentityKey::of("CP-2"), start + 4 * SECOND), None);
        assert_eq!(twins.wait(&key, start + 13 * SECOND), None, "the newest wins all the same, at its time");
        assert_eq!(replace(13), None, "told already");
        assert_eq!(twins.wait(&key, start + 14 * SECOND), Some(9 * SECOND));
        assert_eq!(twins.noticed.get(), 1);
        twins.sweep(start + 60 * SECOND);
        assert_eq!((twins.of(&key, start + 60 * SECOND), twins.noticed.get()), (None, 0));
    }

    #[test]
    fn a_station_that_comes_back_is_no_twin() {
        let (key, start) = (IdentityKey::of("CP-1"), Instant::now());
        let dead = twins(TwinOptions::default());
        let slow = twins(TwinOptions::default());
        let off = twins(TwinOptions { pause: Duration::ZERO, ..TwinOptions::default() });
        for after in 1..20 {
            assert_eq!(dead.replaced(&key, start + after * SECOND, 2 * ALIVE, [A, B]), None);
            assert_eq!(slow.replaced(&key, start + after * 16 * SECOND, SECOND, [A, B]), None);
            off.replaced(&key, start + after * SECOND, SECOND, [A, B]);
        }
        assert_eq!(off.wait(&key, start + 19 * SECOND), None, "damping is off");
        assert!(off.of(&key, start + 19 * SECOND).is_some(), "but it is noticed");
    }

    #[test]
    fn one_address_is_damped_only_if_the_operator_wants_that() {
        let (key, start) = (IdentityKey::of("CP-1"), Instant::now());
        for same_address in [false, true] {
            let twins = twins(TwinOptions { same_address, ..TwinOptions::default() });
            let noticed: Vec<_> =
                (1..=3).filter_map(|at| twins.replaced(&key, start + at * SECOND, SECOND, [A, A])).collect();
            assert_eq!(noticed.len(), 1);
            assert_eq!(twins.wait(&key, start + 3 * SECOND).is_some(), same_address);
        }
    }
}
