//! The local log through its public face, on the real file system: positions, limits, retention, and what it says when files are
//! missing, cut or damaged. Power loss is tested in `src/model.rs`, random damage in `damage.rs`.

#![expect(clippy::unwrap_used, reason = "a helper that cannot set up its test should fail it")]

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ocpp_log::{GapReason, Item, Log, LogError, LogOptions, LogView, NewRecord, Recovery};
use tempfile::TempDir;

/// Small segments: four records of [`value`] in each.
fn options(dir: &Path) -> LogOptions {
    LogOptions { segment_bytes: 600, max_record_bytes: 300, ..LogOptions::new(dir.join("log")) }
}

fn open(dir: &Path) -> (Log, Recovery) {
    Log::open(options(dir)).unwrap()
}

fn value(position: u64) -> Vec<u8> {
    format!("{position:0>100}").into_bytes()
}

fn append(log: &mut Log, count: u64) {
    for _ in 0..count {
        let position = log.next_position();
        let entry = NewRecord { kind: 1, time_ms: position * 1_000, key: "CP-1", value: &value(position) };
        assert_eq!(log.append(&entry).unwrap(), position);
        log.commit().unwrap();
    }
}

/// A log of twelve records in three segments.
fn twelve(dir: &Path) -> Vec<PathBuf> {
    append(&mut open(dir).0, 12);
    let paths = segments(dir);
    assert_eq!(paths.len(), 3);
    paths
}

fn segments(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir.join("log")).unwrap().map(|entry| entry.unwrap().path());
    let mut paths: Vec<_> = entries.filter(|path| path.extension().is_some_and(|end| end == "log")).collect();
    paths.sort();
    paths
}

fn copies(dir: &Path) -> Vec<Vec<u8>> {
    let Ok(entries) = fs::read_dir(dir.join("log/damaged")) else { return Vec::new() };
    entries.map(|entry| fs::read(entry.unwrap().path()).unwrap()).collect()
}

/// Everything from a position on: records as their position, gaps as they are.
fn read(view: &LogView, from: u64) -> Vec<Result<u64, (u64, u64, GapReason)>> {
    let items = view.reader(from).read(usize::MAX, usize::MAX).unwrap();
    let told = items.into_iter().map(|item| match item {
        Item::Record(record) => {
            assert_eq!((record.kind, record.time_ms), (1, record.position * 1_000));
            assert_eq!((&*record.key, &*record.value), ("CP-1", &*value(record.position)));
            Ok(record.position)
        }
        Item::Gap { from, to, reason } => Err((from, to, reason)),
    });
    told.collect()
}

fn positions(range: std::ops::Range<u64>) -> Vec<Result<u64, (u64, u64, GapReason)>> {
    range.map(Ok).collect()
}

fn damaged(from: u64, to: u64) -> Vec<Result<u64, (u64, u64, GapReason)>> {
    vec![Err((from, to, GapReason::Damaged))]
}

#[test]
fn nothing_is_visible_before_the_commit() {
    let dir = TempDir::new().unwrap();
    let (mut log, recovery) = open(dir.path());
    assert_eq!(recovery, Recovery::default());
    let view = log.view();
    let mut durable = view.subscribe();
    let mut reader = view.reader(0);
    log.append(&NewRecord { kind: 1, time_ms: 0, key: "CP-1", value: &value(0) }).unwrap();
    assert_eq!((log.next_position(), view.next(), reader.read(9, 9).unwrap()), (1, 0, vec![]));
    assert!(!durable.has_changed().unwrap());
    assert_eq!(log.commit().unwrap(), 1);
    assert!(durable.has_changed().unwrap());
    assert_eq!(*durable.borrow_and_update(), 1);
    assert_eq!((view.next(), reader.read(9, 9).unwrap().len(), reader.position()), (1, 1, 1));
    drop(log);
    assert!(durable.has_changed().is_err(), "subscribers learn that the writer is gone");
    assert_eq!(read(&view, 0), positions(0..1), "readers outlive the writer");
}

