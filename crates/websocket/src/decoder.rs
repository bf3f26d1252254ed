//! Turns bytes into events, however the bytes are split.
//!
//! Owns the state between two pieces of input: a partial header, the rest of a frame, the message so far. Invariant: the events
//! depend on the bytes alone, not on how they were split.

use crate::error::{DecodeError, ProtocolError};
use crate::event::Event;
use crate::header::{HEADER_MAX, Header, Kind};
use crate::mask::unmask;
use crate::message::{Compressed, Message, Whole};
use crate::rules::Rules;

/// Stands for a code that no close frame may carry.
const PROTOCOL_ERROR: u16 = 1002;

/// One step of decoding.
#[derive(Debug)]
pub struct Step {
    /// How many bytes of the input were used; 0 only if there was no input, or while [`Decoder::is_inflating`].
    pub consumed: usize,
    /// The event that they completed.
    pub event: Option<Event>,
}

/// The rest of the frame that is being received.
#[derive(Debug)]
struct Frame {
    kind: Kind,
    is_final: bool,
    mask: [u8; 4],
    remaining: usize,
}

/// The message that is not an event yet.
#[derive(Debug, Default)]
enum Incoming {
    #[default]
    Nothing,
    /// Its last frame has not ended.
    Parts(Message),
    /// It has, and no other frame is decoded before it is inflated. Boxed, because only messages of several slices get here.
    Inflating(Box<Compressed>),
}

/// Decodes one direction of one connection.
#[derive(Debug)]
pub struct Decoder {
    rules: Rules,
    /// A partial header.
    head: [u8; HEADER_MAX],
    head_len: u8,
    frame: Option<Frame>,
    message: Incoming,
    /// The payload so far of a control frame that arrived in pieces.
    control: Vec<u8>,
}

impl Decoder {
    /// A decoder for the start of a connection.
    pub fn new(rules: Rules) -> Self {
        let message = Incoming::Nothing;
        Self { rules, head: [0; HEADER_MAX], head_len: 0, frame: None, message, control: Vec::new() }
    }

    /// Decodes at most one frame, or inflates at most one slice. While [`Decoder::is_inflating`] it must be called again, with
    /// or without input. Unmasks the part of `input` that it uses, in place; the caller passes the rest again.
    ///
    /// # Errors
    /// The rule that the peer broke. The decoder must not be used after that.
    pub fn decode(&mut self, input: &mut [u8]) -> Result<Step, DecodeError> {
        if self.is_inflating() {
            return Ok(Step { consumed: 0, event: self.inflate()? });
        }
        let mut consumed = 0;
        let mut frame = match self.frame.take() {
            Some(frame) => frame,
            None => match self.begin(input, &mut consumed)? {
                Some(frame) => frame,
                None => return Ok(Step { consumed, event: None }),
            },
        };
        let rest = input.get_mut(consumed..).unwrap_or_default();
        let length = frame.remaining.min(rest.len());
        let piece = rest.get_mut(..length).unwrap_or_default();
        unmask(piece, &mut frame.mask);
        frame.remaining -= length;
        consumed += length;
        let event = self.take(&frame, piece)?;
        if frame.remaining > 0 {
            self.frame = Some(frame);
        }
        Ok(Step { consumed, event })
    }

    /// Whether a message is complete and has more slices to inflate before it becomes an event.
    pub fn is_inflating(&self) -> bool {
        matches!(self.message, Incoming::Inflating(_))
    }

    /// Drops the incomplete message, because nothing more will be decoded.
    pub(crate) fn discard(&mut self) {
        self.message = Incoming::Nothing;
        self.control = Vec::new();
    }

    /// The heap memory that is owned now, in bytes.
    pub(crate) fn held_bytes(&self) -> usize {
        let message = match &self.message {
            Incoming::Nothing => 0,
            Incoming::Parts(message) => message.held_bytes(),
            Incoming::Inflating(message) => size_of::<Compressed>() + message.held_bytes(),
        };
        self.control.capacity() + message
    }

