//! The rules of the protocol that a peer can break, each with its close code, a word for metrics and a text for people.

/// A rule that the peer broke. Nothing more can be read from it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum DecodeError {
    /// A message larger than [`crate::Rules::max_message`], either as received or inflated.
    #[error("the message is larger than allowed")]
    TooBig,
    /// A text message or the reason in a close frame is not UTF-8.
    #[error("the text is not UTF-8 (RFC 6455 8.1)")]
    InvalidUtf8,
    /// Another rule, which has no close code of its own.
    #[error(transparent)]
    Protocol(#[from] ProtocolError),
}

impl DecodeError {
    /// The status code for the close frame that answers it (RFC 6455 section 7.4.1).
    pub fn close_code(self) -> u16 {
        match self {
            Self::TooBig => 1009,
            Self::InvalidUtf8 => 1007,
            Self::Protocol(_) => 1002,
        }
    }
}

/// A violation of RFC 6455 or RFC 7692 that closes with 1002, protocol error.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ProtocolError {
    /// RFC 6455 section 5.1: a client masks every frame.
    #[error("a frame is not masked (RFC 6455 5.1)")]
    NotMasked,
    /// RFC 6455 section 5.2: RSV1 marks a compressed message, but compression was not negotiated.
    #[error("RSV1 is set, but compression was not negotiated (RFC 6455 5.2)")]
    NotNegotiated,
    /// RSV2 or RSV3 is set, or RSV1 on a control frame or continuation (RFC 7692 section 6).
    #[error("a reserved bit is set (RFC 6455 5.2)")]
    ReservedBit,
    /// RFC 6455 section 5.2: opcodes 3–7 and 11–15.
    #[error("the opcode is reserved (RFC 6455 5.2)")]
    ReservedOpcode,
    /// RFC 6455 section 5.2: a length must be encoded in as few bytes as possible.
    #[error("a length is written with more bytes than it needs (RFC 6455 5.2)")]
    LongLength,
    /// RFC 6455 section 5.5: a control frame has at most 125 bytes and is not fragmented.
    #[error("a control frame is fragmented or longer than 125 bytes (RFC 6455 5.5)")]
    ControlFrame,
    /// RFC 6455 section 5.4: a continuation without a message, or a new message inside another.
    #[error("fragments are out of order (RFC 6455 5.4)")]
    FragmentOrder,
    /// RFC 6455 section 5.5.1: a close frame with a payload of one byte.
    #[error("a close frame has half a code (RFC 6455 5.5.1)")]
    CloseFrame,
    /// The payload is not DEFLATE, or refers to an earlier message although no context takeover was negotiated.
    #[error("a compressed message cannot be inflated (RFC 7692 7.2.2)")]
    NotDeflate,
}

impl ProtocolError {
    /// Every violation, so that its metrics exist from the start.
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

    /// The word for it in metric labels, which never changes.
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
