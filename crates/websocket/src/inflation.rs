//! Inflates a complete message (RFC 7692 section 7.2) in slices, so that no message keeps the thread from other connections.
//!
//! Owns the progress of one message, and its codec until it is done; an ordinary message takes one slice and borrows the codec of
//! the thread. The result does not depend on the size of the slices, except that of two errors (not DEFLATE, and too large)
//! either may be found first.
//!
//! A slice is limited in both forms, because work depends on both: input that inflates to nothing (Huffman tables in a row) costs
//! 31 ns per compressed byte, and input that only repeats costs 0.4 ns per inflated byte (measured). A slice takes at most
//! 130 µs.

use flate2::{Decompress, FlushDecompress, Status};

use crate::codec::{self, INFLATER_BYTES, TAIL};

/// Compressed bytes of one slice.
const SLICE_IN: usize = 4 * 1024;

/// Inflated bytes after which a slice ends.
const SLICE_OUT: usize = 64 * 1024;

/// Final blocks in one message. A sender needs at most one, and each costs 0.3 µs for two bytes of input (measured).
const MOST_FINAL_BLOCKS: usize = 16;

/// Why a message could not be inflated.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum InflateError {
    /// Inflated, it is larger than allowed.
    TooBig,
    /// It is not DEFLATE, or refers to what came before it.
    Corrupt,
}

/// A message that is being inflated. If it is dropped before it is done, so is its codec.
#[derive(Debug)]
pub(crate) struct Inflation {
    inflater: Decompress,
    /// Compressed bytes done, including the tail that the sender omitted.
    used: usize,
    plain: Vec<u8>,
    final_blocks: usize,
}

impl Inflation {
    pub(crate) fn new() -> Self {
        Self { inflater: codec::borrow_inflater(), used: 0, plain: Vec::new(), final_blocks: 0 }
    }

    /// Inflates the next slice of a message, to at most `most` bytes in total. Returns whether that was the last one. Every call
    /// must pass the same message; the sender may have used any window size.
    pub(crate) fn slice(&mut self, compressed: &[u8], most: usize) -> Result<bool, InflateError> {
        self.slice_of(compressed, most, SLICE_IN, SLICE_OUT)
    }

    /// The inflated message, after the last slice.
    pub(crate) fn finish(self) -> Vec<u8> {
        codec::return_inflater(self.inflater);
        self.plain
    }

    /// The heap memory that is owned now, in bytes.
    pub(crate) fn held_bytes(&self) -> usize {
        INFLATER_BYTES + self.plain.capacity()
    }

    fn slice_of(
        &mut self,
        compressed: &[u8],
        most: usize,
        slice_in: usize,
        slice_out: usize,
    ) -> Result<bool, InflateError> {
        let end_in = self.used + slice_in;
        let end_out = self.plain.len().saturating_add(slice_out);
        codec::with_chunk(|chunk| {
            while self.plain.len() < end_out {
                // The tail costs nothing, so a message that fits into a slice is done in one.
                let is_tail = self.used >= compressed.len();
                let input = if is_tail {
                    TAIL.get(self.used - compressed.len()..)
                } else {
                    compressed.get(self.used..end_in.min(compressed.len()))
                };
                let input = input.unwrap_or_default();
                if input.is_empty() && !is_tail {
                    return Ok(false);
                }
                if self.step(input, chunk, most)? && is_tail {
                    return Ok(true);
                }
            }
            Ok(false)
        })
    }

    /// Calls the inflater once. Returns whether it has used all the input and returned all that comes of it.
    fn step(&mut self, input: &[u8], chunk: &mut [u8], most: usize) -> Result<bool, InflateError> {
        let (before_in, before_out) = (self.inflater.total_in(), self.inflater.total_out());
        let status = self
            .inflater
            .decompress(input, chunk, FlushDecompress::Sync)
            .map_err(|_| InflateError::Corrupt)?;
        let used = usize::try_from(self.inflater.total_in() - before_in).unwrap_or(usize::MAX);
        let produced = usize::try_from(self.inflater.total_out() - before_out).unwrap_or(usize::MAX);
        self.used += used;
        self.take(chunk.get(..produced).unwrap_or_default(), most)?;
        if status == Status::StreamEnd {
            // A sender may end a message with a final block (RFC 7692 section 7.2.3.4); a new stream begins after it.
            self.inflater.reset(false);
            self.final_blocks += 1;
            return if self.final_blocks > MOST_FINAL_BLOCKS {
                Err(InflateError::Corrupt)
            } else {
                Ok(false)
            };
        }
        if used == 0 && produced == 0 && !input.is_empty() {
            return Err(InflateError::Corrupt);
        }
        Ok(used == input.len() && produced < chunk.len())
    }

