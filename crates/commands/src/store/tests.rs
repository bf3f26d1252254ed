//! The book on a real log, over restarts. Sending and waiting are the router's, and tested from outside.

use std::path::Path;
use std::time::Duration;

use ocpp_log::{Log, LogOptions, NewRecord};
use ocpp_station::Status;
use ocpp_station::events::{CommandResult, Events};
use tempfile::TempDir;

use super::*;
use crate::kinds::result_record;
use crate::request::CommandRequest;

/// A book whose records are durable at once, in a folder that outlives it.
struct Desk {
    dir: TempDir,
    log: Option<Log>,
    book: Book,
    unfinished: Vec<Unfinished>,
    limits: Limits,
}

impl Desk {
    fn new(limits: Limits) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (log, book, unfinished) = open(dir.path(), &limits);
        Self { dir, log: Some(log), book, unfinished, limits }
    }

    /// What a restart finds.
    fn restart(&mut self) {
        self.log = None;
        let (log, book, unfinished) = open(self.dir.path(), &self.limits);
        (self.log, self.book, self.unfinished) = (Some(log), book, unfinished);
    }

    fn save(&mut self, record: Option<Record>) {
        let log = self.log.as_mut().unwrap();
        if let Some(record) = record {
            let new = NewRecord { kind: 3, time_ms: record.time_ms, key: &record.key, value: &record.value };
            log.append(&new).unwrap();
        }
        log.commit().unwrap();
    }

    fn begin(&mut self, id: &str, json: &str) -> Arc<Command> {
        match self.book.begin(command(id, json), true) {
            Begun::New(command, record, _) => {
                self.save(record);
                command
            }
            other => panic!("{other:?}"),
        }
    }

    fn keep(&mut self, id: &str) -> Arc<Command> {
        let command = self.begin(id, r#"{"stationId":"CP-1","action":"Reset","ifOffline":"queue"}"#);
        let record = self.book.keep(&command).unwrap();
        self.save(Some(record));
        command
    }

    fn end(&mut self, command: &Command, status: Status) -> Arc<Ended> {
        let (ended, record) = self.book.end(command, &result(command, status));
        self.save(record);
        ended
    }

    fn told(&mut self, ended: &Arc<Ended>) {
        let record = self.book.told(ended);
        self.save(record);
    }
}

fn open(dir: &Path, limits: &Limits) -> (Log, Book, Vec<Unfinished>) {
    let (log, _) = Log::open(LogOptions::new(dir)).unwrap();
    let (book, unfinished) = Book::replay(&log.view(), limits.clone()).unwrap();
    (log, book, unfinished)
}

fn command(id: &str, json: &str) -> Command {
    let limits = Limits::sample();
    let request: CommandRequest = serde_json::from_str(json).unwrap();
    limits.command(request, None, || id.to_owned(), SystemTime::now()).unwrap()
}

fn result(command: &Command, status: Status) -> Record {
    let outcome = Outcome::failed(status, "for a reason");
    let result =
        CommandResult { id: &command.id, action: &command.action, outcome: &outcome, traceparent: None };
    let events = Events::new("gw-1", uuid::Uuid::now_v7);
    let event = events.command_result(SystemTime::now(), &command.station, None, result);
    result_record(event)
}

const RESET: &str = r#"{"stationId":"CP-1","action":"Reset","payload":{"type":"Soft"}}"#;

#[test]
fn a_repeated_id_gets_the_first_outcome_also_after_a_restart() {
    let mut desk = Desk::new(Limits::sample());
    let first = desk.begin("c-1", RESET);
    assert!(matches!(desk.book.begin(command("c-1", RESET), true), Begun::Running(_)));
    let ended = desk.end(&first, Status::Timeout);
    desk.told(&ended);
    for restarted in [false, true] {
        if restarted {
            desk.restart();
            assert!(desk.unfinished.is_empty());
        }
        let Begun::Ended(known) = desk.book.begin(command("c-1", RESET), true) else { panic!() };
        assert_eq!(known.event.get(), ended.event.get());
        assert_eq!(known.outcome().unwrap().status, Status::Timeout);
    }
}

#[test]
fn an_id_belongs_to_one_command() {
    let mut desk = Desk::new(Limits::sample());
    desk.begin("c-1", RESET);
    let other = r#"{"stationId":"CP-2","action":"Reset"}"#;
    assert!(matches!(desk.book.begin(command("c-1", other), true), Begun::Conflict(_)));
    let other = r#"{"stationId":"CP-1","action":"ClearCache"}"#;
    assert!(matches!(desk.book.begin(command("c-1", other), true), Begun::Conflict(_)));
    let spelled = r#"{"stationId":"cp-1","action":"Reset"}"#;
    assert!(matches!(desk.book.begin(command("c-1", spelled), true), Begun::Running(_)));
}

