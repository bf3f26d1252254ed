//! The store on a real log, over restarts. Sending and waiting are the dispatcher's, and tested from outside.

use std::path::Path;
use std::time::Duration;

use ocpp_log::{Log, LogOptions, NewRecord};
use ocpp_station::Status;
use ocpp_station::events::{CommandResult, Events};
use tempfile::TempDir;

use super::*;
use crate::kinds::result_record;
use crate::request::CommandRequest;

/// A store whose records are durable at once, in a folder that outlives it.
struct Desk {
    dir: TempDir,
    log: Option<Log>,
    store: CommandStore,
    unfinished: Vec<Unfinished>,
    limits: Limits,
}

impl Desk {
    fn new(limits: Limits) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (log, store, unfinished) = open(dir.path(), &limits);
        Self { dir, log: Some(log), store, unfinished, limits }
    }

    /// What a restart finds.
    fn restart(&mut self) {
        self.log = None;
        let (log, store, unfinished) = open(self.dir.path(), &self.limits);
        (self.log, self.store, self.unfinished) = (Some(log), store, unfinished);
    }

    fn save(&mut self, record: Option<Record>) {
        let log = self.log.as_mut().unwrap();
        if let Some(record) = record {
            let new = NewRecord { kind: 3, time_ms: record.time_ms, key: &record.key, value: &record.value };
            log.append(&new).unwrap();
        }
        log.commit().unwrap();
    }

    fn accept(&mut self, id: &str, json: &str) -> Arc<Command> {
        match self.store.accept(command(id, json), true) {
            Accepted::New(command, record, _) => {
                self.save(record);
                command
            }
            other => panic!("{other:?}"),
        }
    }

    fn queue(&mut self, id: &str) -> Arc<Command> {
        let command = self.accept(id, r#"{"stationId":"CP-1","action":"Reset","ifOffline":"queue"}"#);
        let record = self.store.queue(&command).unwrap();
        self.save(Some(record));
        command
    }

    fn end(&mut self, command: &Command, status: Status) -> Arc<Ended> {
        let (ended, record) = self.store.end(command, outcome(status), &result(command, status));
        self.save(record);
        ended
    }

    fn published(&mut self, ended: &Arc<Ended>) {
        let record = self.store.published(ended);
        self.save(record);
    }
}

fn open(dir: &Path, limits: &Limits) -> (Log, CommandStore, Vec<Unfinished>) {
    let (log, _) = Log::open(LogOptions::new(dir)).unwrap();
    let (store, unfinished) = CommandStore::replay(&log.view(), limits.clone()).unwrap();
    (log, store, unfinished)
}

fn command(id: &str, json: &str) -> Command {
    let limits = Limits::sample();
    let request: CommandRequest = serde_json::from_str(json).unwrap();
    limits.command(request, None, || id.to_owned(), SystemTime::now()).unwrap()
}

fn outcome(status: Status) -> Outcome {
    Outcome::failed(status, "for a reason")
}

fn result(command: &Command, status: Status) -> Record {
    let outcome = outcome(status);
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
    let first = desk.accept("c-1", RESET);
    assert!(matches!(desk.store.accept(command("c-1", RESET), true), Accepted::Running(_)));
    let ended = desk.end(&first, Status::Timeout);
    desk.published(&ended);
    for restarted in [false, true] {
        if restarted {
            desk.restart();
            assert!(desk.unfinished.is_empty());
        }
        let Accepted::Ended(known) = desk.store.accept(command("c-1", RESET), true) else { panic!() };
        assert_eq!(known.event.get(), ended.event.get());
        assert_eq!(known.outcome.as_ref().unwrap().status, Status::Timeout);
    }
}

