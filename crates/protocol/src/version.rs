//! The OCPP versions this crate speaks and their WebSocket subprotocol tokens.
//!
//! Owns the names. Does not choose among the subprotocols that a station offers; the handshake does,
//! in the station's order of preference (OCPP 2.1 Part 4, 3.1.2).

/// One OCPP version. It belongs to a connection, not to a station: a station may probe with one
/// version and stay connected with another.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum Version {
    /// OCPP 1.6, JSON flavour, with the security extension.
    V16,
    /// OCPP 2.0.1.
    V201,
    /// OCPP 2.1.
    V21,
}

impl Version {
    /// Every version, oldest first; the position is [`Version::index`].
    pub const ALL: [Self; 3] = [Self::V16, Self::V201, Self::V21];

    /// The registered WebSocket subprotocol token.
    pub fn subprotocol(self) -> &'static str {
        match self {
            Self::V16 => "ocpp1.6",
            Self::V201 => "ocpp2.0.1",
            Self::V21 => "ocpp2.1",
        }
    }

    /// The version that a subprotocol token names. The token must match exactly, because a server may
    /// only answer with a token that the station offered; folding case is up to the caller.
    pub fn from_subprotocol(token: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|version| version.subprotocol() == token)
    }

    /// The version number as people write it: `1.6`, `2.0.1`, `2.1`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::V16 => "1.6",
            Self::V201 => "2.0.1",
            Self::V21 => "2.1",
        }
    }

    /// Whether this is 2.0.1 or later. These versions share most of the rules in which 1.6 differs.
    pub fn is_2x(self) -> bool {
        self != Self::V16
    }

    /// Whether a CALLRESULT can be refused (message type 5).
    pub fn has_call_result_error(self) -> bool {
        self == Self::V21
    }

    /// The position in [`Version::ALL`], below 3, for arrays of counters.
    pub fn index(self) -> usize {
        match self {
            Self::V16 => 0,
            Self::V201 => 1,
            Self::V21 => 2,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_matched_exactly() {
        for version in Version::ALL {
            assert_eq!(Version::from_subprotocol(version.subprotocol()), Some(version));
            assert_eq!(Version::ALL[version.index()], version);
        }
        for token in ["", "ocpp2.0", "ocpp2.0.1.1", "OCPP1.6", " ocpp1.6", "ocpp1.5", "1.6"] {
            assert_eq!(Version::from_subprotocol(token), None, "{token:?}");
        }
    }

    #[test]
    fn versions_are_ordered_by_age() {
        assert!(Version::V16 < Version::V201 && Version::V201 < Version::V21);
        assert!(!Version::V16.is_2x() && Version::V201.is_2x() && Version::V21.is_2x());
        assert_eq!(Version::ALL.map(Version::as_str), ["1.6", "2.0.1", "2.1"]);
    }
}