#[test]
fn a_rolled_back_batch_leaves_no_trace() {
    let dir = TempDir::new().unwrap();
    let (mut log, _) = open(dir.path());
    append(&mut log, 1);
    log.append(&NewRecord { kind: 9, time_ms: 9, key: "x", value: b"x" }).unwrap();
    log.rollback();
    assert_eq!(log.commit().unwrap(), 1);
    append(&mut log, 1);
    assert_eq!(read(&log.view(), 0), positions(0..2));
}

#[test]
fn positions_go_on_after_reopening() {
    let dir = TempDir::new().unwrap();
    for opened in 0..5 {
        let (mut log, recovery) = open(dir.path());
        assert_eq!((recovery.records, recovery.damaged.len(), recovery.torn), (opened * 3, 0, None));
        assert_eq!((recovery.bytes, recovery.segments), (log.bytes(), segments(dir.path()).len()));
        append(&mut log, 3);
        assert_eq!(read(&log.view(), 0), positions(0..opened * 3 + 3));
    }
    assert_eq!(segments(dir.path()).len(), 4, "reopening does not begin segments");
}

#[test]
fn a_reader_starts_anywhere_and_stops_at_its_limits() {
    let dir = TempDir::new().unwrap();
    let (mut log, _) = open(dir.path());
    append(&mut log, 12);
    let view = log.view();
    for from in 0..=12 {
        assert_eq!(read(&view, from), positions(from..12));
    }
    assert_eq!(view.reader(99).position(), 12, "a cursor from another life is brought back to the end");
    let mut reader = view.reader(2);
    assert_eq!(reader.read(0, 1_000).unwrap(), []);
    assert_eq!(reader.read(5, usize::MAX).unwrap().len(), 5);
    assert_eq!(reader.read(5, 0).unwrap().len(), 1, "a limit of bytes never means nothing");
    assert_eq!(reader.read(9, 200).unwrap().len(), 2);
    assert_eq!(reader.position(), 10);
}

#[test]
fn every_position_of_a_large_segment_is_found() {
    let dir = TempDir::new().unwrap();
    let large = LogOptions::new(dir.path().join("log"));
    let (mut log, _) = Log::open(large.clone()).unwrap();
    for position in 0..3_000 {
        log.append(&NewRecord { kind: 1, time_ms: position * 1_000, key: "CP-1", value: &value(position) })
            .unwrap();
        if position % 500 == 499 {
            log.commit().unwrap();
        }
    }
    let find_all = |view: &LogView| {
        for from in 0..3_000 {
            let items = view.reader(from).read(1, 1).unwrap();
            assert!(
                matches!(&items[..], [Item::Record(record)] if record.position == from),
                "{from}: {items:?}"
            );
        }
    };
    // The index comes from the writer, from opening, or (in a segment that is not the newest) from earlier readers.
    find_all(&log.view());
    drop(log);
    let (mut log, _) = Log::open(large.clone()).unwrap();
    find_all(&log.view());
    log.roll().unwrap();
    drop(log);
    let (log, _) = Log::open(large).unwrap();
    let view = log.view();
    find_all(&view);
    find_all(&view);
}

#[test]
fn a_batch_is_never_split() {
    let dir = TempDir::new().unwrap();
    let (mut log, _) = open(dir.path());
    append(&mut log, 3);
    for _ in 0..3 {
        let position = log.next_position();
        log.append(&NewRecord { kind: 1, time_ms: position * 1_000, key: "CP-1", value: &value(position) })
            .unwrap();
    }
    log.commit().unwrap();
    assert_eq!(segments(dir.path())[1], dir.path().join("log/00000000000000000003.log"));
    assert!(segments(dir.path()).iter().all(|path| fs::metadata(path).unwrap().len() <= 600));
    assert_eq!(read(&log.view(), 0), positions(0..6));
    for position in 6..16 {
        log.append(&NewRecord { kind: 1, time_ms: position * 1_000, key: "CP-1", value: &value(position) })
            .unwrap();
    }
    log.commit().unwrap();
    append(&mut log, 1);
    let larger = &segments(dir.path())[2..];
    let bases = larger.iter().map(|path| path.file_stem().unwrap().to_str().unwrap());
    assert_eq!(bases.collect::<Vec<_>>(), ["00000000000000000006", "00000000000000000016"]);
    assert_eq!(read(&log.view(), 0), positions(0..17));
}

