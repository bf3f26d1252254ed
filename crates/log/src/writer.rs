//! The writer: batches and commits, and the segments it starts and deletes.
//!
//! A commit writes the whole batch with one call into one segment and syncs it. If either fails, the file is abandoned: truncated to
//! its last durable byte if possible, and never written to again, because after a failed sync nobody knows which pages the kernel
//! has dropped. The batch stays in memory, and the next commit writes it into a new segment. Should the old file still hold
//! parts of it, the base position of the new segment says that they do not count.
//!
//! A segment is created under another name and renamed when its header is durable, so a file named like a segment always has a
//! complete header. The newest segment is never deleted: its name carries the position across restarts.

use std::io;
use std::sync::Arc;

use tokio::sync::watch;

use super::extent::{Held, Shared};
use super::fs::{self, File, Filesystem, RealFilesystem};
use super::record;
use super::recovery::{self, Recovery};
use super::segment::{self, HEADER_BYTES, Header, Mark, Segment};
use super::view::LogView;
use super::{LogError, LogOptions, NewRecord};

/// A segment's name until its header is durable.
const UNFINISHED: &str = "segment.tmp";

/// The writer holds an exclusive lock on this file.
const LOCK: &str = "lock";

/// After a commit the batch buffer shrinks to this, so that one large batch does not cost memory for ever.
const BATCH_KEPT_BYTES: usize = 256 * 1024;

/// The only writer of a log. Dropping it discards what was not committed and releases the lock; views stay valid.
pub struct Log {
    options: LogOptions,
    shared: Arc<Shared>,
    durable: watch::Sender<u64>,
    active: Option<Active>,
    batch: Batch,
    _lock: Box<dyn Send + Sync>,
}

/// The segment being written.
struct Active {
    file: Box<dyn File>,
    segment: Arc<Segment>,
    /// Its durable length, where the next batch goes.
    bytes: u64,
}

/// What was appended since the last commit, encoded.
#[derive(Default)]
struct Batch {
    bytes: Vec<u8>,
    records: u64,
    newest_ms: u64,
}

/// What [`Log::retain`] or [`Log::truncate_before`] deleted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Retained {
    /// Segment files deleted.
    pub segments: u64,
    /// Positions in them.
    pub records: u64,
    /// Bytes in them.
    pub bytes: u64,
}

impl Log {
    /// Opens the log in `options.dir`, creating it if there is none, and recovers it after a crash.
    ///
    /// Takes as long as reading one segment. Everything found is durable before this returns.
    ///
    /// # Errors
    /// [`LogError::Locked`] if it has a writer, [`LogError::Options`], [`LogError::Version`], or [`LogError::Io`].
    pub fn open(options: LogOptions) -> Result<(Self, Recovery), LogError> {
        Self::open_on(options, Arc::new(RealFilesystem))
    }

    pub(super) fn open_on(
        options: LogOptions,
        filesystem: Arc<dyn Filesystem>,
    ) -> Result<(Self, Recovery), LogError> {
        let least = (HEADER_BYTES + record::HEADER_BYTES) as u64 + u64::from(options.max_record_bytes);
        if options.segment_bytes < least {
            return Err(LogError::Options(format!(
                "segment_bytes is {}, but a record of max_record_bytes {} needs {least}",
                options.segment_bytes, options.max_record_bytes
            )));
        }
        let dir = &options.dir;
        filesystem.create_dir(dir).map_err(LogError::io("create", dir))?;
        let path = dir.join(LOCK);
        let lock = filesystem.lock(&path).map_err(LogError::io("lock", &path))?;
        let Some(lock) = lock else { return Err(LogError::Locked { path }) };

        let recovered = recovery::recover(&*filesystem, dir)?;
        let newest = recovered.extent.segments.back();
        let active = recovered.appendable.zip(newest).map(|(file, newest)| Active {
            file,
            segment: Arc::clone(&newest.segment),
            bytes: newest.bytes,
        });
        let durable = watch::Sender::new(recovered.extent.next);
        let shared = Arc::new(Shared::new(dir.clone(), filesystem, recovered.extent));
        let log = Self { options, shared, durable, active, batch: Batch::default(), _lock: lock };
        Ok((log, recovered.report))
    }

