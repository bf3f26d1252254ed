//! Reads the gateway's event stream (server-sent events).
//!
//! Owns the limit of an event's size and the meaning of its fields; sse-stream parses the format. Does not reconnect.

use std::cell::Cell;
use std::pin::Pin;
use std::rc::Rc;

use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use sse_stream::{Sse, SseByteStream};

use super::Failure;
use super::http::ClientError;

/// Far larger than any event of a gateway.
const LARGEST_EVENT: usize = 128 << 20;

/// One event of the stream, or a bare position.
#[derive(PartialEq, Eq, Debug)]
pub(super) struct StreamEvent {
    /// The position.
    pub(super) id: Option<u64>,
    /// The event's type; empty if the stream does not name one.
    pub(super) name: String,
    /// The lines of its data, joined. None for a bare position.
    pub(super) data: Option<String>,
}

/// The events of one response.
pub(super) struct EventStream {
    blocks: Pin<Box<dyn Stream<Item = Result<Sse, sse_stream::Error>>>>,
    /// Bytes received since the last event, which the parser may be holding.
    unparsed: Rc<Cell<usize>>,
}

impl EventStream {
    /// Reads a body that arrives in pieces, split anywhere.
    pub(super) fn new(pieces: impl Stream<Item = Result<Bytes, ClientError>> + 'static) -> Self {
        Self::bounded(pieces, LARGEST_EVENT)
    }

    fn bounded(
        pieces: impl Stream<Item = Result<Bytes, ClientError>> + 'static,
        largest_event: usize,
    ) -> Self {
        let unparsed = Rc::new(Cell::new(0));
        let counter = Rc::clone(&unparsed);
        let bounded = pieces.map(move |piece| {
            let piece = piece?;
            counter.set(counter.get() + piece.len());
            if counter.get() > largest_event {
                return Err(Failure::NotUnderstood(format!("an event with more than {largest_event} bytes")));
            }
            Ok(piece)
        });
        Self { blocks: Box::pin(SseByteStream::new(bounded)), unparsed }
    }

    /// The next complete event; none at the end of the stream.
    ///
    /// # Errors
    /// When the body breaks off, is not UTF-8, or an event is too large.
    pub(super) async fn next(&mut self) -> Result<Option<StreamEvent>, Failure> {
        let block = self.blocks.next().await;
        self.unparsed.set(0);
        match block {
            None => Ok(None),
            Some(Ok(block)) => Ok(Some(block.into())),
            Some(Err(sse_stream::Error::Body(error))) => Err(match error.downcast() {
                Ok(failure) => *failure,
                Err(error) => Failure::NotUnderstood(error.to_string()),
            }),
            Some(Err(error)) => Err(Failure::NotUnderstood(error.to_string())),
        }
    }
}

impl From<Sse> for StreamEvent {
    fn from(block: Sse) -> Self {
        Self {
            id: block.id.and_then(|id| id.parse().ok()),
            name: block.event.unwrap_or_default(),
            // The data is JSON, which has line breaks only where a space may stand.
            data: block.data.map(|data| data.replace('\n', " ")),
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::stream;

    use super::*;

    const STREAM: &[u8] = b"id: 6\n\n:\n\nid: 7\nevent: t.x\ndata: {\"a\":\ndata: \"\xc3\xbc\"}\n\nevent: missed\ndata: {\"events\":3}\n\nid: 8";

    async fn events(pieces: Vec<Result<Bytes, ClientError>>) -> (Vec<StreamEvent>, Option<Failure>) {
        let mut stream = EventStream::bounded(stream::iter(pieces), 100);
        let mut events = Vec::new();
        loop {
            match stream.next().await {
                Ok(Some(event)) => events.push(event),
                Ok(None) => return (events, None),
                Err(failure) => return (events, Some(failure)),
            }
        }
    }

    #[tokio::test]
    async fn the_events_do_not_depend_on_how_the_stream_is_split() {
        for size in 1..=STREAM.len() {
            let pieces = STREAM.chunks(size).map(|piece| Ok(Bytes::from_static(piece))).collect();
            let (events, failure) = events(pieces).await;
            let event = |id, name: &str, data: Option<&str>| StreamEvent {
                id,
                name: name.to_owned(),
                data: data.map(str::to_owned),
            };
            let expected = [
                event(Some(6), "", None),
                event(Some(7), "t.x", Some("{\"a\": \"ü\"}")),
                event(None, "missed", Some("{\"events\":3}")),
            ];
            assert_eq!(events, expected, "in pieces of {size}");
            assert!(failure.is_none(), "in pieces of {size}");
        }
    }

    #[tokio::test]
    async fn the_size_of_an_event_is_bounded() {
        let half = || Ok(Bytes::from(vec![b'x'; 50]));
        let end = || Ok(Bytes::from_static(b"\nid: 1\n\n"));
        let (seen, failure) = events(vec![half(), end(), half(), end()]).await;
        assert_eq!(seen.len(), 2, "the limit is per event");
        assert!(failure.is_none());
        let (seen, failure) = events(vec![half(), half(), half()]).await;
        assert!(seen.is_empty());
        assert!(matches!(failure, Some(Failure::NotUnderstood(_))), "{failure:?}");
    }

    #[tokio::test]
    async fn a_broken_body_keeps_its_cause() {
        let pieces = vec![Ok(Bytes::from_static(b"id: 1\n\nid")), Err(ClientError::Broken("gone".into()))];
        let (seen, failure) = events(pieces).await;
        assert_eq!(seen.len(), 1);
        assert!(matches!(failure, Some(Failure::Client(ClientError::Broken(_)))), "{failure:?}");
    }
}