#[test]
fn what_does_not_fit_is_refused_and_changes_nothing() {
    let dir = TempDir::new().unwrap();
    let (mut log, _) = open(dir.path());
    let entry = NewRecord { kind: 1, time_ms: 0, key: "CP-1", value: &[0; 297] };
    assert!(matches!(log.append(&entry), Err(LogError::RecordTooLarge { bytes: 301, limit: 300 })));
    let entry = NewRecord { value: &[0; 200], ..entry };
    log.append(&entry).unwrap();
    assert_eq!((log.next_position(), log.commit().unwrap()), (1, 1));

    let roomy = LogOptions { dir: dir.path().join("roomy"), ..LogOptions::new("") };
    let (mut log, _) = Log::open(roomy).unwrap();
    let key = "k".repeat(65_536);
    assert!(matches!(
        log.append(&NewRecord { key: &key, ..entry }),
        Err(LogError::KeyTooLong { bytes: 65_536 })
    ));
    log.append(&NewRecord { key: &key[1..], value: &[], ..entry }).unwrap();
    assert_eq!(log.commit().unwrap(), 1);
    let items = log.view().reader(0).read(1, 1).unwrap();
    assert!(
        matches!(&items[..], [Item::Record(record)] if record.key.len() == 65_535 && record.value.is_empty())
    );
}

#[test]
fn impossible_options_are_refused() {
    let dir = TempDir::new().unwrap();
    let error = Log::open(LogOptions { segment_bytes: 371, ..options(dir.path()) }).unwrap_err();
    assert!(matches!(error, LogError::Options(_)));
    assert!(error.to_string().contains("371") && error.to_string().contains("372"), "{error}");
    assert!(!dir.path().join("log").exists());
}

#[test]
fn there_is_one_writer() {
    let dir = TempDir::new().unwrap();
    let (log, _) = open(dir.path());
    let error = Log::open(options(dir.path())).unwrap_err();
    assert!(matches!(&error, LogError::Locked { path } if path.ends_with("log/lock")), "{error}");
    let view = log.view();
    drop(log);
    open(dir.path());
    assert_eq!(view.next(), 0);
}

#[test]
fn retention_by_size_deletes_the_oldest_segments() {
    let dir = TempDir::new().unwrap();
    let (mut log, _) = Log::open(LogOptions { max_bytes: 1_200, ..options(dir.path()) }).unwrap();
    append(&mut log, 12);
    let view = log.view();
    let mut begun = view.reader(0);
    assert_eq!(begun.read(1, 1).unwrap().len(), 1);
    assert!(log.bytes() > 1_200);
    let deleted = log.retain(0).unwrap();
    assert_eq!((deleted.segments, deleted.records), (1, 4));
    assert_eq!((view.oldest(), view.bytes()), (4, log.bytes()));
    assert!(log.bytes() <= 1_200);
    assert_eq!(segments(dir.path()).len(), 2);

    let mut expected = vec![Err((0, 4, GapReason::Retained))];
    expected.extend(positions(4..12));
    assert_eq!(read(&view, 0), expected);
    assert_eq!(read(&view, 2)[0], Err((2, 4, GapReason::Retained)));
    let rest = begun.read(99, usize::MAX).unwrap();
    assert_eq!(rest.len(), 11, "a reader finishes the segment it has begun");

    drop(log);
    let (log, recovery) = open(dir.path());
    assert_eq!((recovery.records, log.oldest_position(), log.next_position()), (8, 4, 12));
}

