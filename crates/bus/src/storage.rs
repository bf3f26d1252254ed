//! Opening a local log for a bus, a journal or a spool. Owns what is said about its recovery, and the check that the disk can be
//! written.

use std::fs::File;
use std::io::Write;
use std::path::Path;

use ocpp_log::{Log, LogError, LogOptions, Recovery};

use crate::counters::Counters;
use crate::metrics::BusMetrics;

/// Opens a local log, and reports what its recovery found.
///
/// # Errors
/// When the log cannot be opened: no access, no space, or another process holds it.
pub fn open_log(options: LogOptions, metrics: &BusMetrics) -> Result<Log, LogError> {
    open(options, &metrics.counters)
}

pub(crate) fn open(options: LogOptions, counters: &Counters) -> Result<Log, LogError> {
    let dir = options.dir.clone();
    let (log, recovery) = Log::open(options)?;
    report(&dir, &recovery, counters);
    check_writable(&dir)?;
    Ok(log)
}

/// Writes a file and removes it, so that a disk that is full or read-only shows at the start and not at the first event.
fn check_writable(dir: &Path) -> Result<(), LogError> {
    const BYTES: usize = 64 * 1024;
    let path = dir.join("room.tmp");
    let written = File::create(&path).and_then(|mut file| {
        file.write_all(&[0; BYTES])?;
        file.sync_all()
    });
    let removed = std::fs::remove_file(&path);
    written.and(removed).map_err(|source| LogError::Io { action: "write", path, source })
}

fn report(dir: &Path, recovery: &Recovery, counters: &Counters) {
    let damaged = recovery.damaged.len() as u64;
    counters.log_damaged.inc_by(damaged);
    if damaged > 0 {
        tracing::error!(dir = %dir.display(), damaged, ?recovery, "the local log was damaged; copies of the damaged bytes are in its folder damaged");
    } else {
        tracing::info!(dir = %dir.display(), ?recovery, "local log opened");
    }
}