    /// Adds a record to the batch and returns its position. The record is only in memory until [`commit`](Self::commit); how much
    /// memory that takes is up to the caller.
    ///
    /// # Errors
    /// [`LogError::RecordTooLarge`] or [`LogError::KeyTooLong`]; the batch is unchanged, and trying again is of no use.
    pub fn append(&mut self, new: &NewRecord<'_>) -> Result<u64, LogError> {
        let bytes = new.key.len() as u64 + new.value.len() as u64;
        let limit = u64::from(self.options.max_record_bytes);
        if bytes > limit {
            return Err(LogError::RecordTooLarge { bytes, limit });
        }
        if new.key.len() > usize::from(u16::MAX) {
            return Err(LogError::KeyTooLong { bytes: new.key.len() });
        }
        let position = self.next_position();
        record::encode(&mut self.batch.bytes, position, new);
        self.batch.records += 1;
        self.batch.newest_ms = self.batch.newest_ms.max(new.time_ms);
        Ok(position)
    }

    /// Whether [`append`](Self::append) accepts a record of this key and value. The state of the disk does not matter.
    pub fn takes(&self, key: &str, value: &[u8]) -> bool {
        key.len() <= usize::from(u16::MAX)
            && key.len() as u64 + value.len() as u64 <= u64::from(self.options.max_record_bytes)
    }

    /// Makes the batch durable and visible to readers, as a whole. Returns the position after its last record: everything below it is
    /// durable.
    ///
    /// # Errors
    /// [`LogError::Io`]. Then no record of the batch counts, and the whole batch waits for the next commit (or
    /// [`rollback`](Self::rollback)). If the process ends first, some of its records may still be found when the log is opened again.
    pub fn commit(&mut self) -> Result<u64, LogError> {
        if self.batch.records == 0 {
            return Ok(*self.durable.borrow());
        }
        let batch_bytes = self.batch.bytes.len() as u64;
        let active = match self.active.take() {
            Some(active) if active.bytes + batch_bytes <= self.options.segment_bytes => active,
            Some(_) | None => self.begin_segment()?,
        };
        let active = self.write(active)?;

        let next = self.next_position();
        {
            let mut extent = self.shared.extent();
            if let Some(held) = extent.segments.back_mut() {
                held.bytes = active.bytes;
                held.newest_ms = held.newest_ms.max(self.batch.newest_ms);
            }
            extent.next = next;
        }
        self.active = Some(active);
        self.rollback();
        self.durable.send_replace(next);
        Ok(next)
    }

    /// Discards the batch. Its positions go to what is appended next.
    pub fn rollback(&mut self) {
        self.batch.records = 0;
        self.batch.newest_ms = 0;
        self.batch.bytes.clear();
        self.batch.bytes.shrink_to(BATCH_KEPT_BYTES);
    }

    /// Deletes the oldest segments while the log is larger than `max_bytes`, or their newest record is older than `max_age` at the
    /// time `now_ms`. Never deletes the newest segment, so a log may exceed its limit by that much.
    ///
    /// # Errors
    /// [`LogError::Io`] if a file cannot be deleted; those before it are gone.
    pub fn retain(&mut self, now_ms: u64) -> Result<Retained, LogError> {
        let (max_bytes, max_age) = (self.options.max_bytes, self.options.max_age);
        let too_old =
            max_age.map(|age| now_ms.saturating_sub(u64::try_from(age.as_millis()).unwrap_or(u64::MAX)));
        self.delete_while(|oldest, _, total| {
            (max_bytes != 0 && total > max_bytes) || too_old.is_some_and(|limit| oldest.newest_ms < limit)
        })
    }

    /// Deletes the segments all of whose positions are below `position`, except the newest; [`roll`](Self::roll) first to delete that
    /// one, too.
    ///
    /// # Errors
    /// [`LogError::Io`] if a file cannot be deleted; those before it are gone.
    pub fn truncate_before(&mut self, position: u64) -> Result<Retained, LogError> {
        self.delete_while(|_, end, _| end <= position)
    }

