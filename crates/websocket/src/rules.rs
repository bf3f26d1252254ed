//! The limits for what a peer may send.

/// What a peer may send.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// The largest message, in bytes, assembled and inflated.
    pub max_message: usize,
    /// Whether permessage-deflate was negotiated.
    pub deflate: bool,
}

impl Rules {
    /// The largest message, in bytes, as received. DEFLATE adds 5 bytes a block to data that it cannot compress; a 64th is more
    /// than any reasonable sender needs.
    pub(crate) fn max_compressed(&self) -> usize {
        self.max_message + self.max_message / 64 + 64
    }
}
