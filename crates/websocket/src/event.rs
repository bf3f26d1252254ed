//! What a decoder makes of bytes: whole messages and control frames.

/// What a peer said.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Event {
    /// A whole text.
    Text {
        /// The text.
        text: String,
        /// How many bytes it was, if it came compressed.
        compressed: Option<usize>,
    },
    /// A whole binary message.
    Binary {
        /// The bytes.
        bytes: Vec<u8>,
        /// How many bytes it was, if it came compressed.
        compressed: Option<usize>,
    },
    /// A ping, and what its pong must carry.
    Ping(Vec<u8>),
    /// A pong, and what it carries.
    Pong(Vec<u8>),
    /// The close frame, with its code if it has one, or 1002 in place of one that no frame may carry (RFC 6455 section 7.4).
    /// Nothing after it means anything (section 5.5.1).
    Close(Option<u16>),
}
