//! From messages to bytes: unfragmented frames, unmasked as a server's are, compressed where that was negotiated and pays.

use tungstenite::protocol::frame::coding::{Control, Data, OpCode};

use crate::codec;
use crate::header;
use crate::negotiation::Deflate;

/// Encodes one direction of one connection.
#[derive(Clone, Copy, Debug)]
pub struct Encoder {
    /// What was negotiated.
    pub deflate: Option<Deflate>,
    /// A text is compressed if it has more bytes than this: small ones do not get smaller, and cost as much as others.
    pub compress_above: usize,
}

impl Encoder {
    /// Writes a text message to the end of `out`. Says how many bytes its payload took, if it was compressed.
    pub fn text(&self, out: &mut Vec<u8>, text: &str) -> Option<usize> {
        let opcode = OpCode::Data(Data::Text);
        if let Some(deflate) = self.deflate.filter(|_| text.len() > self.compress_above) {
            // The header comes first and its size depends on the payload's, so the two change places.
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

    /// Writes a ping; the payload, of which 125 bytes count, comes back in the pong.
    pub fn ping(&self, out: &mut Vec<u8>, payload: &[u8]) {
        control(out, Control::Ping, payload);
    }

    /// Writes a pong, with what the ping carried.
    pub fn pong(&self, out: &mut Vec<u8>, payload: &[u8]) {
        control(out, Control::Pong, payload);
    }

    /// Writes a close frame; of the reason 123 bytes count.
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
