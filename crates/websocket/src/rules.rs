//! What a peer may send, as its handshake settled it.

/// What a peer may send.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// Bytes of the largest message, put together and inflated.
    pub max_message: usize,
    /// permessage-deflate was negotiated.
    pub deflate: bool,
}

impl Rules {
    /// Bytes of the largest message as it comes. Deflate makes what it cannot compress larger, by 5 bytes a block; a
    /// 64th is more than any sensible sender needs.
    pub(crate) fn max_compressed(&self) -> usize {
        self.max_message + self.max_message / 64 + 64
    }
}
