//! Events from a Kafka topic. The only file that names the Kafka client.
//!
//! Owns the position in each partition: where it was before the run, and where it is. No consumer group: partitions are
//! assigned manually, so that nobody else's offsets change.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::{ClientConfig, Message, Offset, TopicPartitionList};
use thiserror::Error;
use tokio_util::sync::CancellationToken;

use super::checker::Checker;

/// Timeout of a request to the broker.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a poll may take before it is checked whether the run is over.
const POLL_TIMEOUT: Duration = Duration::from_millis(100);
/// How often a topic that does not exist yet is looked for.
const TOPIC_INTERVAL: Duration = Duration::from_secs(1);
/// At the end, silence for this long while records are missing is an error.
const TIMEOUT: Duration = Duration::from_secs(60);

/// Why a topic could not be read to its end.
#[derive(Debug, Error)]
pub enum TopicError {
    /// Kafka reported an error.
    #[error("Kafka")]
    Kafka(#[from] KafkaError),
    /// No records arrive any more.
    #[error("no records for a minute, and these partitions are not at their end: {0}")]
    Silent(String),
}

/// A topic, read from where it ended when it was opened.
pub struct Topic {
    consumer: BaseConsumer,
    name: String,
    /// The next offset of each partition.
    next: BTreeMap<i32, i64>,
}

impl Topic {
    /// Opens a topic at its present end. One that does not exist counts as empty: the gateway's first event creates it.
    ///
    /// # Errors
    /// When the broker does not answer.
    pub fn open(brokers: &str, name: &str, run: &str) -> Result<Self, TopicError> {
        let consumer: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", brokers)
            .set("client.id", "ocpp-loadtest")
            // The client wants a name; nothing is ever committed under it.
            .set("group.id", format!("ocpp-loadtest-{run}"))
            .set("enable.auto.commit", "false")
            .set("auto.offset.reset", "error")
            // How much the client may read ahead, in KiB.
            .set("queued.max.messages.kbytes", "16384")
            .create()?;
        let mut topic = Self { consumer, name: name.to_owned(), next: BTreeMap::new() };
        for partition in topic.partitions()? {
            let (_, end) = topic.consumer.fetch_watermarks(name, partition, REQUEST_TIMEOUT)?;
            topic.next.insert(partition, end);
        }
        topic.assign()?;
        Ok(topic)
    }

    /// Reads until `finish`, and then up to what was the end at that moment. Blocks.
    ///
    /// # Errors
    /// When the end cannot be reached.
    pub fn read(mut self, checker: &Mutex<Checker>, finish: &CancellationToken) -> Result<(), TopicError> {
        let mut ends = None;
        let mut last_record = Instant::now();
        loop {
            if finish.is_cancelled() && ends.is_none() {
                ends = self.ends()?;
                last_record = Instant::now();
            }
            if let Some(ends) = &ends {
                let missing = self.missing(ends);
                if missing.is_empty() {
                    return Ok(());
                }
                if last_record.elapsed() > TIMEOUT {
                    return Err(TopicError::Silent(missing));
                }
            }
            if self.next.is_empty() {
                self.wait_for_topic()?;
                continue;
            }
            match self.consumer.poll(POLL_TIMEOUT) {
                Some(Ok(record)) => {
                    self.next.insert(record.partition(), record.offset() + 1);
                    let mut checker = checker.lock().unwrap_or_else(PoisonError::into_inner);
                    checker.record(record.payload().unwrap_or_default());
                    last_record = Instant::now();
                }
                // The client recovers by itself when the broker is back, but not from records that are gone.
                Some(Err(error)) if is_final(&error) => return Err(error.into()),
                Some(Err(_)) | None => {}
            }
        }
    }

    fn partitions(&self) -> Result<Vec<i32>, KafkaError> {
        let metadata = self.consumer.fetch_metadata(Some(&self.name), REQUEST_TIMEOUT)?;
        let topic =
            metadata.topics().iter().find(|topic| topic.name() == self.name && topic.error().is_none());
        Ok(topic.map(|topic| topic.partitions().iter().map(|one| one.id()).collect()).unwrap_or_default())
    }

    fn assign(&self) -> Result<(), KafkaError> {
        let mut list = TopicPartitionList::new();
        for (partition, next) in &self.next {
            list.add_partition_offset(&self.name, *partition, Offset::Offset(*next))?;
        }
        self.consumer.assign(&list)
    }

    fn wait_for_topic(&mut self) -> Result<(), KafkaError> {
        self.next = self.partitions()?.into_iter().map(|partition| (partition, 0)).collect();
        if self.next.is_empty() {
            std::thread::sleep(TOPIC_INTERVAL);
            return Ok(());
        }
        self.assign()
    }

    /// Returns where each partition ends now.
    fn ends(&mut self) -> Result<Option<BTreeMap<i32, i64>>, KafkaError> {
        let mut ends = BTreeMap::new();
        for partition in self.partitions()? {
            let (_, end) = self.consumer.fetch_watermarks(&self.name, partition, REQUEST_TIMEOUT)?;
            ends.insert(partition, end);
        }
        if self.next.is_empty() && !ends.is_empty() {
            self.wait_for_topic()?;
        }
        Ok(Some(ends))
    }

    fn missing(&self, ends: &BTreeMap<i32, i64>) -> String {
        let missing =
            ends.iter().filter(|(partition, end)| self.next.get(partition).is_none_or(|next| next < end));
        missing.map(|(partition, end)| format!("{partition} (to {end})")).collect::<Vec<_>>().join(", ")
    }
}

fn is_final(error: &KafkaError) -> bool {
    use rdkafka::error::RDKafkaErrorCode as Code;
    // The records at this position are gone: retention, or a new topic of this name.
    let gone = [Code::OffsetOutOfRange, Code::AutoOffsetReset, Code::TopicAuthorizationFailed];
    error.rdkafka_error_code().is_some_and(|code| gone.contains(&code))
}

#[cfg(test)]
mod tests {
    use rdkafka::mocking::MockCluster;
    use rdkafka::producer::{BaseProducer, BaseRecord, Producer};

    use super::*;

    fn produce(brokers: &str, topic: &str, count: u32) {
        let producer: BaseProducer =
            ClientConfig::new().set("bootstrap.servers", brokers).create().expect("a producer");
        for number in 0..count {
            let (key, value) = (format!("LT-{number:06}"), format!("{{\"number\":{number}}}"));
            producer.send(BaseRecord::to(topic).key(&key).payload(&value)).map_err(|error| error.0).unwrap();
        }
        producer.flush(REQUEST_TIMEOUT).unwrap();
    }

    #[test]
    fn a_topic_is_read_from_where_it_ended_to_where_it_ends() {
        let cluster = MockCluster::new(1).unwrap();
        cluster.create_topic("events", 3, 1).unwrap();
        let brokers = cluster.bootstrap_servers();
        produce(&brokers, "events", 20);
        let topic = Topic::open(&brokers, "events", "r1").unwrap();
        produce(&brokers, "events", 50);
        let checker = Mutex::new(Checker::new("LT-", "r1", 1, false));
        let finish = CancellationToken::new();
        finish.cancel();
        topic.read(&checker, &finish).unwrap();
        assert_eq!(checker.lock().unwrap().read().0, 50);
    }
}
