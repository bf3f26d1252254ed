//! Recovery when a log is opened: which segments there are, where the newest one ends, and what to do with the bytes after that.
//!
//! Only the newest segment is scanned; the others were complete before it was started, and a reader that finds damage in them
//! reports it. So opening takes as long as reading one segment, however large the log is.
//!
//! The bytes after the last intact record of the newest segment are a torn tail: the rest of a batch whose commit had not
//! returned. (Or the disk has damaged the very last records; the bytes alone do not say. Therefore they are copied and reported
//! before they are cut off.) Damage before an intact record is not cut off: it stays where it is, and readers report the gap.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::LogError;
use super::damaged::copy_damage;
use super::extent::{Extent, Held};
use super::fs::{self, File, Filesystem};
use super::scan::{self, Scanner, Step};
use super::segment::{self, HEADER_BYTES, Header, Segment};

/// What [`Log::open`](super::Log::open) found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Recovery {
    /// Segment files.
    pub segments: usize,
    /// Positions from the oldest to the durable end, minus those known to be missing.
    pub records: u64,
    /// Bytes in segment files that count, headers included.
    pub bytes: u64,
    /// Damaged regions: in the headers of all segments and the records of the newest. Readers report damage in the others.
    pub damaged: Vec<Damage>,
    /// What was left of an interrupted commit.
    pub torn: Option<TornTail>,
}

/// Bytes that are not records although records follow them, or a header that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// The segment file.
    pub segment: PathBuf,
    /// The first missing position.
    pub from: u64,
    /// The first position behind; equal to `from` if no record is missing.
    pub to: u64,
    /// Where the region begins in the file.
    pub offset: u64,
    /// How long it is.
    pub bytes: u64,
    /// The copy of it; `None` if it could not be made.
    pub copy: Option<PathBuf>,
}

/// Bytes after the last intact record of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TornTail {
    /// The segment file.
    pub segment: PathBuf,
    /// The position the first of them would have had; it is given to the next record appended.
    pub position: u64,
    /// How many bytes there were.
    pub bytes: u64,
    /// The copy of them; `None` if it could not be made, and then they were not cut off either.
    pub copy: Option<PathBuf>,
}

/// The log as found, ready to be read and written.
pub(super) struct Recovered {
    pub(super) extent: Extent,
    /// The newest segment's file, if it may be appended to.
    pub(super) appendable: Option<Box<dyn File>>,
    pub(super) report: Recovery,
}

/// Reads the folder `dir`, in which the caller holds the lock, and makes what it finds durable.
pub(super) fn recover(filesystem: &dyn Filesystem, dir: &Path) -> Result<Recovered, LogError> {
    let names = filesystem.names(dir).map_err(LogError::io("list", dir))?;
    let mut bases: Vec<u64> = names.iter().filter_map(|name| segment::base_of(name)).collect();
    bases.sort_unstable();

    let mut recovered = Recovered {
        extent: Extent::default(),
        appendable: None,
        report: Recovery { segments: bases.len(), ..Recovery::default() },
    };
    let newest = bases.last().copied();
    for base in bases {
        let opened = open_segment(filesystem, dir, base, &mut recovered.report)?;
        if let Some(header) = opened.header
            && let Some(previous) = recovered.extent.segments.back_mut()
        {
            previous.newest_ms = header.newest_before_ms;
        }
        if Some(base) == newest {
            scan_newest(filesystem, dir, opened, &mut recovered)?;
        } else {
            recovered.extent.segments.push_back(opened.held);
        }
    }
    fill_in_times(&mut recovered.extent);
    // After a crash of the process alone, the names may be in the kernel's memory only.
    filesystem.sync_dir(dir).map_err(LogError::io("sync", dir))?;

    let Recovered { extent, report, .. } = &mut recovered;
    let missing: u64 = report.damaged.iter().map(|damage| damage.to - damage.from).sum();
    report.records = (extent.next - extent.oldest()).saturating_sub(missing);
    report.bytes = extent.bytes();
    Ok(recovered)
}

struct Opened {
    file: Box<dyn File>,
    header: Option<Header>,
    held: Held,
}

