//! Every rule about frames and messages, each with a stream that obeys it and one that violates it.

mod common;

use common::*;
use ocpp_websocket::{DecodeError, Event, ProtocolError};

const LIMIT: usize = 1000;

/// `"Hello"` compressed (RFC 7692 section 7.2.3.1).
const HELLO: [u8; 7] = [0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00];

fn read(stream: &[Vec<u8>]) -> (Vec<Event>, Option<DecodeError>) {
    decode(plain(LIMIT), &mut [stream.concat()])
}

fn error(stream: &[Vec<u8>]) -> DecodeError {
    let (events, error) = read(stream);
    assert_eq!(events, [], "nothing may come of it");
    let Some(error) = error else { panic!("no error was found") };
    error
}

#[test]
fn messages_come_whole() {
    let long = "x".repeat(LIMIT);
    let (events, error) = read(&[
        frame(FIN | TEXT, b"[2]"),
        frame(FIN | TEXT, b""),
        frame(FIN | BINARY, &[0xff]),
        frame(FIN | TEXT, long.as_bytes()),
        frame(TEXT, b"gr\xc3"),
        frame(FIN | PING, b"now"),
        frame(CONTINUATION, b""),
        frame(FIN | PONG, b""),
        frame(FIN | CONTINUATION, b"\xbc\xc3\x9fe"),
        frame(FIN | CLOSE, b"\x03\xe8bye"),
        frame(FIN | TEXT, b"nobody reads this"),
    ]);
    assert_eq!(error, None);
    assert_eq!(
        events,
        [
            text("[2]"),
            text(""),
            Event::Binary { bytes: vec![0xff], compressed: None },
            text(&long),
            Event::Ping(b"now".to_vec()),
            Event::Pong(Vec::new()),
            text("gr\u{fc}\u{df}e"),
            Event::Close(Some(1000)),
        ]
    );
}

#[test]
fn a_close_code_is_kept_if_it_may_be_sent() {
    for code in 0..=u16::MAX {
        let may_be_sent = match code {
            1000..=1003 | 1007..=1011 => true, // RFC 6455 section 7.4.1
            1012..=1014 => true,               // service restart, try again later, bad gateway
            3000..=4999 => true,               // libraries and applications (section 7.4.2)
            _ => false,
        };
        let (events, error) = read(&[frame(FIN | CLOSE, &code.to_be_bytes())]);
        assert_eq!((events, error), (vec![Event::Close(Some(if may_be_sent { code } else { 1002 }))], None));
    }
}

#[test]
fn a_frame_that_breaks_a_rule_ends_the_stream() {
    use ProtocolError::*;
    let mut unmasked = vec![FIN | TEXT, 2];
    unmasked.extend_from_slice(b"[]");
    let long_16 = [vec![FIN | TEXT, 0x80 | 126, 0, 125], vec![0; 4 + 125]].concat();
    let long_64 = [vec![FIN | TEXT, 0x80 | 127, 0, 0, 0, 0, 0, 0, 1, 0], vec![0; 4 + 256]].concat();
    let cases: [(&[Vec<u8>], ProtocolError); 18] = [
        (&[unmasked], NotMasked),
        (&[frame(FIN | RSV1 | TEXT, &HELLO)], NotNegotiated),
        (&[frame(FIN | RSV1 | PING, b"")], ReservedBit),
        (&[frame(FIN | 0x20 | TEXT, b"")], ReservedBit),
        (&[frame(FIN | 0x10 | PONG, b"")], ReservedBit),
        (&[frame(FIN | 3, b"")], ReservedOpcode),
        (&[frame(FIN | 7, b"")], ReservedOpcode),
        (&[frame(FIN | 11, b"")], ReservedOpcode),
        (&[frame(FIN | 15, b"")], ReservedOpcode),
        (&[long_16], LongLength),
        (&[long_64], LongLength),
        (&[frame(PING, b"")], ControlFrame),
        (&[frame(CLOSE, b"")], ControlFrame),
        (&[frame(FIN | PONG, &[0; 126])], ControlFrame),
        (&[frame(FIN | CONTINUATION, b"")], FragmentOrder),
        (&[frame(TEXT, b""), frame(FIN | TEXT, b"")], FragmentOrder),
        (&[frame(BINARY, b""), frame(BINARY, b"")], FragmentOrder),
        (&[frame(FIN | CLOSE, b"\x03")], CloseFrame),
    ];
    for (number, (stream, violation)) in cases.into_iter().enumerate() {
        assert_eq!(error(stream), DecodeError::Protocol(violation), "case {number}");
    }
}

