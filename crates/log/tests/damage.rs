//! The local log after the disk has damaged it, at random: what was not damaged is delivered, what was is reported, nothing panics.

#![expect(clippy::unwrap_used, reason = "a helper that cannot set up its test should fail it")]

use std::ffi::OsString;
use std::fs;
use std::ops::Range;
use std::sync::LazyLock;

use ocpp_log::{GapReason, Item, Log, LogOptions, NewRecord};
use proptest::prelude::*;
use tempfile::TempDir;

const RECORDS: u64 = 60;
const HEADER_BYTES: u64 = 40;
const RECORD_HEADER_BYTES: u64 = 32;

/// One thing that happens to a file. Places are fractions of its length.
#[derive(Debug, Clone)]
enum Damage {
    Flip { at: f64, bit: u8 },
    Overwrite { at: f64, length: u64, with: u8 },
    Truncate { at: f64 },
}

fn damage() -> impl Strategy<Value = Damage> {
    prop_oneof![
        4 => (0.0..1.0, 0_u8..8).prop_map(|(at, bit)| Damage::Flip { at, bit }),
        2 => (0.0..1.0, 1_u64..400, any::<u8>())
            .prop_map(|(at, length, with)| Damage::Overwrite { at, length, with }),
        1 => (0.0..1.0).prop_map(|at| Damage::Truncate { at }),
    ]
}

/// A segment file and where its records are.
struct Segment {
    name: OsString,
    records: Vec<(u64, Range<u64>)>,
    bytes: Vec<u8>,
}

fn value(position: u64) -> Vec<u8> {
    vec![b'a' + (position % 26) as u8; (position * 37 % 300) as usize]
}

fn options(dir: &TempDir) -> LogOptions {
    LogOptions { segment_bytes: 3_000, max_record_bytes: 400, ..LogOptions::new(dir.path()) }
}

/// The log that is damaged, written once.
static WRITTEN: LazyLock<Vec<Segment>> = LazyLock::new(written);

/// Writes a log and works out from the documented format what is where.
fn written() -> Vec<Segment> {
    let dir = TempDir::new().unwrap();
    let (mut log, _) = Log::open(options(&dir)).unwrap();
    for position in 0..RECORDS {
        log.append(&NewRecord { kind: 7, time_ms: position, key: "CP-1", value: &value(position) }).unwrap();
        if position % 3 == 2 {
            log.commit().unwrap();
        }
    }
    drop(log);
    let mut paths: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|end| end == "log"));
    paths.sort();
    let mut position = 0;
    let segments = paths.into_iter().map(|path| {
        let bytes = fs::read(&path).unwrap();
        let (mut at, mut records) = (HEADER_BYTES, Vec::new());
        while at < bytes.len() as u64 {
            let length = RECORD_HEADER_BYTES + 4 + value(position).len() as u64;
            records.push((position, at..at + length));
            (at, position) = (at + length, position + 1);
        }
        Segment { name: path.file_name().unwrap().to_owned(), records, bytes }
    });
    let segments: Vec<_> = segments.collect();
    assert!(segments.len() >= 4 && position == RECORDS);
    segments
}

/// Damages the file; afterwards a record is intact if its bytes are what they were.
fn inflict(bytes: &mut Vec<u8>, damage: &Damage) {
    let place = |at: f64| (bytes.len() as f64 * at) as usize;
    match *damage {
        Damage::Flip { at, bit } => {
            let at = place(at);
            if let Some(byte) = bytes.get_mut(at) {
                *byte ^= 1 << bit;
            }
        }
        Damage::Overwrite { at, length, with } => {
            let from = place(at);
            let to = bytes.len().min(from + length as usize);
            bytes[from..to].fill(with);
        }
        Damage::Truncate { at } => {
            let at = place(at);
            bytes.truncate(at);
        }
    }
}

proptest! {
    #[test]
    fn what_is_intact_is_delivered_and_the_rest_reported(
        damages in prop::collection::vec((any::<prop::sample::Index>(), damage()), 1..4)
    ) {
        let dir = TempDir::new().unwrap();
        let segments = &*WRITTEN;
        let mut files: Vec<_> = segments.iter().map(|segment| segment.bytes.clone()).collect();
        for (index, damage) in &damages {
            inflict(&mut files[index.index(segments.len())], damage);
        }
        let mut intact = Vec::new();
        for (segment, bytes) in segments.iter().zip(&files) {
            fs::write(dir.path().join(&segment.name), bytes).unwrap();
            let same = |range: &Range<u64>| {
                let range = range.start as usize..range.end as usize;
                bytes.get(range.clone()) == segment.bytes.get(range)
            };
            intact.extend(segment.records.iter().filter(|(_, range)| same(range)).map(|(position, _)| *position));
        }

        let (mut log, recovery) = Log::open(options(&dir)).unwrap();
        let items = log.view().reader(0).read(usize::MAX, usize::MAX).unwrap();
        let (mut expected, mut delivered) = (0, Vec::new());
        for item in items {
            match item {
                Item::Record(record) => {
                    prop_assert_eq!(record.position, expected);
                    prop_assert_eq!(&*record.value, &*value(expected));
                    delivered.push(expected);
                    expected += 1;
                }
                Item::Gap { from, to, reason } => {
                    prop_assert_eq!((from, reason), (expected, GapReason::Damaged));
                    prop_assert!((from..to).all(|position| !intact.contains(&position)));
                    expected = to;
                }
            }
        }
        prop_assert_eq!(&delivered, &intact);
        prop_assert_eq!(expected, log.next_position());
        if expected < RECORDS && !damages.iter().any(|(_, damage)| matches!(damage, Damage::Truncate { .. })) {
            prop_assert!(recovery.torn.is_some(), "records are missing at the end");
        }

        // And the log goes on.
        let position = log.append(&NewRecord { kind: 7, time_ms: 0, key: "CP-1", value: b"next" }).unwrap();
        log.commit().unwrap();
        prop_assert_eq!(position, expected);
        drop(log);
        let (log, _) = Log::open(options(&dir)).unwrap();
        let last = log.view().reader(position).read(9, 99).unwrap();
        prop_assert!(matches!(&last[..], [Item::Record(record)] if &*record.value == b"next"));
    }
}
