//! Both directions together, on a simulated stream: when memory is owned, how many system calls a batch takes, what is answered,
//! and what follows a close frame.

mod common;

use std::task::{Context, Poll, Waker};

use common::peer::{Peer, READ_BYTES, Wire};
use common::*;
use ocpp_websocket::{
    Connection, DecodeError, Deflate, Encoder, Event, Outgoing, ProtocolError, ReadEnd, Settings, Traffic,
    WRITE_BATCH,
};

/// An unmasked frame of fewer than 126 bytes.
fn sent(first: u8, payload: &[u8]) -> Vec<u8> {
    [&[first, payload.len() as u8], payload].concat()
}

#[test]
fn what_is_owned_follows_what_came_and_is_given_back() {
    let mut peer = Peer::plain();
    let large = "m".repeat(60_000);
    let stream = frame(FIN | TEXT, large.as_bytes());
    let (last, pieces) = stream.split_last().unwrap();
    let mut came = 0;
    for piece in pieces.chunks(1460) {
        peer.arrive(piece);
        assert!(peer.read().is_pending());
        came += piece.len();
        assert!(peer.connection.held_bytes() <= 2 * came);
    }
    assert!(peer.connection.held_bytes() <= 60_000, "and never more than the frame's header said");
    peer.arrive(&[*last]);
    assert_eq!(peer.event(), text(&large));
    assert_eq!(peer.connection.held_bytes(), 0);
    peer.send(&large);
    peer.flush();
    assert_eq!(peer.connection.held_bytes(), 0);
}

#[test]
fn fragments_of_one_byte_cost_their_bytes() {
    let mut peer = Peer::plain();
    peer.arrive(&frame(TEXT, b""));
    for _ in 0..10_000 {
        peer.arrive(&frame(CONTINUATION, b"x"));
    }
    while !peer.far.borrow().incoming.is_empty() {
        assert!(peer.read().is_pending());
    }
    // What was read last holds more frames than one poll decodes.
    for _ in 0..READ_BYTES / 7 / 256 + 1 {
        assert!(peer.read().is_pending());
    }
    assert!(peer.connection.held_bytes() <= 20_000);
    peer.arrive(&frame(FIN | CONTINUATION, b""));
    assert_eq!(peer.event(), text(&"x".repeat(10_000)));
}

#[test]
fn a_message_in_fragments_never_owns_more_than_it_may_have() {
    let mut peer = Peer::plain();
    peer.arrive(&frame(TEXT, b""));
    for sent in 1..=100 {
        peer.arrive(&frame(CONTINUATION, &[b'x'; 1000]));
        assert!(peer.read().is_pending());
        assert!(peer.connection.held_bytes() <= (2 * sent * 1000).min(100_000));
    }
    peer.arrive(&frame(CONTINUATION, b"x"));
    assert!(matches!(peer.end(), ReadEnd::Broken(DecodeError::TooBig)));
    assert_eq!(peer.connection.held_bytes(), 0);
}

#[test]
fn what_was_read_with_a_message_is_not_lost() {
    let mut peer = Peer::plain();
    peer.arrive(&[frame(FIN | TEXT, b"1"), frame(FIN | TEXT, b"2"), frame(FIN | TEXT, b"3")].concat());
    assert_eq!(peer.event(), text("1"));
    assert!(peer.connection.held_bytes() > 0 && peer.connection.held_bytes() <= READ_BYTES);
    assert_eq!(peer.event(), text("2"));
    assert_eq!(peer.event(), text("3"));
    assert_eq!(peer.connection.held_bytes(), 0);
    assert!(peer.read().is_pending());
}

#[test]
fn what_was_read_ahead_of_the_upgrade_comes_first() {
    let settings = Settings {
        rules: plain(100),
        encoder: Encoder { deflate: None, compress_above: 0 },
        read_bytes: READ_BYTES,
    };
    let wire = Wire::default();
    wire.0.borrow_mut().incoming.extend(frame(FIN | TEXT, b"ab").split_off(7));
    let ahead = &frame(FIN | TEXT, b"ab")[..7];
    let mut connection = Connection::new(wire, ahead, settings);
    let Poll::Ready(Ok(event)) = connection.poll_read(&mut Context::from_waker(Waker::noop())) else {
        panic!("the message is there");
    };
    assert_eq!(event, text("ab"));
}

#[test]
fn a_batch_is_one_write() {
    let mut peer = Peer::plain();
    for text in ["a", "b", "c"] {
        peer.send(text);
    }
    peer.outbox.push_front(Outgoing::Ping(*b"12345678"));
    assert_eq!(
        peer.flush(),
        [
            sent(FIN | PING, b"12345678"),
            sent(FIN | TEXT, b"a"),
            sent(FIN | TEXT, b"b"),
            sent(FIN | TEXT, b"c")
        ]
        .concat()
    );
    assert_eq!(peer.far.borrow().writes, 1);
    assert!(matches!(peer.write(), Poll::Ready(Ok(false))), "nothing more has left");
}

#[test]
fn a_peer_that_takes_nothing_is_read_and_costs_one_batch() {
    let mut peer = Peer::plain();
    peer.far.borrow_mut().room = 1000;
    for _ in 0..1000 {
        peer.send(&"y".repeat(100));
    }
    assert!(peer.write().is_pending());
    let waiting = peer.outbox.len();
    assert!(waiting > 800, "only a batch was taken over");
    assert!(peer.connection.held_bytes() <= WRITE_BATCH + 102);
    for number in 0..100 {
        peer.arrive(&frame(FIN | TEXT, format!("{number}").as_bytes()));
        assert!(peer.write().is_pending());
        assert_eq!(peer.event(), text(&format!("{number}")));
    }
    assert_eq!(peer.outbox.len(), waiting, "nothing else was taken over meanwhile");
    peer.far.borrow_mut().room = usize::MAX;
    assert_eq!(peer.flush().len(), 1000 * 102, "and nothing is lost");
}

