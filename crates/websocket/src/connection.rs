//! A connection on a tokio stream: the decoder, the encoder, and the bytes between them and the stream.
//!
//! Owns the rules that concern both directions: a ping is answered; a close frame is answered once, and nothing follows it.
//! One task owns the connection and is its only reader and writer. Both directions are poll functions that keep their state
//! here, so they are cancel safe: a future made of them may be dropped at any time.

use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::decoder::Decoder;
use crate::encoder::Encoder;
use crate::error::DecodeError;
use crate::event::Event;
use crate::rules::Rules;
use crate::scratch;

/// Frames are batched into one write until they reach this many bytes; the last one may exceed it.
pub const WRITE_BATCH: usize = 16 * 1024;

/// Reads per poll, after which the task yields even if there is more to read.
const READS_PER_POLL: usize = 16;

/// Frames per poll that complete no message. Fragments may be so small that one read returns thousands of them.
const FRAMES_PER_POLL: usize = 256;

/// Bytes of messages, each in the larger of its two forms, after which the task yields before it decodes the next message.
/// Summed over messages, because even a smaller one that is compressed may occupy the thread for half a millisecond.
const BYTES_BEFORE_YIELD: usize = 16 * 1024;

/// How a connection reads and writes.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// What the peer may send.
    pub rules: Rules,
    /// How messages are written.
    pub encoder: Encoder,
    /// Bytes read by one system call, into a buffer that belongs to the thread.
    pub read_bytes: usize,
}

/// Something to send.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Outgoing {
    /// A text message.
    Text(String),
    /// A ping; the payload comes back in the pong.
    Ping([u8; 8]),
    /// A close frame. Nothing is sent after it.
    Close {
        /// The status code (RFC 6455 section 7.4).
        code: u16,
        /// The reason, of which at most 123 bytes are sent.
        reason: &'static str,
    },
}

/// Why nothing more can be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadEnd {
    /// The closing handshake is complete.
    #[error("the connection is closed")]
    Closed,
    /// The stream ended without a close frame.
    #[error("the connection is lost")]
    Lost,
    /// The peer broke a rule.
    #[error(transparent)]
    Broken(#[from] DecodeError),
}

/// Compressed messages, in bytes, before and after compression.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Traffic {
    /// Received bytes, compressed.
    pub received_compressed: u64,
    /// Received bytes, inflated.
    pub received_plain: u64,
    /// Sent bytes, compressed.
    pub sent_compressed: u64,
    /// Sent bytes, before compression.
    pub sent_plain: u64,
    /// How often the task yielded between two slices of a received message.
    pub inflating_paused: u64,
}

/// One connection, after its handshake.
#[derive(Debug)]
pub struct Connection<S> {
    stream: S,
    decoder: Decoder,
    encoder: Encoder,
    read_bytes: u32,
    /// Bytes that were read and not decoded yet, from `next` on.
    ahead: Vec<u8>,
    next: usize,
    /// Bytes that were encoded and not accepted by the kernel yet, from `written` on.
    unwritten: Vec<u8>,
    written: usize,
    is_unflushed: bool,
    /// The answer to the newest ping.
    pong: Option<Vec<u8>>,
    /// The answer to the peer's close frame.
    close_reply: Option<Option<u16>>,
    is_close_sent: bool,
    is_close_received: bool,
    is_read_over: bool,
    /// Bytes of messages since the task last yielded, saturating.
    since_yield: u32,
    traffic: Traffic,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    /// Takes over a stream after its handshake, with any bytes read beyond that.
    pub fn new(stream: S, read_ahead: &[u8], settings: Settings) -> Self {
        Self {
            stream,
            decoder: Decoder::new(settings.rules),
            encoder: settings.encoder,
            read_bytes: u32::try_from(settings.read_bytes).unwrap_or(u32::MAX),
            ahead: read_ahead.to_vec(),
            next: 0,
            unwritten: Vec::new(),
            written: 0,
            is_unflushed: false,
            pong: None,
            close_reply: None,
            is_close_sent: false,
            is_close_received: false,
            is_read_over: false,
            since_yield: 0,
            traffic: Traffic::default(),
        }
    }

