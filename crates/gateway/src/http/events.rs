//! `GET /api/v1/events`: events as server-sent events, live and from a position in the local log.
//!
//! Owns how an event is written on the stream and how watchers are filtered. A watcher that is slow slows down only
//! its own task; the log is read from files, and a live copy (Kafka) tells how many events were missed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::header::{self, HeaderValue};
use hyper::{Response, StatusCode};
use ocpp_bus::Class;
use ocpp_bus::feed::{Feed, Live};
use ocpp_log::{Item, LogReader, LogView};
use ocpp_protocol::IdentityKey;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio_util::sync::CancellationToken;

use super::{Admin, Answer, Problem, StreamedBody};

/// Pieces of the stream that may wait for the client.
const PIECES: usize = 16;
/// How long a client may take nothing.
const PATIENCE: Duration = Duration::from_secs(60);
/// Records read from the log at once.
const CHUNK_RECORDS: usize = 512;
const CHUNK_BYTES: usize = 512 * 1024;
/// A comment is sent this often when there is nothing to say, so that a dead client is noticed.
const COMMENT_EVERY: Duration = Duration::from_secs(15);

impl Admin {
    pub(super) fn watch_events(&self, query: &BTreeMap<String, String>, last_event: Option<&str>) -> Answer {
        let filter = Filter {
            station: query.get("station").map(|station| IdentityKey::of(station)),
            event_type: query.get("type").cloned(),
        };
        let follow = match query.get("follow").map(String::as_str) {
            None | Some("true") => true,
            Some("false") => false,
            Some(_) => return Err(Problem::bad_request("follow must be true or false")),
        };
        let from = query.get("from").map(String::as_str);
        let place = Arc::clone(&self.watchers).try_acquire_owned().map_err(|_| {
            let detail = "half of admin.max_connections watch events already";
            Problem::new(StatusCode::SERVICE_UNAVAILABLE, "too many watchers", detail)
        })?;
        let (sender, body) = mpsc::channel(PIECES);
        let pieces = Pieces { sender, _place: place };
        let stop = self.stop.clone();
        match self.shared.bus.feed() {
            Feed::Log(view) => {
                let position = start(view, from, last_event)?;
                let watch = from_log(view.clone(), position, filter, follow, pieces, stop);
                drop(self.tasks.spawn(watch));
            }
            Feed::Live(live) => {
                if from.is_some() || !follow {
                    let detail = "the kafka bus keeps no local log to read from; read the topic instead";
                    return Err(Problem::new(StatusCode::CONFLICT, "no positions", detail));
                }
                drop(self.tasks.spawn(from_live(live.clone(), filter, pieces, stop)));
            }
        }
        let mut response = Response::new(StreamedBody(body).boxed_unsync());
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
        response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        Ok(response)
    }
}

/// Where to begin: after the last event that the client has seen, at the position asked for, or at the end.
fn start(view: &LogView, from: Option<&str>, last_event: Option<&str>) -> Result<u64, Problem> {
    if let Some(last) = last_event {
        return last
            .parse()
            .map(|last: u64| last.saturating_add(1))
            .map_err(|_| Problem::bad_request("Last-Event-ID must be a position"));
    }
    match from {
        None => Ok(view.next()),
        Some("earliest") => Ok(view.oldest()),
        Some(text) => {
            text.parse().map_err(|_| Problem::bad_request("from must be \"earliest\" or a position"))
        }
    }
}

/// The way to the client, and the watcher's place.
struct Pieces {
    sender: mpsc::Sender<Bytes>,
    _place: OwnedSemaphorePermit,
}

impl Pieces {
    /// Sends a piece; false when the client is gone or takes nothing.
    async fn send(&self, piece: Bytes) -> bool {
        matches!(tokio::time::timeout(PATIENCE, self.sender.send(piece)).await, Ok(Ok(())))
    }
}

struct Filter {
    station: Option<IdentityKey>,
    event_type: Option<String>,
}

impl Filter {
    fn passes(&self, key: &str, value: &[u8]) -> bool {
        self.station.as_ref().is_none_or(|station| *station == IdentityKey::of(key))
            && self.event_type.as_ref().is_none_or(|wanted| wanted == event_type(value))
    }
}

async fn from_log(
    view: LogView,
    position: u64,
    filter: Filter,
    follow: bool,
    pieces: Pieces,
    stop: CancellationToken,
) {
    let mut durable_end = view.subscribe();
    let mut reader = view.reader(position);
    // A bare position: a watcher whose stream breaks before its first event goes on from here, and misses nothing.
    if let Some(before) = position.min(view.next()).checked_sub(1)
        && !pieces.send(Bytes::from(format!("id: {before}\n\n"))).await
    {
        return;
    }
    loop {
        let (returned, items) = match read(reader).await {
            Ok(chunk) => chunk,
            Err(error) => {
                let error = ocpp_bus::chain(error.as_ref());
                tracing::error!(error, "the local log cannot be read");
                pieces.send(Bytes::from(format!("event: error\ndata: {error}\n\n"))).await;
                return;
            }
        };
        reader = returned;
        if pieces.sender.is_closed() || stop.is_cancelled() {
            return;
        }
        if items.is_empty() {
            if !follow || !wait_for_more(&mut durable_end, &pieces, &stop).await {
                return;
            }
            continue;
        }
        let mut piece = Vec::new();
        for item in items {
            match item {
                Item::Record(record) if filter.passes(&record.key, &record.value) => {
                    write(&mut piece, Some(record.position), &record.value);
                }
                Item::Record(_) => {}
                Item::Gap { from, to, reason } => piece.extend_from_slice(
                    format!(
                        "event: gap\ndata: {{\"from\":{from},\"to\":{to},\"reason\":\"{reason:?}\"}}\n\n"
                    )
                    .as_bytes(),
                ),
            }
        }
        if !piece.is_empty() && !pieces.send(Bytes::from(piece)).await {
            return;
        }
    }
}

