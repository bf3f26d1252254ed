//! The limit of a listener: how many connections may be in their handshake at once.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::metrics::HandshakeMetrics;

/// The bounded number of connections that are not sessions yet.
pub(super) struct HandshakePermits {
    capacity: usize,
    metrics: Arc<HandshakeMetrics>,
    state: Mutex<State>,
    released: Notify,
}

#[derive(Default)]
struct State {
    held: usize,
    next: u64,
    /// The half-open connections, whose request has not arrived, by age. Only these are dropped: the others take no longer
    /// than the gateway itself.
    half_open: BTreeMap<u64, (Instant, CancellationToken)>,
}

/// Permission for one connection to be in its handshake; released when dropped.
pub(super) struct HandshakePermit {
    permits: Arc<HandshakePermits>,
    number: u64,
    /// Cancelled when the connection must be dropped.
    pub(super) revoked: CancellationToken,
}

impl HandshakePermits {
    pub(super) fn new(capacity: usize, metrics: Arc<HandshakeMetrics>) -> Self {
        Self { capacity, metrics, state: Mutex::default(), released: Notify::new() }
    }

    /// Waits for a permit. If none is free, the oldest half-open connection is dropped once it is older than `yield_after`.
    /// For a single caller.
    pub(super) async fn acquire(self: &Arc<Self>, yield_after: Duration) -> HandshakePermit {
        loop {
            let wait = {
                let mut state = self.lock();
                if state.held < self.capacity {
                    let (number, revoked) = (state.next, CancellationToken::new());
                    state.next += 1;
                    state.held += 1;
                    state.half_open.insert(number, (Instant::now(), revoked.clone()));
                    self.metrics.handshake_began();
                    return HandshakePermit { permits: Arc::clone(self), number, revoked };
                }
                match state.half_open.first_key_value() {
                    Some((_, (since, revoked))) if since.elapsed() >= yield_after => {
                        revoked.cancel();
                        Duration::from_millis(10)
                    }
                    Some((_, (since, _))) => yield_after.saturating_sub(since.elapsed()),
                    None => yield_after,
                }
            };
            // Released or not, the loop looks again.
            drop(tokio::time::timeout(wait, self.released.notified()).await);
        }
    }

    /// Drops every half-open connection older than `yield_after`, and returns how many there were.
    pub(super) fn revoke_half_open(&self, yield_after: Duration) -> usize {
        let state = self.lock();
        let old = state.half_open.values().take_while(|(since, _)| since.elapsed() >= yield_after);
        old.map(|(_, revoked)| revoked.cancel()).count()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl HandshakePermit {
    /// The request has arrived: from here on the connection is not half-open and is not dropped.
    pub(super) fn request_arrived(&self) {
        self.permits.lock().half_open.remove(&self.number);
    }
}

impl Drop for HandshakePermit {
    fn drop(&mut self) {
        let mut state = self.permits.lock();
        state.held -= 1;
        state.half_open.remove(&self.number);
        drop(state);
        self.permits.metrics.handshake_left();
        self.permits.released.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use ocpp_bus::Registrar;
    use prometheus::Registry;

    use super::*;
    use crate::metrics::DroppedMessages;

    const AT_ONCE: Duration = Duration::ZERO;
    const NEVER: Duration = Duration::from_secs(3600);

    fn permits(capacity: usize) -> Arc<HandshakePermits> {
        let registrar = Registrar::new(Registry::new());
        let dropped = DroppedMessages::register(&registrar).unwrap();
        let metrics = HandshakeMetrics::register(&registrar, dropped).unwrap();
        Arc::new(HandshakePermits::new(capacity, Arc::new(metrics)))
    }

    #[tokio::test]
    async fn the_oldest_half_open_connection_is_dropped_for_a_new_one() {
        let permits = permits(3);
        let arrived = permits.acquire(AT_ONCE).await;
        arrived.request_arrived();
        let (oldest, newer) = (permits.acquire(AT_ONCE).await, permits.acquire(AT_ONCE).await);
        let mut waiting = std::pin::pin!(permits.acquire(AT_ONCE));
        assert!(waiting.as_mut().now_or_never().is_none());
        assert!(oldest.revoked.is_cancelled());
        assert!(!newer.revoked.is_cancelled() && !arrived.revoked.is_cancelled());
        drop(oldest);
        assert!(!waiting.await.revoked.is_cancelled());
    }

    #[tokio::test]
    async fn a_connection_has_its_time_to_send_a_request() {
        let permits = permits(1);
        let young = permits.acquire(NEVER).await;
        assert!(permits.acquire(NEVER).now_or_never().is_none());
        assert_eq!(permits.revoke_half_open(NEVER), 0);
        assert!(!young.revoked.is_cancelled());
    }

    #[tokio::test]
    async fn only_half_open_connections_are_revoked() {
        let permits = permits(3);
        let arrived = permits.acquire(NEVER).await;
        arrived.request_arrived();
        let half_open = [permits.acquire(NEVER).await, permits.acquire(NEVER).await];
        assert_eq!(permits.revoke_half_open(AT_ONCE), 2);
        assert!(half_open.iter().all(|permit| permit.revoked.is_cancelled()));
        assert!(!arrived.revoked.is_cancelled());
    }
}