#[test]
fn a_flood_of_pings_keeps_the_newest_pong() {
    let mut peer = Peer::plain();
    peer.far.borrow_mut().room = 0;
    for number in 0..100_u8 {
        peer.arrive(&frame(FIN | PING, &[number; 125]));
        assert_eq!(peer.event(), Event::Ping(vec![number; 125]));
        assert!(peer.write().is_pending());
        assert!(peer.connection.held_bytes() <= 2 * 127);
    }
    peer.far.borrow_mut().room = usize::MAX;
    let pongs = [sent(FIN | PONG, &[0; 125]), sent(FIN | PONG, &[99; 125])].concat();
    assert_eq!(peer.flush(), pongs, "the one that was on its way, and the newest");
}

#[test]
fn a_close_frame_is_answered_and_nothing_follows_it() {
    for (payload, reply) in [
        (&b""[..], &b""[..]),
        (b"\x03\xe8bye", b"\x03\xe8"),
        (b"\x0b\xb8", b"\x0b\xb8"),
        // Codes that no frame may carry.
        (b"\x03\xed", b"\x03\xea"),
        (b"\x13\x88", b"\x03\xea"),
    ] {
        let mut peer = Peer::plain();
        peer.arrive(&[frame(FIN | CLOSE, payload), frame(FIN | TEXT, b"late")].concat());
        assert!(matches!(peer.event(), Event::Close(_)));
        peer.send("late");
        peer.close(1001);
        assert!(peer.read().is_pending(), "not over before the answer has left");
        assert!(!peer.connection.is_read_over());
        assert_eq!(peer.flush(), sent(FIN | CLOSE, reply));
        assert!(matches!(peer.end(), ReadEnd::Closed));
        assert!(peer.connection.is_read_over());
    }
}

#[test]
fn after_our_close_frame_the_peer_may_finish() {
    let mut peer = Peer::plain();
    peer.close(1001);
    peer.send("late");
    peer.outbox.push_back(Outgoing::Ping([0; 8]));
    assert_eq!(peer.flush(), sent(FIN | CLOSE, b"\x03\xe9bye"));
    peer.arrive(&[frame(FIN | TEXT, b"on its way"), frame(FIN | PING, b"")].concat());
    assert_eq!(peer.event(), text("on its way"));
    assert_eq!(peer.event(), Event::Ping(Vec::new()));
    assert_eq!(peer.flush(), b"", "no pong");
    peer.arrive(&frame(FIN | CLOSE, b"\x03\xe9"));
    assert_eq!(peer.event(), Event::Close(Some(1001)));
    assert_eq!(peer.flush(), b"");
    assert!(matches!(peer.end(), ReadEnd::Closed));
}

#[test]
fn after_an_error_a_close_frame_can_still_be_written() {
    let mut peer = Peer::plain();
    peer.arrive(
        &[frame(FIN | TEXT, b"good"), frame(FIN | RSV1 | TEXT, b"bad"), frame(FIN | TEXT, b"late")].concat(),
    );
    assert_eq!(peer.event(), text("good"));
    let error = DecodeError::Protocol(ProtocolError::NotNegotiated);
    assert!(matches!(peer.end(), ReadEnd::Broken(found) if found == error));
    assert!(peer.connection.is_read_over());
    assert_eq!(peer.connection.held_bytes(), 0);
    assert!(matches!(peer.end(), ReadEnd::Lost));
    peer.close(error.close_code());
    assert_eq!(peer.flush(), sent(FIN | CLOSE, b"\x03\xeabye"));
}

#[test]
fn a_connection_is_small() {
    assert_eq!(size_of::<Connection<tokio::net::TcpStream>>(), 320, "the next size of the allocator is 384");
}

#[test]
fn an_end_without_a_close_frame_is_a_loss() {
    let mut peer = Peer::plain();
    peer.arrive(&frame(FIN | TEXT, b"half")[..7]);
    peer.far.borrow_mut().is_ended = true;
    assert!(matches!(peer.end(), ReadEnd::Lost));
}

#[test]
fn only_what_is_large_and_shrinks_is_compressed() {
    let mut peer = Peer::new(Some(Deflate::default()));
    let large = "{\"value\":\"230.1\"}".repeat(100);
    peer.send(&large);
    let bytes = peer.flush();
    assert_eq!(bytes[0], FIN | RSV1 | TEXT);
    assert!(bytes.len() < 100);
    let traffic = peer.connection.take_traffic();
    assert_eq!((traffic.sent_plain, traffic.sent_compressed), (1700, bytes.len() as u64 - 2));

    // It comes back, masked as a client's.
    peer.arrive(&frame(FIN | RSV1 | TEXT, &bytes[2..]));
    assert!(matches!(peer.event(), Event::Text { text, .. } if text == large));
    assert_eq!(peer.connection.take_traffic().received_plain, 1700);

    peer.send(&large[..256]);
    assert_eq!(peer.flush()[0], FIN | TEXT, "too small to try");
    assert_eq!(peer.connection.take_traffic(), Traffic::default());
    assert_eq!(peer.connection.held_bytes(), 0, "the codecs are the thread's");
}