    /// Starts a new segment, unless the newest one has no records. Leaves the batch as it is.
    ///
    /// # Errors
    /// [`LogError::Io`]; the next commit tries again.
    pub fn roll(&mut self) -> Result<(), LogError> {
        {
            let extent = self.shared.extent();
            if extent.segments.back().is_none_or(|newest| newest.segment.base == extent.next) {
                return Ok(());
            }
        }
        self.active = None;
        self.active = Some(self.begin_segment()?);
        Ok(())
    }

    /// The log as readers see it.
    pub fn view(&self) -> LogView {
        LogView::new(Arc::clone(&self.shared), self.durable.subscribe())
    }

    /// Durable bytes in segment files, headers included.
    pub fn bytes(&self) -> u64 {
        self.shared.extent().bytes()
    }

    /// The position that the next [`append`](Self::append) gets. Equal to the durable end if there is no batch.
    pub fn next_position(&self) -> u64 {
        *self.durable.borrow() + self.batch.records
    }

    /// The oldest position that has not been deleted; the durable end if there is no record.
    pub fn oldest_position(&self) -> u64 {
        self.shared.extent().oldest()
    }

    /// Writes the batch after what is durable in a segment.
    fn write(&mut self, mut active: Active) -> Result<Active, LogError> {
        let (segment, start) = (&active.segment, active.bytes);
        record::seal(&mut self.batch.bytes, segment.marker, |position, at| {
            segment.note(Mark { position, offset: start + at });
        });
        let failed = match fs::write_all_at(&*active.file, &self.batch.bytes, start) {
            Err(error) => LogError::io("write", &segment.path)(error),
            Ok(()) => match active.file.sync() {
                Err(error) => LogError::io("sync", &segment.path)(error),
                Ok(()) => {
                    active.bytes += self.batch.bytes.len() as u64;
                    return Ok(active);
                }
            },
        };
        if let Err(error) = active.file.set_size(start).and_then(|()| active.file.sync()) {
            tracing::debug!(segment = %segment.path.display(), %error, "cannot cut a segment after a failed commit");
        }
        Err(failed)
    }

    /// Creates a segment that starts at the durable end, and makes it the newest.
    ///
    /// If this fails, its file may exist nevertheless, now or after a crash, and what an older segment holds from that position
    /// on does not count. So the caller abandons the older one first.
    fn begin_segment(&self) -> Result<Active, LogError> {
        let (filesystem, dir) = (&*self.shared.filesystem, &*self.shared.dir);
        let (base, newest_before_ms) = {
            let extent = self.shared.extent();
            // One at the same position has no durable record, and is replaced.
            let before = extent.segments.iter().rev().find(|held| held.segment.base < extent.next);
            (extent.next, before.map_or(0, |held| held.newest_ms))
        };
        let header = Header::new(base, newest_before_ms);
        let unfinished = dir.join(UNFINISHED);
        match filesystem.remove(&unfinished) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(LogError::io("remove", &unfinished)(error));
            }
            Ok(()) | Err(_) => {}
        }
        let file = filesystem.create(&unfinished).map_err(LogError::io("create", &unfinished))?;
        fs::write_all_at(&*file, &header.encode(), 0).map_err(LogError::io("write", &unfinished))?;
        file.sync().map_err(LogError::io("sync", &unfinished))?;
        let path = segment::path(dir, base);
        filesystem.rename(&unfinished, &path).map_err(LogError::io("create", &path))?;
        filesystem.sync_dir(dir).map_err(LogError::io("sync", dir))?;

        let segment = Arc::new(Segment::new(dir, base, header.marker));
        let bytes = HEADER_BYTES as u64;
        let mut extent = self.shared.extent();
        while extent.segments.pop_back_if(|held| held.segment.base == base).is_some() {}
        extent.segments.push_back(Held { segment: Arc::clone(&segment), bytes, newest_ms: 0 });
        drop(extent);
        Ok(Active { file, segment, bytes })
    }

    /// Deletes the oldest segment as long as `doomed` says so, given the segment, the position after it, and the size of the log.
    fn delete_while(&mut self, doomed: impl Fn(&Held, u64, u64) -> bool) -> Result<Retained, LogError> {
        let (filesystem, dir) = (&*self.shared.filesystem, &*self.shared.dir);
        let mut deleted = Retained::default();
        loop {
            // Readers are told first, so that none takes a deleted file for a damaged one.
            let (held, end) = {
                let mut extent = self.shared.extent();
                let total = extent.bytes();
                let Some(end) = extent.segments.get(1).map(|second| second.segment.base) else { break };
                let Some(held) = extent.segments.pop_front_if(|oldest| doomed(oldest, end, total)) else {
                    break;
                };
                (held, end)
            };
            match filesystem.remove(&held.segment.path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    let failed = LogError::io("remove", &held.segment.path)(error);
                    self.shared.extent().segments.push_front(held);
                    return Err(failed);
                }
                Ok(()) | Err(_) => {}
            }
            // One at a time: if a crash could undo a deletion but not a later one, that would look like a lost segment.
            filesystem.sync_dir(dir).map_err(LogError::io("sync", dir))?;
            deleted.segments += 1;
            deleted.records += end - held.segment.base;
            deleted.bytes += held.bytes;
        }
        Ok(deleted)
    }
}