#[test]
fn what_is_larger_than_allowed_is_refused_by_its_header() {
    let too_big = [header(FIN | TEXT, LIMIT as u64 + 1), vec![0; 4]].concat();
    assert_eq!(error(&[too_big]), DecodeError::TooBig);
    let absurd = [header(FIN | BINARY, u64::MAX), vec![0; 4]].concat();
    assert_eq!(error(&[absurd]), DecodeError::TooBig);
    let second = [header(FIN | CONTINUATION, 2), vec![0; 4]].concat();
    assert_eq!(error(&[frame(TEXT, &[b' '; LIMIT - 1]), second]), DecodeError::TooBig);
}

#[test]
fn a_message_without_an_end_is_too_big_though_it_is_empty() {
    let empty = |count| [frame(TEXT, b""), frame(CONTINUATION, b"").repeat(count)].concat();
    assert_eq!(error(&[empty(LIMIT)]), DecodeError::TooBig);
    let (events, error) =
        decode(plain(LIMIT), &mut [[empty(LIMIT - 1), frame(FIN | CONTINUATION, b"x")].concat()]);
    assert_eq!((events.len(), error), (1, None));
    let (events, error) =
        decode(plain(LIMIT), &mut [[frame(TEXT, &[b' '; LIMIT]), frame(FIN | CONTINUATION, b"")].concat()]);
    assert_eq!((events.len(), error), (1, None), "the last frame may be empty");
}

#[test]
fn text_is_checked_as_it_comes() {
    // Each fails with what is there, though the message goes on.
    let hopeless: [&[u8]; 5] = [b"\xff", b"ok \xc3\x28", b"\xed\xa0", b"\xf4\x90", b"\xc0"];
    for start in hopeless {
        assert_eq!(error(&[frame(TEXT, start)]), DecodeError::InvalidUtf8, "{start:02x?}");
        let announced = [header(FIN | TEXT, 100), vec![0; 4], start.to_vec()].concat();
        assert_eq!(
            error(&[announced]),
            DecodeError::InvalidUtf8,
            "{start:02x?} in a frame that is not whole"
        );
    }
    assert_eq!(error(&[frame(FIN | TEXT, b"\xe2\x82")]), DecodeError::InvalidUtf8, "cut inside a character");
    assert_eq!(error(&[frame(TEXT, b"\xe2"), frame(FIN | CONTINUATION, b"\x82")]), DecodeError::InvalidUtf8);
    assert_eq!(
        error(&[frame(FIN | CLOSE, b"\x03\xe8\xff")]),
        DecodeError::InvalidUtf8,
        "the reason is text, too"
    );
}

#[test]
fn compressed_messages_may_be_fragmented_and_interleaved() {
    let stream = [
        frame(FIN | RSV1 | TEXT, &HELLO),
        frame(RSV1 | TEXT, &HELLO[..3]),
        frame(FIN | PING, b"p"),
        frame(CONTINUATION, &HELLO[3..]),
        frame(FIN | CONTINUATION, b""),
        frame(FIN | TEXT, b"plain"),
        frame(FIN | RSV1 | BINARY, &HELLO),
    ];
    let (events, error) = decode(compressed(LIMIT), &mut [stream.concat()]);
    assert_eq!(error, None);
    let hello = Event::Text { text: "Hello".into(), compressed: Some(7) };
    let binary = Event::Binary { bytes: b"Hello".to_vec(), compressed: Some(7) };
    assert_eq!(events, [hello.clone(), Event::Ping(b"p".to_vec()), hello, text("plain"), binary]);
}

#[test]
fn compression_has_rules_of_its_own() {
    let cases: [(&[Vec<u8>], usize, DecodeError); 7] = [
        (
            &[frame(RSV1 | TEXT, &HELLO), frame(FIN | RSV1 | CONTINUATION, b"")],
            5,
            ProtocolError::ReservedBit.into(),
        ),
        (&[frame(FIN | RSV1 | PING, b"")], 5, ProtocolError::ReservedBit.into()),
        (&[frame(FIN | RSV1 | CLOSE, b"")], 5, ProtocolError::ReservedBit.into()),
        (&[frame(FIN | RSV1 | TEXT, &HELLO)], 4, DecodeError::TooBig),
        (&[frame(FIN | RSV1 | TEXT, &[0xff; 9])], 5, ProtocolError::NotDeflate.into()),
        // A stored block that holds 0xff.
        (&[frame(FIN | RSV1 | TEXT, &[0, 1, 0, 0xfe, 0xff, 0xff, 0])], 5, DecodeError::InvalidUtf8),
        // Empty blocks, which inflate to nothing, without an end.
        (&[frame(RSV1 | TEXT, &[0; 60]), frame(CONTINUATION, &[0; 60])], 5, DecodeError::TooBig),
    ];
    for (number, (stream, limit, expected)) in cases.into_iter().enumerate() {
        assert_eq!(
            decode(compressed(limit), &mut [stream.concat()]),
            (vec![], Some(expected)),
            "case {number}"
        );
    }
}
