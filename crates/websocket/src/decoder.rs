//! From bytes to events, however the bytes are cut.
//!
//! Owns the state between two pieces: the beginning of a header, the rest of a frame, the message so far. Invariant: the
//! events depend on the bytes alone, not on where they were cut.

use tungstenite::protocol::frame::coding::CloseCode;

use crate::breach::{Breach, Violation};
use crate::event::Event;
use crate::header::{HEADER_MAX, Header, Kind};
use crate::mask::unmask;
use crate::message::{Compressed, Message, Whole};
use crate::rules::Rules;

/// One step of decoding.
#[derive(Debug)]
pub struct Step {
    /// Bytes of the input that were used; 0 only for no input, or while [`Decoder::is_inflating`].
    pub consumed: usize,
    /// What they completed.
    pub event: Option<Event>,
}

/// The rest of the frame that is being received.
#[derive(Debug)]
struct Frame {
    kind: Kind,
    is_final: bool,
    mask: [u8; 4],
    to_come: usize,
}

/// The message that is not told yet.
#[derive(Debug, Default)]
enum Incoming {
    #[default]
    Nothing,
    /// Its last frame has not ended.
    Parts(Message),
    /// It has, and no other frame is looked at before it is told. Boxed: only what takes more than one slice comes here.
    Inflating(Box<Compressed>),
}

/// Decodes one direction of one connection.
#[derive(Debug)]
pub struct Decoder {
    rules: Rules,
    /// The beginning of a header.
    head: [u8; HEADER_MAX],
    head_len: u8,
    frame: Option<Frame>,
    message: Incoming,
    /// The payload so far of a control frame that came in pieces.
    control: Vec<u8>,
}

impl Decoder {
    /// At the beginning of a connection.
    pub fn new(rules: Rules) -> Self {
        let message = Incoming::Nothing;
        Self { rules, head: [0; HEADER_MAX], head_len: 0, frame: None, message, control: Vec::new() }
    }

    /// Decodes at most one frame, or inflates at most one slice: while [`Decoder::is_inflating`] it must be called again, with
    /// or without input. Unmasks in place what it uses of `input`; the rest comes again next time.
    ///
    /// # Errors
    /// The rule that the peer broke; the decoder must not be used after that.
    pub fn decode(&mut self, input: &mut [u8]) -> Result<Step, Breach> {
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
        let length = frame.to_come.min(rest.len());
        let piece = rest.get_mut(..length).unwrap_or_default();
        unmask(piece, &mut frame.mask);
        frame.to_come -= length;
        consumed += length;
        let event = self.take(&frame, piece)?;
        if frame.to_come > 0 {
            self.frame = Some(frame);
        }
        Ok(Step { consumed, event })
    }

    /// Whether a message has come whole and is told after more slices of it are inflated.
    pub fn is_inflating(&self) -> bool {
        matches!(self.message, Incoming::Inflating(_))
    }

    /// Gives up what is incomplete, because nothing more will be decoded.
    pub(crate) fn forget(&mut self) {
        self.message = Incoming::Nothing;
        self.control = Vec::new();
    }

    /// Bytes on the heap that are owned now.
    pub(crate) fn held_bytes(&self) -> usize {
        let message = match &self.message {
            Incoming::Nothing => 0,
            Incoming::Parts(message) => message.held_bytes(),
            Incoming::Inflating(message) => size_of::<Compressed>() + message.held_bytes(),
        };
        self.control.capacity() + message
    }

    /// Reads a header, from the input or from what was kept of it.
    fn begin(&mut self, input: &[u8], consumed: &mut usize) -> Result<Option<Frame>, Breach> {
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
            // An incomplete header is shorter than the longest one, so there is room for it.
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
            (Kind::First { .. } | Kind::Continuation, _) => return Err(Violation::FragmentOrder.into()),
        }
        // What does not fit was refused above; a control frame has 125 bytes at most.
        let to_come = usize::try_from(header.length).map_err(|_| Breach::TooBig)?;
        Ok(Some(Frame { kind: header.kind, is_final: header.is_final, mask: header.mask, to_come }))
    }

    /// A piece of a frame's payload, unmasked.
    fn take(&mut self, frame: &Frame, piece: &[u8]) -> Result<Option<Event>, Breach> {
        let is_whole = frame.to_come == 0;
        match frame.kind {
            Kind::First { .. } | Kind::Continuation => {
                let Incoming::Parts(message) = &mut self.message else { return Ok(None) };
                message.push(piece, frame.to_come, frame.is_final, &self.rules)?;
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

    /// The last frame of the message has ended.
    fn finish(&mut self) -> Result<Option<Event>, Breach> {
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

    /// Another slice of the message.
    fn inflate(&mut self) -> Result<Option<Event>, Breach> {
        let Incoming::Inflating(mut message) = std::mem::take(&mut self.message) else { return Ok(None) };
        if message.inflate(&self.rules)? {
            return message.finish().map(Some);
        }
        self.message = Incoming::Inflating(message);
        Ok(None)
    }
}

/// The code in a close frame, whose reason must be UTF-8 (RFC 6455 section 5.5.1).
fn close_code(payload: &[u8]) -> Result<Option<u16>, Breach> {
    match payload {
        [] => Ok(None),
        [_] => Err(Violation::CloseFrame.into()),
        [high, low, reason @ ..] => {
            std::str::from_utf8(reason).map_err(|_| Breach::NotUtf8)?;
            let code = CloseCode::from(u16::from_be_bytes([*high, *low]));
            Ok(Some(if code.is_allowed() { code } else { CloseCode::Protocol }.into()))
        }
    }
}