#[test]
fn retention_by_age_asks_for_the_newest_record_of_a_segment() {
    let dir = TempDir::new().unwrap();
    let aged = LogOptions { max_age: Some(Duration::from_secs(10)), ..options(dir.path()) };
    append(&mut Log::open(aged.clone()).unwrap().0, 12);
    // The times must be known after reopening too: records 3 and 7 are the newest of their segments.
    let (mut log, _) = Log::open(aged.clone()).unwrap();
    assert_eq!(log.retain(13_000).unwrap().segments, 0);
    assert_eq!(log.retain(13_001).unwrap().segments, 1);
    assert_eq!(log.retain(17_000).unwrap().segments, 0);
    assert_eq!(log.retain(u64::MAX).unwrap().segments, 1);
    assert_eq!(log.retain(u64::MAX).unwrap().segments, 0, "the newest segment stays");
    assert_eq!(read(&log.view(), 8), positions(8..12));
}

#[test]
fn a_drained_log_keeps_its_position() {
    let dir = TempDir::new().unwrap();
    let (mut log, _) = open(dir.path());
    log.roll().unwrap();
    append(&mut log, 10);
    assert_eq!(log.truncate_before(7).unwrap().segments, 1);
    assert_eq!(log.oldest_position(), 4);
    log.append(&NewRecord { kind: 1, time_ms: 10_000, key: "CP-1", value: &value(10) }).unwrap();
    log.roll().unwrap();
    log.roll().unwrap();
    assert_eq!(log.truncate_before(10).unwrap().segments, 2);
    assert_eq!((log.oldest_position(), log.view().next(), log.next_position()), (10, 10, 11));
    assert_eq!(log.bytes(), 40, "one header");
    log.commit().unwrap();
    assert_eq!(read(&log.view(), 10), positions(10..11));
    log.roll().unwrap();
    log.truncate_before(u64::MAX).unwrap();
    drop(log);
    let (mut log, recovery) = open(dir.path());
    assert_eq!((recovery.records, log.next_position()), (0, 11));
    append(&mut log, 2);
    assert_eq!(read(&log.view(), 11), positions(11..13));
}

#[test]
fn a_torn_tail_is_cut_copied_and_reported_once() {
    let dir = TempDir::new().unwrap();
    let paths = twelve(dir.path());
    let whole = fs::read(&paths[2]).unwrap();
    for cut in [1, 31, 32, 33, 100, 135] {
        fs::write(&paths[2], &whole[..whole.len() - cut]).unwrap();
        let (log, recovery) = open(dir.path());
        let torn = recovery.torn.unwrap();
        assert_eq!((torn.position, torn.bytes, recovery.records), (11, 136 - cut as u64, 11));
        assert_eq!(fs::read(torn.copy.unwrap()).unwrap(), &whole[whole.len() - 136..whole.len() - cut]);
        assert_eq!(fs::read(&paths[2]).unwrap(), &whole[..whole.len() - 136]);
        assert_eq!(read(&log.view(), 0), positions(0..11));
        drop(log);
        assert_eq!(open(dir.path()).1.torn, None);
    }
    append(&mut open(dir.path()).0, 1);
    assert_eq!(read(&open(dir.path()).0.view(), 0), positions(0..12));
}

#[test]
fn damage_in_an_old_segment_costs_one_record() {
    let dir = TempDir::new().unwrap();
    let paths = twelve(dir.path());
    let mut bytes = fs::read(&paths[1]).unwrap();
    // The length of record 5, the second one of the segment.
    bytes[40 + 136 + 10] ^= 0x40;
    fs::write(&paths[1], &bytes).unwrap();
    let (log, recovery) = open(dir.path());
    assert_eq!(recovery.damaged, [], "opening reads the newest segment only");
    let expected = [positions(0..5), damaged(5, 6), positions(6..12)].concat();
    assert_eq!(read(&log.view(), 0), expected);
    assert_eq!(read(&log.view(), 5), expected[5..]);
    assert_eq!(copies(dir.path()), [&bytes[40 + 136..40 + 272]]);
}

