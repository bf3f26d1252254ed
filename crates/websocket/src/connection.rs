//! A connection on a stream of tokio: the decoder, the encoder, and what waits to be read or written.
//!
//! Owns the rules that need both directions: a ping is answered, a close frame is answered once and nothing follows it.
//! One task has the connection and is its only reader and writer; everything is a poll that keeps its state here, so any
//! future made of them can be dropped at any time.

use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::breach::Breach;
use crate::decoder::Decoder;
use crate::encoder::Encoder;
use crate::event::Event;
use crate::rules::Rules;
use crate::scratch;

/// Frames are gathered for one write until there are so many bytes; the one that goes beyond is still in it.
pub const WRITE_BATCH: usize = 16 * 1024;

/// Reads of one poll: then other connections have their turn, though there may be more.
const READS_PER_POLL: usize = 16;

/// Frames of one poll that complete nothing: fragments may be so small that what is read at once holds thousands of them.
const FRAMES_PER_POLL: usize = 256;

/// Bytes of messages, in the larger of their forms, that are worth a turn of others: they have it before the next message is
/// decoded. Counted over messages, because compressed ones below this may keep the thread for half a millisecond each.
const BYTES_PER_TURN: usize = 16 * 1024;

/// What a connection may do.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// What the peer may send.
    pub rules: Rules,
    /// How messages leave.
    pub encoder: Encoder,
    /// Bytes read by one system call, into a buffer of the thread.
    pub read_bytes: usize,
}

/// Something to send.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Outgoing {
    /// A text message.
    Text(String),
    /// A ping; the payload comes back in the pong.
    Ping([u8; 8]),
    /// A close frame. Nothing leaves after it.
    Close {
        /// RFC 6455 section 7.4.
        code: u16,
        /// At most 123 bytes.
        reason: &'static str,
    },
}

/// Why nothing more can be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadEnd {
    /// Both close frames went.
    #[error("the connection is closed")]
    Closed,
    /// The peer is gone without a close frame.
    #[error("the connection is lost")]
    Lost,
    /// The peer broke a rule.
    #[error(transparent)]
    Broken(#[from] Breach),
}

/// Bytes of messages that travelled compressed.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Traffic {
    /// Received, as they came.
    pub received_compressed: u64,
    /// Received, inflated.
    pub received_plain: u64,
    /// Sent, as they went.
    pub sent_compressed: u64,
    /// Sent, before they were deflated.
    pub sent_plain: u64,
    /// Times that others had their turn before a received message was inflated: it had more than one slice.
    pub inflating_paused: u64,
}

/// One connection, after its handshake.
#[derive(Debug)]
pub struct Connection<S> {
    stream: S,
    decoder: Decoder,
    encoder: Encoder,
    read_bytes: u32,
    /// What was read and not decoded yet, from `next` on.
    ahead: Vec<u8>,
    next: usize,
    /// What was encoded and not taken by the kernel yet, from `written` on.
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
    /// Bytes of messages since others had their turn, up to what a `u32` holds.
    since_others: u32,
    traffic: Traffic,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    /// Takes over a stream after the 101, with what was read of it too far.
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
            since_others: 0,
            traffic: Traffic::default(),
        }
    }

    /// The next event. A ping's pong and a close frame's answer are left for [`Connection::poll_write`].
    ///
    /// # Errors
    /// Why there will be no more. It is told once; [`ReadEnd::Lost`] is the answer if asked again.
    pub fn poll_read(&mut self, context: &mut Context<'_>) -> Poll<Result<Event, ReadEnd>> {
        if self.is_read_over {
            return Poll::Ready(Err(ReadEnd::Lost));
        }
        if self.is_close_received {
            // The answer to it is the last thing that leaves; the writer wakes the task when it has.
            if self.is_writing() {
                return Poll::Pending;
            }
            self.is_read_over = true;
            return Poll::Ready(Err(ReadEnd::Closed));
        }
        if self.since_others as usize >= BYTES_PER_TURN {
            return self.give_way(context);
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
                        self.since_others = 0;
                        return Poll::Pending;
                    };
                    decoded = more;
                }
                Ok(None) => {
                    self.traffic.inflating_paused += u64::from(self.decoder.is_inflating());
                    return self.give_way(context);
                }
                Err(end) => {
                    self.is_read_over = true;
                    self.forget_input();
                    return Poll::Ready(Err(end));
                }
            }
        }
    }

    /// Writes what waits, then what `next` gives, most urgent first, several frames in one system call. `next` is asked only
    /// when nothing waits, so what a peer does not take stays where its bounds are. `Ok(true)` when something has just left for
    /// the kernel, and nothing waits any more.
    ///
    /// # Errors
    /// What the stream says; the connection is over then.
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

    /// Whether something waits to be taken by the kernel.
    pub fn is_writing(&self) -> bool {
        self.is_unflushed || self.pong.is_some() || self.close_reply.is_some()
    }

    /// Whether nothing more can be read.
    pub fn is_read_over(&self) -> bool {
        self.is_read_over
    }

    /// What travelled compressed since this was asked last.
    pub fn take_traffic(&mut self) -> Traffic {
        std::mem::take(&mut self.traffic)
    }

    /// Bytes on the heap that this connection owns now.
    pub fn held_bytes(&self) -> usize {
        let pong = self.pong.as_ref().map_or(0, Vec::capacity);
        self.ahead.capacity() + self.unwritten.capacity() + pong + self.decoder.held_bytes()
    }

    /// The stream, without what waits.
    pub fn into_stream(self) -> S {
        self.stream
    }

    /// Other connections have their turn, and whoever sent something meanwhile. A task that wakes itself at once would have
    /// dozens of turns before the runtime looks at the sockets again.
    fn give_way<T>(&mut self, context: &mut Context<'_>) -> Poll<T> {
        self.since_others = 0;
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

    /// Nothing that came and is not told yet will be told.
    fn forget_input(&mut self) {
        self.release_ahead();
        self.decoder.forget();
    }

    /// What an event asks of the other direction.
    fn note(&mut self, event: &Event) {
        match event {
            // Only the newest one is answered, as RFC 6455 section 5.5.3 allows: a flood costs one payload.
            Event::Ping(payload) if !self.is_close_sent => self.pong = Some(payload.clone()),
            Event::Ping(_) | Event::Pong(_) => {}
            Event::Text { text, compressed } => self.note_received(*compressed, text.len()),
            Event::Binary { bytes, compressed } => self.note_received(*compressed, bytes.len()),
            Event::Close(code) => {
                self.is_close_received = true;
                self.forget_input();
                if !self.is_close_sent {
                    self.close_reply = Some(*code);
                }
            }
        }
    }

    fn note_received(&mut self, compressed: Option<usize>, plain: usize) {
        let bytes = u32::try_from(plain.max(compressed.unwrap_or(0))).unwrap_or(u32::MAX);
        self.since_others = self.since_others.saturating_add(bytes);
        if let Some(compressed) = compressed {
            self.traffic.received_compressed += compressed as u64;
            self.traffic.received_plain += plain as u64;
        }
    }

    /// Encodes what may go into one write.
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

/// Up to the first event, or one slice of a message that has more; at most so many frames. What is left of that many is 0 when
/// there may be more to decode.
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

/// Bytes that the stream took: none at all means that it never will.
fn taken(result: io::Result<usize>) -> io::Result<usize> {
    result.and_then(|count| if count == 0 { Err(io::ErrorKind::WriteZero.into()) } else { Ok(count) })
}
