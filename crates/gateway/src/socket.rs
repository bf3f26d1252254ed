//! The WebSocket seam: the only file that knows which WebSocket library is used.
//!
//! Owns one connection's frames. The outside sees [`Socket::turn`], which writes what the outbox holds and reads what
//! the station sent, and never more than one reader or writer: whoever has the `Socket` is both (P4). Pongs are answered
//! by the library itself inside the same writer, ahead of everything else, and only the newest one is kept, so that
//! a flood of pings costs one pong buffer.
//!
//! The library's default buffers cost 136 KB a connection (measured); the ones here are stated by the configuration.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{Sink, Stream};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::error::{CapacityError, ProtocolError};
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error, Message, Utf8Bytes};

use crate::session::outbox::{Outbox, Outgoing};

/// The `Sec-WebSocket-Accept` value for a `Sec-WebSocket-Key` (RFC 6455 section 4.2.2).
pub fn accept_key(key: &[u8]) -> String {
    tokio_tungstenite::tungstenite::handshake::derive_accept_key(key)
}

/// What one connection may hold.
#[derive(Clone, Copy, Debug)]
pub struct SocketLimits {
    /// The largest message, reassembled.
    pub max_message_bytes: usize,
    /// Bytes read by one system call; held for the connection's lifetime.
    pub read_buffer_bytes: usize,
}

/// A text as it came: UTF-8, checked by the library.
#[derive(Clone, Debug)]
pub struct Text(Utf8Bytes);

impl Text {
    /// The text.
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }
}

/// What happened on a socket.
#[derive(Debug)]
pub enum Turn {
    /// A whole text message.
    Text(Text),
    /// A whole binary message.
    Binary(Bytes),
    /// A ping; the pong is on its way.
    Ping,
    /// A pong, with what the ping carried.
    Pong(Bytes),
    /// The station's close frame; the answer to it is on its way.
    Close(Option<u16>),
    /// Everything handed over has left for the kernel.
    Flushed,
    /// The connection is over: both close frames went, or the peer is gone.
    Ended,
    /// The station broke a rule; a close frame can still be written, and nothing more can be read.
    Broken(Breach),
}

/// Which rule a station broke.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Breach {
    /// A message larger than allowed.
    TooBig,
    /// Text that is not UTF-8.
    NotUtf8,
    /// Anything else of RFC 6455: no mask, reserved bits, fragmentation, control frames.
    Protocol,
}

/// One connection.
pub struct Socket<S> {
    inner: WebSocketStream<S>,
    unflushed: bool,
    read_over: bool,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Socket<S> {
    /// Takes over a stream after the 101, with what was read of it too far.
    pub async fn accept(stream: S, read_ahead: &[u8], limits: SocketLimits) -> Self {
        let config = WebSocketConfig::default()
            .read_buffer_size(limits.read_buffer_bytes)
            .write_buffer_size(0)
            .max_write_buffer_size(2 * limits.max_message_bytes + 64 * 1024)
            .max_message_size(Some(limits.max_message_bytes))
            .max_frame_size(Some(limits.max_message_bytes));
        let inner =
            WebSocketStream::from_partially_read(stream, read_ahead.to_vec(), Role::Server, Some(config))
                .await;
        Self { inner, unflushed: false, read_over: false }
    }

    /// Writes what the outbox holds, most urgent first, and reads one message if asked to. Cancel-safe.
    pub async fn turn(&mut self, outbox: &mut Outbox, read: bool) -> Turn {
        poll_fn(|context| self.poll_turn(context, outbox, read)).await
    }

    /// Whether something handed over has not left for the kernel yet.
    pub fn is_writing(&self) -> bool {
        self.unflushed
    }

    /// Whether nothing more can be read.
    pub fn is_read_over(&self) -> bool {
        self.read_over
    }

    fn poll_turn(&mut self, context: &mut Context<'_>, outbox: &mut Outbox, read: bool) -> Poll<Turn> {
        match self.poll_write(context, outbox) {
            Poll::Ready(Ok(true)) => return Poll::Ready(Turn::Flushed),
            Poll::Ready(Ok(false)) | Poll::Pending => {}
            Poll::Ready(Err(_)) => return Poll::Ready(Turn::Ended),
        }
        if !read || self.read_over {
            return Poll::Pending;
        }
        match Pin::new(&mut self.inner).poll_next(context) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(None) => {
                self.read_over = true;
                Poll::Ready(Turn::Ended)
            }
            Poll::Ready(Some(Ok(message))) => match message {
                Message::Text(text) => Poll::Ready(Turn::Text(Text(text))),
                Message::Binary(bytes) => Poll::Ready(Turn::Binary(bytes)),
                Message::Ping(_) => {
                    // The pong waits in the library's buffer for the next flush.
                    self.unflushed = true;
                    Poll::Ready(Turn::Ping)
                }
                Message::Pong(bytes) => Poll::Ready(Turn::Pong(bytes)),
                Message::Close(frame) => {
                    self.unflushed = true;
                    Poll::Ready(Turn::Close(frame.map(|frame| frame.code.into())))
                }
                Message::Frame(_) => Poll::Ready(Turn::Broken(Breach::Protocol)),
            },
            Poll::Ready(Some(Err(error))) => {
                self.read_over = true;
                Poll::Ready(judge(&error))
            }
        }
    }

    /// Hands over everything the outbox holds and flushes once. `Ready(Ok(true))` when something has just left.
    fn poll_write(&mut self, context: &mut Context<'_>, outbox: &mut Outbox) -> Poll<Result<bool, Error>> {
        while !outbox.is_empty() {
            match Pin::new(&mut self.inner).poll_ready(context) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Ready(Ok(())) => {}
            }
            let Some(outgoing) = outbox.pop() else { break };
            self.unflushed = true;
            match Pin::new(&mut self.inner).start_send(message(outgoing)) {
                // After a close frame the library refuses everything else, which is what RFC 6455 5.5.1 asks for.
                Ok(()) | Err(Error::Protocol(ProtocolError::SendAfterClosing)) => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        if !self.unflushed {
            return Poll::Ready(Ok(false));
        }
        match Pin::new(&mut self.inner).poll_flush(context) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Ok(())) => {
                self.unflushed = false;
                Poll::Ready(Ok(true))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
        }
    }

    /// Ends the connection so that a close frame already written reaches a station that is still sending: closing a TCP
    /// socket with unread input would reset it and destroy what is on its way. Bounded by time and bytes.
    pub async fn linger(self, patience: Duration) {
        const MOST_BYTES: usize = 4 << 20;
        let mut stream = self.inner.into_inner();
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

fn message(outgoing: Outgoing) -> Message {
    match outgoing {
        Outgoing::Text(text) => Message::Text(text.into()),
        Outgoing::Ping(payload) => Message::Ping(Bytes::copy_from_slice(&payload)),
        Outgoing::Close { code, reason } => Message::Close(Some(CloseFrame {
            code: CloseCode::from(code),
            reason: Utf8Bytes::from_static(reason),
        })),
    }
}

fn judge(error: &Error) -> Turn {
    match error {
        Error::Capacity(CapacityError::MessageTooLong { .. }) => Turn::Broken(Breach::TooBig),
        Error::Utf8(_) => Turn::Broken(Breach::NotUtf8),
        // The peer vanished in the middle: no rule broken, and nobody left to tell.
        Error::Protocol(ProtocolError::ResetWithoutClosingHandshake)
        | Error::Io(_)
        | Error::ConnectionClosed
        | Error::AlreadyClosed => Turn::Ended,
        _ => Turn::Broken(Breach::Protocol),
    }
}
