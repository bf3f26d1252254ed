//! Records that storage can never take, kept on disk where an operator finds them.
//!
//! Owns one file of JSON objects per day (`jq` reads them), each with the reason, the topic, the key and the event byte
//! for byte. A record is set aside only for a reason that trying again cannot mend: too large, unknown topic, not
//! allowed. Being set aside counts as durable, so the file is synced before anybody is told.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use crate::event::{json_string, rfc3339};
use crate::health::HealthCell;
use crate::record::Record;

/// Waiting before a failed write is tried again.
const RETRY: Duration = Duration::from_millis(500);

#[derive(Debug)]
pub(crate) struct SetAside {
    dir: PathBuf,
}

impl SetAside {
    /// The folder is made when something is set aside.
    pub(crate) fn new(dir: PathBuf) -> Self {
        Self { dir }
    }

    /// Stores one record, for as long as it takes, and says so in the log.
    pub(crate) fn keep(&self, record: &Record, topic: &str, reason: &str, health: &HealthCell) {
        loop {
            match self.store(record, topic, reason) {
                Ok(path) => {
                    tracing::error!(
                        station = %record.key, topic, reason, bytes = record.value.len(), file = %path.display(),
                        "{topic} can never take this event; it is set aside on disk"
                    );
                    return;
                }
                Err(error) => {
                    let dir = self.dir.display();
                    health.holding(format!("an undeliverable event cannot be set aside in {dir}: {error}"));
                    std::thread::sleep(RETRY);
                }
            }
        }
    }

    /// Stores one record and syncs it; gives the file it is in.
    fn store(&self, record: &Record, topic: &str, reason: &str) -> std::io::Result<PathBuf> {
        std::fs::create_dir_all(&self.dir)?;
        let now = rfc3339(SystemTime::now());
        let day = now.split('T').next().unwrap_or_default();
        let path = self.dir.join(format!("undelivered-{day}.json"));
        let is_new = !path.exists();
        let mut line = Vec::with_capacity(record.value.len() + 256);
        line.extend_from_slice(
            format!(
                r#"{{"setAsideAt":"{now}","reason":{},"topic":{},"key":{},"event":"#,
                json_string(reason),
                json_string(topic),
                json_string(&record.key)
            )
            .as_bytes(),
        );
        line.extend_from_slice(&record.value);
        line.extend_from_slice(b"}\n");
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
    use crate::record::Class;

    #[test]
    fn what_is_set_aside_reads_back_as_json() {
        let dir = tempfile::tempdir().unwrap();
        let aside = SetAside::new(dir.path().join("undelivered"));
        let record = Record {
            class: Class::Event,
            time_ms: 1,
            key: "CP \"1\"".into(),
            value: bytes::Bytes::from_static(b"{\"payload\":{\n\"a\":1.50}}"),
        };
        let path = aside.store(&record, "ocpp.events", "too large").unwrap();
        aside.store(&record, "ocpp.events", "too large").unwrap();
        let text = std::fs::read_to_string(path).unwrap();
        let objects: Vec<serde_json::Value> =
            serde_json::Deserializer::from_str(&text).into_iter().collect::<Result<_, _>>().unwrap();
        assert_eq!(objects.len(), 2);
        assert_eq!(objects[1]["key"], "CP \"1\"");
        assert!(text.contains("1.50"));
    }
}