    fn take(&mut self, inflated: &[u8], most: usize) -> Result<(), InflateError> {
        let len = self.plain.len();
        if inflated.len() > most - len {
            return Err(InflateError::TooBig);
        }
        if self.plain.capacity() - len < inflated.len() {
            // Capacity doubles; a message of one chunk gets exactly its size.
            self.plain.reserve_exact(inflated.len().max(len.min(most - len)));
        }
        self.plain.extend_from_slice(inflated);
        Ok(())
    }
}

#[cfg(test)]
pub(crate) fn inflate(compressed: &[u8], most: usize) -> Result<Vec<u8>, InflateError> {
    let mut inflation = Inflation::new();
    while !inflation.slice(compressed, most)? {}
    Ok(inflation.finish())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::deflate;
    use flate2::{Compress, Compression, FlushCompress};
    use proptest::prelude::*;
    use proptest::test_runner::RngSeed;

    fn deflated(message: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        assert!(deflate(message, 15, &mut out));
        out
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
        let good = deflated(&[b'a'; 1000]);
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
        let bomb = deflated(&vec![0; 64 << 20]);
        assert!(bomb.len() < 400_000);
        assert_eq!(inflate(&bomb, 1 << 20), Err(InflateError::TooBig));
    }

    /// 90 bits each: a Huffman table, and the end of the block that it is for. Eight of them end with a byte.
    const TABLES: [u8; 90] = [
        0x04, 0xc0, 0x81, 0x00, 0x00, 0x00, 0x00, 0x00, 0x90, 0xff, 0x6b, 0x10, 0x00, 0x07, 0x02, 0x00, 0x00,
        0x00, 0x00, 0x40, 0xfe, 0xaf, 0x41, 0x00, 0x1c, 0x08, 0x00, 0x00, 0x00, 0x00, 0x00, 0xf9, 0xbf, 0x06,
        0x01, 0x70, 0x20, 0x00, 0x00, 0x00, 0x00, 0x00, 0xe4, 0xff, 0x1a, 0x04, 0xc0, 0x81, 0x00, 0x00, 0x00,
        0x00, 0x00, 0x90, 0xff, 0x6b, 0x10, 0x00, 0x07, 0x02, 0x00, 0x00, 0x00, 0x00, 0x40, 0xfe, 0xaf, 0x41,
        0x00, 0x1c, 0x08, 0x00, 0x00, 0x00, 0x00, 0x00, 0xf9, 0xbf, 0x06, 0x01, 0x70, 0x20, 0x00, 0x00, 0x00,
        0x00, 0x00, 0xe4, 0xff, 0x1a,
    ];

    #[test]
    fn a_slice_is_bounded_in_both_forms() {
        let stored = [0, 0, 0, 0xff, 0xff].repeat(20_000);
        for message in [TABLES.repeat(1000), stored, deflated(&vec![b'x'; 8 << 20])] {
            let mut inflation = Inflation::new();
            let (mut slices, mut is_done) = (0, false);
            while !is_done {
                let (used, plain) = (inflation.used, inflation.plain.len());
                is_done = inflation.slice(&message, 8 << 20).unwrap();
                slices += 1;
                assert!(inflation.used - used <= SLICE_IN + TAIL.len());
                assert!(inflation.plain.len() - plain < SLICE_OUT + 16 * 1024);
            }
            let least = (message.len() / SLICE_IN).max(inflation.plain.len() / (SLICE_OUT + 16 * 1024));
            assert!((least..=2 * least).contains(&slices), "{slices} slices, at least {least}");
        }
    }

    #[test]
    fn an_ordinary_message_takes_one_slice_and_leaves_the_codec_to_the_thread() {
        let message = br#"{"sampledValue":[{"value":"230.1"},{"value":"229.9"}]}"#.repeat(1000);
        let compressed = deflated(&message);
        for _ in 0..3 {
            let mut inflation = Inflation::new();
            assert_eq!(inflation.slice(&compressed, message.len()), Ok(true));
            assert_eq!(inflation.finish(), message);
        }
        // At the limit of a slice, as it came: noise, which is stored.
        let noise: Vec<u8> =
            [0, 0xfb, 0x0f, 0x04, 0xf0].into_iter().chain((0..=u8::MAX).cycle().take(4091)).collect();
        assert_eq!(noise.len(), SLICE_IN);
        assert_eq!(Inflation::new().slice(&noise, 5000), Ok(true));
    }

    #[test]
    fn messages_in_the_middle_do_not_share_a_codec() {
        let messages = [b"ab", b"cd"].map(|pair| pair.repeat(100_000));
        let compressed = messages.each_ref().map(|message| deflated(message));
        let mut inflations = [Inflation::new(), Inflation::new()];
        let mut are_done = [false; 2];
        while are_done != [true; 2] {
            for ((inflation, is_done), compressed) in
                inflations.iter_mut().zip(&mut are_done).zip(&compressed)
            {
                if !*is_done {
                    *is_done = inflation.slice(compressed, 200_000).unwrap();
                }
            }
        }
        assert_eq!(inflations.map(Inflation::finish), messages);
    }

    /// What flate2 makes of the whole message at once.
    fn at_once(compressed: &[u8], most: usize) -> Option<Vec<u8>> {
        let input = [compressed, &TAIL].concat();
        let mut input = input.as_slice();
        let (mut plain, mut out, mut streams) = (Vec::new(), vec![0; 2 * most], 0);
        loop {
            let mut inflater = Decompress::new(false);
            let status = inflater.decompress(input, &mut out, FlushDecompress::Sync).ok()?;
            plain.extend_from_slice(&out[..inflater.total_out() as usize]);
            input = &input[inflater.total_in() as usize..];
            if plain.len() > most || streams > MOST_FINAL_BLOCKS {
                return None;
            }
            if status != Status::StreamEnd {
                return input.is_empty().then_some(plain);
            }
            streams += 1;
        }
    }

    /// A part of a message: what is in it, how hard to try, and how it ends.
    fn part() -> impl Strategy<Value = (Vec<u8>, u32, FlushCompress)> {
        let data = prop_oneof![
            3 => "[ab]{0,400}".prop_map(String::into_bytes),
            2 => "\\PC{0,80}".prop_map(String::into_bytes),
            1 => prop::collection::vec(any::<u8>(), 0..700),
            1 => (any::<u8>(), 0..20_000_usize).prop_map(|(byte, count)| vec![byte; count]),
        ];
        // Each ends where a byte does, so that another stream may follow.
        let flush =
            prop::sample::select(vec![FlushCompress::Sync, FlushCompress::Full, FlushCompress::Finish]);
        (data, 0..10_u32, flush)
    }

    fn compress((data, level, flush): &(Vec<u8>, u32, FlushCompress)) -> Vec<u8> {
        let mut out = Vec::with_capacity(2 * data.len() + 100);
        Compress::new(Compression::new(*level), false).compress_vec(data, &mut out, *flush).unwrap();
        out
    }

    proptest! {
        #![proptest_config(ProptestConfig {
            cases: ProptestConfig::default().cases.max(2000),
            rng_seed: RngSeed::Fixed(1951),
            failure_persistence: None,
            ..ProptestConfig::default()
        })]

        #[test]
        fn slices_of_any_size_make_what_flate2_makes_at_once(
            parts in prop::collection::vec(part(), 0..6),
            harm in prop::option::weighted(0.3, (any::<prop::sample::Index>(), 0..8_u8)),
            slice_in in prop_oneof![1..8_usize, 1..2000_usize],
            slice_out in prop_oneof![1..8_usize, 1..70_000_usize],
        ) {
            const MOST: usize = 30_000;
            let mut compressed: Vec<u8> = parts.iter().flat_map(compress).collect();
            if let Some((place, bit)) = harm && !compressed.is_empty() {
                let place = place.index(compressed.len());
                compressed[place] ^= 1 << bit;
            }
            let mut inflation = Inflation::new();
            let sliced = loop {
                match inflation.slice_of(&compressed, MOST, slice_in, slice_out) {
                    Ok(false) => {}
                    Ok(true) => break Some(inflation.finish()),
                    Err(_) => break None,
                }
            };
            prop_assert_eq!(sliced, at_once(&compressed, MOST));
        }
    }
}
