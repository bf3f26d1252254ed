//! Whether a watched file has changed.

use std::path::Path;
use std::time::SystemTime;

/// Modification time and size: when either changes, so has the file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct FileStamp(Option<(SystemTime, u64)>);

impl FileStamp {
    pub(crate) fn of(path: &Path) -> Self {
        let known = std::fs::metadata(path).ok();
        Self(known.and_then(|known| Some((known.modified().ok()?, known.len()))))
    }
}
