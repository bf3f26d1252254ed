//! The number of a session: one connection of a station. Does not draw numbers; the registry does.

use uuid::{Builder, Uuid, Version};

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

    /// The id of the event that tells of its beginning: the number itself. Whoever tells it again tells the same event.
    pub fn connected_id(self) -> Uuid {
        self.0
    }

    /// The id of the event that tells of its end, whoever tells it: the number with 8 for its version, which nothing else has.
    pub fn disconnected_id(self) -> Uuid {
        Builder::from_bytes(self.0.into_bytes()).with_version(Version::Custom).into_uuid()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_events_of_a_beginning_and_an_end_have_ids_of_their_own() {
        let session = SessionId::parse("0199a2b3-c4d5-7e6f-8a9b-0c1d2e3f4a5b").unwrap();
        assert_eq!(session.connected_id().to_string(), "0199a2b3-c4d5-7e6f-8a9b-0c1d2e3f4a5b");
        assert_eq!(session.disconnected_id().to_string(), "0199a2b3-c4d5-8e6f-8a9b-0c1d2e3f4a5b");
    }
}
