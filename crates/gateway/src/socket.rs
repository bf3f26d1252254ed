//! The WebSocket seam: what a session sees of its connection.
//!
//! Owns one connection's frames, through `ocpp_websocket`. The outside sees [`Socket::turn`], which writes what the outbox
//! holds and reads what the station sent, and never more than one reader or writer: whoever has the `Socket` is both (P4).
//! Pongs and the answer to a close frame are written by the same turn, ahead of everything else.
//!
//! Between messages a socket owns no buffer; what it may own otherwise is stated in `ocpp_websocket`.

use std::future::poll_fn;
use std::task::{Context, Poll};
use std::time::Duration;

use ocpp_websocket::{Connection, Encoder, Event, ReadEnd, Rules, Settings};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use ocpp_station::Session;
use ocpp_station::host::Host;
use ocpp_station::outbox::{Outbox, Outgoing};

pub use ocpp_websocket::{DecodeError, Deflate, ProtocolError, Traffic, accept_key};

/// What one connection may hold, and when it compresses.
#[derive(Clone, Copy, Debug)]
pub struct SocketLimits {
    /// The largest message, reassembled.
    pub max_message_bytes: usize,
    /// Bytes read by one system call.
    pub read_buffer_bytes: usize,
    /// A message to the station is compressed if it is larger, where compression was negotiated.
    pub compress_above_bytes: usize,
}

/// What happened on a socket.
#[derive(Debug)]
pub enum Turn {
    /// A whole text message.
    Text(String),
    /// A whole binary message.
    Binary(Vec<u8>),
    /// A ping; the pong is on its way.
    Ping,
    /// A pong, with what the ping carried.
    Pong(Vec<u8>),
    /// The station's close frame; the answer to it is on its way.
    Close(Option<u16>),
    /// Everything handed over has left for the kernel. Not told when it left in the same turn and reading goes on: nobody had
    /// begun to wait, and a turn more for each answer is not free.
    Flushed,
    /// Answers left the outbox and wait for the kernel: whoever did not read because of them may read again.
    Taken,
    /// The connection is over: both close frames went, or the peer is gone.
    Ended,
    /// The station broke a rule; a close frame can still be written, and nothing more can be read.
    Broken(DecodeError),
}

/// What a socket writes from.
pub trait Source {
    /// The most urgent thing that waits.
    fn pop(&mut self) -> Option<Outgoing>;

    /// Answers that wait.
    fn answers(&self) -> usize;
}

impl Source for Outbox {
    fn pop(&mut self) -> Option<Outgoing> {
        Self::pop(self)
    }

    fn answers(&self) -> usize {
        Self::answers(self)
    }
}

impl<H: Host> Source for Session<H> {
    fn pop(&mut self) -> Option<Outgoing> {
        Self::pop(self)
    }

    fn answers(&self) -> usize {
        self.unwritten_answers()
    }
}

fn wire(outgoing: Outgoing) -> ocpp_websocket::Outgoing {
    match outgoing {
        Outgoing::Text(text) => ocpp_websocket::Outgoing::Text(text),
        Outgoing::Ping(payload) => ocpp_websocket::Outgoing::Ping(payload),
        Outgoing::Close { code, reason } => ocpp_websocket::Outgoing::Close { code, reason },
    }
}

