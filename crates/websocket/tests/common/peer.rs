//! A connection on a stream that does what a test wants.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use ocpp_websocket::{Connection, Deflate, Encoder, Event, Outgoing, ReadEnd, Rules, Settings};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

pub(crate) const READ_BYTES: usize = 4096;

/// The other end: what came from there, and how many bytes it still takes.
#[derive(Default)]
pub(crate) struct Far {
    pub(crate) incoming: VecDeque<u8>,
    pub(crate) is_ended: bool,
    pub(crate) room: usize,
    pub(crate) written: Vec<u8>,
    pub(crate) writes: usize,
}

#[derive(Clone, Default)]
pub(crate) struct Wire(pub(crate) Rc<RefCell<Far>>);

impl AsyncRead for Wire {
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut far = self.0.borrow_mut();
        let count = buffer.remaining().min(far.incoming.len());
        if count == 0 && !far.is_ended {
            return Poll::Pending;
        }
        let bytes: Vec<u8> = far.incoming.drain(..count).collect();
        buffer.put_slice(&bytes);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Wire {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let mut far = self.0.borrow_mut();
        let count = bytes.len().min(far.room);
        if count == 0 {
            return Poll::Pending;
        }
        far.writes += 1;
        far.room -= count;
        far.written.extend_from_slice(&bytes[..count]);
        Poll::Ready(Ok(count))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// A connection, what waits to be sent on it, and its other end.
pub(crate) struct Peer {
    pub(crate) connection: Connection<Wire>,
    pub(crate) outbox: VecDeque<Outgoing>,
    pub(crate) far: Rc<RefCell<Far>>,
}

impl Peer {
    pub(crate) fn new(deflate: Option<Deflate>) -> Self {
        let settings = Settings {
            rules: Rules { max_message: 100_000, deflate: deflate.is_some() },
            encoder: Encoder { deflate, compress_above: 256 },
            read_bytes: READ_BYTES,
        };
        let wire = Wire::default();
        wire.0.borrow_mut().room = usize::MAX;
        let far = Rc::clone(&wire.0);
        Self { connection: Connection::new(wire, &[], settings), outbox: VecDeque::new(), far }
    }

    pub(crate) fn plain() -> Self {
        Self::new(None)
    }

    /// The other end sends bytes.
    pub(crate) fn arrive(&self, bytes: &[u8]) {
        self.far.borrow_mut().incoming.extend(bytes);
    }

    pub(crate) fn read(&mut self) -> Poll<Result<Event, ReadEnd>> {
        self.connection.poll_read(&mut Context::from_waker(Waker::noop()))
    }

    pub(crate) fn event(&mut self) -> Event {
        match self.read() {
            Poll::Ready(Ok(event)) => event,
            other => panic!("expected an event: {other:?}"),
        }
    }

    pub(crate) fn end(&mut self) -> ReadEnd {
        match self.read() {
            Poll::Ready(Err(end)) => end,
            other => panic!("expected the end: {other:?}"),
        }
    }

    pub(crate) fn write(&mut self) -> Poll<io::Result<bool>> {
        let outbox = &mut self.outbox;
        self.connection.poll_write(&mut Context::from_waker(Waker::noop()), || outbox.pop_front())
    }

    /// Writes all that waits; what the other end got of it.
    pub(crate) fn flush(&mut self) -> Vec<u8> {
        assert!(matches!(self.write(), Poll::Ready(Ok(_))));
        assert!(!self.connection.is_writing());
        std::mem::take(&mut self.far.borrow_mut().written)
    }

    pub(crate) fn send(&mut self, text: &str) {
        self.outbox.push_back(Outgoing::Text(text.to_owned()));
    }

    pub(crate) fn close(&mut self, code: u16) {
        self.outbox.push_back(Outgoing::Close { code, reason: "bye" });
    }
}
