//! The limits of a listener: connections that are not sessions yet, and refusals that are told as events.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::metrics::Metrics;

/// So many in a second.
#[derive(Debug)]
pub struct RateLimit {
    most: u32,
    second: Mutex<(Instant, u32)>,
}

impl RateLimit {
    /// At most so many.
    pub fn new(most: u32) -> Self {
        Self { most, second: Mutex::new((Instant::now(), 0)) }
    }

    /// Takes one, if this second has one left.
    pub(super) fn take(&self) -> bool {
        let mut second = self.second.lock().unwrap_or_else(PoisonError::into_inner);
        if second.0.elapsed() >= Duration::from_secs(1) {
            *second = (Instant::now(), 0);
        }
        second.1 += 1;
        second.1 <= self.most
    }
}

/// The bounded number of connections that are not sessions yet.
pub(super) struct Places {
    capacity: usize,
    metrics: Arc<Metrics>,
    taken: Mutex<BTreeMap<u64, (Instant, CancellationToken)>>,
    freed: Notify,
}

/// One of them; dropping it gives it free.
pub(super) struct Place {
    places: Arc<Places>,
    number: u64,
    /// Cancelled when it gives way.
    pub(super) gone: CancellationToken,
}

impl Places {
    pub(super) fn new(capacity: usize, metrics: Arc<Metrics>) -> Self {
        Self { capacity, metrics, taken: Mutex::default(), freed: Notify::new() }
    }

    /// Takes a place, waiting until one is free or the oldest is older than `yield_after` and gives way. One caller.
    pub(super) async fn take(self: &Arc<Self>, yield_after: Duration) -> Place {
        loop {
            let wait = {
                let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
                if taken.len() < self.capacity {
                    let number = taken.last_key_value().map_or(0, |(last, _)| last + 1);
                    let gone = CancellationToken::new();
                    taken.insert(number, (Instant::now(), gone.clone()));
                    self.metrics.handshake_began();
                    return Place { places: Arc::clone(self), number, gone };
                }
                match taken.first_key_value() {
                    Some((_, (since, gone))) if since.elapsed() >= yield_after => {
                        gone.cancel();
                        Duration::from_millis(10)
                    }
                    Some((_, (since, _))) => yield_after.saturating_sub(since.elapsed()),
                    None => Duration::ZERO,
                }
            };
            // Whichever comes first, the loop looks again.
            drop(tokio::time::timeout(wait, self.freed.notified()).await);
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.places.taken.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.number);
        self.places.metrics.handshake_left();
        self.places.freed.notify_one();
    }
}