/// One connection.
pub struct Socket<S> {
    // Boxed, because a task has room for each place that a value is moved through.
    connection: Box<Connection<S>>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Socket<S> {
    /// Takes over a stream after the 101, with what was read of it too far.
    pub fn accept(stream: S, read_ahead: &[u8], limits: SocketLimits, deflate: Option<Deflate>) -> Self {
        let settings = Settings {
            rules: Rules { max_message: limits.max_message_bytes, deflate: deflate.is_some() },
            encoder: Encoder { deflate, compress_above: limits.compress_above_bytes },
            read_bytes: limits.read_buffer_bytes,
        };
        Self { connection: Box::new(Connection::new(stream, read_ahead, settings)) }
    }

    /// Writes what the source has, most urgent first, and reads one message if asked to. Cancel-safe.
    pub async fn turn(&mut self, outbox: &mut impl Source, read: bool) -> Turn {
        poll_fn(|context| self.poll_turn(context, outbox, read)).await
    }

    /// Whether something handed over has not left for the kernel yet.
    pub fn is_writing(&self) -> bool {
        self.connection.is_writing()
    }

    /// Whether nothing more can be read.
    pub fn is_read_over(&self) -> bool {
        self.connection.is_read_over()
    }

    /// What travelled compressed since this was asked last.
    pub fn take_traffic(&mut self) -> Traffic {
        self.connection.take_traffic()
    }

    fn poll_turn(&mut self, context: &mut Context<'_>, outbox: &mut impl Source, read: bool) -> Poll<Turn> {
        let answers = outbox.answers();
        let is_awaited = self.is_writing() || !read || self.is_read_over();
        match self.connection.poll_write(context, || outbox.pop().map(wire)) {
            Poll::Ready(Ok(true)) if is_awaited => return Poll::Ready(Turn::Flushed),
            Poll::Ready(Err(_)) => return Poll::Ready(Turn::Ended),
            Poll::Pending if !read && outbox.answers() < answers => return Poll::Ready(Turn::Taken),
            Poll::Ready(Ok(_)) | Poll::Pending => {}
        }
        if !read || self.is_read_over() {
            return Poll::Pending;
        }
        self.connection.poll_read(context).map(|read| match read {
            Ok(Event::Text { text, .. }) => Turn::Text(text),
            Ok(Event::Binary { bytes, .. }) => Turn::Binary(bytes),
            Ok(Event::Ping(_)) => Turn::Ping,
            Ok(Event::Pong(payload)) => Turn::Pong(payload),
            Ok(Event::Close(code)) => Turn::Close(code),
            Err(ReadEnd::Broken(error)) => Turn::Broken(error),
            // The peer vanished in the middle: no rule broken, and nobody left to tell.
            Err(ReadEnd::Closed | ReadEnd::Lost) => Turn::Ended,
        })
    }

    /// Ends the connection so that a close frame already written reaches a station that is still sending: closing a TCP
    /// socket with unread input would reset it and destroy what is on its way. Bounded by time and bytes.
    pub async fn linger(self, patience: Duration) {
        const MOST_BYTES: usize = 4 << 20;
        let mut stream = self.connection.into_stream();
        let drain = async {
            let mut rest = [0_u8; 4096];
            let mut read = 0;
            if stream.shutdown().await.is_err() {
                return;
            }
            while let Ok(count) = stream.read(&mut rest).await {
                read += count;
                if count == 0 || read > MOST_BYTES {
                    return;
                }
            }
        };
        // Running out of patience is one of the ways this ends.
        drop(tokio::time::timeout(patience, Box::pin(drain)).await);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::DuplexStream;

    const LIMITS: SocketLimits =
        SocketLimits { max_message_bytes: 1024, read_buffer_bytes: 1024, compress_above_bytes: 256 };

    /// `[]`, with a mask of zeros.
    const TEXT: [u8; 8] = [0x81, 0x82, 0, 0, 0, 0, b'[', b']'];

    /// A socket whose other end takes so many bytes before somebody reads them.
    fn socket(room: usize) -> (Socket<DuplexStream>, DuplexStream) {
        let (near, far) = tokio::io::duplex(room);
        (Socket::accept(near, &[], LIMITS, None), far)
    }

    fn answers(count: usize) -> Outbox {
        let mut outbox = Outbox::default();
        for _ in 0..count {
            outbox.answer("x".repeat(100));
        }
        outbox
    }

    #[tokio::test]
    async fn a_station_that_takes_nothing_is_read_all_the_same() {
        let (mut socket, mut far) = socket(64);
        let mut outbox = answers(8);
        assert!(matches!(socket.turn(&mut outbox, false).await, Turn::Taken), "reading may go on");
        assert!(outbox.is_empty() && socket.is_writing());
        outbox.answer("one more".into());
        for _ in 0..100 {
            far.write_all(&TEXT).await.unwrap();
            assert!(matches!(socket.turn(&mut outbox, true).await, Turn::Text(text) if text == "[]"));
            assert_eq!(outbox.answers(), 1, "nothing is taken over while something waits");
        }
        let all = 8 * 102 + 10;
        let mut read = vec![0; all];
        let (turn, got) = tokio::join!(socket.turn(&mut outbox, true), far.read_exact(&mut read));
        assert!(matches!(turn, Turn::Flushed), "somebody has waited for this");
        assert_eq!(got.unwrap(), all);
    }

    #[tokio::test]
    async fn what_leaves_at_once_does_not_end_a_turn_that_reads() {
        let (mut socket, mut far) = socket(4096);
        far.write_all(&TEXT).await.unwrap();
        assert!(matches!(socket.turn(&mut answers(1), true).await, Turn::Text(_)));
        assert!(!socket.is_writing());
        assert!(matches!(socket.turn(&mut answers(1), false).await, Turn::Flushed));
    }
}
