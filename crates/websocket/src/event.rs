//! What a decoder makes of bytes: complete messages and control frames.

/// Something that the peer sent.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Event {
    /// A complete text message.
    Text {
        /// The text.
        text: String,
        /// How many bytes it was, if it came compressed.
        compressed: Option<usize>,
    },
    /// A complete binary message.
    Binary {
        /// The bytes.
        bytes: Vec<u8>,
        /// How many bytes it was, if it came compressed.
        compressed: Option<usize>,
    },
    /// A ping, with the payload that its pong must return.
    Ping(Vec<u8>),
    /// A pong, with its payload.
    Pong(Vec<u8>),
    /// A close frame, with its status code if it has one; a code that no frame may carry (RFC 6455 section 7.4) becomes 1002.
    /// Whatever follows it is to be ignored (section 5.5.1).
    Close(Option<u16>),
}
