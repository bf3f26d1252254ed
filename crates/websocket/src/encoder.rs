//! Turns messages into bytes: unfragmented frames, unmasked as a server's must be, compressed if that was negotiated and pays.

use tungstenite::protocol::frame::coding::{Control, Data, OpCode};

use crate::codec;
use crate::header;
use crate::negotiation::Deflate;

/// Encodes one direction of one connection.
#[derive(Clone, Copy, Debug)]
pub struct Encoder {
    /// How to compress; `None` if compression was not negotiated.
    pub deflate: Option<Deflate>,
    /// Compress only texts of more bytes than this: short ones do not shrink, and cost as much to try.
    pub compress_above: usize,
}

impl Encoder {
    /// Appends a text message to `out`. Returns the size of its payload if it was compressed.
    pub fn text(&self, out: &mut Vec<u8>, text: &str) -> Option<usize> {
        let opcode = OpCode::Data(Data::Text);
        if let Some(deflate) = self.deflate.filter(|_| text.len() > self.compress_above) {
            // The header comes first, but its size depends on the payload's; so it is written last and rotated to the front.
            let start = out.len();
            if codec::deflate(text.as_bytes(), deflate.window_bits(), out) {
                let length = out.len() - start;
                header::write(out, opcode, true, length);
                if let Some(frame) = out.get_mut(start..) {
                    frame.rotate_left(length);
                }
                return Some(length);
            }
        }
        header::write(out, opcode, false, text.len());
        out.extend_from_slice(text.as_bytes());
        None
    }

    /// Appends a ping. The first 125 bytes of the payload are sent.
    pub fn ping(&self, out: &mut Vec<u8>, payload: &[u8]) {
        control(out, Control::Ping, payload);
    }

    /// Appends a pong, with the payload of the ping.
    pub fn pong(&self, out: &mut Vec<u8>, payload: &[u8]) {
        control(out, Control::Pong, payload);
    }

    /// Appends a close frame. At most 123 bytes of the reason are sent.
    pub fn close(&self, out: &mut Vec<u8>, code: Option<u16>, reason: &str) {
        let Some(code) = code else { return control(out, Control::Close, &[]) };
        let mut end = reason.len().min(123);
        while !reason.is_char_boundary(end) {
            end -= 1;
        }
        let reason = reason.as_bytes().get(..end).unwrap_or_default();
        control(out, Control::Close, &[&code.to_be_bytes(), reason].concat());
    }
}

fn control(out: &mut Vec<u8>, control: Control, payload: &[u8]) {
    let payload = payload.get(..125).unwrap_or(payload);
    header::write(out, OpCode::Control(control), false, payload.len());
    out.extend_from_slice(payload);
}
