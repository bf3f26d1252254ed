//! W3C Trace Context: the one line by which a command names the trace that it belongs to.
//!
//! Owns reading and writing `traceparent` (<https://www.w3.org/TR/trace-context/>, section 3.2). Makes no spans, and
//! carries no `tracestate`: nothing here would change it, and an event has no room for it.

use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use uuid::Uuid;

/// A trace and the span in it that something belongs to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TraceParent {
    /// Not 0.
    trace_id: u128,
    /// Not 0.
    span_id: u64,
    flags: u8,
}

impl TraceParent {
    /// Whoever sent it records its spans.
    const SAMPLED: u8 = 1;
    /// Flags that have a meaning in version 00: sampled, and a trace id that is random (level 2).
    const KNOWN_FLAGS: u8 = 3;

    /// Reads a `traceparent`. One of a later version is read as far as it is version 00 (section 4.3); one that breaks the rules is
    /// none, and whoever sent it is no worse off than without.
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        let mut parts = text.splitn(5, '-');
        let version = hex(parts.next()?, 2)?;
        let (trace_id, span_id) = (hex(parts.next()?, 32)?, hex(parts.next()?, 16)?);
        let flags = hex(parts.next()?, 2)?;
        let has_more = parts.next().is_some();
        if version == 0xff || (version == 0 && has_more) || trace_id == 0 || span_id == 0 {
            return None;
        }
        Some(Self {
            trace_id,
            span_id: u64::try_from(span_id).ok()?,
            flags: u8::try_from(flags).ok()? & Self::KNOWN_FLAGS,
        })
    }

    /// A new trace whose spans are recorded. `low` are the trace id's last 64 bits, which decide about sampling.
    pub fn sampled_root(low: u64) -> Self {
        let trace_id = (u128::from(random()) << 64) | u128::from(low);
        Self { trace_id: trace_id.max(1), span_id: random().max(1), flags: Self::SAMPLED }
    }

    /// A span of the same trace.
    #[must_use]
    pub fn child(self) -> Self {
        Self { span_id: random().max(1), ..self }
    }

    /// Whether whoever sent it records its spans.
    pub fn is_sampled(self) -> bool {
        self.flags & Self::SAMPLED != 0
    }

    /// The trace's id, in network byte order.
    pub fn trace_id(self) -> [u8; 16] {
        self.trace_id.to_be_bytes()
    }

    /// The span's id, in network byte order.
    pub fn span_id(self) -> [u8; 8] {
        self.span_id.to_be_bytes()
    }
}

impl std::fmt::Display for TraceParent {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "00-{:032x}-{:016x}-{:02x}", self.trace_id, self.span_id, self.flags)
    }
}

impl Serialize for TraceParent {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for TraceParent {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| D::Error::custom(format!("{text:?} is no traceparent")))
    }
}

/// A number in lower-case hex of exactly so many digits.
fn hex(text: &str, digits: usize) -> Option<u128> {
    let is_hex = text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    if text.len() == digits && is_hex { u128::from_str_radix(text, 16).ok() } else { None }
}

/// 64 random bits. A UUIDv4 has 122, but six of its bits are fixed; its halves have none fixed in the same place.
pub fn random() -> u64 {
    let (high, low) = Uuid::new_v4().as_u64_pair();
    high ^ low
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn what_is_right_comes_back_as_it_was() {
        let parsed = TraceParent::parse(PARENT).unwrap();
        assert_eq!(parsed.to_string(), PARENT);
        assert!(parsed.is_sampled());
        let child = parsed.child();
        assert_eq!(child.to_string()[..36], PARENT[..36]);
        assert_ne!(child.span_id(), parsed.span_id());
        assert!(!TraceParent::parse(&PARENT.replace("-01", "-00")).unwrap().is_sampled());
    }

    #[test]
    fn a_later_version_is_read_as_far_as_it_is_known() {
        let later = PARENT.replacen("00-", "cc-", 1).replace("-01", "-ff-what-the-future-will-be-like");
        assert_eq!(TraceParent::parse(&later).unwrap().to_string(), PARENT.replace("-01", "-03"));
    }

    #[test]
    fn what_breaks_the_rules_is_none() {
        for text in [
            "",
            "00",
            "nonsense",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more",
            "00-0af7651916cd43dd8448eb211c80319-b7ad6b7169203331-01",
            "00-+af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331",
            "00-0af7651916cd43dd8448eb211c80319ü-b7ad6b7169203331-01",
        ] {
            assert_eq!(TraceParent::parse(text), None, "{text:?}");
        }
    }

    #[test]
    fn every_bit_of_a_random_number_is_random() {
        let (mut ones, mut zeros) = (0, 0);
        for _ in 0..200 {
            let number = random();
            ones |= number;
            zeros |= !number;
        }
        assert_eq!((ones, zeros), (u64::MAX, u64::MAX));
    }
}
