//! The callbacks of the client library's consumer: errors, and partitions that come and go.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext, Rebalance};
use rdkafka::error::{KafkaError as ClientError, RDKafkaErrorCode};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use super::ConsumerMetrics;
use super::unacknowledged::Unacknowledged;

/// How often the same trouble is logged again.
const LOG_AGAIN: Duration = Duration::from_secs(30);

/// The consumer's callbacks.
pub(super) struct Context {
    pub(super) topic: String,
    pub(super) unacknowledged: Arc<Unacknowledged>,
    pub(super) metrics: ConsumerMetrics,
    /// What was logged last, and when.
    pub(super) logged: Mutex<Option<(String, Instant)>>,
}

impl Context {
    pub(super) fn trouble(&self, text: &str) {
        self.metrics.failures.inc();
        let mut logged = self.logged.lock().unwrap_or_else(PoisonError::into_inner);
        let is_news = logged.as_ref().is_none_or(|(last, at)| last != text || at.elapsed() > LOG_AGAIN);
        if is_news {
            *logged = Some((text.to_owned(), Instant::now()));
            tracing::warn!(topic = self.topic, reason = text, "commands cannot be read from Kafka");
        }
    }

    pub(super) fn store(&self, consumer: &BaseConsumer<Self>) {
        let mut offsets = TopicPartitionList::new();
        for (partition, next) in self.unacknowledged.take_committable() {
            if let Err(error) = offsets.add_partition_offset(&self.topic, partition, Offset::Offset(next)) {
                self.trouble(&error.to_string());
            }
        }
        if offsets.count() > 0
            && let Err(error) = consumer.store_offsets(&offsets)
        {
            // A partition that has just been taken away: whoever has it now reads these records again.
            tracing::debug!(%error, "offsets of commands were not stored");
        }
    }
}

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        tracing::debug!(?level, facility, message, "kafka consumer");
    }

    fn error(&self, error: ClientError, reason: &str) {
        tracing::debug!(%error, reason, "kafka consumer error");
        self.metrics.failures.inc();
    }
}

impl ConsumerContext for Context {
    fn pre_rebalance(&self, consumer: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        let Rebalance::Revoke(revoked) = rebalance else { return };
        self.store(consumer);
        if let Err(error) = consumer.commit_consumer_state(CommitMode::Sync)
            && error.rdkafka_error_code() != Some(RDKafkaErrorCode::NoOffset)
        {
            tracing::debug!(%error, "offsets of commands were not committed before a rebalance");
        }
        for element in revoked.elements() {
            self.unacknowledged.revoke(element.partition());
        }
    }

    fn post_rebalance(&self, consumer: &BaseConsumer<Self>, _: &Rebalance<'_>) {
        let count = consumer.assignment().map_or(0, |assignment| assignment.count());
        self.metrics.partitions.set(i64::try_from(count).unwrap_or(i64::MAX));
        tracing::info!(topic = self.topic, partitions = count, "commands are read from Kafka");
    }
}