    /// The next event. Answers to pings and to a close frame are left for [`Connection::poll_write`] to send.
    ///
    /// # Errors
    /// Why there will be no more events. Returned once; every later call returns [`ReadEnd::Lost`].
    pub fn poll_read(&mut self, context: &mut Context<'_>) -> Poll<Result<Event, ReadEnd>> {
        if self.is_read_over {
            return Poll::Ready(Err(ReadEnd::Lost));
        }
        if self.is_close_received {
            // Our close frame is sent last; the writer wakes the task once it is written.
            if self.is_writing() {
                return Poll::Pending;
            }
            self.is_read_over = true;
            return Poll::Ready(Err(ReadEnd::Closed));
        }
        if self.since_yield as usize >= BYTES_BEFORE_YIELD {
            return self.yield_now(context);
        }
        let mut reads = 0;
        let mut frames = FRAMES_PER_POLL;
        let mut decoded = self.decode_ahead(&mut frames);
        loop {
            match decoded {
                Ok(Some(event)) => {
                    self.note(&event);
                    return Poll::Ready(Ok(event));
                }
                Ok(None) if reads < READS_PER_POLL && frames > 0 => {
                    reads += 1;
                    let Poll::Ready(more) = self.poll_more(context, &mut frames) else {
                        self.since_yield = 0;
                        return Poll::Pending;
                    };
                    decoded = more;
                }
                Ok(None) => {
                    self.traffic.inflating_paused += u64::from(self.decoder.is_inflating());
                    return self.yield_now(context);
                }
                Err(end) => {
                    self.is_read_over = true;
                    self.discard_input();
                    return Poll::Ready(Err(end));
                }
            }
        }
    }

