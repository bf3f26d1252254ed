//! Kafka: the client's options, the writer of a Kafka bus, and the consumer.
//!
//! Only the files in `kafka/` name the client library.

mod client;
pub mod consumer;
mod options;
mod writer;

pub use options::{KafkaOptions, Topics};
pub(crate) use writer::KafkaWriter;
