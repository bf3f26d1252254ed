//! DEFLATE for whole messages (RFC 7692 section 7.2), with codecs that belong to the thread.
//!
//! Neither side takes context over from message to message, so a codec is needed for the moment in which a message is inflated
//! or deflated, and one of each kind serves every connection of a thread: about 50 KB for inflating, and up to 300 KB for each window
//! size that some client asked for. Kept per connection it would be 120 to 250 KB each (measured).

use std::cell::RefCell;

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};

/// What a sender leaves out at the end of a message: an empty stored block (RFC 7692 section 7.2.1).
const TAIL: [u8; 4] = [0, 0, 0xff, 0xff];

/// What is inflated at once; a bomb is noticed so many bytes after the limit at most.
const CHUNK: usize = 16 * 1024;

/// Final blocks in one message: a sender has use for one, and each costs 0.3 µs for two bytes (measured).
const MOST_FINAL_BLOCKS: usize = 16;

/// The window sizes that zlib can deflate with, as powers of two; 8 is the one of RFC 7692 that it cannot.
pub(crate) const WINDOW_BITS: std::ops::RangeInclusive<u8> = 9..=15;

/// How hard to try. What leaves a gateway is small and mostly not compressed at all; more effort is not worth its time.
const LEVEL: Compression = Compression::new(3);

thread_local! {
    static CODECS: RefCell<Codecs> = RefCell::new(Codecs::default());
}

#[derive(Default)]
struct Codecs {
    inflater: Option<Decompress>,
    /// One for each window size.
    deflaters: [Option<Compress>; 7],
    chunk: Vec<u8>,
}

/// Why a message could not be inflated.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum InflateError {
    /// It is larger than allowed.
    TooBig,
    /// It is not DEFLATE, or refers to what came before it.
    Corrupt,
}

/// Inflates a whole message to at most `most` bytes. Any window size of the sender will do.
pub(crate) fn inflate(compressed: &[u8], most: usize) -> Result<Vec<u8>, InflateError> {
    CODECS.with_borrow_mut(|codecs| {
        let inflater = codecs.inflater.get_or_insert_with(|| Decompress::new(false));
        inflater.reset(false);
        codecs.chunk.resize(CHUNK, 0);
        let mut message = Vec::new();
        let mut final_blocks = 0;
        for mut input in [compressed, &TAIL] {
            while inflate_stream(inflater, &mut input, &mut codecs.chunk, &mut message, most)? {
                // A sender may end what it sends with a final block (RFC 7692 section 7.2.3.4); then a new stream begins.
                inflater.reset(false);
                final_blocks += 1;
                if final_blocks > MOST_FINAL_BLOCKS {
                    return Err(InflateError::Corrupt);
                }
            }
        }
        Ok(message)
    })
}

/// Inflates up to the end of the input, or of a final block: says whether it was that.
fn inflate_stream(
    inflater: &mut Decompress,
    input: &mut &[u8],
    chunk: &mut [u8],
    message: &mut Vec<u8>,
    most: usize,
) -> Result<bool, InflateError> {
    loop {
        let (before_in, before_out) = (inflater.total_in(), inflater.total_out());
        let status =
            inflater.decompress(input, chunk, FlushDecompress::Sync).map_err(|_| InflateError::Corrupt)?;
        let used = usize::try_from(inflater.total_in() - before_in).unwrap_or(usize::MAX);
        let produced = usize::try_from(inflater.total_out() - before_out).unwrap_or(usize::MAX);
        *input = input.get(used..).unwrap_or_default();
        if produced > most - message.len() {
            return Err(InflateError::TooBig);
        }
        let inflated = chunk.get(..produced).unwrap_or_default();
        if message.capacity() - message.len() < produced {
            // Twice what there is, and exactly what there is for a message of one chunk.
            message.reserve_exact(produced.max(message.len().min(most - message.len())));
        }
        message.extend_from_slice(inflated);
        if status == Status::StreamEnd {
            return Ok(true);
        }
        if input.is_empty() && produced < chunk.len() {
            return Ok(false);
        }
        if used == 0 && produced == 0 {
            return Err(InflateError::Corrupt);
        }
    }
}

