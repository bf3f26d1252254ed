//! One record as bytes. Owns the layout and the checksum; where a record may stand in a file is `scan.rs`.
//!
//! ```text
//!  0  marker      u32   the segment's marker
//!  4  crc         u32   CRC-32 (ISO-HDLC) of the marker and of everything behind this field
//!  8  length      u32   bytes of key and value
//! 12  key length  u16
//! 14  kind        u8
//! 15  flags       u8    0
//! 16  position    u64
//! 24  time        u64   milliseconds since 1970-01-01 UTC
//! 32  key, value
//! ```
//!
//! Integers are little-endian. A record is encoded when it is appended and sealed (given its marker and checksum) when it is
//! committed, because only then it is known which segment it goes to.

use bytes::Bytes;

use super::{NewRecord, Record};

/// Bytes in front of the key.
pub(super) const HEADER_BYTES: usize = 32;

const CRC_AT: usize = 4;
const BODY_AT: usize = 8;

/// The fixed part of a record, read but not verified.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) marker: u32,
    crc: u32,
    pub(super) length: u32,
    key_length: u16,
    kind: u8,
    flags: u8,
    pub(super) position: u64,
    pub(super) time_ms: u64,
}

impl Header {
    /// Reads the fixed part; `None` if `bytes` is too short for one.
    pub(super) fn read(bytes: &[u8]) -> Option<Self> {
        let (head, _) = bytes.split_first_chunk::<HEADER_BYTES>()?;
        let word = |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
        let long = |at: usize| u64::from(word(at)) | u64::from(word(at + 4)) << 32;
        Some(Self {
            marker: word(0),
            crc: word(CRC_AT),
            length: word(BODY_AT),
            key_length: u16::from_le_bytes([head[12], head[13]]),
            kind: head[14],
            flags: head[15],
            position: long(16),
            time_ms: long(24),
        })
    }

    /// Bytes of the whole record.
    pub(super) fn total(&self) -> usize {
        HEADER_BYTES + self.length as usize
    }

    /// Whether the lengths are possible at all, before anything is read because of them.
    pub(super) fn is_plausible(&self, available: u64) -> bool {
        self.flags == 0 && u32::from(self.key_length) <= self.length && self.total() as u64 <= available
    }

    /// Whether the record, of which `bytes` is the whole, is as it was written.
    pub(super) fn verifies(&self, bytes: &[u8]) -> bool {
        bytes.get(BODY_AT..self.total()).is_some_and(|body| checksum(self.marker, body) == self.crc)
    }

    /// The record, copied out of `bytes`, which has been verified.
    pub(super) fn to_record(self, bytes: &[u8]) -> Record {
        let body = bytes.get(HEADER_BYTES..self.total()).unwrap_or_default();
        let (key, value) = body.split_at(usize::from(self.key_length).min(body.len()));
        Record {
            position: self.position,
            kind: self.kind,
            time_ms: self.time_ms,
            key: String::from_utf8_lossy(key).into(),
            value: Bytes::copy_from_slice(value),
        }
    }
}

/// Appends a record to `out`, not sealed. The caller has checked the lengths.
pub(super) fn encode(out: &mut Vec<u8>, position: u64, new: &NewRecord<'_>) {
    let key_length = new.key.len() as u16;
    let length = (new.key.len() + new.value.len()) as u32;
    let mut head = [0; HEADER_BYTES];
    head[8..12].copy_from_slice(&length.to_le_bytes());
    head[12..14].copy_from_slice(&key_length.to_le_bytes());
    head[14] = new.kind;
    head[16..24].copy_from_slice(&position.to_le_bytes());
    head[24..32].copy_from_slice(&new.time_ms.to_le_bytes());
    out.reserve(HEADER_BYTES + length as usize);
    out.extend_from_slice(&head);
    out.extend_from_slice(new.key.as_bytes());
    out.extend_from_slice(new.value);
}

/// Gives every record of an encoded batch its marker and checksum, and calls `visit` with each record's position and its offset in
/// the batch. May be repeated with another marker.
pub(super) fn seal(batch: &mut [u8], marker: u32, mut visit: impl FnMut(u64, u64)) {
    let mut at = 0;
    while let Some(rest) = batch.get_mut(at..)
        && let Some(header) = Header::read(rest)
    {
        let crc = rest.get(BODY_AT..header.total()).map_or(0, |body| checksum(marker, body));
        if let Some(fields) = rest.first_chunk_mut::<BODY_AT>() {
            fields[..CRC_AT].copy_from_slice(&marker.to_le_bytes());
            fields[CRC_AT..].copy_from_slice(&crc.to_le_bytes());
        }
        visit(header.position, at as u64);
        at += header.total();
    }
}

fn checksum(marker: u32, body: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&marker.to_le_bytes());
    hasher.update(body);
    hasher.finalize()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(new: &NewRecord<'_>) -> Vec<u8> {
        let mut batch = Vec::new();
        encode(&mut batch, 7, new);
        seal(&mut batch, 0xABCD_0123, |_, _| ());
        batch
    }

    #[test]
    fn a_record_is_what_was_encoded() {
        let bytes = encoded(&NewRecord { kind: 3, time_ms: u64::MAX, key: "CP-é", value: b"{}" });
        let header = Header::read(&bytes).unwrap();
        assert_eq!((header.marker, header.position, header.total()), (0xABCD_0123, 7, bytes.len()));
        assert!(header.is_plausible(bytes.len() as u64) && header.verifies(&bytes));
        let record = header.to_record(&bytes);
        assert_eq!(
            (record.kind, record.time_ms, &*record.key, &*record.value),
            (3, u64::MAX, "CP-é", &b"{}"[..])
        );
    }

    #[test]
    fn the_layout_is_the_documented_one() {
        let bytes = encoded(&NewRecord { kind: 3, time_ms: 0x0102_0304_0506_0708, key: "K", value: b"vw" });
        assert_eq!(&bytes[..4], &[0x23, 0x01, 0xCD, 0xAB]);
        assert_eq!(&bytes[8..16], &[3, 0, 0, 0, 1, 0, 3, 0]);
        assert_eq!(&bytes[16..24], &[7, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(&bytes[24..], b"\x08\x07\x06\x05\x04\x03\x02\x01Kvw");
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        let bytes = encoded(&NewRecord { kind: 1, time_ms: 5, key: "k", value: b"value" });
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            let header = Header::read(&damaged).unwrap();
            // The marker too, even when nobody knows what it should be.
            assert!(!(header.is_plausible(damaged.len() as u64) && header.verifies(&damaged)), "bit {bit}");
        }
    }

    #[test]
    fn sealing_visits_every_record_and_can_be_repeated() {
        let mut batch = Vec::new();
        for position in 10..13 {
            encode(&mut batch, position, &NewRecord { kind: 0, time_ms: 0, key: "", value: b"1234" });
        }
        for marker in [9, 8] {
            let mut seen = Vec::new();
            seal(&mut batch, marker, |position, at| seen.push((position, at)));
            assert_eq!(seen, [(10, 0), (11, 36), (12, 72)]);
            for (_, at) in seen {
                let header = Header::read(&batch[at as usize..]).unwrap();
                assert!(header.marker == marker && header.verifies(&batch[at as usize..]));
            }
        }
    }
}
