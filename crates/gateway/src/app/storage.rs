//! What is opened before anybody connects: the bus, the journal of the stations, the command store.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use ocpp_bus::metrics::BusMetrics;
use ocpp_bus::queue::QueueLimits;
use ocpp_bus::{Bus, Journal, JournalOptions, LocalOptions, Record, Snapshot, StartError, open_log};
use ocpp_commands::CommandStore;
use ocpp_commands::store::Unfinished;
use ocpp_log::LogOptions;
use ocpp_station::TransactionIds;

use super::derived::{command_limits, kafka_options};
use crate::bus_options::BusKind;
use crate::config::Config;
use crate::kinds;
use crate::open_sessions::{OpenSessions, Replay};
use crate::stations::Stations;

/// Changes of stations' states, or of commands, that may wait for the journal.
const JOURNAL_LIMITS: QueueLimits = QueueLimits { records: 10_000, bytes: 64 << 20 };
/// A journal is compacted above this size.
const JOURNAL_COMPACT_ABOVE: u64 = 32 << 20;
/// One station's state is far smaller than this.
const JOURNAL_MAX_RECORD: u32 = 64 * 1024;
/// Commits of the stations' journal keep this distance, so that thousands of boots at once share their syncs.
const JOURNAL_LINGER: Duration = Duration::from_millis(1);

/// The bus that the configuration asks for.
///
/// # Errors
/// When the log cannot be opened or the Kafka client refuses its options.
pub fn start_bus(config: &Config, metrics: BusMetrics) -> Result<Bus, StartError> {
    let limits = QueueLimits {
        records: config.bus.queue_events,
        bytes: u32::try_from(config.bus.queue_bytes.as_u64()).unwrap_or(u32::MAX),
    };
    match config.bus.kind {
        BusKind::Kafka => Bus::start_kafka(kafka_options(config), limits, &metrics),
        BusKind::Local => {
            let local = &config.bus.local;
            let options = LogOptions {
                dir: config.events_dir(),
                segment_bytes: local.segment_size.as_u64(),
                max_bytes: local.max_size.as_u64(),
                max_age: Some(local.max_age).filter(|age| !age.is_zero()),
                max_record_bytes: u32::try_from(config.session.max_event_bytes()).unwrap_or(u32::MAX),
            };
            let log = open_log(options, &metrics)?;
            let options =
                LocalOptions { limits, linger: local.linger, dead_letter_dir: config.node.dead_letter_dir() };
            Bus::start_local(log, options, &metrics)
        }
    }
}

/// What the stations' journal keeps.
struct Kept {
    stations: Arc<Stations>,
    sessions: Arc<OpenSessions>,
}

impl Snapshot for Kept {
    fn records(&self) -> Vec<Record> {
        let mut records = self.stations.records();
        records.extend(self.sessions.records());
        records
    }
}

/// The journal of the stations' states and sessions, and what it says.
///
/// # Errors
/// When the log cannot be opened or read.
pub(super) fn start_journal(
    config: &Config,
    metrics: BusMetrics,
) -> Result<(Journal, Arc<Stations>, Arc<OpenSessions>), StartError> {
    let options = LogOptions {
        dir: config.node.stations_dir(),
        segment_bytes: 8 << 20,
        max_bytes: 0,
        max_age: None,
        max_record_bytes: JOURNAL_MAX_RECORD,
    };
    let log = open_log(options, &metrics)?;
    let ids = TransactionIds::of_node(config.node.number, config.node.count);
    let (stations, mut sessions) = (Arc::new(Stations::new(ids)), Replay::default());
    ocpp_bus::replay(&log.view(), "states of stations", |record| {
        if record.kind == kinds::STATION_STATE.0 {
            stations.restore(&record.value);
        }
        sessions.take(record);
    })?;
    stations.restored();
    let sessions = Arc::new(sessions.finish(SystemTime::now()));
    let options = JournalOptions {
        limits: JOURNAL_LIMITS,
        linger: JOURNAL_LINGER,
        compact_above_bytes: JOURNAL_COMPACT_ABOVE,
        dead_letter_dir: config.node.dead_letter_dir(),
    };
    let kept = Kept { stations: Arc::clone(&stations), sessions: Arc::clone(&sessions) };
    Ok((Journal::start(log, Arc::new(kept), options, &metrics)?, stations, sessions))
}

/// The journal of the command store, what it says, and what is to be finished now.
///
/// # Errors
/// When the log cannot be opened or read.
pub(super) fn start_commands(
    config: &Config,
    metrics: BusMetrics,
) -> Result<(Journal, Arc<CommandStore>, Vec<Unfinished>), StartError> {
    // A command's payload or the event of its outcome, with what the store says beside it.
    let max_record_bytes =
        u32::try_from(config.session.max_event_bytes()).unwrap_or(u32::MAX).saturating_add(8192);
    let options = LogOptions {
        dir: config.node.commands_dir(),
        segment_bytes: (16 << 20).max(2 * u64::from(max_record_bytes)),
        max_bytes: 0,
        max_age: None,
        max_record_bytes,
    };
    let log = open_log(options, &metrics)?;
    let (store, unfinished) = CommandStore::replay(&log.view(), command_limits(config))?;
    let store = Arc::new(store);
    let limits =
        QueueLimits { bytes: JOURNAL_LIMITS.bytes.max(max_record_bytes.saturating_mul(2)), ..JOURNAL_LIMITS };
    let options = JournalOptions {
        limits,
        linger: Duration::ZERO,
        compact_above_bytes: JOURNAL_COMPACT_ABOVE,
        dead_letter_dir: config.node.dead_letter_dir(),
    };
    let snapshot = Arc::clone(&store) as Arc<dyn Snapshot>;
    Ok((Journal::start(log, snapshot, options, &metrics)?, store, unfinished))
}
