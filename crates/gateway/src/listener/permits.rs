//! The limits of a listener: connections that are not sessions yet, and refusals that are told as events.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::metrics::HandshakeMetrics;

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
    metrics: Arc<HandshakeMetrics>,
    taken: Mutex<Taken>,
    freed: Notify,
}

#[derive(Default)]
struct Taken {
    count: usize,
    next: u64,
    /// Those whose request has not come whole, by age. Only these give way: the others take no longer than the gateway does.
    arriving: BTreeMap<u64, (Instant, CancellationToken)>,
}

/// One of them; dropping it gives it free.
pub(super) struct Place {
    places: Arc<Places>,
    number: u64,
    /// Cancelled when it gives way.
    pub(super) gone: CancellationToken,
}

impl Places {
    pub(super) fn new(capacity: usize, metrics: Arc<HandshakeMetrics>) -> Self {
        Self { capacity, metrics, taken: Mutex::default(), freed: Notify::new() }
    }

    /// Takes a place, waiting until one is free or the oldest arriving is older than `yield_after` and gives way. One caller.
    pub(super) async fn take(self: &Arc<Self>, yield_after: Duration) -> Place {
        loop {
            let wait = {
                let mut taken = self.lock();
                if taken.count < self.capacity {
                    let (number, gone) = (taken.next, CancellationToken::new());
                    taken.next += 1;
                    taken.count += 1;
                    taken.arriving.insert(number, (Instant::now(), gone.clone()));
                    self.metrics.handshake_began();
                    return Place { places: Arc::clone(self), number, gone };
                }
                match taken.arriving.first_key_value() {
                    Some((_, (since, gone))) if since.elapsed() >= yield_after => {
                        gone.cancel();
                        Duration::from_millis(10)
                    }
                    Some((_, (since, _))) => yield_after.saturating_sub(since.elapsed()),
                    None => yield_after,
                }
            };
            // Whichever comes first, the loop looks again.
            drop(tokio::time::timeout(wait, self.freed.notified()).await);
        }
    }

    /// Makes all give way that are older than this and whose request has not come. Says how many.
    pub(super) fn clear(&self, yield_after: Duration) -> usize {
        let taken = self.lock();
        let old = taken.arriving.values().take_while(|(since, _)| since.elapsed() >= yield_after);
        old.map(|(_, gone)| gone.cancel()).count()
    }

    fn lock(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    /// The request has come whole: from here on the place does not give way.
    pub(super) fn arrived(&self) {
        self.places.lock().arriving.remove(&self.number);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.lock();
        taken.count -= 1;
        taken.arriving.remove(&self.number);
        drop(taken);
        self.places.metrics.handshake_left();
        self.places.freed.notify_one();
    }
}