    /// Writes pending bytes, then what `next` returns, several frames per system call. `next` is called only when nothing is
    /// pending, so messages that a peer is too slow to read stay in the caller's queue, which is bounded. `Ok(true)` if
    /// something was written and nothing is pending any more.
    ///
    /// # Errors
    /// The error of the stream, which cannot be used any more.
    pub fn poll_write(
        &mut self,
        context: &mut Context<'_>,
        mut next: impl FnMut() -> Option<Outgoing>,
    ) -> Poll<io::Result<bool>> {
        loop {
            while let Some(waiting) = self.unwritten.get(self.written..).filter(|bytes| !bytes.is_empty()) {
                self.written += taken(ready!(Pin::new(&mut self.stream).poll_write(context, waiting)))?;
            }
            if self.written > 0 {
                self.written = 0;
                self.unwritten = Vec::new();
            }
            let gathered = scratch::write(|batch| {
                self.gather(batch, &mut next);
                if batch.is_empty() {
                    return Ok(false);
                }
                self.is_unflushed = true;
                let count = match Pin::new(&mut self.stream).poll_write(context, batch) {
                    Poll::Ready(result) => taken(result)?,
                    Poll::Pending => 0,
                };
                self.unwritten = batch.get(count..).unwrap_or_default().to_vec();
                Ok(true)
            });
            match gathered {
                Ok(true) => {}
                Ok(false) => break,
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        if !self.is_unflushed {
            return Poll::Ready(Ok(false));
        }
        ready!(Pin::new(&mut self.stream).poll_flush(context))?;
        self.is_unflushed = false;
        Poll::Ready(Ok(true))
    }

    /// Whether anything is still to be written.
    pub fn is_writing(&self) -> bool {
        self.is_unflushed || self.pong.is_some() || self.close_reply.is_some()
    }

    /// Whether nothing more can be read.
    pub fn is_read_over(&self) -> bool {
        self.is_read_over
    }

    /// The traffic since the last call.
    pub fn take_traffic(&mut self) -> Traffic {
        std::mem::take(&mut self.traffic)
    }

    /// The heap memory that this connection owns now, in bytes.
    pub fn held_bytes(&self) -> usize {
        let pong = self.pong.as_ref().map_or(0, Vec::capacity);
        self.ahead.capacity() + self.unwritten.capacity() + pong + self.decoder.held_bytes()
    }

    /// The stream. Bytes that are still to be written are lost.
    pub fn into_stream(self) -> S {
        self.stream
    }

    /// Yields to other tasks, and to the I/O driver. A task that woke itself at once would be polled dozens of times before the
    /// runtime looks at the sockets again.
    fn yield_now<T>(&mut self, context: &mut Context<'_>) -> Poll<T> {
        self.since_yield = 0;
        if pin!(tokio::task::yield_now()).poll(context).is_ready() {
            context.waker().wake_by_ref();
        }
        Poll::Pending
    }

    /// Reads once, and decodes up to the first event.
    fn poll_more(
        &mut self,
        context: &mut Context<'_>,
        frames: &mut usize,
    ) -> Poll<Result<Option<Event>, ReadEnd>> {
        scratch::read(self.read_bytes as usize, |bytes| {
            let mut buffer = ReadBuf::new(bytes);
            if ready!(Pin::new(&mut self.stream).poll_read(context, &mut buffer)).is_err() {
                return Poll::Ready(Err(ReadEnd::Lost));
            }
            let input = buffer.filled_mut();
            if input.is_empty() {
                return Poll::Ready(Err(ReadEnd::Lost));
            }
            let mut used = 0;
            let outcome = decode(&mut self.decoder, input, &mut used, frames);
            self.ahead = input.get(used..).unwrap_or_default().to_vec();
            Poll::Ready(outcome)
        })
    }

    /// Decodes what was read earlier, up to the first event.
    fn decode_ahead(&mut self, frames: &mut usize) -> Result<Option<Event>, ReadEnd> {
        let outcome = decode(&mut self.decoder, &mut self.ahead, &mut self.next, frames);
        if self.next >= self.ahead.len() {
            self.release_ahead();
        }
        outcome
    }

    fn release_ahead(&mut self) {
        self.ahead = Vec::new();
        self.next = 0;
    }

    /// Drops input that has not become an event.
    fn discard_input(&mut self) {
        self.release_ahead();
        self.decoder.discard();
    }

    /// Prepares the answer that an event calls for, and counts it.
    fn note(&mut self, event: &Event) {
        match event {
            // Only the newest ping is answered, as RFC 6455 section 5.5.3 allows, so a flood costs one payload.
            Event::Ping(payload) if !self.is_close_sent => self.pong = Some(payload.clone()),
            Event::Ping(_) | Event::Pong(_) => {}
            Event::Text { text, compressed } => self.note_received(*compressed, text.len()),
            Event::Binary { bytes, compressed } => self.note_received(*compressed, bytes.len()),
            Event::Close(code) => {
                self.is_close_received = true;
                self.discard_input();
                if !self.is_close_sent {
                    self.close_reply = Some(*code);
                }
            }
        }
    }

    fn note_received(&mut self, compressed: Option<usize>, plain: usize) {
        let bytes = u32::try_from(plain.max(compressed.unwrap_or(0))).unwrap_or(u32::MAX);
        self.since_yield = self.since_yield.saturating_add(bytes);
        if let Some(compressed) = compressed {
            self.traffic.received_compressed += compressed as u64;
            self.traffic.received_plain += plain as u64;
        }
    }

    /// Encodes the frames of one write.
    fn gather(&mut self, batch: &mut Vec<u8>, next: &mut impl FnMut() -> Option<Outgoing>) {
        if let Some(pong) = self.pong.take().filter(|_| !self.is_close_sent) {
            self.encoder.pong(batch, &pong);
        }
        if let Some(code) = self.close_reply.take().filter(|_| !self.is_close_sent) {
            self.is_close_sent = true;
            self.encoder.close(batch, code, "");
        }
        while batch.len() < WRITE_BATCH {
            let Some(outgoing) = next() else { return };
            if self.is_close_sent {
                // RFC 6455 section 5.5.1: nothing follows a close frame.
                continue;
            }
            match outgoing {
                Outgoing::Text(text) => {
                    if let Some(compressed) = self.encoder.text(batch, &text) {
                        self.traffic.sent_compressed += compressed as u64;
                        self.traffic.sent_plain += text.len() as u64;
                    }
                }
                Outgoing::Ping(payload) => self.encoder.ping(batch, &payload),
                Outgoing::Close { code, reason } => {
                    self.is_close_sent = true;
                    self.encoder.close(batch, Some(code), reason);
                }
            }
        }
    }
}

/// Decodes up to the first event, at most `frames` frames, or one slice of a message that has more. Leaves `frames` at 0 if there
/// may be more to decode.
fn decode(
    decoder: &mut Decoder,
    input: &mut [u8],
    used: &mut usize,
    frames: &mut usize,
) -> Result<Option<Event>, ReadEnd> {
    while *frames > 0 {
        let rest = input.get_mut(*used..).unwrap_or_default();
        if rest.is_empty() && !decoder.is_inflating() {
            break;
        }
        let step = decoder.decode(rest)?;
        *used += step.consumed;
        *frames = if decoder.is_inflating() { 0 } else { *frames - 1 };
        if step.event.is_some() {
            return Ok(step.event);
        }
    }
    Ok(None)
}

/// How many bytes the stream accepted; 0 means that it never will accept any.
fn taken(result: io::Result<usize>) -> io::Result<usize> {
    result.and_then(|count| if count == 0 { Err(io::ErrorKind::WriteZero.into()) } else { Ok(count) })
}
