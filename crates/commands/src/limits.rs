//! The limits of commands and of what is remembered of them. The configuration gives them; nothing here changes them.

use std::time::Duration;

/// What a command may ask for, and how much is remembered.
#[derive(Clone, Debug)]
pub struct Limits {
    /// How long a command may take when it does not say.
    pub default_timeout: Duration,
    /// The longest a command may ask for.
    pub max_timeout: Duration,
    /// The largest payload, in bytes: what a station must be able to send back as well.
    pub max_payload_bytes: u64,
    /// Commands in the offline queue of one station.
    pub offline_queue: usize,
    /// How long a command may stay there.
    pub offline_ttl: Duration,
    /// Bytes in all offline queues together.
    pub offline_bytes: u64,
    /// Ended commands that are remembered, so that a repeated one gets the first outcome.
    pub remembered: usize,
    /// Their bytes, at most.
    pub remembered_bytes: u64,
    /// For how long they are remembered.
    pub remember_for: Duration,
    /// Commands a second that a batch sends when it does not say.
    pub batch_rate: f64,
    /// Batches that may run at once.
    pub max_batches: usize,
}

#[cfg(test)]
impl Limits {
    pub(crate) fn sample() -> Self {
        Self {
            default_timeout: Duration::from_secs(30),
            max_timeout: Duration::from_secs(600),
            max_payload_bytes: 1000,
            offline_queue: 100,
            offline_ttl: Duration::from_secs(30 * 60),
            offline_bytes: 1 << 20,
            remembered: 1000,
            remembered_bytes: 1 << 20,
            remember_for: Duration::from_secs(24 * 60 * 60),
            batch_rate: 100.0,
            max_batches: 16,
        }
    }
}
