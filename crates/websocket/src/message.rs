//! A message being put together from fragments: its memory, its limit, and UTF-8 checked as it comes.
//!
//! Memory follows what has come, not what a header announces: at most twice the bytes received, and exactly what is needed once
//! the last frame's header has told it. A compressed message is kept as it came and inflated when it is whole, so an unfinished one holds
//! no inflater; then it is a [`Compressed`] until the last slice of it is done.

use crate::breach::{Breach, Violation};
use crate::event::Event;
use crate::inflation::{InflateError, Inflation};
use crate::rules::Rules;

/// A message of which the last frame has not ended.
#[derive(Debug)]
pub(crate) struct Message {
    text: bool,
    compressed: bool,
    bytes: Vec<u8>,
    /// So much of a text is UTF-8; what follows is the beginning of a character, or not looked at yet.
    checked: usize,
    empty_frames: usize,
}

impl Message {
    pub(crate) fn new(text: bool, compressed: bool) -> Self {
        Self { text, compressed, bytes: Vec::new(), checked: 0, empty_frames: 0 }
    }

    /// Bytes that it may have, as it comes.
    fn most(&self, rules: &Rules) -> usize {
        if self.compressed { rules.max_compressed() } else { rules.max_message }
    }

    /// Whether a frame of this length may follow. As many may be empty as the message may have bytes: it comes to its end.
    pub(crate) fn admit(&mut self, length: u64, rules: &Rules) -> Result<(), Breach> {
        self.empty_frames += usize::from(length == 0);
        let most = self.most(rules);
        let room = most.saturating_sub(self.bytes.len()) as u64;
        if length > room || self.empty_frames > most { Err(Breach::TooBig) } else { Ok(()) }
    }

    /// Takes a piece of a frame, of which `to_come` bytes are missing after it.
    pub(crate) fn push(
        &mut self,
        piece: &[u8],
        to_come: usize,
        is_final: bool,
        rules: &Rules,
    ) -> Result<(), Breach> {
        let (len, capacity) = (self.bytes.len(), self.bytes.capacity());
        let needed = len + piece.len();
        if capacity < needed {
            let most = if is_final { needed + to_come } else { self.most(rules) };
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
    pub(crate) fn finish(self) -> Result<Whole, Breach> {
        let Self { text, compressed, bytes, .. } = self;
        if compressed {
            return Ok(Whole::Compressed(Compressed { text, bytes, inflation: Inflation::new() }));
        }
        event(text, bytes, None).map(Whole::Plain)
    }
}

/// A message that has come whole.
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
    /// Inflates a slice of it. Says whether that was the last one.
    pub(crate) fn inflate(&mut self, rules: &Rules) -> Result<bool, Breach> {
        self.inflation.slice(&self.bytes, rules.max_message).map_err(|error| match error {
            InflateError::TooBig => Breach::TooBig,
            InflateError::Corrupt => Breach::Protocol(Violation::NotDeflate),
        })
    }

    /// The message, after the last slice.
    pub(crate) fn finish(self) -> Result<Event, Breach> {
        event(self.text, self.inflation.finish(), Some(self.bytes.len()))
    }

    /// Bytes on the heap that are owned now.
    pub(crate) fn held_bytes(&self) -> usize {
        self.bytes.capacity() + self.inflation.held_bytes()
    }
}

fn event(text: bool, bytes: Vec<u8>, compressed: Option<usize>) -> Result<Event, Breach> {
    if !text {
        return Ok(Event::Binary { bytes, compressed });
    }
    let text = String::from_utf8(bytes).map_err(|_| Breach::NotUtf8)?;
    Ok(Event::Text { text, compressed })
}
