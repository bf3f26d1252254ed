//! How many times a second something may happen. Owns the limit's arithmetic, which is governor's (GCRA); not what is limited.

use std::num::NonZeroU32;

use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};

/// A limit on how often something happens.
#[derive(Debug)]
pub struct RateLimit {
    /// None allows nothing.
    limiter: Option<DefaultDirectRateLimiter>,
}

impl RateLimit {
    /// Allows `per_second` events a second on average, and as many at once after a quiet second. Zero allows none.
    pub fn new(per_second: u32) -> Self {
        let quota = NonZeroU32::new(per_second).map(Quota::per_second);
        Self { limiter: quota.map(RateLimiter::direct) }
    }

    /// Whether one more event is within the limit; it then counts.
    pub(crate) fn allows(&self) -> bool {
        self.limiter.as_ref().is_some_and(|limiter| limiter.check().is_ok())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_allowed_up_to_the_limit() {
        let limit = RateLimit::new(1);
        assert!(limit.allows());
        assert!(!limit.allows());
        assert!(!RateLimit::new(0).allows());
    }
}
