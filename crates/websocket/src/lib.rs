//! The server side of a WebSocket: RFC 6455 with RFC 7692 (permessage-deflate).
//!
//! ```text
//!  bytes ── Decoder ──┬─ header   (rules of one frame)      ┐
//!                     ├─ message  (assembly, UTF-8, limits) ├── Event, or DecodeError
//!                     └─ inflation (in slices)              ┘
//!  frames ─ Encoder ── codec (deflate) ── bytes
//!  Sec-WebSocket-Extensions ── negotiation ── Deflate, or no compression
//!
//!  Connection = Decoder + Encoder + a tokio stream, reading and writing through buffers of the thread
//! ```
//!
//! Everything but [`Connection`] is free of I/O: bytes in, events out, so that a stream can be tested however it is split.
//! The HTTP handshake (apart from the two values that it computes, [`accept_key`] and [`negotiation`]), timeouts, and the meaning
//! of messages belong elsewhere.
//!
//! # Memory of a connection
//!
//! **Between messages a connection owns no buffer**, which is what makes tens of thousands of connections affordable. Bytes are
//! read and written through buffers that belong to the thread, and so do the compressors. A connection owns only the following,
//! and frees it as soon as it can:
//!
//! * while a message is incomplete, the part received: at most twice its size, and never more than [`Rules::max_message`] (plus
//!   a 64th if it is compressed); while the message is inflated, both forms of it, and an inflater of 48 KiB if that takes more
//!   than one slice of 4 KiB compressed or 64 KiB inflated;
//! * bytes that were read and not asked for yet: at most [`Settings::read_bytes`], from a station that does not wait for answers;
//! * bytes that the kernel has not accepted: at most [`WRITE_BATCH`] or one frame, whichever is larger, one pong and one close
//!   frame.
//!
//! `tungstenite`'s public primitives parse and write frame headers. The rules about them, and everything that
//! holds memory, are here.

mod codec;
mod connection;
mod decoder;
mod encoder;
mod error;
mod event;
mod header;
mod inflation;
mod mask;
mod message;
pub mod negotiation;
mod rules;
mod scratch;

pub use connection::{Connection, Outgoing, ReadEnd, Settings, Traffic, WRITE_BATCH};
pub use decoder::{Decoder, Step};
pub use encoder::Encoder;
pub use error::{DecodeError, ProtocolError};
pub use event::Event;
pub use negotiation::Deflate;
pub use rules::Rules;

/// The `Sec-WebSocket-Accept` value for a `Sec-WebSocket-Key` (RFC 6455 section 4.2.2).
pub fn accept_key(key: &[u8]) -> String {
    tungstenite::handshake::derive_accept_key(key)
}