    /// Reads a header from the input, or from an earlier part of it and the input.
    fn begin(&mut self, input: &[u8], consumed: &mut usize) -> Result<Option<Frame>, DecodeError> {
        let parsed = if self.head_len == 0 {
            Header::parse(input, self.rules.deflate)?
        } else {
            let kept = usize::from(self.head_len);
            let more = input.len().min(HEADER_MAX - kept);
            let mut bytes = self.head;
            for (slot, byte) in bytes.iter_mut().skip(kept).zip(input) {
                *slot = *byte;
            }
            let known = bytes.get(..kept + more).unwrap_or_default();
            Header::parse(known, self.rules.deflate)?.map(|(header, taken)| (header, taken - kept))
        };
        let Some((header, taken)) = parsed else {
            // A partial header is shorter than the longest header, so it fits.
            for (slot, byte) in self.head.iter_mut().skip(usize::from(self.head_len)).zip(input) {
                *slot = *byte;
                self.head_len += 1;
            }
            *consumed = input.len();
            return Ok(None);
        };
        self.head_len = 0;
        *consumed = taken;
        match (header.kind, &mut self.message) {
            (Kind::Ping | Kind::Pong | Kind::Close, _) => {}
            (Kind::First { text, compressed }, Incoming::Nothing) => {
                let mut message = Message::new(text, compressed);
                message.admit(header.length, &self.rules)?;
                self.message = Incoming::Parts(message);
            }
            (Kind::Continuation, Incoming::Parts(message)) => message.admit(header.length, &self.rules)?,
            (Kind::First { .. } | Kind::Continuation, _) => return Err(ProtocolError::FragmentOrder.into()),
        }
        // Messages that are too long were refused above, and a control frame has at most 125 bytes.
        let remaining = usize::try_from(header.length).map_err(|_| DecodeError::TooBig)?;
        Ok(Some(Frame { kind: header.kind, is_final: header.is_final, mask: header.mask, remaining }))
    }

    /// Adds a piece of a frame's payload, unmasked.
    fn take(&mut self, frame: &Frame, piece: &[u8]) -> Result<Option<Event>, DecodeError> {
        let is_whole = frame.remaining == 0;
        match frame.kind {
            Kind::First { .. } | Kind::Continuation => {
                let Incoming::Parts(message) = &mut self.message else { return Ok(None) };
                message.push(piece, frame.remaining, frame.is_final, &self.rules)?;
                if is_whole && frame.is_final { self.finish() } else { Ok(None) }
            }
            Kind::Ping | Kind::Pong | Kind::Close => {
                self.control.extend_from_slice(piece);
                if !is_whole {
                    return Ok(None);
                }
                let payload = std::mem::take(&mut self.control);
                match frame.kind {
                    Kind::Ping => Ok(Some(Event::Ping(payload))),
                    Kind::Pong => Ok(Some(Event::Pong(payload))),
                    _ => close_code(&payload).map(|code| Some(Event::Close(code))),
                }
            }
        }
    }

    /// Completes the message, whose last frame has ended.
    fn finish(&mut self) -> Result<Option<Event>, DecodeError> {
        let Incoming::Parts(message) = std::mem::take(&mut self.message) else { return Ok(None) };
        let mut message = match message.finish()? {
            Whole::Plain(event) => return Ok(Some(event)),
            Whole::Compressed(message) => message,
        };
        if message.inflate(&self.rules)? {
            return message.finish().map(Some);
        }
        self.message = Incoming::Inflating(Box::new(message));
        Ok(None)
    }

    /// Inflates another slice of the message.
    fn inflate(&mut self) -> Result<Option<Event>, DecodeError> {
        let Incoming::Inflating(mut message) = std::mem::take(&mut self.message) else { return Ok(None) };
        if message.inflate(&self.rules)? {
            return message.finish().map(Some);
        }
        self.message = Incoming::Inflating(message);
        Ok(None)
    }
}

/// The code in a close frame, whose reason must be UTF-8 (RFC 6455 section 5.5.1).
fn close_code(payload: &[u8]) -> Result<Option<u16>, DecodeError> {
    match payload {
        [] => Ok(None),
        [_] => Err(ProtocolError::CloseFrame.into()),
        [high, low, reason @ ..] => {
            std::str::from_utf8(reason).map_err(|_| DecodeError::InvalidUtf8)?;
            let code = u16::from_be_bytes([*high, *low]);
            Ok(Some(if may_be_sent(code) { code } else { PROTOCOL_ERROR }))
        }
    }
}

/// Whether a close frame may carry this code: it is registered and not reserved (RFC 6455 section 7.4 and IANA's WebSocket Close
/// Code Number Registry, which has 1012 to 1014 beside the codes of the RFC), or of libraries (3000) or of applications (4000).
/// 1005, 1006 and 1015 stand for connections that ended without one.
fn may_be_sent(code: u16) -> bool {
    matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999)
}