type Chunk = (LogReader, Vec<Item>);

async fn read(mut reader: LogReader) -> Result<Chunk, Box<dyn std::error::Error + Send + Sync>> {
    let chunk = tokio::task::spawn_blocking(move || {
        let items = reader.read(CHUNK_RECORDS, CHUNK_BYTES);
        items.map(|items| (reader, items))
    });
    Ok(chunk.await??)
}

/// Waits until the log has grown; false when the watch is over.
async fn wait_for_more(
    durable_end: &mut tokio::sync::watch::Receiver<u64>,
    pieces: &Pieces,
    stop: &CancellationToken,
) -> bool {
    loop {
        tokio::select! {
            changed = durable_end.changed() => return changed.is_ok(),
            () = pieces.sender.closed() => return false,
            () = stop.cancelled() => return false,
            () = tokio::time::sleep(COMMENT_EVERY) => {
                if !pieces.send(Bytes::from_static(b":\n\n")).await {
                    return false;
                }
            }
        }
    }
}

async fn from_live(live: Live, filter: Filter, pieces: Pieces, stop: CancellationToken) {
    let mut records = live.subscribe();
    loop {
        let received = tokio::select! {
            received = records.recv() => received,
            () = pieces.sender.closed() => return,
            () = stop.cancelled() => return,
            () = tokio::time::sleep(COMMENT_EVERY) => {
                if !pieces.send(Bytes::from_static(b":\n\n")).await {
                    return;
                }
                continue;
            }
        };
        let mut piece = Vec::new();
        match received {
            Ok(record) => {
                let record: Arc<ocpp_bus::Record> = record;
                if matches!(record.class, Class::Event | Class::CommandResult)
                    && filter.passes(&record.key, &record.value)
                {
                    write(&mut piece, None, &record.value);
                }
            }
            Err(RecvError::Lagged(missed)) => {
                piece.extend_from_slice(
                    format!("event: missed\ndata: {{\"events\":{missed}}}\n\n").as_bytes(),
                );
            }
            Err(RecvError::Closed) => return,
        }
        if !piece.is_empty() && !pieces.send(Bytes::from(piece)).await {
            return;
        }
    }
}

/// One event on the stream. A payload may have line breaks between its tokens; the stream's own rule joins the lines
/// again with `\n`, so only a bare `\r` or `\r\n` comes out as `\n`.
fn write(piece: &mut Vec<u8>, position: Option<u64>, value: &[u8]) {
    if let Some(position) = position {
        piece.extend_from_slice(format!("id: {position}\n").as_bytes());
    }
    piece.extend_from_slice(b"event: ");
    piece.extend_from_slice(event_type(value).as_bytes());
    piece.push(b'\n');
    let text = String::from_utf8_lossy(value);
    let unified =
        if text.contains('\r') { text.replace("\r\n", "\n").replace('\r', "\n").into() } else { text };
    for line in unified.split('\n') {
        piece.extend_from_slice(b"data: ");
        piece.extend_from_slice(line.as_bytes());
        piece.push(b'\n');
    }
    piece.push(b'\n');
}

/// The event's type. The envelope is ours, and a quote inside a string is escaped, so this cannot find another one.
fn event_type(value: &[u8]) -> &str {
    const MARK: &[u8] = br#"","type":""#;
    let found = value.windows(MARK.len()).position(|window| window == MARK);
    let rest = found.map_or(&[][..], |at| &value[at + MARK.len()..]);
    let end = rest.iter().position(|byte| *byte == b'"').unwrap_or(0);
    std::str::from_utf8(&rest[..end]).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_with_line_breaks_stays_one_event() {
        let mut piece = Vec::new();
        write(&mut piece, Some(7), b"{\"source\":\"/a\",\"type\":\"t.x\",\"data\":{\n\"a\":\r\n1}}");
        let text = String::from_utf8(piece).unwrap();
        assert_eq!(
            text,
            "id: 7\nevent: t.x\ndata: {\"source\":\"/a\",\"type\":\"t.x\",\"data\":{\ndata: \"a\":\ndata: 1}}\n\n"
        );
    }

    #[test]
    fn a_filter_knows_stations_in_any_case() {
        let filter = Filter { station: Some(IdentityKey::of("cp-1")), event_type: Some("t.x".into()) };
        assert!(filter.passes("CP-1", br#"{"source":"/a","type":"t.x"}"#));
        assert!(!filter.passes("CP-2", br#"{"source":"/a","type":"t.x"}"#));
        assert!(!filter.passes("CP-1", br#"{"source":"/a","type":"t.y"}"#));
    }
}
