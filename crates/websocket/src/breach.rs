//! Which rule a peer broke: a closed set, each with its close code, a word for metrics and a text for people.

/// Why nothing more can be read from a peer.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Breach {
    /// A message larger than [`crate::Rules::max_message`], as it came or inflated.
    #[error("the message is larger than allowed")]
    TooBig,
    /// Text, or the reason in a close frame, that is not UTF-8.
    #[error("the text is not UTF-8")]
    NotUtf8,
    /// Anything else.
    #[error(transparent)]
    Protocol(#[from] Violation),
}

impl Breach {
    /// The code of the close frame that answers it (RFC 6455 section 7.4.1).
    pub fn close_code(self) -> u16 {
        match self {
            Self::TooBig => 1009,
            Self::NotUtf8 => 1007,
            Self::Protocol(_) => 1002,
        }
    }
}

/// A broken rule of RFC 6455 or RFC 7692 that has no close code of its own.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Violation {
    /// RFC 6455 section 5.1: a client masks every frame.
    #[error("a frame is not masked")]
    NotMasked,
    /// RFC 6455 section 5.2: RSV1 says "compressed", and compression was not negotiated.
    #[error("a frame is compressed (RSV1) and compression was not negotiated")]
    NotNegotiated,
    /// RSV2 or RSV3; or RSV1 where RFC 7692 section 6 does not allow it: a control frame, a continuation.
    #[error("a reserved bit is set")]
    ReservedBit,
    /// RFC 6455 section 5.2: opcodes 3–7 and 11–15.
    #[error("the opcode is reserved")]
    ReservedOpcode,
    /// RFC 6455 section 5.2: the length takes as few bytes as possible.
    #[error("a length is written with more bytes than it needs")]
    LongLength,
    /// RFC 6455 section 5.5: a control frame has 125 bytes at most and is not fragmented.
    #[error("a control frame is fragmented or longer than 125 bytes")]
    ControlFrame,
    /// RFC 6455 section 5.4: a continuation of nothing, or a new message inside another.
    #[error("fragments are out of order")]
    FragmentOrder,
    /// RFC 6455 section 5.5.1: a close frame of one byte.
    #[error("a close frame has half a code")]
    CloseFrame,
    /// What should be DEFLATE is not, or leans on an earlier message although the negotiation forbids it.
    #[error("a compressed message cannot be inflated")]
    NotDeflate,
}

impl Violation {
    /// Every violation, for metrics.
    pub const ALL: [Self; 9] = [
        Self::NotMasked,
        Self::NotNegotiated,
        Self::ReservedBit,
        Self::ReservedOpcode,
        Self::LongLength,
        Self::ControlFrame,
        Self::FragmentOrder,
        Self::CloseFrame,
        Self::NotDeflate,
    ];

    /// One word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NotMasked => "notMasked",
            Self::NotNegotiated => "compressedWithoutNegotiation",
            Self::ReservedBit => "reservedBit",
            Self::ReservedOpcode => "reservedOpcode",
            Self::LongLength => "longLength",
            Self::ControlFrame => "controlFrame",
            Self::FragmentOrder => "fragmentOrder",
            Self::CloseFrame => "closeFrame",
            Self::NotDeflate => "notDeflate",
        }
    }
}
