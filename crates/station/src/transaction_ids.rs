//! The transaction ids of OCPP 1.6 that a node gives out (ADR 0005).
//!
//! Owns the arithmetic that keeps them apart. Which station was given which id is in the stations' records.

use std::sync::atomic::{AtomicI32, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

/// 2020-01-01T00:00:00Z, in seconds since 1970.
const EPOCH_SECONDS: u64 = 1_577_836_800;

/// The ids of one node: no two stations are given the same.
///
/// An id is greater than every one that was given out or [seen](Self::see) before, and at least the number of seconds since 2020: so
/// it is new even to a node that has forgotten everything, as long as it gave out fewer than one a second on average. Of several
/// nodes, each gives out the ids that leave its own remainder, and so none that another gives out.
#[derive(Debug)]
pub struct TransactionIds {
    greatest: AtomicI32,
    /// What its ids leave as remainder …
    remainder: i64,
    /// … when they are divided by this.
    divisor: i64,
}

impl Default for TransactionIds {
    /// Those of a node that is the only one.
    fn default() -> Self {
        Self::of_node(0, 1)
    }
}

impl TransactionIds {
    /// Those of the node with this number, counted from 0, among so many.
    pub fn of_node(number: u16, nodes: u16) -> Self {
        let divisor = i64::from(nodes.max(1));
        Self { greatest: AtomicI32::new(0), remainder: i64::from(number) % divisor, divisor }
    }

    /// Takes note of an id that was given out before this process began.
    pub fn see(&self, id: i32) {
        self.greatest.fetch_max(id, Ordering::Relaxed);
    }

    /// The greatest id so far; 0 before the first.
    pub fn greatest(&self) -> i32 {
        self.greatest.load(Ordering::Relaxed)
    }

    /// The next id. None when the 31 bits are used up.
    pub fn next(&self, now: SystemTime) -> Option<i32> {
        let floor = seconds(now).unwrap_or(0);
        let following = |greatest: i32| {
            let least = (i64::from(greatest) + 1).max(i64::from(floor));
            let id = least + (self.remainder - least).rem_euclid(self.divisor);
            i32::try_from(id).ok()
        };
        // Relaxed is enough: nothing else is read or written by the order of ids.
        let before = self.greatest.fetch_update(Ordering::Relaxed, Ordering::Relaxed, following).ok()?;
        following(before)
    }
}

/// An id for a station when its node's are used up: other stations may have it, too.
pub(crate) fn next_of_station(last: i32, now: SystemTime) -> i32 {
    last.checked_add(1).or_else(|| seconds(now)).unwrap_or(1).max(1)
}

/// Seconds since 2020; none for a clock that is beyond 31 bits, in 2088.
fn seconds(now: SystemTime) -> Option<i32> {
    let since_1970 = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    i32::try_from(since_1970.saturating_sub(EPOCH_SECONDS)).ok()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(EPOCH_SECONDS + seconds)
    }

    #[test]
    fn ids_follow_the_clock_and_never_go_back() {
        let ids = TransactionIds::default();
        assert_eq!(ids.next(at(0)), Some(1));
        assert_eq!(ids.next(at(100)), Some(100));
        assert_eq!(ids.next(at(100)), Some(101));
        assert_eq!(ids.next(at(50)), Some(102));
        ids.see(500);
        ids.see(400);
        assert_eq!((ids.next(at(200)), ids.greatest()), (Some(501), 501));
    }

    #[test]
    fn nodes_share_the_ids() {
        let nodes: Vec<_> = (0..3).map(|number| TransactionIds::of_node(number, 3)).collect();
        let mut given: Vec<_> = (0..30).map(|at_| nodes[at_ % 3].next(at(10)).unwrap()).collect();
        given.sort_unstable();
        assert_eq!(given, (10..40).collect::<Vec<_>>(), "all of them, each once");
    }

    #[test]
    fn the_last_id_is_the_greatest_of_31_bits() {
        let ids = TransactionIds::default();
        ids.see(i32::MAX - 1);
        assert_eq!([ids.next(at(0)), ids.next(at(0))], [Some(i32::MAX), None]);
        let even = TransactionIds::of_node(0, 2);
        even.see(i32::MAX - 1);
        assert_eq!(even.next(at(0)), None, "the last one is another node's");
        // A clock that is far ahead uses nothing up by itself.
        assert_eq!(TransactionIds::default().next(at(1 << 40)), Some(1));
        assert_eq!(next_of_station(i32::MAX - 1, at(7)), i32::MAX);
        assert_eq!(next_of_station(i32::MAX, at(7)), 7);
        assert_eq!(next_of_station(7, at(9)), 8);
    }
}
