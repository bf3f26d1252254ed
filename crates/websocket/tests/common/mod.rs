//! What a client would send, byte by byte, lawful or not.
#![allow(dead_code, reason = "each test binary uses some of it")]

pub(crate) mod peer;

use ocpp_websocket::{DecodeError, Decoder, Event, Rules};

pub(crate) const CONTINUATION: u8 = 0;
pub(crate) const TEXT: u8 = 1;
pub(crate) const BINARY: u8 = 2;
pub(crate) const CLOSE: u8 = 8;
pub(crate) const PING: u8 = 9;
pub(crate) const PONG: u8 = 10;

pub(crate) const FIN: u8 = 0x80;
pub(crate) const RSV1: u8 = 0x40;

/// A masked frame; `first` is its first byte: FIN, reserved bits and opcode.
pub(crate) fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mask = [0x37, 0xfa, 0x21, 0x3d];
    let mut frame = header(first, payload.len() as u64);
    frame.extend_from_slice(&mask);
    frame.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, key)| byte ^ key));
    frame
}

/// The header of a masked frame up to its mask.
pub(crate) fn header(first: u8, length: u64) -> Vec<u8> {
    let mut header = vec![first];
    match length {
        0..126 => header.push(0x80 | length as u8),
        126..65536 => {
            header.push(0x80 | 126);
            header.extend_from_slice(&(length as u16).to_be_bytes());
        }
        _ => {
            header.push(0x80 | 127);
            header.extend_from_slice(&length.to_be_bytes());
        }
    }
    header
}

/// What a decoder makes of a stream that arrives in these pieces.
pub(crate) fn decode(rules: Rules, pieces: &mut [Vec<u8>]) -> (Vec<Event>, Option<DecodeError>) {
    let mut decoder = Decoder::new(rules);
    let mut events = Vec::new();
    for piece in pieces {
        let mut used = 0;
        while used < piece.len() || decoder.is_inflating() {
            let was_inflating = decoder.is_inflating();
            match decoder.decode(&mut piece[used..]) {
                Ok(step) => {
                    assert_ne!(step.consumed > 0, was_inflating, "progress by one or the other");
                    used += step.consumed;
                    let is_close = matches!(step.event, Some(Event::Close(_)));
                    events.extend(step.event);
                    if is_close {
                        return (events, None);
                    }
                }
                Err(error) => return (events, Some(error)),
            }
        }
    }
    (events, None)
}

pub(crate) fn plain(max_message: usize) -> Rules {
    Rules { max_message, deflate: false }
}

pub(crate) fn compressed(max_message: usize) -> Rules {
    Rules { max_message, deflate: true }
}

pub(crate) fn text(text: &str) -> Event {
    Event::Text { text: text.to_owned(), compressed: None }
}
