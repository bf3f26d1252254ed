//! A local bus and a journal from a publisher's side: durable in order, bounded, flushed at the end, compacted.

#![allow(clippy::unwrap_used)]

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use ocpp_bus::metrics::BusMetrics;
use ocpp_bus::queue::QueueLimits;
use ocpp_bus::{
    Bus, Journal, JournalOptions, LocalOptions, Record, RecordKind, Registrar, Snapshot, open_log,
};
use ocpp_log::{Item, Log, LogOptions};

fn record(key: &str, value: String) -> Record {
    Record { kind: RecordKind(0), time_ms: 1, key: key.into(), value: Bytes::from(value) }
}

fn metrics() -> BusMetrics {
    BusMetrics::register(&Registrar::default(), "events").unwrap()
}

fn open(dir: &Path, metrics: &BusMetrics) -> Log {
    let options =
        LogOptions { segment_bytes: 64 * 1024, max_record_bytes: 32 * 1024, ..LogOptions::new(dir) };
    open_log(options, metrics).unwrap()
}

fn start(dir: &Path, limits: QueueLimits) -> Bus {
    let metrics = metrics();
    let options = LocalOptions { limits, linger: Duration::ZERO, dead_letter_dir: dir.join("undelivered") };
    Bus::start_local(open(dir, &metrics), options, &metrics).unwrap()
}

fn stored(dir: &Path) -> Vec<(String, String)> {
    let log = open_log(LogOptions::new(dir), &metrics()).unwrap();
    let mut reader = log.view().reader(log.oldest_position());
    let mut records = Vec::new();
    loop {
        let items = reader.read(1000, 1 << 20).unwrap();
        if items.is_empty() {
            return records;
        }
        for item in items {
            match item {
                Item::Record(record) => {
                    let value = String::from_utf8(record.value.to_vec()).unwrap();
                    records.push((record.key.into(), value));
                }
                Item::Gap { .. } => panic!("a gap"),
            }
        }
    }
}

const LIMITS: QueueLimits = QueueLimits { records: 1000, bytes: 1 << 20 };

#[tokio::test]
async fn what_a_lane_calls_durable_is_in_the_log_in_its_order() {
    let dir = tempfile::tempdir().unwrap();
    let bus = start(dir.path(), LIMITS);
    let tasks: Vec<_> = (0..8)
        .map(|station| {
            let bus = bus.clone();
            async move {
                let mut publisher = bus.publisher();
                let watermark = publisher.watermark();
                for number in 1..=500_u64 {
                    let sequence =
                        publisher.publish(record(&format!("CP-{station}"), number.to_string())).await;
                    assert_eq!(sequence, number);
                    if number % 50 == 0 {
                        watermark.wait(sequence).await;
                    }
                }
                watermark.wait(500).await;
            }
        })
        .collect();
    futures_util::future::join_all(tasks).await;
    assert_eq!(bus.close(Instant::now() + Duration::from_secs(5)), 0);
    drop(bus);
    let mut by_station: HashMap<String, Vec<u64>> = HashMap::new();
    for (key, value) in stored(dir.path()) {
        by_station.entry(key).or_default().push(value.parse().unwrap());
    }
    assert_eq!(by_station.len(), 8);
    for numbers in by_station.values() {
        assert_eq!(*numbers, (1..=500).collect::<Vec<_>>());
    }
}

#[tokio::test]
async fn a_full_queue_returns_the_record_and_room_can_be_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    let bus = start(dir.path(), QueueLimits { records: 1000, bytes: 10_000 });
    let mut publisher = bus.publisher();
    let big = || record("CP-1", "x".repeat(4000));
    let mut refused = 0;
    for _ in 0..200 {
        let mut next = big();
        while let Err(back) = publisher.try_publish(next) {
            assert_eq!(back.value.len(), 4000, "nothing of it is lost");
            refused += 1;
            publisher.reserve(back.cost()).await;
            next = back;
        }
    }
    assert!(refused > 0, "two fit at once, two hundred were offered");
    assert!(bus.status().health().in_flight_bytes <= 10_000);
    publisher.watermark().wait(200).await;
    // A record above the whole limit goes through alone rather than never.
    let sequence = publisher.publish(record("CP-1", "y".repeat(20_000))).await;
    publisher.watermark().wait(sequence).await;
}

