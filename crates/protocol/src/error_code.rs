//! The error codes of CALLERROR and CALLRESULTERROR, in each version's own spelling.
//!
//! Owns spelling and recognition. Which code fits which mistake is decided by `frame` and
//! `shape`.

use crate::version::Version;

/// What went wrong, independent of version (OCPP-J 1.6 Table 7; Part 4, 4.3).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum ErrorCode {
    /// The receiver does not know the action.
    NotImplemented,
    /// The receiver knows the action but does not support it.
    NotSupported,
    /// The receiver failed.
    InternalError,
    /// The payload is incomplete.
    ProtocolError,
    /// A security problem; also the answer to a station that is not accepted yet.
    SecurityError,
    /// The payload is syntactically wrong.
    FormatViolation,
    /// A field has an invalid value.
    PropertyConstraintViolation,
    /// A field is missing, or there are too few or too many of it.
    OccurrenceConstraintViolation,
    /// A field has the wrong type.
    TypeConstraintViolation,
    /// The message type number is not supported.
    MessageTypeNotSupported,
    /// Not a valid message, such as one whose id cannot be read.
    RpcFrameworkError,
    /// Anything else.
    GenericError,
}

impl ErrorCode {
    /// Every code, in the order of [`ErrorCode::index`].
    pub const ALL: [Self; 12] = [
        Self::NotImplemented,
        Self::NotSupported,
        Self::InternalError,
        Self::ProtocolError,
        Self::SecurityError,
        Self::FormatViolation,
        Self::PropertyConstraintViolation,
        Self::OccurrenceConstraintViolation,
        Self::TypeConstraintViolation,
        Self::MessageTypeNotSupported,
        Self::RpcFrameworkError,
        Self::GenericError,
    ];

    /// The code as this version spells it.
    ///
    /// The errata of 1.6 call its two odd spellings wrong and keep them (5.1, 5.2). 1.6 has no code for
    /// a broken envelope, which counts as a syntax error, and none for an unknown message type, which
    /// it ignores.
    pub fn as_str(self, version: Version) -> &'static str {
        match (self, version) {
            (Self::FormatViolation | Self::RpcFrameworkError, Version::V16) => "FormationViolation",
            (Self::OccurrenceConstraintViolation, Version::V16) => "OccurenceConstraintViolation",
            (Self::MessageTypeNotSupported, Version::V16) => "GenericError",
            (Self::NotImplemented, _) => "NotImplemented",
            (Self::NotSupported, _) => "NotSupported",
            (Self::InternalError, _) => "InternalError",
            (Self::ProtocolError, _) => "ProtocolError",
            (Self::SecurityError, _) => "SecurityError",
            (Self::FormatViolation, _) => "FormatViolation",
            (Self::PropertyConstraintViolation, _) => "PropertyConstraintViolation",
            (Self::OccurrenceConstraintViolation, _) => "OccurrenceConstraintViolation",
            (Self::TypeConstraintViolation, _) => "TypeConstraintViolation",
            (Self::MessageTypeNotSupported, _) => "MessageTypeNotSupported",
            (Self::RpcFrameworkError, _) => "RpcFrameworkError",
            (Self::GenericError, _) => "GenericError",
        }
    }

    /// The code that a peer sent, in the spelling of any version, because stations mix them. `None` for
    /// any other text, which peers are allowed to send.
    pub fn recognise(text: &str) -> Option<Self> {
        match text {
            "FormationViolation" => Some(Self::FormatViolation),
            "OccurenceConstraintViolation" => Some(Self::OccurrenceConstraintViolation),
            _ => Self::ALL.into_iter().find(|code| code.as_str(Version::V21) == text),
        }
    }

    /// The position in [`ErrorCode::ALL`], for arrays of counters.
    pub fn index(self) -> usize {
        self as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings_follow_the_version() {
        assert_eq!(ErrorCode::FormatViolation.as_str(Version::V16), "FormationViolation");
        assert_eq!(
            ErrorCode::OccurrenceConstraintViolation.as_str(Version::V16),
            "OccurenceConstraintViolation"
        );
        for version in [Version::V201, Version::V21] {
            assert_eq!(ErrorCode::FormatViolation.as_str(version), "FormatViolation");
            assert_eq!(
                ErrorCode::OccurrenceConstraintViolation.as_str(version),
                "OccurrenceConstraintViolation"
            );
        }
    }

    #[test]
    fn only_codes_of_1_6_are_written_on_1_6() {
        // OCPP-J 1.6 Table 7, complete.
        let table = [
            "NotImplemented",
            "NotSupported",
            "InternalError",
            "ProtocolError",
            "SecurityError",
            "FormationViolation",
            "PropertyConstraintViolation",
            "OccurenceConstraintViolation",
            "TypeConstraintViolation",
            "GenericError",
        ];
        for code in ErrorCode::ALL {
            assert!(table.contains(&code.as_str(Version::V16)), "{code:?}");
        }
    }

    #[test]
    fn every_spelling_is_recognised() {
        for (at, code) in ErrorCode::ALL.into_iter().enumerate() {
            assert_eq!(code.index(), at);
            assert_eq!(ErrorCode::recognise(code.as_str(Version::V201)), Some(code));
        }
        assert_eq!(ErrorCode::recognise("FormationViolation"), Some(ErrorCode::FormatViolation));
        assert_eq!(
            ErrorCode::recognise("OccurenceConstraintViolation"),
            Some(ErrorCode::OccurrenceConstraintViolation)
        );
        assert_eq!(ErrorCode::recognise("genericerror"), None);
        assert_eq!(ErrorCode::recognise(""), None);
    }
}
