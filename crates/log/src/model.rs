//! The log against a model, under crashes, failing operations and a full disk. For tests.
//!
//! The promise checked after every step: each record that a commit answered for is delivered once, in its place, with its content,
//! until it is deleted. A record that was appended but never answered for may turn up after a crash; once a reader could see it, it
//! is held to the same promise.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::*;

use super::sim::{Failing, SimFilesystem, Survives};
use super::{GapReason, Item, Log, LogOptions, NewRecord, Record, Recovery, Retained};

const SEGMENT_BYTES: u64 = 700;
const MAX_BYTES: u64 = 2_500;
const MAX_AGE: Duration = Duration::from_millis(60);

#[derive(Debug, Clone)]
enum Action {
    Append { length: usize },
    Commit,
    Rollback,
    Reopen,
    Crash(Survives),
    Fail(Failing),
    Room(u64),
    Retain { behind: u64 },
    TruncateBefore { back: u64 },
    Roll,
    Read { back: u64, records: usize, bytes: usize },
}

fn action() -> impl Strategy<Value = Action> {
    prop_oneof![
        12 => (0_usize..180).prop_map(|length| Action::Append { length }),
        8 => Just(Action::Commit),
        2 => Just(Action::Rollback),
        1 => Just(Action::Reopen),
        3 => prop_oneof![
            Just(Survives::Nothing),
            Just(Survives::Pieces),
            Just(Survives::Everything)
        ].prop_map(Action::Crash),
        4 => (0_u32..9, prop_oneof![Just(1), 2_u32..4, Just(u32::MAX)])
            .prop_map(|(after, count)| Action::Fail(Failing { after, count })),
        2 => prop_oneof![0_u64..300, Just(1 << 40)].prop_map(Action::Room),
        2 => (0_u64..100).prop_map(|behind| Action::Retain { behind }),
        1 => (0_u64..12).prop_map(|back| Action::TruncateBefore { back }),
        1 => Just(Action::Roll),
        3 => (0_u64..12, 1_usize..9, 1_usize..500)
            .prop_map(|(back, records, bytes)| Action::Read { back, records, bytes }),
    ]
}

/// What the log should hold.
#[derive(Default)]
struct Model {
    /// By position; `None` where an uncommitted batch left a hole when it turned up.
    held: BTreeMap<u64, Option<Vec<u8>>>,
    next: u64,
    /// Everything below is deleted for good.
    deleted: u64,
    batch: Vec<Vec<u8>>,
    /// Contents that were in a batch at a position at some time, and could turn up.
    attempted: Vec<(u64, Vec<u8>)>,
    /// Also the number of appends, which makes every content different, and the clock.
    serial: u64,
}

struct World {
    filesystem: SimFilesystem,
    log: Option<Log>,
    model: Model,
    /// Follows the log through everything but reopening.
    follower: super::LogReader,
}

fn open(filesystem: &SimFilesystem) -> (Log, Recovery) {
    let options = LogOptions {
        dir: PathBuf::from("log"),
        segment_bytes: SEGMENT_BYTES,
        max_bytes: MAX_BYTES,
        max_age: Some(MAX_AGE),
        max_record_bytes: 200,
    };
    Log::open_on(options, Arc::new(filesystem.clone())).unwrap()
}

impl World {
    fn new(seed: u64) -> Self {
        let filesystem = SimFilesystem::new(seed);
        let (log, _) = open(&filesystem);
        let follower = log.view().reader(0);
        Self { filesystem, log: Some(log), model: Model::default(), follower }
    }

    fn log(&mut self) -> &mut Log {
        self.log.as_mut().unwrap()
    }

    fn act(&mut self, action: &Action) {
        match *action {
            Action::Append { length } => self.append(length),
            Action::Commit => self.commit(),
            Action::Rollback => {
                self.log().rollback();
                self.model.batch.clear();
            }
            Action::Reopen => self.reopen(None),
            Action::Crash(survives) => self.reopen(Some(survives)),
            Action::Fail(failing) => self.filesystem.fail(failing),
            Action::Room(bytes) => self.filesystem.room(bytes),
            Action::Retain { behind } => self.retain(behind),
            Action::TruncateBefore { back } => {
                let position = self.model.next.saturating_sub(back);
                let oldest = self.log().oldest_position();
                if let Ok(deleted) = self.log().truncate_before(position) {
                    assert!(oldest + deleted.records <= position.max(oldest));
                    self.deleted(deleted);
                }
                self.forget();
            }
            Action::Roll => {
                let rolled = self.log().roll().is_ok();
                let next = self.model.next;
                if rolled && let Ok(deleted) = self.log().truncate_before(next) {
                    assert_eq!(self.log().oldest_position(), next);
                    self.deleted(deleted);
                }
                self.forget();
            }
            Action::Read { back, records, bytes } => {
                self.read(self.model.next.saturating_sub(back), records, bytes);
            }
        }
    }

    fn append(&mut self, length: usize) {
        let model = &mut self.model;
        model.serial += 1;
        let (serial, position) = (model.serial, model.next + model.batch.len() as u64);
        let value: Vec<u8> = serial.to_le_bytes().into_iter().cycle().take(length + 8).collect();
        let entry = NewRecord { kind: serial as u8, time_ms: serial, key: "CP-1", value: &value };
        assert_eq!(self.log.as_mut().unwrap().append(&entry).unwrap(), position);
        model.batch.push(value.clone());
        model.attempted.push((position, value));
    }

