//! The server's side of a WebSocket: RFC 6455 with RFC 7692 (permessage-deflate).
//!
//! ```text
//!  bytes ── Decoder ──┬─ header   (rules of one frame)      ┐
//!                     ├─ message  (assembly, UTF-8, limits) ├── Event, or Breach
//!                     └─ inflation (in slices)              ┘
//!  frames ─ Encoder ── codec (deflate) ── bytes
//!  Sec-WebSocket-Extensions ── negotiation ── Deflate, or no compression
//!
//!  Connection = Decoder + Encoder + a stream: reads and writes of tokio, on buffers of the thread
//! ```
//!
//! Everything but [`Connection`] is free of I/O: bytes in, events out, so that any splitting of a stream can be tested.
//! What is not here: the HTTP handshake (only its two computed values, [`accept_key`] and [`negotiation`]), timeouts, and what
//! a message means.
//!
//! # What a connection holds
//!
//! The promise that tens of thousands of connections rest on: **between messages a connection owns no buffer**. Bytes are
//! read into and written from buffers that belong to the thread, and compressors belong to the thread, too. A connection
//! owns, and gives back as soon as it can:
//!
//! * while a message is incomplete, what has come of it: at most twice that, and never more than [`Rules::max_message`] (and
//!   a 64th of it, if it is compressed); while it is inflated, both forms of it, and an inflater of 48 KiB if that takes more
//!   than one slice: 4 KiB as it came, or 64 KiB inflated;
//! * what was read and not asked for yet: at most [`Settings::read_bytes`] (a station that sends without waiting for answers);
//! * what the kernel did not take: at most [`WRITE_BATCH`] or one frame, whichever is more, one pong and one close frame.
//!
//! Frame headers and close codes are parsed and written by `tungstenite`'s public primitives; the rules about them, and
//! everything that holds memory, are here.

pub mod breach;
mod codec;
mod connection;
mod decoder;
mod encoder;
mod event;
mod header;
mod inflation;
mod mask;
mod message;
pub mod negotiation;
mod rules;
mod scratch;

pub use breach::{Breach, Violation};
pub use connection::{Connection, Outgoing, ReadEnd, Settings, Traffic, WRITE_BATCH};
pub use decoder::{Decoder, Step};
pub use encoder::Encoder;
pub use event::Event;
pub use negotiation::Deflate;
pub use rules::Rules;

/// The `Sec-WebSocket-Accept` value for a `Sec-WebSocket-Key` (RFC 6455 section 4.2.2).
pub fn accept_key(key: &[u8]) -> String {
    tungstenite::handshake::derive_accept_key(key)
}