#[tokio::test]
async fn a_record_that_the_log_can_never_take_becomes_a_dead_letter_and_the_others_go_on() {
    let dir = tempfile::tempdir().unwrap();
    let bus = start(dir.path(), LIMITS);
    let mut publisher = bus.publisher();
    publisher.publish(record("CP-1", "before".into())).await;
    publisher.publish(record("CP-1", format!("\"{}\"", "x".repeat(40_000)))).await;
    let last = publisher.publish(record("CP-1", "after".into())).await;
    tokio::time::timeout(Duration::from_secs(5), publisher.watermark().wait(last)).await.unwrap();
    assert_eq!(bus.close(Instant::now() + Duration::from_secs(5)), 0);
    drop((publisher, bus));
    let values: Vec<String> = stored(dir.path()).into_iter().map(|(_, value)| value).collect();
    assert_eq!(values, ["before", "after"]);
    let file = std::fs::read_dir(dir.path().join("undelivered")).unwrap().next().unwrap().unwrap().path();
    assert!(std::fs::read_to_string(file).unwrap().contains("xxxx"));
}

#[tokio::test]
async fn closing_makes_everything_accepted_durable() {
    let dir = tempfile::tempdir().unwrap();
    let bus = start(dir.path(), LIMITS);
    let mut publisher = bus.publisher();
    for number in 0..900 {
        publisher.try_publish(record("CP-1", number.to_string())).unwrap();
    }
    assert_eq!(bus.close(Instant::now() + Duration::from_secs(5)), 0);
    assert_eq!(publisher.watermark().reached(), 900);
    drop((publisher, bus));
    assert_eq!(stored(dir.path()).len(), 900);
}

/// The newest value of every key, as a journal's owner keeps it.
#[derive(Default)]
struct Latest(Mutex<HashMap<String, String>>);

impl Snapshot for Latest {
    fn records(&self) -> Vec<Record> {
        self.0.lock().unwrap().iter().map(|(key, value)| record(key, value.clone())).collect()
    }
}

#[tokio::test]
async fn a_journal_is_compacted_and_keeps_the_newest_of_every_key() {
    let dir = tempfile::tempdir().unwrap();
    let latest = Arc::new(Latest::default());
    let snapshot: Arc<dyn Snapshot> = Arc::clone(&latest) as Arc<dyn Snapshot>;
    let options = JournalOptions {
        limits: LIMITS,
        linger: Duration::ZERO,
        compact_above_bytes: 256 * 1024,
        dead_letter_dir: dir.path().join("undelivered"),
    };
    let metrics = metrics();
    let journal = Journal::start(open(dir.path(), &metrics), snapshot, options, &metrics).unwrap();
    let mut publisher = journal.publisher();
    let started = Instant::now();
    let mut number = 0_u64;
    let mut largest = 0;
    // Until it was compacted: the log is smaller than it has been.
    loop {
        for _ in 0..200 {
            number += 1;
            let (key, value) = (format!("CP-{}", number % 10), format!("{number:0200}"));
            latest.0.lock().unwrap().insert(key.clone(), value.clone());
            publisher.publish(record(&key, value)).await;
        }
        publisher.watermark().wait(publisher.published()).await;
        let bytes: u64 = std::fs::read_dir(dir.path())
            .unwrap()
            .filter_map(|entry| Some(entry.ok()?.metadata().ok()?.len()))
            .sum();
        if bytes < largest / 2 {
            break;
        }
        largest = largest.max(bytes);
        assert!(started.elapsed() < Duration::from_secs(30), "never compacted at {bytes} bytes");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(journal.close(Instant::now() + Duration::from_secs(5)), 0);
    drop((publisher, journal));
    let mut newest: HashMap<String, String> = HashMap::new();
    for (key, value) in stored(dir.path()) {
        newest.entry(key).and_modify(|known| *known = value.clone().max(known.clone())).or_insert(value);
    }
    assert_eq!(newest, *latest.0.lock().unwrap());
}
