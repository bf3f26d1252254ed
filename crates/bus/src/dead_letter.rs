//! Dead letters: records that storage can never take, kept on disk where an operator finds them.
//!
//! Owns one file of JSON objects for each day (`jq` reads them). Each object holds the reason, the topic, the key and the event
//! byte for byte. A record becomes a dead letter only for a reason that trying again cannot mend: too large, unknown topic, not
//! allowed. A dead letter counts as durable, so the file is synced before anybody is told.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use serde::Serialize;
use serde_json::value::RawValue;

use crate::health::{BusState, HealthCell};
use crate::record::Record;

/// Pause before a failed write is tried again.
const RETRY: Duration = Duration::from_millis(500);

#[derive(Debug)]
pub(crate) struct DeadLetters {
    dir: PathBuf,
}

/// One object of the file.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct DeadLetter<'a> {
    set_aside_at: &'a str,
    reason: &'a str,
    topic: &'a str,
    key: &'a str,
    event: Event<'a>,
}

/// What the record carried.
#[derive(Serialize)]
#[serde(untagged)]
enum Event<'a> {
    Json(&'a RawValue),
    /// A value that is no JSON, as a string.
    Text(String),
}

impl DeadLetters {
    /// The folder is made with the first dead letter.
    pub(crate) fn new(dir: PathBuf) -> Self {
        Self { dir }
    }

    /// Stores one record, however long it takes, and logs it.
    pub(crate) fn store(&self, record: &Record, topic: &str, reason: &str, health: &HealthCell) {
        loop {
            match self.try_store(record, topic, reason) {
                Ok(path) => {
                    tracing::error!(
                        station = %record.key, topic, reason, bytes = record.value.len(), file = %path.display(),
                        "{topic} can never take this event; it is set aside on disk"
                    );
                    return;
                }
                Err(error) => {
                    let dir = self.dir.display();
                    let detail = format!("an undeliverable event cannot be set aside in {dir}: {error}");
                    health.report(BusState::Holding, Some(detail));
                    std::thread::sleep(RETRY);
                }
            }
        }
    }

    /// Stores one record and syncs it. Returns the file it is in.
    fn try_store(&self, record: &Record, topic: &str, reason: &str) -> std::io::Result<PathBuf> {
        std::fs::create_dir_all(&self.dir)?;
        let now = humantime::format_rfc3339_millis(SystemTime::now()).to_string();
        let day = now.split('T').next().unwrap_or_default();
        let path = self.dir.join(format!("undelivered-{day}.json"));
        let is_new = !path.exists();
        let event = match serde_json::from_slice(&record.value) {
            Ok(json) => Event::Json(json),
            Err(_) => Event::Text(String::from_utf8_lossy(&record.value).into_owned()),
        };
        let letter = DeadLetter { set_aside_at: &now, reason, topic, key: &record.key, event };
        let mut line = serde_json::to_vec(&letter)?;
        line.push(b'\n');
        let mut file = OpenOptions::new().create(true).append(true).open(&path)?;
        let before = file.metadata()?.len();
        if let Err(error) = file.write_all(&line).and_then(|()| file.sync_data()) {
            // Half an object would spoil the file for its readers; the record is tried again.
            file.set_len(before)?;
            return Err(error);
        }
        if is_new {
            File::open(&self.dir)?.sync_all()?;
        }
        Ok(path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::RecordKind;

    fn stored(values: &[&'static [u8]]) -> (String, Vec<serde_json::Value>) {
        let dir = tempfile::tempdir().unwrap();
        let dead_letters = DeadLetters::new(dir.path().join("undelivered"));
        let mut path = PathBuf::new();
        for value in values {
            let record = Record {
                kind: RecordKind(0),
                time_ms: 1,
                key: "CP \"1\"".into(),
                value: bytes::Bytes::from_static(value),
            };
            path = dead_letters.try_store(&record, "ocpp.events", "too large").unwrap();
        }
        let text = std::fs::read_to_string(path).unwrap();
        let objects =
            serde_json::Deserializer::from_str(&text).into_iter().collect::<Result<_, _>>().unwrap();
        (text, objects)
    }

    #[test]
    fn a_dead_letter_reads_back_as_json_with_the_event_byte_for_byte() {
        const EVENT: &str = "{\"payload\":{\n\"a\":1.50}}";
        let (text, objects) = stored(&[EVENT.as_bytes(), EVENT.as_bytes()]);
        assert_eq!(objects.len(), 2);
        assert_eq!(objects[1]["key"], "CP \"1\"");
        assert_eq!(objects[1]["topic"], "ocpp.events");
        assert_eq!(objects[1]["reason"], "too large");
        assert!(humantime::parse_rfc3339(objects[1]["setAsideAt"].as_str().unwrap()).is_ok());
        assert_eq!(text.matches(EVENT).count(), 2);
    }

    #[test]
    fn a_value_that_is_no_json_is_kept_as_text() {
        let (_, objects) = stored(&[b"{\"half"]);
        assert_eq!(objects[0]["event"], "{\"half");
    }
}