    fn commit(&mut self) {
        if let Ok(next) = self.log().commit() {
            let model = &mut self.model;
            for value in model.batch.drain(..) {
                model.held.insert(model.next, Some(value));
                model.next += 1;
            }
            assert_eq!(next, model.next);
        }
    }

    fn retain(&mut self, behind: u64) {
        let now = self.model.serial + behind;
        let before = (self.log().oldest_position(), self.log().bytes());
        if let Ok(deleted) = self.log().retain(now) {
            let after = (self.log().oldest_position(), self.log().bytes());
            assert_eq!((before.0 + deleted.records, before.1 - deleted.bytes), after);
            let segments = self.filesystem.listing().iter().filter(|name| name.ends_with(".log")).count();
            assert!(after.1 <= MAX_BYTES || segments == 1);
            self.deleted(deleted);
        }
        self.forget();
    }

    /// The log says that everything before its oldest position stays deleted.
    fn deleted(&mut self, deleted: Retained) {
        if deleted.segments > 0 {
            self.model.deleted = self.log().oldest_position();
        }
    }

    /// What the log says it deleted is gone, and nothing else. (If it says so with an error, a crash may undo it.)
    fn forget(&mut self) {
        let oldest = self.log().oldest_position();
        assert!(oldest <= self.model.next);
        self.model.held = self.model.held.split_off(&oldest);
    }

    fn reopen(&mut self, crash: Option<Survives>) {
        self.log = None;
        self.filesystem.fail(Failing::NEVER);
        if let Some(survives) = crash {
            self.filesystem.crash(survives);
        }
        let (log, recovery) = open(&self.filesystem);
        let view = log.view();
        for damage in &recovery.damaged {
            let mut lost = self.model.held.range(damage.from..damage.to);
            assert!(damage.offset > 0 && lost.all(|(_, held)| held.is_none()), "{damage:?}");
        }
        assert!(view.oldest() >= self.model.deleted, "a deletion was undone");
        assert!(view.next() >= self.model.next, "{} of {} positions", view.next(), self.model.next);
        let model = &mut self.model;
        model.batch.clear();
        let mut turned_up = view.reader(model.next);
        for item in turned_up.read(usize::MAX, usize::MAX).unwrap() {
            match item {
                Item::Record(Record { position, value, .. }) => {
                    assert!(
                        model.attempted.contains(&(position, value.to_vec())),
                        "{position} was never appended"
                    );
                    model.held.insert(position, Some(value.to_vec()));
                }
                Item::Gap { from, to, reason } => {
                    assert_eq!(reason, GapReason::Damaged);
                    model.held.extend((from..to).map(|position| (position, None)));
                }
            }
        }
        model.next = view.next();
        self.follower = view.reader(self.follower.position());
        self.log = Some(log);
        self.forget();
    }

    /// Reads `records` at a time from `from` to the end.
    fn read(&mut self, from: u64, records: usize, bytes: usize) {
        let mut reader = self.log().view().reader(from);
        let mut position = from;
        loop {
            let items = reader.read(records, bytes).unwrap();
            assert!(items.len() <= records);
            if items.is_empty() {
                break;
            }
            for item in items {
                position = self.check(position, item);
            }
            assert_eq!(reader.position(), position);
        }
        assert_eq!(position, self.model.next);
    }

    /// Compares an item with what should be at `position`; says where the next is.
    fn check(&self, position: u64, item: Item) -> u64 {
        match item {
            Item::Record(record) => {
                assert_eq!(record.position, position);
                // A reader may finish a segment that was deleted after it had begun.
                if let Some(held) = self.model.held.get(&position) {
                    assert_eq!(held.as_deref(), Some(&*record.value), "at {position}");
                    assert_eq!((&*record.key, record.kind), ("CP-1", record.time_ms as u8));
                }
                position + 1
            }
            Item::Gap { from, to, reason } => {
                assert!(from == position && to > from);
                // Below the oldest held, a deletion that failed may have left anything.
                let kept = self.model.held.first_key_value().map_or(self.model.next, |(&oldest, _)| oldest);
                let mut held = (from.max(kept)..to).map(|position| self.model.held.get(&position));
                match reason {
                    GapReason::Retained => {
                        assert!(held.all(|held| held.is_none()), "{from}..{to} is not deleted")
                    }
                    GapReason::Damaged => {
                        assert!(held.all(|held| held == Some(&None)), "{from}..{to} is not damaged")
                    }
                }
                to
            }
        }
    }

    /// The follower reads a little, so that it meets the log in every state.
    fn follow(&mut self) {
        let mut position = self.follower.position();
        for item in self.follower.read(3, 400).unwrap() {
            position = self.check(position, item);
        }
    }
}

proptest! {
    #[test]
    fn the_log_keeps_what_it_answered_for(seed: u64, actions in vec(action(), 1..150)) {
        let mut world = World::new(seed);
        for action in &actions {
            world.act(action);
            world.follow();
        }
        world.act(&Action::Crash(Survives::Nothing));
        let oldest = world.log().oldest_position();
        world.read(oldest, 7, 300);
    }
}
