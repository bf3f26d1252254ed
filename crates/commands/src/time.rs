//! Times as the journal stores them: milliseconds since 1970.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

pub(crate) use ocpp_station::time::unix_millis;

pub(crate) fn now_ms() -> u64 {
    unix_millis(SystemTime::now())
}

pub(crate) fn from_ms(ms: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_millis(ms)
}
