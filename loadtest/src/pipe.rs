//! JSON lines between the processes of a run: one message per line, over standard input and output.
//!
//! Owns the format and its limit. A line longer than [`LONGEST_LINE`] is an error, so that a confused process costs no memory.

use serde::Serialize;
use serde::de::DeserializeOwned;
use thiserror::Error;
use tokio::io::{
    AsyncBufRead, AsyncBufReadExt, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader, Stdin, Stdout,
};
use tokio::sync::mpsc;
use tokio_util::task::TaskTracker;

/// The longest line, in bytes. The longest messages are the final distributions of a worker: some dozen of at most 60 KB each.
pub const LONGEST_LINE: u64 = 16 << 20;
/// Capacity of a channel of messages that were read.
const CAPACITY: usize = 16;

/// Why a message could not be read or written.
#[derive(Debug, Error)]
pub enum PipeError {
    /// The pipe broke.
    #[error("the pipe broke")]
    Io(#[from] std::io::Error),
    /// A line that is not the expected message.
    #[error("a line that is not a message")]
    Json(#[from] serde_json::Error),
    /// The other process closed the pipe.
    #[error("the other process ended")]
    Ended,
    /// A line longer than any message.
    #[error("a line longer than {LONGEST_LINE} bytes")]
    TooLong,
}

/// Reads messages.
#[derive(Debug)]
pub struct Incoming<R> {
    reader: R,
    line: Vec<u8>,
}

impl<R: AsyncBufRead + Unpin> Incoming<R> {
    /// Reads from this stream.
    pub fn new(reader: R) -> Self {
        Self { reader, line: Vec::new() }
    }

    /// Returns the next message. Not cancel-safe: what was read of a line would be lost.
    ///
    /// # Errors
    /// When the pipe ends, or the line is not the expected message.
    pub async fn next<T: DeserializeOwned>(&mut self) -> Result<T, PipeError> {
        self.line.clear();
        (&mut self.reader).take(LONGEST_LINE).read_until(b'\n', &mut self.line).await?;
        if self.line.last() != Some(&b'\n') {
            let whole = u64::try_from(self.line.len()).is_ok_and(|length| length >= LONGEST_LINE);
            return Err(if whole { PipeError::TooLong } else { PipeError::Ended });
        }
        Ok(serde_json::from_slice(&self.line)?)
    }

    /// Forwards every message into a new channel, up to and including the first error. Ends when the receiver is gone.
    pub fn into_channel<T>(self, tasks: &TaskTracker) -> mpsc::Receiver<Result<T, PipeError>>
    where
        R: Send + 'static,
        T: DeserializeOwned + Send + 'static,
    {
        let (sender, receiver) = mpsc::channel(CAPACITY);
        self.forward(tasks, sender, |message| message);
        receiver
    }

    /// The same into an existing channel, with each message converted by `convert`.
    pub fn forward<T, M>(
        mut self,
        tasks: &TaskTracker,
        sender: mpsc::Sender<M>,
        convert: impl Fn(Result<T, PipeError>) -> M + Send + 'static,
    ) where
        R: Send + 'static,
        T: DeserializeOwned + Send + 'static,
        M: Send + 'static,
    {
        drop(tasks.spawn(async move {
            loop {
                let message = self.next().await;
                let failed = message.is_err();
                if sender.send(convert(message)).await.is_err() || failed {
                    return;
                }
            }
        }));
    }
}

/// Writes messages.
#[derive(Debug)]
pub struct Outgoing<W>(W);

impl<W: AsyncWrite + Unpin> Outgoing<W> {
    /// Writes to this stream.
    pub fn new(writer: W) -> Self {
        Self(writer)
    }

    /// Writes one message.
    ///
    /// # Errors
    /// When the other side is gone.
    pub async fn send<T: Serialize>(&mut self, message: &T) -> Result<(), PipeError> {
        let mut line = serde_json::to_vec(message)?;
        line.push(b'\n');
        self.0.write_all(&line).await?;
        Ok(self.0.flush().await?)
    }
}

/// The pipes that connect a child process to its parent.
pub fn parent() -> (Incoming<BufReader<Stdin>>, Outgoing<Stdout>) {
    (Incoming::new(BufReader::new(tokio::io::stdin())), Outgoing::new(tokio::io::stdout()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn messages_arrive_as_they_were_sent_and_the_end_is_an_error() {
        let (near, far) = tokio::io::duplex(64);
        let tasks = TaskTracker::new();
        let mut channel = Incoming::new(BufReader::new(far)).into_channel::<Vec<u32>>(&tasks);
        let mut outgoing = Outgoing::new(near);
        for number in 0..100 {
            outgoing.send(&vec![number; 20]).await.unwrap();
            assert_eq!(channel.recv().await.unwrap().unwrap(), vec![number; 20]);
        }
        drop(outgoing);
        assert!(matches!(channel.recv().await, Some(Err(PipeError::Ended))));
        assert!(channel.recv().await.is_none());
    }

    #[tokio::test]
    async fn an_invalid_line_is_an_error() {
        let mut incoming = Incoming::new(BufReader::new(&b"{}\n"[..]));
        assert!(matches!(incoming.next::<u32>().await, Err(PipeError::Json(_))));
        let mut incoming = Incoming::new(BufReader::new(&b"12"[..]));
        assert!(matches!(incoming.next::<u32>().await, Err(PipeError::Ended)));
        let long = vec![b' '; usize::try_from(LONGEST_LINE).unwrap() + 1];
        let mut incoming = Incoming::new(BufReader::new(&long[..]));
        assert!(matches!(incoming.next::<u32>().await, Err(PipeError::TooLong)));
    }
}