#[test]
fn a_restart_finds_what_has_no_end() {
    let mut desk = Desk::new(Limits::sample());
    desk.begin("waiting", RESET);
    let sending = desk.begin("sending", RESET);
    let note = desk.book.sending(&sending);
    desk.save(note);
    let ended = desk.begin("ended", RESET);
    desk.end(&ended, Status::Error);
    desk.restart();
    let mut found: Vec<_> = desk
        .unfinished
        .iter()
        .map(|one| match one {
            Unfinished::Waiting(command) => format!("waiting {} {}", command.id, command.payload),
            Unfinished::Sending(command) => format!("sending {} {}", command.id, command.payload),
            Unfinished::Untold(ended) => format!("untold {}", ended.id),
        })
        .collect();
    found.sort();
    assert_eq!(found, ["sending sending null", "untold ended", r#"waiting waiting {"type":"Soft"}"#]);
}

#[test]
fn what_somebody_brings_again_is_not_written_down_before_it_is_sent() {
    let desk = Desk::new(Limits::sample());
    let Begun::New(command, None, _) = desk.book.begin(command("c-1", RESET), false) else { panic!() };
    assert!(desk.book.sending(&command).is_some());
}

#[test]
fn the_line_of_a_station_keeps_its_order_over_a_restart() {
    let mut desk = Desk::new(Limits::sample());
    let first = desk.keep("k-1");
    desk.keep("k-2");
    desk.keep("k-3");
    // The first was about to be sent and was not: it keeps its place.
    let note = desk.book.sending(&first);
    desk.save(note);
    let back = desk.book.not_sent(&first);
    desk.save(back);
    for restarted in [false, true] {
        if restarted {
            desk.restart();
        }
        let key = IdentityKey::of("CP-1");
        assert!(desk.book.start_draining(&key));
        assert!(!desk.book.start_draining(&key), "somebody does already");
        desk.book.stop_draining(&key);
        assert_eq!(desk.book.kept_for(&key), 3);
        assert_eq!(&*desk.book.head(&key).unwrap().id, "k-1");
    }
    for id in ["k-1", "k-2", "k-3"] {
        let head = desk.book.head(&IdentityKey::of("cp-1")).unwrap();
        assert_eq!(&*head.id, id);
        let ended = desk.end(&head, Status::Answered);
        desk.told(&ended);
    }
    assert!(!desk.book.keeps(&IdentityKey::of("CP-1")));
}

#[test]
fn the_line_is_bounded() {
    let limits = Limits { offline_queue: 2, ..Limits::sample() };
    let mut desk = Desk::new(limits);
    desk.keep("k-1");
    let second = desk.keep("k-2");
    let third = desk.begin("k-3", RESET);
    assert!(desk.book.keep(&third).is_err());
    desk.end(&second, Status::Expired);
    assert!(desk.book.keep(&third).is_ok());
}

#[test]
fn overdue_commands_are_found_but_for_one_on_its_way() {
    let mut desk = Desk::new(Limits::sample());
    desk.keep("k-1");
    desk.keep("k-2");
    let later = SystemTime::now() + Limits::sample().offline_ttl + Duration::from_secs(1);
    let ids = |desk: &Desk| -> Vec<String> {
        desk.book.overdue(later).iter().map(|command| command.id.to_string()).collect()
    };
    assert!(desk.book.overdue(SystemTime::now()).is_empty());
    assert_eq!(ids(&desk), ["k-1", "k-2"]);
    assert!(desk.book.start_draining(&IdentityKey::of("CP-1")));
    assert_eq!(ids(&desk), ["k-2"]);
}

#[test]
fn only_the_first_end_counts() {
    let mut desk = Desk::new(Limits::sample());
    let command = desk.begin("c-1", RESET);
    let first = desk.end(&command, Status::Timeout);
    let (second, record) = desk.book.end(&command, &result(&command, Status::Answered));
    assert!(record.is_none());
    assert_eq!(first.event.get(), second.event.get());
}

#[test]
fn what_is_remembered_is_bounded() {
    let limits = Limits { remembered: 10, ..Limits::sample() };
    let mut desk = Desk::new(limits);
    for number in 0..30 {
        let command = desk.begin(&format!("c-{number}"), RESET);
        let ended = desk.end(&command, Status::Timeout);
        desk.told(&ended);
    }
    for restarted in [false, true] {
        if restarted {
            desk.restart();
        }
        assert_eq!(desk.book.counts(), (0, 10));
        assert!(desk.book.show("c-19").is_none());
        assert!(desk.book.show("c-20").is_some());
    }
}

#[test]
fn a_snapshot_says_the_same_as_the_journal() {
    let mut desk = Desk::new(Limits::sample());
    desk.keep("k-1");
    desk.keep("k-2");
    let ended = desk.begin("c-1", RESET);
    let ended = desk.end(&ended, Status::Error);
    desk.told(&ended);
    let short = tempfile::tempdir().unwrap();
    let (mut log, ..) = open(short.path(), &desk.limits);
    for record in desk.book.records() {
        let new = NewRecord { kind: 3, time_ms: record.time_ms, key: &record.key, value: &record.value };
        log.append(&new).unwrap();
    }
    log.commit().unwrap();
    drop(log);
    let (_log, book, unfinished) = open(short.path(), &desk.limits);
    assert!(unfinished.is_empty());
    assert_eq!(book.counts(), desk.book.counts());
    assert_eq!(&*book.head(&IdentityKey::of("CP-1")).unwrap().id, "k-1");
}
