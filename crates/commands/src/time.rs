//! Times as the journal stores them: milliseconds since 1970.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ocpp_station::time::millis;

pub(crate) fn since_epoch(time: SystemTime) -> u64 {
    millis(time.duration_since(UNIX_EPOCH).unwrap_or_default())
}

pub(crate) fn now_ms() -> u64 {
    since_epoch(SystemTime::now())
}

pub(crate) fn from_ms(ms: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_millis(ms)
}