impl std::fmt::Debug for Log {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Log")
            .field("dir", &self.options.dir)
            .field("next", &self.next_position())
            .field("uncommitted", &self.batch.records)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::super::sim::{Failing, SimFilesystem, Survives};
    use super::super::{GapReason, Item};
    use super::*;

    fn open(filesystem: &SimFilesystem) -> (Log, Recovery) {
        let options = LogOptions { segment_bytes: 10_000, max_record_bytes: 1_000, ..LogOptions::new("log") };
        Log::open_on(options, Arc::new(filesystem.clone())).unwrap()
    }

    fn append(log: &mut Log, length: usize) {
        log.append(&NewRecord { kind: 0, time_ms: 0, key: "", value: &vec![7; length] }).unwrap();
    }

    fn delivered(log: &Log) -> Vec<u64> {
        let items = log.view().reader(0).read(usize::MAX, usize::MAX).unwrap();
        let positions = items.into_iter().map(|item| match item {
            Item::Record(record) => record.position,
            Item::Gap { .. } => panic!("{item:?}"),
        });
        positions.collect()
    }

    /// The third commit fails in the operations given; what follows must be in a file of its own.
    fn a_failure_moves_the_log_to_a_new_file(failing: Failing) {
        let filesystem = SimFilesystem::new(3);
        let (mut log, _) = open(&filesystem);
        for _ in 0..2 {
            append(&mut log, 100);
            log.commit().unwrap();
        }
        append(&mut log, 500);
        append(&mut log, 500);
        filesystem.fail(failing);
        let error = log.commit().unwrap_err();
        assert!(
            matches!(&error, LogError::Io { path, .. } if path.ends_with("00000000000000000000.log")),
            "{error}"
        );
        assert_eq!((log.next_position(), log.view().next(), delivered(&log)), (4, 2, vec![0, 1]));
        filesystem.fail(Failing::NEVER);
        assert_eq!(log.commit().unwrap(), 4);
        assert!(filesystem.listing().contains(&"00000000000000000002.log".to_owned()));
        assert_eq!(delivered(&log), [0, 1, 2, 3]);
        drop(log);
        filesystem.crash(Survives::Nothing);
        let (log, recovery) = open(&filesystem);
        assert_eq!((recovery.damaged.len(), recovery.torn), (0, None));
        assert_eq!(delivered(&log), [0, 1, 2, 3]);
    }

    #[test]
    fn a_failed_write_moves_the_log_to_a_new_file() {
        a_failure_moves_the_log_to_a_new_file(Failing { after: 0, count: 1 });
    }

    #[test]
    fn a_failed_sync_moves_the_log_to_a_new_file() {
        a_failure_moves_the_log_to_a_new_file(Failing { after: 1, count: 1 });
    }

    #[test]
    fn a_failed_cut_moves_the_log_to_a_new_file() {
        a_failure_moves_the_log_to_a_new_file(Failing { after: 1, count: 3 });
    }

