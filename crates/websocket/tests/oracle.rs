//! Compares the decoder with tungstenite's server, on valid streams and on streams with an error somewhere.
//!
//! Both must decode the same messages, and must agree on whether a stream is valid. They may differ in these points:
//! * a length in more bytes than it needs is an error here, as RFC 6455 section 5.2 demands, and not in tungstenite;
//! * this decoder checks a frame by its header and while its text arrives, tungstenite when it is complete; so the streams of this
//!   test complete their last frame;
//! * tungstenite does not know close code 1014, which was registered after RFC 6455;
//! * which rule was broken is not compared, because a frame may break several.
//!
//! tungstenite does not support compression, so it is off here and tested in `tests/splitting.rs`.
//! The test runs the same 10,000 streams every time; set `PROPTEST_CASES` for more.

mod common;

use std::io::{self, Cursor, Read, Write};

use common::*;
use ocpp_websocket::{DecodeError, Event, ProtocolError};
use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use tungstenite::error::{self, CapacityError};
use tungstenite::protocol::frame::FrameHeader;
use tungstenite::protocol::{Role, WebSocketConfig};
use tungstenite::{Error, Message, WebSocket};

const LIMIT: usize = 2000;

/// A stream to read, and a place for what is written.
struct Wire(Cursor<Vec<u8>>);

impl Read for Wire {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}

impl Write for Wire {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What tungstenite makes of a stream, and whether it found it broken.
fn oracle(stream: &[u8]) -> (Vec<Event>, bool) {
    let config = WebSocketConfig::default().max_message_size(Some(LIMIT)).max_frame_size(Some(LIMIT));
    let wire = Wire(Cursor::new(stream.to_vec()));
    let mut socket = WebSocket::from_raw_socket(wire, Role::Server, Some(config));
    let mut events = Vec::new();
    loop {
        match socket.read() {
            Ok(Message::Text(text)) => events.push(common::text(text.as_str())),
            Ok(Message::Binary(bytes)) => {
                events.push(Event::Binary { bytes: bytes.to_vec(), compressed: None })
            }
            Ok(Message::Ping(payload)) => events.push(Event::Ping(payload.to_vec())),
            Ok(Message::Pong(payload)) => events.push(Event::Pong(payload.to_vec())),
            Ok(Message::Close(close)) => {
                events.push(Event::Close(close.map(|close| close.code.into())));
                return (events, false);
            }
            Ok(Message::Frame(_)) => unreachable!("only given to those who ask for it"),
            Err(Error::Protocol(error::ProtocolError::ResetWithoutClosingHandshake)) => {
                return (events, false);
            }
            Err(
                Error::Protocol(_) | Error::Utf8(_) | Error::Capacity(CapacityError::MessageTooLong { .. }),
            ) => {
                return (events, true);
            }
            Err(error) => panic!("{error:?}"),
        }
    }
}

/// A message in one or more frames, with control frames in between.
fn message() -> impl Strategy<Value = Vec<u8>> {
    let payload = prop_oneof![
        4 => "[ -~\u{e9}\u{20ac}\u{1f600}]{0,60}".prop_map(String::into_bytes),
        1 => "[a-z]{120,140}".prop_map(String::into_bytes),
        1 => Just(vec![b' '; LIMIT]),
        1 => prop::collection::vec(any::<u8>(), 0..140),
    ];
    let control = (prop::sample::select(vec![PING, PONG]), prop::collection::vec(any::<u8>(), 0..126))
        .prop_map(|(opcode, payload)| frame(FIN | opcode, &payload));
    let cuts =
        prop::collection::vec((any::<prop::sample::Index>(), prop::option::weighted(0.2, control)), 0..5);
    (prop::sample::select(vec![TEXT, TEXT, BINARY]), payload, cuts).prop_map(|(opcode, payload, cuts)| {
        let mut places: Vec<_> =
            cuts.iter().map(|(cut, control)| (cut.index(payload.len() + 1), control)).collect();
        places.sort_by_key(|(place, _)| *place);
        let (mut stream, mut from, mut opcode) = (Vec::new(), 0, opcode);
        for (place, control) in places {
            stream.extend(frame(opcode, &payload[from..place]));
            stream.extend(control.iter().flatten());
            (from, opcode) = (place, CONTINUATION);
        }
        stream.extend(frame(FIN | opcode, &payload[from..]));
        stream
    })
}

fn close() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        Just(frame(FIN | CLOSE, b"")),
        (any::<u16>(), "\\PC{0,20}").prop_map(|(code, reason)| {
            frame(FIN | CLOSE, &[&code.to_be_bytes(), reason.as_bytes()].concat())
        }),
        prop::collection::vec(any::<u8>(), 0..130).prop_map(|payload| frame(FIN | CLOSE, &payload)),
    ]
}

#[derive(Clone, Debug)]
enum Harm {
    Flip(prop::sample::Index, u8),
    Cut(prop::sample::Index),
    Insert(prop::sample::Index, Vec<u8>),
    Remove(prop::sample::Index),
}

fn harm() -> impl Strategy<Value = Harm> {
    let place = any::<prop::sample::Index>;
    prop_oneof![
        4 => (place(), 0..8_u8).prop_map(|(place, bit)| Harm::Flip(place, 1 << bit)),
        1 => place().prop_map(Harm::Cut),
        1 => (place(), prop::collection::vec(any::<u8>(), 1..20)).prop_map(|(place, bytes)| Harm::Insert(place, bytes)),
        1 => place().prop_map(Harm::Remove),
    ]
}

fn apply(stream: &mut Vec<u8>, harm: &Harm) {
    if stream.is_empty() {
        return;
    }
    match harm {
        Harm::Flip(place, bit) => {
            let place = place.index(stream.len());
            stream[place] ^= bit;
        }
        Harm::Cut(place) => stream.truncate(place.index(stream.len())),
        Harm::Insert(place, bytes) => {
            let place = place.index(stream.len());
            stream.splice(place..place, bytes.iter().copied());
        }
        Harm::Remove(place) => {
            stream.remove(place.index(stream.len()));
        }
    }
}

/// Fills up the last frame of a stream, unless it is one that is refused for its length anyway.
fn complete(stream: &mut Vec<u8>) {
    let mut at = 0;
    while let Ok(Some((header, length))) = FrameHeader::parse(&mut Cursor::new(&stream[at..])) {
        if length > LIMIT as u64 {
            return;
        }
        at += header.len(length) + length as usize;
        if at >= stream.len() {
            stream.resize(at, 0);
            return;
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: ProptestConfig::default().cases.max(10_000),
        rng_seed: RngSeed::Fixed(6455),
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn both_make_the_same_of_a_stream(
        messages in prop::collection::vec(message(), 0..6),
        last in prop::option::of(close()),
        harms in prop::collection::vec(harm(), 0..3),
    ) {
        let mut stream = messages.concat();
        stream.extend(last.into_iter().flatten());
        for harm in &harms {
            apply(&mut stream, harm);
        }
        complete(&mut stream);
        let (mut events, error) = decode(plain(LIMIT), &mut [stream.clone()]);
        if let Some(Event::Close(Some(code @ 1014))) = events.last_mut() {
            *code = 1002;
        }
        if error != Some(DecodeError::Protocol(ProtocolError::LongLength)) {
            prop_assert_eq!((events, error.is_some()), oracle(&stream));
        }
    }
}