/// Opens a segment and reads its header.
fn open_segment(
    filesystem: &dyn Filesystem,
    dir: &Path,
    base: u64,
    report: &mut Recovery,
) -> Result<Opened, LogError> {
    let path = segment::path(dir, base);
    let file = filesystem.open_write(&path).map_err(LogError::io("open", &path))?;
    let bytes = file.size().map_err(LogError::io("measure", &path))?;
    let mut head = [0; HEADER_BYTES];
    let read = fs::read_full_at(&*file, &mut head, 0).map_err(LogError::io("read", &path))?;
    let header = head.get(..read).and_then(Header::decode).filter(|header| header.base == base);
    let marker = match header {
        Some(header) if header.version != segment::VERSION => {
            return Err(LogError::Version { path, found: header.version, known: segment::VERSION });
        }
        Some(header) => header.marker,
        None => {
            report.damaged.push(Damage {
                segment: path.clone(),
                from: base,
                to: base,
                offset: 0,
                bytes: read as u64,
                copy: keep(filesystem, dir, base, &*file, 0, read as u64),
            });
            // The records are worth more than their header.
            scan::find_marker(&*file, bytes, Segment::new(dir, base, 0).start())
                .map_err(LogError::io("read", &path))?
                .unwrap_or_else(segment::random_marker)
        }
    };
    let held = Held { segment: Arc::new(Segment::new(dir, base, marker)), bytes, newest_ms: 0 };
    Ok(Opened { file, header, held })
}

/// Scans the newest segment, finds its end, and cuts off what follows.
fn scan_newest(
    filesystem: &dyn Filesystem,
    dir: &Path,
    opened: Opened,
    recovered: &mut Recovered,
) -> Result<(), LogError> {
    let Opened { file, header, mut held } = opened;
    let segment = Arc::clone(&held.segment);
    let (base, path, size) = (segment.base, &segment.path, held.bytes);
    let known_damage = recovered.report.damaged.len();
    let reading = filesystem.open(path).map_err(LogError::io("open", path))?;
    let mut scanner = Scanner::new(reading, segment.marker, segment.start());
    scanner.bound(size, u64::MAX);
    let mut next = base;
    held.bytes = segment.start().offset.min(size);
    let mut pending = None;
    loop {
        match scanner.step().map_err(LogError::io("read", path))? {
            Step::Record(found) => {
                let mark = found.mark();
                if let Some((offset, end)) = pending.take() {
                    recovered.report.damaged.push(Damage {
                        segment: path.clone(),
                        from: next,
                        to: mark.position,
                        offset,
                        bytes: end - offset,
                        copy: keep(filesystem, dir, base, &*file, offset, end),
                    });
                }
                segment.note(mark);
                next = mark.position + 1;
                held.bytes = mark.offset + found.bytes() as u64;
                held.newest_ms = held.newest_ms.max(found.time_ms());
            }
            Step::Damage { from, to } => pending = Some((from, to)),
            Step::End => break,
        }
    }

    if held.bytes < size {
        let copy = keep(filesystem, dir, base, &*file, held.bytes, size);
        if copy.is_some()
            && let Err(error) = file.set_size(held.bytes)
        {
            tracing::warn!(segment = %path.display(), %error, "cannot cut the torn tail of the local log");
        }
        recovered.report.torn =
            Some(TornTail { segment: path.clone(), position: next, bytes: size - held.bytes, copy });
    }
    // Readers are about to see what a killed process had written but not synced.
    file.sync().map_err(LogError::io("sync", path))?;

    let pristine =
        header.is_some() && recovered.report.torn.is_none() && recovered.report.damaged.len() == known_damage;
    recovered.appendable = pristine.then_some(file);
    recovered.extent.next = next;
    recovered.extent.segments.push_back(held);
    Ok(())
}

/// Copies a region to `damaged/`. A failure, for example on a full disk, must not keep the log from opening.
fn keep(
    filesystem: &dyn Filesystem,
    dir: &Path,
    base: u64,
    file: &dyn File,
    from: u64,
    to: u64,
) -> Option<PathBuf> {
    match copy_damage(filesystem, dir, base, file, from..to) {
        Ok(copy) => copy,
        Err(error) => {
            tracing::warn!(dir = %dir.display(), base, offset = from, bytes = to - from, %error,
                "cannot copy damaged bytes of the local log");
            None
        }
    }
}

/// The time of a segment's newest record is in the header of the next segment. If that is damaged, the next known time is used,
/// which is rarely earlier.
fn fill_in_times(extent: &mut Extent) {
    let mut later = 0;
    for held in extent.segments.iter_mut().rev() {
        if held.newest_ms == 0 {
            held.newest_ms = later;
        }
        later = held.newest_ms;
    }
}