#[test]
fn an_id_belongs_to_one_command() {
    let mut desk = Desk::new(Limits::sample());
    desk.accept("c-1", RESET);
    let other = r#"{"stationId":"CP-2","action":"Reset"}"#;
    assert!(matches!(desk.store.accept(command("c-1", other), true), Accepted::Conflict(_)));
    let other = r#"{"stationId":"CP-1","action":"ClearCache"}"#;
    assert!(matches!(desk.store.accept(command("c-1", other), true), Accepted::Conflict(_)));
    let spelled = r#"{"stationId":"cp-1","action":"Reset"}"#;
    assert!(matches!(desk.store.accept(command("c-1", spelled), true), Accepted::Running(_)));
}

#[test]
fn a_restart_finds_what_has_no_end() {
    let mut desk = Desk::new(Limits::sample());
    desk.accept("waiting", RESET);
    let sending = desk.accept("sending", RESET);
    let note = desk.store.sending(&sending);
    desk.save(note);
    let ended = desk.accept("ended", RESET);
    desk.end(&ended, Status::Error);
    desk.restart();
    let mut found: Vec<_> = desk
        .unfinished
        .iter()
        .map(|one| match one {
            Unfinished::Waiting(command) => format!("waiting {} {}", command.id, command.payload),
            Unfinished::Sending(command) => format!("sending {} {}", command.id, command.payload),
            Unfinished::Unpublished(ended) => format!("unpublished {}", ended.id),
        })
        .collect();
    found.sort();
    assert_eq!(found, ["sending sending null", "unpublished ended", r#"waiting waiting {"type":"Soft"}"#]);
}

#[test]
fn what_somebody_brings_again_is_not_written_down_before_it_is_sent() {
    let desk = Desk::new(Limits::sample());
    let Accepted::New(command, None, _) = desk.store.accept(command("c-1", RESET), false) else { panic!() };
    assert!(desk.store.sending(&command).is_some());
}

#[test]
fn an_offline_queue_keeps_its_order_over_a_restart() {
    let mut desk = Desk::new(Limits::sample());
    let first = desk.queue("k-1");
    desk.queue("k-2");
    desk.queue("k-3");
    // The first was about to be sent and was not: it is the head again.
    let note = desk.store.sending(&first);
    desk.save(note);
    let back = desk.store.not_sent(&first);
    desk.save(back);
    for restarted in [false, true] {
        if restarted {
            desk.restart();
        }
        let key = IdentityKey::of("CP-1");
        assert!(desk.store.start_draining(&key));
        assert!(!desk.store.start_draining(&key), "somebody does already");
        desk.store.stop_draining(&key);
        assert_eq!(desk.store.queued_for(&key), 3);
        assert_eq!(&*desk.store.head(&key).unwrap().id, "k-1");
    }
    for id in ["k-1", "k-2", "k-3"] {
        let head = desk.store.head(&IdentityKey::of("cp-1")).unwrap();
        assert_eq!(&*head.id, id);
        let ended = desk.end(&head, Status::Answered);
        desk.published(&ended);
    }
    assert!(!desk.store.has_queued(&IdentityKey::of("CP-1")));
}

#[test]
fn an_offline_queue_is_bounded() {
    let limits = Limits { offline_queue: 2, ..Limits::sample() };
    let mut desk = Desk::new(limits);
    desk.queue("k-1");
    let second = desk.queue("k-2");
    let third = desk.accept("k-3", RESET);
    assert!(desk.store.queue(&third).is_err());
    desk.end(&second, Status::Expired);
    assert!(desk.store.queue(&third).is_ok());
}

#[test]
fn overdue_commands_are_found_but_for_one_on_its_way() {
    let mut desk = Desk::new(Limits::sample());
    desk.queue("k-1");
    desk.queue("k-2");
    let later = SystemTime::now() + Limits::sample().offline_ttl + Duration::from_secs(1);
    let ids = |desk: &Desk| -> Vec<String> {
        desk.store.overdue(later).iter().map(|command| command.id.to_string()).collect()
    };
    assert!(desk.store.overdue(SystemTime::now()).is_empty());
    assert_eq!(ids(&desk), ["k-1", "k-2"]);
    assert!(desk.store.start_draining(&IdentityKey::of("CP-1")));
    assert_eq!(ids(&desk), ["k-2"]);
}

#[test]
fn only_the_first_end_counts() {
    let mut desk = Desk::new(Limits::sample());
    let command = desk.accept("c-1", RESET);
    let first = desk.end(&command, Status::Timeout);
    let (second, record) =
        desk.store.end(&command, outcome(Status::Answered), &result(&command, Status::Answered));
    assert!(record.is_none());
    assert_eq!(first.event.get(), second.event.get());
}

#[test]
fn what_is_remembered_is_bounded() {
    let limits = Limits { remembered: 10, ..Limits::sample() };
    let mut desk = Desk::new(limits);
    for number in 0..30 {
        let command = desk.accept(&format!("c-{number}"), RESET);
        let ended = desk.end(&command, Status::Timeout);
        desk.published(&ended);
    }
    for restarted in [false, true] {
        if restarted {
            desk.restart();
        }
        assert_eq!(desk.store.counts(), (0, 10));
        assert!(desk.store.show("c-19").is_none());
        assert!(desk.store.show("c-20").is_some());
    }
}

#[test]
fn a_snapshot_says_the_same_as_the_journal() {
    let mut desk = Desk::new(Limits::sample());
    desk.queue("k-1");
    desk.queue("k-2");
    let ended = desk.accept("c-1", RESET);
    let ended = desk.end(&ended, Status::Error);
    desk.published(&ended);
    let short = tempfile::tempdir().unwrap();
    let (mut log, ..) = open(short.path(), &desk.limits);
    for record in desk.store.records() {
        let new = NewRecord { kind: 3, time_ms: record.time_ms, key: &record.key, value: &record.value };
        log.append(&new).unwrap();
    }
    log.commit().unwrap();
    drop(log);
    let (_log, store, unfinished) = open(short.path(), &desk.limits);
    assert!(unfinished.is_empty());
    assert_eq!(store.counts(), desk.store.counts());
    assert_eq!(&*store.head(&IdentityKey::of("CP-1")).unwrap().id, "k-1");
}

#[test]
fn the_words_of_the_journal_are_those_in_journals_that_exist() {
    let queued = r#"{"revision":1,"id":"k-1","phase":"kept","station":"CP-1","partition":null,"offset":null,"batch":null,"request":{"action":"Reset","payload":{},"timeoutMs":1000,"takenMs":1,"expiresMs":99999999999999,"ifOffline":"queue","sequence":1,"inLine":true},"result":null}"#;
    let published = r#"{"revision":2,"id":"c-1","phase":"told","station":"CP-1","partition":3,"offset":4,"batch":null,"request":null,"result":{"atMs":99999999999999,"event":{"data":{"status":"answered","sent":"yes","payload":{"status":"Accepted"}}}}}"#;
    let dir = tempfile::tempdir().unwrap();
    let (mut log, ..) = open(dir.path(), &Limits::sample());
    for value in [queued, published] {
        log.append(&NewRecord { kind: 3, time_ms: 1, key: "key", value: value.as_bytes() }).unwrap();
    }
    log.commit().unwrap();
    drop(log);
    let (_log, store, unfinished) = open(dir.path(), &Limits::sample());
    assert!(unfinished.is_empty());
    assert_eq!(&*store.head(&IdentityKey::of("CP-1")).unwrap().id, "k-1");
    let Some(Shown::Ended(ended)) = store.show("c-1") else { panic!() };
    assert_eq!(ended.outcome.as_ref().unwrap().status, Status::Answered);
    let mut written: Vec<_> =
        store.records().iter().map(|record| String::from_utf8(record.value.to_vec()).unwrap()).collect();
    written.sort();
    assert_eq!(written, [queued, published]);
}