    #[test]
    fn a_batch_given_up_after_a_failed_cut_does_not_come_back() {
        let filesystem = SimFilesystem::new(3);
        let (mut log, _) = open(&filesystem);
        append(&mut log, 100);
        log.commit().unwrap();
        append(&mut log, 111);
        append(&mut log, 111);
        filesystem.fail(Failing { after: 1, count: 3 });
        log.commit().unwrap_err();
        log.rollback();
        filesystem.fail(Failing::NEVER);
        append(&mut log, 222);
        log.commit().unwrap();
        drop(log);
        // Both records of the first batch are still in the first file.
        filesystem.crash(Survives::Everything);
        let (log, _) = open(&filesystem);
        let items = log.view().reader(0).read(9, 9_999).unwrap();
        assert!(matches!(&items[..], [_, Item::Record(record)] if record.value.len() == 222), "{items:?}");
    }

    #[test]
    fn a_full_disk_leaves_the_log_readable_and_is_over_when_there_is_space() {
        let filesystem = SimFilesystem::new(3);
        let (mut log, _) = open(&filesystem);
        append(&mut log, 100);
        log.commit().unwrap();
        let before = filesystem.listing();
        filesystem.room(150);
        append(&mut log, 500);
        for _ in 0..5 {
            assert!(log.commit().unwrap_err().is_disk_full());
            assert_eq!(delivered(&log), [0]);
        }
        assert!(filesystem.listing().len() <= before.len() + 1, "retrying does not leave files behind");
        filesystem.room(100_000);
        assert_eq!(log.commit().unwrap(), 2);
        assert_eq!(delivered(&log), [0, 1]);
    }

    #[test]
    fn a_log_opens_on_a_full_disk_without_losing_what_it_cannot_copy() {
        let filesystem = SimFilesystem::new(3);
        let (mut log, _) = open(&filesystem);
        append(&mut log, 100);
        log.commit().unwrap();
        append(&mut log, 500);
        append(&mut log, 500);
        filesystem.room(700);
        filesystem.fail(Failing { after: 2, count: u32::MAX });
        log.commit().unwrap_err();
        drop(log);
        filesystem.fail(Failing::NEVER);
        filesystem.room(0);
        for _ in 0..2 {
            let (mut log, recovery) = open(&filesystem);
            let torn = recovery.torn.unwrap();
            assert_eq!((torn.position, torn.copy), (2, None));
            append(&mut log, 10);
            assert!(log.commit().unwrap_err().is_disk_full());
            assert_eq!(delivered(&log), [0, 1], "the record that had got through whole");
        }
        filesystem.room(100_000);
        let (mut log, recovery) = open(&filesystem);
        assert!(recovery.torn.unwrap().copy.is_some());
        append(&mut log, 10);
        log.commit().unwrap();
        assert_eq!(delivered(&log), [0, 1, 2]);
    }

    #[test]
    fn a_segment_that_cannot_be_deleted_stays() {
        let filesystem = SimFilesystem::new(3);
        let (mut log, _) = open(&filesystem);
        append(&mut log, 100);
        log.commit().unwrap();
        log.roll().unwrap();
        filesystem.fail(Failing { after: 0, count: 1 });
        let error = log.truncate_before(1).unwrap_err();
        assert_eq!(error.to_string(), "cannot remove log/00000000000000000000.log");
        assert_eq!(delivered(&log), [0]);
        assert_eq!(log.truncate_before(1).unwrap(), Retained { segments: 1, records: 1, bytes: 172 });
        let items = log.view().reader(0).read(9, 9).unwrap();
        assert_eq!(items, [Item::Gap { from: 0, to: 1, reason: GapReason::Retained }]);
    }

    #[test]
    fn a_large_batch_does_not_cost_memory_for_ever() {
        let filesystem = SimFilesystem::new(3);
        let options = LogOptions { max_record_bytes: 20_000_000, ..LogOptions::new("log") };
        let (mut log, _) = Log::open_on(options, Arc::new(filesystem)).unwrap();
        append(&mut log, 20_000_000);
        log.commit().unwrap();
        assert!(log.batch.bytes.capacity() <= BATCH_KEPT_BYTES);
    }
}
