//! Assembles a message from its fragments, within its limit, and checks UTF-8 as bytes arrive.
//!
//! Memory grows with the bytes received, not with what a header announces: at most twice the bytes received, and exactly the size
//! of the message once the header of its last frame is known. A compressed message is kept as received and inflated when it is
//! complete, so an incomplete one needs no inflater; it is a [`Compressed`] until its last slice is done.

use crate::error::{DecodeError, ProtocolError};
use crate::event::Event;
use crate::inflation::{InflateError, Inflation};
use crate::rules::Rules;

/// A message of which the last frame has not ended.
#[derive(Debug)]
pub(crate) struct Message {
    text: bool,
    compressed: bool,
    bytes: Vec<u8>,
    /// This much of a text is valid UTF-8; the rest is a partial character, or not checked yet.
    checked: usize,
    empty_frames: usize,
}

impl Message {
    pub(crate) fn new(text: bool, compressed: bool) -> Self {
        Self { text, compressed, bytes: Vec::new(), checked: 0, empty_frames: 0 }
    }

    /// The bytes that it may have, as received.
    fn most(&self, rules: &Rules) -> usize {
        if self.compressed { rules.max_compressed() } else { rules.max_message }
    }

    /// Admits the header of the next frame. As many frames may be empty as the message may have bytes, so that it ends some time.
    pub(crate) fn admit(&mut self, length: u64, rules: &Rules) -> Result<(), DecodeError> {
        self.empty_frames += usize::from(length == 0);
        let most = self.most(rules);
        let room = most.saturating_sub(self.bytes.len()) as u64;
        if length > room || self.empty_frames > most { Err(DecodeError::TooBig) } else { Ok(()) }
    }

    /// Appends a piece of a frame, of which `remaining` bytes are still missing.
    pub(crate) fn push(
        &mut self,
        piece: &[u8],
        remaining: usize,
        is_final: bool,
        rules: &Rules,
    ) -> Result<(), DecodeError> {
        let (len, capacity) = (self.bytes.len(), self.bytes.capacity());
        let needed = len + piece.len();
        if capacity < needed {
            let most = if is_final { needed + remaining } else { self.most(rules) };
            self.bytes.reserve_exact((2 * capacity).min(most).max(needed) - len);
        }
        self.bytes.extend_from_slice(piece);
        // A message that is complete is checked as a whole, in `finish`.
        let is_whole = is_final && remaining == 0;
        if self.text && !self.compressed && !is_whole {
            self.check()?;
        }
        Ok(())
    }

    /// Fails as soon as no continuation could make the text valid UTF-8.
    fn check(&mut self) -> Result<(), DecodeError> {
        let unchecked = self.bytes.get(self.checked..).unwrap_or_default();
        match std::str::from_utf8(unchecked) {
            Ok(_) => self.checked = self.bytes.len(),
            Err(error) if error.error_len().is_none() => self.checked += error.valid_up_to(),
            Err(_) => return Err(DecodeError::InvalidUtf8),
        }
        Ok(())
    }

    /// Bytes on the heap that are owned now.
    pub(crate) fn held_bytes(&self) -> usize {
        self.bytes.capacity()
    }

    /// The complete message.
    pub(crate) fn finish(self) -> Result<Whole, DecodeError> {
        let Self { text, compressed, bytes, .. } = self;
        if compressed {
            return Ok(Whole::Compressed(Compressed { text, bytes, inflation: Inflation::new() }));
        }
        event(text, bytes, None).map(Whole::Plain)
    }
}

/// A message of which every frame has arrived.
pub(crate) enum Whole {
    Plain(Event),
    Compressed(Compressed),
}

/// A message that is being inflated.
#[derive(Debug)]
pub(crate) struct Compressed {
    text: bool,
    bytes: Vec<u8>,
    inflation: Inflation,
}

impl Compressed {
    /// Inflates the next slice. Returns whether that was the last one.
    pub(crate) fn inflate(&mut self, rules: &Rules) -> Result<bool, DecodeError> {
        self.inflation.slice(&self.bytes, rules.max_message).map_err(|error| match error {
            InflateError::TooBig => DecodeError::TooBig,
            InflateError::Corrupt => DecodeError::Protocol(ProtocolError::NotDeflate),
        })
    }

    /// The message, after the last slice.
    pub(crate) fn finish(self) -> Result<Event, DecodeError> {
        event(self.text, self.inflation.finish(), Some(self.bytes.len()))
    }

    /// Bytes on the heap that are owned now.
    pub(crate) fn held_bytes(&self) -> usize {
        self.bytes.capacity() + self.inflation.held_bytes()
    }
}

fn event(text: bool, bytes: Vec<u8>, compressed: Option<usize>) -> Result<Event, DecodeError> {
    if !text {
        return Ok(Event::Binary { bytes, compressed });
    }
    let text = String::from_utf8(bytes).map_err(|_| DecodeError::InvalidUtf8)?;
    Ok(Event::Text { text, compressed })
}
