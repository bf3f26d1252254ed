//! The Kafka client's options: what the operator sets, what the gateway fixes, and what is refused.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::error::KafkaError as ClientError;
use rdkafka::producer::BaseProducer;

use crate::error::KafkaError;
use crate::queue::QueueLimits;
use crate::record::RecordKind;
use crate::spool::SpoolOptions;

/// Client options that would break a promise, and therefore cannot be set.
const FIXED_OPTIONS: [(&str, &str); 4] = [
    ("acks", "all"),
    ("enable.idempotence", "true"),
    // The client keeps trying for as long as the gateway holds the answer back.
    ("message.timeout.ms", "0"),
    // A refused batch stops the client, so that nothing sent after it can overtake it; everything is recalled then.
    ("enable.gapless.guarantee", "true"),
];

/// How to reach Kafka and where records go.
#[derive(Clone, Debug)]
pub struct KafkaOptions {
    /// `host:port`, separated by commas.
    pub brokers: String,
    /// The name the broker sees.
    pub client_id: String,
    /// `none`, `gzip`, `snappy`, `lz4` or `zstd`.
    pub compression: String,
    /// How long records gather for one request when there are many.
    pub linger: Duration,
    /// Not ready when nothing was acknowledged for this long while records wait.
    pub unready_after: Duration,
    /// The largest record, in bytes; the broker's own limit must not be lower.
    pub max_record_bytes: usize,
    /// Where each kind of record goes.
    pub topics: Topics,
    /// The media type of every value: the `content-type` header of each record.
    pub content_type: &'static str,
    /// Folder for records that Kafka can never take.
    pub dead_letter_dir: PathBuf,
    /// Where records become durable while Kafka does not acknowledge; without one they are held back.
    pub spool: Option<SpoolOptions>,
    /// Further client options (TLS, SASL and so on), passed through as they are.
    pub extra: BTreeMap<String, String>,
}

/// The topic of each kind of record.
#[derive(Clone, Debug)]
pub struct Topics {
    /// The topic of every kind that has none of its own. Kafka counts as reachable when this topic is.
    pub default: String,
    /// The topics of some kinds.
    pub of_kind: BTreeMap<RecordKind, String>,
}

impl Topics {
    pub(crate) fn of(&self, kind: RecordKind) -> &str {
        self.of_kind.get(&kind).unwrap_or(&self.default)
    }
}

impl KafkaOptions {
    /// Checks the options without connecting.
    ///
    /// # Errors
    /// When an option is fixed, unknown, or has a value that the client does not take.
    pub fn check(&self) -> Result<(), KafkaError> {
        self.client_config(QueueLimits { records: 1, bytes: 1024 })?
            .create_native_config()
            .map(|_| ())
            .map_err(|error| refused(&error))
    }

    /// Checks what only a client can say: whether it has been built with what the options need, and can read the files that
    /// they name. It is created and dropped, and connects to nothing.
    ///
    /// # Errors
    /// When there would be no client with these options.
    pub fn check_client(&self) -> Result<(), KafkaError> {
        let mut config = self.client_config(QueueLimits { records: 1, bytes: 1024 })?;
        for brokers in ["bootstrap.servers", "metadata.broker.list"] {
            config.remove(brokers);
        }
        config.create::<BaseProducer>().map(|_| ()).map_err(|error| refused(&error))
    }

    pub(super) fn client_config(&self, limits: QueueLimits) -> Result<ClientConfig, KafkaError> {
        let mut config = ClientConfig::new();
        config.set_log_level(RDKafkaLogLevel::Warning);
        for (name, value) in [
            ("bootstrap.servers", self.brokers.clone()),
            ("client.id", self.client_id.clone()),
            ("compression.type", self.compression.clone()),
            // As long as it takes to hand over what has gathered in front of the client.
            ("linger.ms", "0.5".to_owned()),
            ("message.max.bytes", (self.max_record_bytes + 4096).to_string()),
            // The bus's own limits rule; the client's are out of their way.
            ("queue.buffering.max.messages", limits.records.saturating_mul(2).min(10_000_000).to_string()),
            ("queue.buffering.max.kbytes", (limits.bytes / 512).clamp(1024, 2_097_151).to_string()),
            // The partition of a key must be the one that the Java clients choose for it.
            ("partitioner", "murmur2_random".into()),
            ("reconnect.backoff.ms", "100".into()),
            ("reconnect.backoff.max.ms", "2000".into()),
            ("socket.keepalive.enable", "true".into()),
        ] {
            config.set(name, value);
        }
        for (name, value) in FIXED_OPTIONS {
            config.set(name, value);
        }
        for (name, value) in &self.extra {
            if let Some((_, fixed)) = FIXED_OPTIONS.iter().find(|(fixed, _)| fixed == name)
                && value != fixed
            {
                return Err(KafkaError::Fixed(name.clone(), fixed));
            }
            config.set(name, value);
        }
        Ok(config)
    }
}

/// The client's own text would show the option's value, which may be a password.
pub(super) fn refused(error: &ClientError) -> KafkaError {
    KafkaError::Refused(match error {
        ClientError::ClientConfig(_, description, name, _) if description.contains(name.as_str()) => {
            description.clone()
        }
        ClientError::ClientConfig(_, description, name, _) => format!("{description} ({name})"),
        other => other.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(extra: &[(&str, &str)]) -> KafkaOptions {
        KafkaOptions {
            brokers: "127.0.0.1:1".into(),
            client_id: "gw-1".into(),
            compression: "lz4".into(),
            linger: Duration::from_millis(5),
            unready_after: Duration::from_secs(10),
            max_record_bytes: 1 << 21,
            topics: Topics { default: "e".into(), of_kind: BTreeMap::from([(RecordKind(1), "r".into())]) },
            content_type: "application/json",
            dead_letter_dir: PathBuf::from("/nonexistent"),
            spool: None,
            extra: extra.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect(),
        }
    }

    #[test]
    fn options_that_would_break_a_promise_are_refused() {
        assert!(matches!(options(&[("acks", "1")]).check(), Err(KafkaError::Fixed(..))));
        assert!(matches!(options(&[("enable.idempotence", "false")]).check(), Err(KafkaError::Fixed(..))));
        assert!(options(&[("acks", "all")]).check().is_ok());
    }

    #[test]
    fn a_kind_without_a_topic_goes_to_the_default() {
        let topics = options(&[]).topics;
        assert_eq!(
            [topics.of(RecordKind(0)), topics.of(RecordKind(1)), topics.of(RecordKind(9))],
            ["e", "r", "e"]
        );
    }

    #[test]
    fn unknown_options_are_named() {
        let error = options(&[("linger.sm", "5")]).check().unwrap_err().to_string();
        assert!(error.contains("linger.sm"), "{error}");
        let error = options(&[("security.protocol", "nonsense")]).check().unwrap_err().to_string();
        assert!(error.contains("security.protocol"), "{error}");
        assert!(options(&[("security.protocol", "SASL_SSL"), ("sasl.mechanisms", "PLAIN")]).check().is_ok());
    }
}