#[test]
fn damage_in_the_newest_segment_is_reported_when_opening() {
    let dir = TempDir::new().unwrap();
    let paths = twelve(dir.path());
    let mut bytes = fs::read(&paths[2]).unwrap();
    bytes[40 + 136 + 90] ^= 1;
    bytes[40 + 272 + 90] ^= 1;
    fs::write(&paths[2], &bytes).unwrap();
    let (mut log, recovery) = open(dir.path());
    let [damage] = &recovery.damaged[..] else { panic!("{recovery:?}") };
    assert_eq!((damage.from, damage.to, damage.offset, damage.bytes), (9, 11, 40 + 136, 272));
    assert_eq!((recovery.records, recovery.torn), (10, None));
    assert_eq!(copies(dir.path()), [&bytes[40 + 136..40 + 136 * 3]]);
    append(&mut log, 1);
    assert_eq!(segments(dir.path()).len(), 4, "a damaged file is not written to");
    assert_eq!(read(&log.view(), 0), [positions(0..9), damaged(9, 11), positions(11..13)].concat());
}

#[test]
fn records_survive_the_loss_of_their_header() {
    let dir = TempDir::new().unwrap();
    let paths = twelve(dir.path());
    for path in &paths {
        let mut bytes = fs::read(path).unwrap();
        bytes[..40].fill(0xFF);
        fs::write(path, &bytes).unwrap();
    }
    let (mut log, recovery) = open(dir.path());
    assert_eq!(recovery.damaged.len(), 3);
    assert!(recovery.damaged.iter().all(|damage| damage.from == damage.to && damage.bytes == 40));
    assert_eq!((recovery.records, recovery.torn), (12, None));
    append(&mut log, 1);
    assert_eq!(read(&log.view(), 0), positions(0..13));
}

#[test]
fn missing_empty_and_cut_segments_are_gaps() {
    let dir = TempDir::new().unwrap();
    let cut = |path: &Path, size| fs::File::options().write(true).open(path).unwrap().set_len(size).unwrap();
    let paths = twelve(dir.path());
    let whole = fs::read(&paths[1]).unwrap();
    // `None` is a missing file, 20 is half a header, 226 is one record and a half.
    let losses = [
        (None, damaged(4, 8)),
        (Some(0), damaged(4, 8)),
        (Some(20), damaged(4, 8)),
        (Some(226), [positions(4..5), damaged(5, 8)].concat()),
    ];
    for (size, middle) in losses {
        fs::write(&paths[1], &whole).unwrap();
        match size {
            None => fs::remove_file(&paths[1]).unwrap(),
            Some(size) => cut(&paths[1], size),
        }
        let (log, _) = open(dir.path());
        assert_eq!(read(&log.view(), 0), [positions(0..4), middle, positions(8..12)].concat());
    }
}

#[test]
fn a_segment_that_disappears_while_the_log_is_open_is_a_gap() {
    let dir = TempDir::new().unwrap();
    let (mut log, _) = open(dir.path());
    append(&mut log, 12);
    fs::remove_file(&segments(dir.path())[1]).unwrap();
    assert_eq!(read(&log.view(), 0), [positions(0..4), damaged(4, 8), positions(8..12)].concat());
}

#[test]
fn an_empty_newest_segment_still_says_where_the_log_goes_on() {
    let dir = TempDir::new().unwrap();
    let paths = twelve(dir.path());
    fs::write(&paths[2], []).unwrap();
    let (mut log, recovery) = open(dir.path());
    assert_eq!((log.next_position(), recovery.damaged.len()), (8, 1));
    append(&mut log, 1);
    drop(log);
    let (log, recovery) = open(dir.path());
    assert_eq!(recovery.damaged, []);
    assert_eq!(read(&log.view(), 0), positions(0..9));
}

