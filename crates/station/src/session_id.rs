//! The number of a session: one connection of a station. Does not draw numbers; the registry does.

use uuid::Uuid;

/// A session's number. A UUIDv7 from a clock that never steps back within a process: a later session of a station has
/// the greater number, which is what fences presence (P5).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct SessionId(Uuid);

impl SessionId {
    /// The session of this number.
    pub fn new(number: Uuid) -> Self {
        Self(number)
    }

    /// Reads the spelling that events carry and backends repeat.
    pub fn parse(text: &str) -> Option<Self> {
        Uuid::try_parse(text).ok().map(Self)
    }

    /// Room for [`SessionId::encode`].
    pub fn buffer() -> [u8; 36] {
        [0; 36]
    }

    /// Its spelling, without an allocation.
    pub fn encode(self, buffer: &mut [u8; 36]) -> &str {
        self.0.hyphenated().encode_lower(buffer)
    }

    /// Bits that differ between sessions that began together, to spread what they do over time.
    pub fn spread(self) -> u64 {
        self.0.as_u64_pair().1
    }
}

impl std::fmt::Display for SessionId {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(formatter)
    }
}