/// Deflates a whole message to the end of `out`, with a window of 2^`window_bits` bytes. Says whether that made it smaller;
/// if it did not, `out` is as it was.
pub(crate) fn deflate(message: &[u8], window_bits: u8, out: &mut Vec<u8>) -> bool {
    let Some(place) = WINDOW_BITS.clone().position(|bits| bits == window_bits) else { return false };
    CODECS.with_borrow_mut(|codecs| {
        let Some(place) = codecs.deflaters.get_mut(place) else { return false };
        let deflater = place.get_or_insert_with(|| Compress::new_with_window_bits(LEVEL, false, window_bits));
        deflater.reset();
        let start = out.len();
        // Without room for more than the message and the tail there is nothing to gain, and deflating stops.
        out.resize(start + message.len() + TAIL.len(), 0);
        let room = out.get_mut(start..).unwrap_or_default();
        let done = deflater.compress(message, room, FlushCompress::Sync).is_ok();
        let produced = usize::try_from(deflater.total_out()).unwrap_or(usize::MAX);
        let whole = done && deflater.total_in() == message.len() as u64;
        out.truncate(start.saturating_add(produced));
        // A sync flush that was cut off by the end of the room does not end with the tail.
        let is_smaller = whole && produced < message.len() + TAIL.len() && out.ends_with(&TAIL);
        out.truncate(if is_smaller { out.len() - TAIL.len() } else { start });
        is_smaller
    })
}

#[cfg(test)]
mod tests {
    use super::*;

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

    /// RFC 7692 section 7.2.3: one block, shared window (not ours), stored, final, two blocks.
    #[test]
    fn the_examples_of_the_rfc() {
        let examples: [&[u8]; 4] = [
            &[0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00],
            &[0x00, 0x05, 0x00, 0xfa, 0xff, 0x48, 0x65, 0x6c, 0x6c, 0x6f, 0x00],
            &[0xf3, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00, 0x00],
            &[0xf2, 0x48, 0x05, 0x00, 0x00, 0x00, 0xff, 0xff, 0xca, 0xc9, 0xc9, 0x07, 0x00],
        ];
        for example in examples {
            assert_eq!(inflate(example, 5).unwrap(), b"Hello", "{example:02x?}");
        }
        assert_eq!(inflate(&[0x00], 0).unwrap(), b"", "an empty message");
        assert_eq!(inflate(&[], 0).unwrap(), b"");
        // Section 7.2.3.2: "Hello" again, told by reference to the message before.
        assert_eq!(inflate(&[0xf2, 0x00, 0x11, 0x00, 0x00], 5), Err(InflateError::Corrupt));
    }

    #[test]
    fn garbage_is_an_error_and_harms_nobody_after_it() {
        assert_eq!(inflate(&[0xff; 64], 1000), Err(InflateError::Corrupt));
        let good = deflated(&[b'a'; 1000], 15).unwrap();
        assert_eq!(inflate(&good, 1000).unwrap(), vec![b'a'; 1000]);
    }

    #[test]
    fn a_flood_of_final_blocks_is_not_inflated() {
        let blocks = |count| [0x03, 0x00].repeat(count);
        assert_eq!(inflate(&blocks(16), 10).unwrap(), b"");
        assert_eq!(inflate(&blocks(17), 10), Err(InflateError::Corrupt));
    }

    #[test]
    fn a_bomb_stops_at_the_limit() {
        let bomb = deflated(&vec![0; 64 << 20], 15).unwrap();
        assert!(bomb.len() < 400_000);
        assert_eq!(inflate(&bomb, 1 << 20), Err(InflateError::TooBig));
    }
}
