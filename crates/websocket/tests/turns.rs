//! A connection does not monopolise its thread: it yields after a bounded amount of work, and continues afterwards.

mod common;

use std::cell::Cell;
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use common::peer::{Peer, READ_BYTES};
use common::*;
use ocpp_websocket::{DecodeError, Deflate, Event, ProtocolError, ReadEnd, Traffic};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::LocalSet;

/// What an inflater may take, and twice what is beside it.
const INFLATING_BYTES: usize = 50 * 1024;

/// Stored blocks without anything in them: large on the wire alone.
fn nothing(bytes: usize) -> Vec<u8> {
    [0, 0, 0, 0xff, 0xff].repeat(bytes / 5)
}

fn compressed_text(text: &str, compressed: usize) -> Event {
    Event::Text { text: text.to_owned(), compressed: Some(compressed) }
}

/// Counts how often a task would have been woken.
#[derive(Default)]
struct Wakes(AtomicUsize);

impl Wake for Wakes {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// Reads up to the first event; how many times others had their turn before, each with a promise to go on.
fn turns_before(peer: &mut Peer) -> (usize, Result<Event, ReadEnd>) {
    let wakes = Arc::new(Wakes::default());
    let waker = Waker::from(Arc::clone(&wakes));
    for turns in 0.. {
        assert_eq!(wakes.0.load(Ordering::Relaxed), turns, "nobody else would wake it");
        if let Poll::Ready(outcome) = peer.connection.poll_read(&mut Context::from_waker(&waker)) {
            return (turns, outcome);
        }
    }
    unreachable!("it is woken after each");
}

#[test]
fn a_flood_gives_way_to_others() {
    let mut peer = Peer::plain();
    peer.arrive(&frame(TEXT, b""));
    peer.arrive(&frame(CONTINUATION, b"").repeat(100_000));
    let before = peer.far.borrow().incoming.len();
    assert!(peer.read().is_pending());
    let taken = before - peer.far.borrow().incoming.len();
    assert_eq!(taken, READ_BYTES, "frames of six bytes: there are more in one read than one poll decodes");
    assert!(peer.read().is_pending());
    assert_eq!(before - peer.far.borrow().incoming.len(), READ_BYTES, "the rest of them comes first");
}

#[test]
fn large_messages_give_way_to_others() {
    let mut peer = Peer::plain();
    let large = "x".repeat(20_000);
    peer.arrive(&frame(FIN | TEXT, large.as_bytes()));
    peer.arrive(&[frame(FIN | TEXT, b"small"), frame(FIN | TEXT, b"small")].concat());
    assert_eq!(peer.event(), text(&large));
    assert!(peer.read().is_pending());
    assert_eq!(peer.event(), text("small"));
    assert_eq!(peer.event(), text("small"), "small ones do not");
}

#[test]
fn many_messages_give_way_like_a_large_one() {
    let mut peer = Peer::new(Some(Deflate::default()));
    for _ in 0..12 {
        peer.arrive(&frame(FIN | RSV1 | TEXT, &nothing(4000)));
    }
    for number in 0..12 {
        let (turns, event) = turns_before(&mut peer);
        assert_eq!(event.unwrap(), compressed_text("", 4000));
        assert_eq!(
            turns,
            usize::from(number == 5 || number == 10),
            "each is one slice, five of them are a turn"
        );
    }
    assert!(peer.read().is_pending(), "the other end sends nothing more: that is a turn of others");
    for _ in 0..5 {
        peer.arrive(&frame(FIN | RSV1 | TEXT, &nothing(4000)));
        assert_eq!(turns_before(&mut peer).0, 0);
    }
}

#[test]
fn inflating_gives_way_after_each_slice_and_reads_nothing_meanwhile() {
    let mut peer = Peer::new(Some(Deflate::default()));
    peer.arrive(&frame(FIN | RSV1 | TEXT, &nothing(100_000)));
    assert!(peer.read().is_pending(), "sixteen reads are a turn");
    assert!(peer.read().is_pending(), "the rest, and a slice");
    assert_eq!(peer.far.borrow().incoming.len(), 0);
    peer.arrive(&frame(FIN | TEXT, b"next").repeat(1000));
    let waiting = peer.far.borrow().incoming.len();
    assert!(peer.connection.held_bytes() <= 100_000 + INFLATING_BYTES);
    let (turns, event) = turns_before(&mut peer);
    assert_eq!(event.unwrap(), compressed_text("", 100_000));
    assert_eq!(turns, 100_000 / 4096 - 1, "4 KiB each");
    assert_eq!(peer.far.borrow().incoming.len(), waiting);
    assert_eq!(peer.connection.held_bytes(), 0);
    let traffic = peer.connection.take_traffic();
    let paused = turns as u64 + 1;
    assert_eq!(
        traffic,
        Traffic { received_compressed: 100_000, inflating_paused: paused, ..Traffic::default() }
    );
    let (turns, event) = turns_before(&mut peer);
    assert_eq!((turns, event.unwrap()), (1, text("next")), "the message was a turn's work, too");
}

#[test]
fn what_swells_gives_way_as_well() {
    let mut peer = Peer::new(Some(Deflate::default()));
    let large = "x".repeat(100_000);
    peer.send(&large);
    let echo = peer.flush();
    assert_eq!(echo[0], FIN | RSV1 | TEXT);
    let compressed = &echo[2..];
    assert!(compressed.len() < 126, "so its header has two bytes");
    peer.arrive(&[frame(FIN | RSV1 | TEXT, compressed), frame(FIN | TEXT, b"next")].concat());
    let (turns, event) = turns_before(&mut peer);
    assert_eq!((turns, event.unwrap()), (1, compressed_text(&large, compressed.len())));
    assert_eq!(peer.connection.take_traffic().inflating_paused, 1);
    let (turns, event) = turns_before(&mut peer);
    assert_eq!((turns, event.unwrap()), (1, text("next")), "what was read with it is there");
}

#[test]
fn the_other_direction_goes_on_while_a_message_is_inflated() {
    let mut peer = Peer::new(Some(Deflate::default()));
    peer.arrive(&frame(FIN | RSV1 | TEXT, &nothing(50_000)));
    for number in 0..8 {
        assert!(peer.read().is_pending());
        peer.send(&format!("{number}"));
        assert_eq!(peer.flush(), [FIN | TEXT, 1, b'0' + number]);
    }
    assert_eq!(turns_before(&mut peer).1.unwrap(), compressed_text("", 50_000));
}

#[test]
fn an_end_in_the_middle_leaves_nothing_behind() {
    let mut broken = nothing(50_000);
    broken.extend_from_slice(&[0xff; 9]);
    let mut peer = Peer::new(Some(Deflate::default()));
    peer.arrive(&frame(FIN | RSV1 | TEXT, &broken));
    let (turns, end) = turns_before(&mut peer);
    assert!(turns >= 12);
    let error = DecodeError::Protocol(ProtocolError::NotDeflate);
    assert!(matches!(end, Err(ReadEnd::Broken(found)) if found == error));
    assert_eq!(peer.connection.held_bytes(), 0);

    let mut dropped = Peer::new(Some(Deflate::default()));
    dropped.arrive(&frame(FIN | RSV1 | TEXT, &nothing(50_000)));
    assert!(dropped.read().is_pending());
    drop(dropped);

    let mut other = Peer::new(Some(Deflate::default()));
    let hello = [0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00];
    other.arrive(&frame(FIN | RSV1 | TEXT, &hello));
    assert_eq!(other.event(), compressed_text("Hello", 7));
}

/// A task that wakes itself is polled dozens of times before a runtime looks at its sockets: that is no turn of others.
#[tokio::test]
async fn the_sockets_of_others_are_looked_at_between_slices() {
    const ROUNDS: usize = 20;
    let slices = Rc::new(Cell::new(0));
    let counter = Rc::clone(&slices);
    let mut peer = Peer::new(Some(Deflate::default()));
    let flood = poll_fn(move |context: &mut Context<'_>| -> Poll<()> {
        loop {
            if peer.far.borrow().incoming.is_empty() {
                peer.arrive(&frame(FIN | RSV1 | TEXT, &nothing(100_000)));
            }
            counter.set(counter.get() + 1);
            if peer.connection.poll_read(context).is_pending() {
                return Poll::Pending;
            }
        }
    });
    let others = async {
        let (mut near, mut far) = tokio::net::UnixStream::pair().unwrap();
        for _ in 0..ROUNDS {
            // It is not there yet when it is asked for, so only the runtime's look at the socket can end the wait.
            let read = async { near.read_u8().await.unwrap() };
            let write = async {
                tokio::task::yield_now().await;
                far.write_u8(1).await.unwrap();
            };
            tokio::join!(read, write);
        }
    };
    let tasks = LocalSet::new();
    tasks.spawn_local(flood);
    tasks.run_until(others).await;
    assert!(slices.get() <= 10 * ROUNDS, "{} slices while others had {ROUNDS} rounds", slices.get());
}
