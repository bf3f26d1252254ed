//! The DEFLATE codecs of a thread, and compression of outgoing messages (RFC 7692 section 7.2). `inflation` handles incoming
//! messages, with a codec borrowed here.
//!
//! Neither side takes context over from message to message, so a codec is needed only while a message is inflated or deflated,
//! and one of each kind serves every connection of a thread: [`INFLATER_BYTES`] for inflating, and up to 300 KB for each window
//! size that some client asked for. One codec per connection would take 120 to 250 KB each (measured).

use std::cell::RefCell;

use flate2::{Compress, Compression, Decompress, FlushCompress};

/// The empty stored block that a sender omits at the end of a message (RFC 7692 section 7.2.1).
pub(crate) const TAIL: [u8; 4] = [0, 0, 0xff, 0xff];

/// The heap memory of an inflater (measured with zlib-rs 0.6).
pub(crate) const INFLATER_BYTES: usize = 48 * 1024;

/// Bytes inflated by one call, and so the most by which a decompression bomb exceeds the limit before it is noticed.
const CHUNK: usize = 16 * 1024;

/// The window sizes that zlib can deflate with, as powers of two. RFC 7692 also has 8, which zlib does not support.
pub(crate) const WINDOW_BITS: std::ops::RangeInclusive<u8> = 9..=15;

/// The compression level. Outgoing messages are small and mostly not compressed at all, so a higher one is not worth its time.
const LEVEL: Compression = Compression::new(3);

thread_local! {
    static CODECS: RefCell<Codecs> = RefCell::new(Codecs::default());
}

#[derive(Default)]
struct Codecs {
    inflater: Option<Decompress>,
    /// One per window size.
    deflaters: [Option<Compress>; 7],
    chunk: Vec<u8>,
}

/// The thread's inflater, or a new one if it is busy with another message; reset, for the start of a message.
pub(crate) fn borrow_inflater() -> Decompress {
    let kept = CODECS.with_borrow_mut(|codecs| codecs.inflater.take());
    kept.map_or_else(
        || Decompress::new(false),
        |mut inflater| {
            inflater.reset(false);
            inflater
        },
    )
}

/// Returns an inflater to the thread, which keeps one and drops the rest.
pub(crate) fn return_inflater(inflater: Decompress) {
    CODECS.with_borrow_mut(|codecs| {
        codecs.inflater.get_or_insert(inflater);
    });
}

/// Lends the thread's buffer for inflated bytes.
pub(crate) fn with_chunk<R>(body: impl FnOnce(&mut [u8]) -> R) -> R {
    CODECS.with_borrow_mut(|codecs| {
        codecs.chunk.resize(CHUNK, 0);
        body(&mut codecs.chunk)
    })
}

/// Appends a message to `out`, deflated with a window of 2^`window_bits` bytes. Returns whether that made it smaller; if not,
/// `out` is unchanged.
pub(crate) fn deflate(message: &[u8], window_bits: u8, out: &mut Vec<u8>) -> bool {
    let Some(place) = WINDOW_BITS.clone().position(|bits| bits == window_bits) else { return false };
    CODECS.with_borrow_mut(|codecs| {
        let Some(place) = codecs.deflaters.get_mut(place) else { return false };
        let deflater = place.get_or_insert_with(|| Compress::new_with_window_bits(LEVEL, false, window_bits));
        deflater.reset();
        let start = out.len();
        // A result that needs more space than the message and the tail would not be smaller, so deflating may stop there.
        out.resize(start + message.len() + TAIL.len(), 0);
        let room = out.get_mut(start..).unwrap_or_default();
        let done = deflater.compress(message, room, FlushCompress::Sync).is_ok();
        let produced = usize::try_from(deflater.total_out()).unwrap_or(usize::MAX);
        let whole = done && deflater.total_in() == message.len() as u64;
        out.truncate(start.saturating_add(produced));
        // A sync flush that ran out of space does not end with the tail.
        let is_smaller = whole && produced < message.len() + TAIL.len() && out.ends_with(&TAIL);
        out.truncate(if is_smaller { out.len() - TAIL.len() } else { start });
        is_smaller
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inflation::{InflateError, inflate};

    fn deflated(message: &[u8], window_bits: u8) -> Option<Vec<u8>> {
        let mut out = b"before".to_vec();
        let is_smaller = deflate(message, window_bits, &mut out);
        assert!(out.starts_with(b"before"));
        is_smaller.then(|| out.split_off(6))
    }

    #[test]
    fn every_window_comes_back() {
        let message = br#"{"sampledValue":[{"value":"230.1"},{"value":"229.9"}]}"#.repeat(1000);
        for bits in WINDOW_BITS {
            let compressed = deflated(&message, bits).unwrap();
            assert!(compressed.len() < message.len() / 10);
            assert_eq!(inflate(&compressed, message.len()).unwrap(), message);
            assert_eq!(inflate(&compressed, message.len() - 1), Err(InflateError::TooBig));
        }
        assert_eq!(deflated(&message, 8), None, "zlib cannot");
    }

    #[test]
    fn a_window_is_kept_to() {
        // 600 bytes of noise twice: only a window above 512 bytes sees the repetition.
        let mut state = 1_u32;
        let noise: Vec<u8> = std::iter::repeat_with(|| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        })
        .take(600)
        .collect();
        let twice = noise.repeat(2);
        assert_eq!(deflated(&twice, 9), None);
        assert!(deflated(&twice, 11).unwrap().len() < 700);
    }

    #[test]
    fn what_does_not_shrink_is_left_alone() {
        assert_eq!(deflated(b"", 15), None);
        assert_eq!(deflated(b"abcdefgh", 15), None);
    }
}
