//! `GET /api/v1/events`: events as server-sent events, live and from a position in the local log.
//!
//! Owns how an event is written on the stream and which events a subscriber gets. A slow subscriber slows down only its own task:
//! the log is read from files, and of a live copy (Kafka) it is told how many events it missed.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::stream;
use hyper::header::{CONTENT_TYPE, HeaderMap};
use ocpp_bus::Bus;
use ocpp_bus::tail::{Live, Tail};
use ocpp_log::{Item, LogReader, LogView};
use ocpp_protocol::IdentityKey;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use utoipa_axum::router::UtoipaMethodRouterExt;
use utoipa_axum::routes;

use super::document::Operation;
use super::extract::{FromQuery, Query, Values};
use super::problem::Problem;
use crate::kinds;

/// Pieces of the stream that may be waiting for the client; a full channel slows the subscriber's task down.
const PIECES: usize = 16;
/// How long a client may read nothing before its stream ends.
const PATIENCE: Duration = Duration::from_secs(60);
/// Records read from the log at once.
const CHUNK_RECORDS: usize = 512;
const CHUNK_BYTES: usize = 512 * 1024;
/// A comment goes out this often when there are no events, so that a dead client is noticed.
const COMMENT_EVERY: Duration = Duration::from_secs(15);

/// Subscriptions to events.
pub(crate) struct Subscriptions {
    pub(crate) bus: Bus,
    /// One for each subscriber: fewer than connections, so that health can always be asked for.
    pub(crate) permits: Arc<Semaphore>,
    /// Each subscriber is served by a task in here, which ends with `stop`.
    pub(crate) tasks: TaskTracker,
    pub(crate) stop: CancellationToken,
}

impl Subscriptions {
    pub(super) fn operations(self) -> Vec<Operation> {
        vec![routes!(watch_events).with_state(Arc::new(self))]
    }
}

/// Which events are wanted, and from where on.
#[derive(utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
struct Wanted {
    /// `earliest` or a position; from now on if not given. Local bus only
    from: Option<String>,
    /// Only this station's, in any case of its identity
    station: Option<String>,
    /// Only events of this type
    #[param(rename = "type")]
    event_type: Option<String>,
    /// `false`: end with the durable end. Local bus only
    follow: Option<bool>,
}

impl FromQuery for Wanted {
    fn from_query(mut values: Values) -> Result<Self, Problem> {
        Ok(Self {
            from: values.text("from"),
            station: values.text("station"),
            event_type: values.text("type"),
            follow: values.flag("follow")?,
        })
    }
}

/// Watches events as they become durable, as server-sent events.
///
/// Each has its CloudEvents object as `data`, its type as `event` and, on the local bus, its position as `id`. `gap`, `missed`
/// and `error` tell of the stream itself.
#[utoipa::path(get, path = "/api/v1/events", tag = "events",
    params(Wanted, ("Last-Event-ID" = Option<u64>, Header, description = "Go on after this position; counts more than `from`")),
    responses(
        (status = 200, description = "The stream", body = String, content_type = "text/event-stream"),
        (status = 400, description = "A parameter is wrong or unknown"),
        (status = 409, description = "The Kafka bus keeps no positions here"),
        (status = 503, description = "Half of admin.max_connections watch already"),
    ))]
async fn watch_events(
    State(subscriptions): State<Arc<Subscriptions>>,
    Query(wanted): Query<Wanted>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let filter =
        Filter { station: wanted.station.as_deref().map(IdentityKey::of), event_type: wanted.event_type };
    let follow = wanted.follow.unwrap_or(true);
    let from = wanted.from.as_deref();
    let permit = Arc::clone(&subscriptions.permits).try_acquire_owned().map_err(|_| {
        Problem::unavailable("too many watchers", "half of admin.max_connections watch events already")
    })?;
    let (sender, mut pieces) = mpsc::channel(PIECES);
    let subscriber = Subscriber { sender, _permit: permit };
    let stop = subscriptions.stop.clone();
    match subscriptions.bus.tail() {
        Tail::Log(view) => {
            let last_event = headers.get("last-event-id").and_then(|value| value.to_str().ok());
            let position = start(view, from, last_event)?;
            let stream = from_log(view.clone(), position, filter, follow, subscriber, stop);
            drop(subscriptions.tasks.spawn(stream));
        }
        Tail::Live(live) => {
            if from.is_some() || !follow {
                let detail = "the kafka bus keeps no local log to read from; read the topic instead";
                return Err(Problem::conflict("no positions", detail));
            }
            drop(subscriptions.tasks.spawn(from_live(live.clone(), filter, subscriber, stop)));
        }
    }
    let pieces =
        stream::poll_fn(move |context| pieces.poll_recv(context).map(|piece| piece.map(Ok::<_, Infallible>)));
    Ok(([(CONTENT_TYPE, "text/event-stream")], Body::from_stream(pieces)).into_response())
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

/// A client of the stream.
struct Subscriber {
    sender: mpsc::Sender<Bytes>,
    _permit: OwnedSemaphorePermit,
}

impl Subscriber {
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
    subscriber: Subscriber,
    stop: CancellationToken,
) {
    let mut durable_end = view.subscribe();
    let mut reader = view.reader(position);
    // A bare position: a subscriber whose stream breaks before its first event resumes from here, and misses nothing.
    if let Some(before) = position.min(view.next()).checked_sub(1)
        && !subscriber.send(Bytes::from(format!("id: {before}\n\n"))).await
    {
        return;
    }
    loop {
        let (returned, items) = match read(reader).await {
            Ok(chunk) => chunk,
            Err(error) => {
                let error = ocpp_bus::chain(error.as_ref());
                tracing::error!(error, "the local log cannot be read");
                subscriber.send(Bytes::from(format!("event: error\ndata: {error}\n\n"))).await;
                return;
            }
        };
        reader = returned;
        if subscriber.sender.is_closed() || stop.is_cancelled() {
            return;
        }
        if items.is_empty() {
            if !follow || !wait_for_more(&mut durable_end, &subscriber, &stop).await {
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
        if !piece.is_empty() && !subscriber.send(Bytes::from(piece)).await {
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

/// Waits until the log has grown; false when the subscription has ended.
async fn wait_for_more(
    durable_end: &mut tokio::sync::watch::Receiver<u64>,
    subscriber: &Subscriber,
    stop: &CancellationToken,
) -> bool {
    loop {
        tokio::select! {
            changed = durable_end.changed() => return changed.is_ok(),
            () = subscriber.sender.closed() => return false,
            () = stop.cancelled() => return false,
            () = tokio::time::sleep(COMMENT_EVERY) => {
                if !subscriber.send(Bytes::from_static(b":\n\n")).await {
                    return false;
                }
            }
        }
    }
}

async fn from_live(live: Live, filter: Filter, subscriber: Subscriber, stop: CancellationToken) {
    let mut records = live.subscribe();
    loop {
        let received = tokio::select! {
            received = records.recv() => received,
            () = subscriber.sender.closed() => return,
            () = stop.cancelled() => return,
            () = tokio::time::sleep(COMMENT_EVERY) => {
                if !subscriber.send(Bytes::from_static(b":\n\n")).await {
                    return;
                }
                continue;
            }
        };
        let mut piece = Vec::new();
        match received {
            Ok(record) => {
                let record: Arc<ocpp_bus::Record> = record;
                if matches!(record.kind, kinds::EVENT | kinds::COMMAND_RESULT)
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
        if !piece.is_empty() && !subscriber.send(Bytes::from(piece)).await {
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
