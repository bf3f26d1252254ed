//! The header of a frame: parsed and written by `tungstenite`, validated here (RFC 6455 sections 5.1, 5.2, 5.5; RFC 7692
//! section 6).

use std::io::Cursor;

use tungstenite::protocol::frame::FrameHeader;
use tungstenite::protocol::frame::coding::{Control, Data, OpCode};

use crate::error::{DecodeError, ProtocolError};

/// The longest header: two bytes, eight of length, four of mask.
pub(crate) const HEADER_MAX: usize = 14;

/// The longest payload of a control frame (RFC 6455 section 5.5).
const CONTROL_MAX: u64 = 125;

/// What a frame carries.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    /// The first frame of a message.
    First {
        text: bool,
        compressed: bool,
    },
    /// A later frame of a message.
    Continuation,
    Ping,
    Pong,
    Close,
}

/// The header of a frame, valid on its own.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Header {
    pub(crate) kind: Kind,
    pub(crate) is_final: bool,
    pub(crate) mask: [u8; 4],
    pub(crate) length: u64,
}

impl Header {
    /// The header at the start of `bytes` and its length, or `None` while it is incomplete.
    pub(crate) fn parse(bytes: &[u8], deflate: bool) -> Result<Option<(Self, usize)>, DecodeError> {
        let mut cursor = Cursor::new(bytes);
        // Reading from memory cannot fail, so the only error is that of a reserved opcode.
        let Some((header, length)) =
            FrameHeader::parse(&mut cursor).map_err(|_| ProtocolError::ReservedOpcode)?
        else {
            return Ok(None);
        };
        let taken = usize::try_from(cursor.position()).unwrap_or(HEADER_MAX);
        if taken != header.len(length) {
            return Err(ProtocolError::LongLength.into());
        }
        let kind = kind(&header, deflate)?;
        let is_control = matches!(kind, Kind::Ping | Kind::Pong | Kind::Close);
        if is_control && (!header.is_final || length > CONTROL_MAX) {
            return Err(ProtocolError::ControlFrame.into());
        }
        let mask = header.mask.ok_or(ProtocolError::NotMasked)?;
        Ok(Some((Self { kind, is_final: header.is_final, mask, length }, taken)))
    }
}

fn kind(header: &FrameHeader, deflate: bool) -> Result<Kind, ProtocolError> {
    let kind = match header.opcode {
        OpCode::Data(Data::Text) => Kind::First { text: true, compressed: header.rsv1 },
        OpCode::Data(Data::Binary) => Kind::First { text: false, compressed: header.rsv1 },
        OpCode::Data(Data::Continue) => Kind::Continuation,
        OpCode::Control(Control::Ping) => Kind::Ping,
        OpCode::Control(Control::Pong) => Kind::Pong,
        OpCode::Control(Control::Close) => Kind::Close,
        OpCode::Data(Data::Reserved(_)) | OpCode::Control(Control::Reserved(_)) => {
            return Err(ProtocolError::ReservedOpcode);
        }
    };
    if header.rsv2 || header.rsv3 {
        return Err(ProtocolError::ReservedBit);
    }
    match kind {
        _ if !header.rsv1 => Ok(kind),
        Kind::First { .. } if deflate => Ok(kind),
        Kind::First { .. } => Err(ProtocolError::NotNegotiated),
        _ => Err(ProtocolError::ReservedBit),
    }
}

/// Appends the header of an unfragmented, unmasked frame.
pub(crate) fn write(out: &mut Vec<u8>, opcode: OpCode, compressed: bool, length: usize) {
    let header = FrameHeader { opcode, rsv1: compressed, ..FrameHeader::default() };
    let written = header.format(length as u64, out);
    debug_assert!(written.is_ok(), "writing to memory does not fail");
}
