//! A message being put together from fragments: its memory, its limit, and UTF-8 checked as it comes.
//!
//! Memory follows what has come, not what a header announces: at most twice the bytes received, and exactly what is needed once
//! the last frame's header has told it. A compressed message is kept as it came and inflated when it is whole, so an unfinished one holds
//! no inflater.

use crate::breach::{Breach, Violation};
use crate::codec::{self, InflateError};
use crate::decoder::{Event, Rules};

/// A message of which the last frame has not ended.
#[derive(Debug)]
pub(crate) struct Message {
    text: bool,
    compressed: bool,
    /// Bytes that it may have, as it comes.
    most: usize,
    bytes: Vec<u8>,
    /// So much of a text is UTF-8; what follows is the beginning of a character, or not looked at yet.
    checked: usize,
    empty_frames: usize,
}

impl Message {
    pub(crate) fn new(text: bool, compressed: bool, rules: &Rules) -> Self {
        let most = if compressed { rules.max_compressed() } else { rules.max_message };
        Self { text, compressed, most, bytes: Vec::new(), checked: 0, empty_frames: 0 }
    }

    /// Whether a frame of this length may follow. As many may be empty as the message may have bytes: it comes to its end.
    pub(crate) fn admit(&mut self, length: u64) -> Result<(), Breach> {
        self.empty_frames += usize::from(length == 0);
        let room = self.most.saturating_sub(self.bytes.len()) as u64;
        if length > room || self.empty_frames > self.most { Err(Breach::TooBig) } else { Ok(()) }
    }

    /// Takes a piece of a frame, of which `to_come` bytes are missing after it.
    pub(crate) fn push(&mut self, piece: &[u8], to_come: usize, is_final: bool) -> Result<(), Breach> {
        let (len, capacity) = (self.bytes.len(), self.bytes.capacity());
        let needed = len + piece.len();
        if capacity < needed {
            let most = if is_final { needed + to_come } else { self.most };
            self.bytes.reserve_exact((2 * capacity).min(most).max(needed) - len);
        }
        self.bytes.extend_from_slice(piece);
        // A whole message is checked at once, in `finish`.
        let is_whole = is_final && to_come == 0;
        if self.text && !self.compressed && !is_whole {
            self.check()?;
        }
        Ok(())
    }

    /// Fails as soon as no continuation could make it UTF-8.
    fn check(&mut self) -> Result<(), Breach> {
        let unchecked = self.bytes.get(self.checked..).unwrap_or_default();
        match std::str::from_utf8(unchecked) {
            Ok(_) => self.checked = self.bytes.len(),
            Err(error) if error.error_len().is_none() => self.checked += error.valid_up_to(),
            Err(_) => return Err(Breach::NotUtf8),
        }
        Ok(())
    }

    /// Bytes on the heap that are owned now.
    pub(crate) fn held_bytes(&self) -> usize {
        self.bytes.capacity()
    }

    /// The whole message.
    pub(crate) fn finish(self, rules: &Rules) -> Result<Event, Breach> {
        let compressed = self.compressed.then_some(self.bytes.len());
        let mut bytes = self.bytes;
        if self.compressed {
            bytes = codec::inflate(&bytes, rules.max_message).map_err(|error| match error {
                InflateError::TooBig => Breach::TooBig,
                InflateError::Corrupt => Breach::Protocol(Violation::NotDeflate),
            })?;
        }
        if !self.text {
            return Ok(Event::Binary { bytes, compressed });
        }
        let text = String::from_utf8(bytes).map_err(|_| Breach::NotUtf8)?;
        Ok(Event::Text { text, compressed })
    }
}