#[test]
fn a_later_format_is_refused() {
    let dir = TempDir::new().unwrap();
    let paths = twelve(dir.path());
    let mut bytes = fs::read(&paths[0]).unwrap();
    bytes[12] = 2;
    let crc = crc32fast::hash(&bytes[12..40]);
    bytes[8..12].copy_from_slice(&crc.to_le_bytes());
    fs::write(&paths[0], bytes).unwrap();
    let error = Log::open(options(dir.path())).unwrap_err();
    assert!(matches!(&error, LogError::Version { path, found: 2, known: 1 } if *path == paths[0]), "{error}");
}

#[test]
fn foreign_and_unfinished_files_are_left_alone() {
    let dir = TempDir::new().unwrap();
    twelve(dir.path());
    fs::write(dir.path().join("log/README"), "hello").unwrap();
    fs::write(dir.path().join("log/segment.tmp"), "half a header").unwrap();
    let (mut log, recovery) = open(dir.path());
    assert_eq!(recovery.segments, 3);
    append(&mut log, 1);
    assert_eq!(read(&log.view(), 0), positions(0..13));
    assert_eq!(fs::read(dir.path().join("log/README")).unwrap(), b"hello");
}

#[test]
fn errors_say_what_and_where() {
    let dir = TempDir::new().unwrap();
    fs::write(dir.path().join("log"), "a file").unwrap();
    let error = Log::open(options(dir.path())).unwrap_err();
    assert_eq!(error.to_string(), format!("cannot create {}", dir.path().join("log").display()));
    assert!(std::error::Error::source(&error).is_some() && !error.is_disk_full());
}

#[test]
fn a_payload_cannot_imitate_a_record() {
    let dir = TempDir::new().unwrap();
    // A whole segment as a payload, its records at positions that would fit.
    let forged = TempDir::new().unwrap();
    twelve(forged.path());
    let payload = fs::read(&segments(forged.path())[0]).unwrap();
    let roomy = LogOptions { segment_bytes: 4_096, max_record_bytes: 2_048, ..options(dir.path()) };
    let (mut log, _) = Log::open(roomy).unwrap();
    log.append(&NewRecord { kind: 1, time_ms: 0, key: "CP-1", value: &payload }).unwrap();
    log.commit().unwrap();
    while log.next_position() < 6 {
        append(&mut log, 1);
    }
    let path = &segments(dir.path())[0];
    let mut bytes = fs::read(path).unwrap();
    bytes[40 + 8] ^= 1;
    fs::write(path, bytes).unwrap();
    assert_eq!(read(&log.view(), 0), [damaged(0, 1), positions(1..6)].concat());
}

#[test]
fn readers_and_writer_do_not_disturb_each_other() {
    let dir = TempDir::new().unwrap();
    let (mut log, _) = Log::open(LogOptions { max_bytes: 20_000, ..options(dir.path()) }).unwrap();
    let view = log.view();
    let total = 900;
    std::thread::scope(|scope| {
        for limit in [1, 7, 1_000] {
            let mut reader = view.reader(0);
            scope.spawn(move || {
                while reader.position() < total {
                    let mut expected = reader.position();
                    for item in reader.read(limit, 4_000).unwrap() {
                        expected = match item {
                            Item::Record(record) => {
                                assert_eq!((record.position, &*record.value), (expected, &*value(expected)));
                                expected + 1
                            }
                            Item::Gap { from, to, reason } => {
                                assert_eq!((from, reason), (expected, GapReason::Retained));
                                to
                            }
                        };
                    }
                    assert_eq!(reader.position(), expected);
                }
            });
        }
        for _ in 0..total / 3 {
            append(&mut log, 3);
            log.retain(0).unwrap();
        }
    });
    assert!(log.oldest_position() > 600);
}
