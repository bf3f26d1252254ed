//! Errors: why a bus or a journal cannot start, and how an error is told in one line.

use ocpp_log::LogError;

/// Why a bus, a journal or a consumer cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The local log cannot be opened.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The Kafka client refuses its configuration.
    #[error(transparent)]
    Kafka(#[from] KafkaError),
    /// The operating system refuses a thread.
    #[error("cannot start the bus's thread")]
    Thread(#[from] std::io::Error),
}

/// Why the Kafka client refuses its configuration.
#[derive(Debug, thiserror::Error)]
pub enum KafkaError {
    /// An option that the gateway fixes.
    #[error(
        "the Kafka option {0:?} is fixed to {1:?}: another value would break answer-after-durable or the order"
    )]
    Fixed(String, &'static str),
    /// An option that the client does not know, or a value that it does not take.
    #[error("the Kafka client refuses its options: {0}")]
    Refused(String),
}

/// An error and all its causes in one line, separated by colons.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
