//! Stations over real sockets, against a gateway that the test scripts.

use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};
use tokio_tungstenite::{WebSocketStream, accept_hdr_async};

use super::*;

const RUN: &str = "r1";
const ACCEPTED: &str = r#"{"status":"Accepted","interval":300,"currentTime":"2026-11-20T10:30:00.000Z"}"#;

struct Stage {
    listener: TcpListener,
    shared: Arc<Shared>,
    station: tokio::task::JoinHandle<Ledger>,
}

impl Stage {
    /// Starts one station.
    async fn new(toml: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let target = Target::resolve(&format!("ws://{}/ocpp", listener.local_addr().unwrap())).await.unwrap();
        let scenario = Scenario::parse("test", &format!("stations = 1\n{toml}")).unwrap();
        let settings = Settings { scenario, run: RUN.into(), start: Instant::now(), wall: SystemTime::now() };
        let station = Station::new(0, Arc::new(settings));
        let slow_reader = station.behaviour() == Behaviour::SlowReader;
        let dialer = Dialer { target, worker: 0, index: 0, timeout: Duration::from_secs(5), slow_reader };
        let shared = Arc::new(Shared {
            tally: Mutex::default(),
            drain: CancellationToken::new(),
            stop: CancellationToken::new(),
        });
        let tasks = TaskTracker::new();
        let station = tasks.spawn(lifecycle::run(station, dialer, Arc::clone(&shared)));
        Self { listener, shared, station }
    }

    async fn accept(&self) -> WebSocketStream<TcpStream> {
        let (stream, _) = self.listener.accept().await.unwrap();
        let echo = |request: &Request, mut response: Response| -> Result<Response, ErrorResponse> {
            let offered = request.headers()["sec-websocket-protocol"].clone();
            response.headers_mut().insert("sec-websocket-protocol", offered);
            Ok(response)
        };
        accept_hdr_async(stream, echo).await.unwrap()
    }

    async fn ledger(self) -> (Ledger, Counts) {
        let ledger = tokio::time::timeout(Duration::from_secs(5), self.station).await.unwrap().unwrap();
        let counts = self.shared.tally().totals.counts;
        (ledger, counts)
    }
}

async fn next_text(socket: &mut WebSocketStream<TcpStream>) -> String {
    loop {
        match socket.next().await.unwrap().unwrap() {
            Message::Text(text) => return text.to_string(),
            Message::Ping(_) => {}
            other => panic!("{other:?}"),
        }
    }
}

async fn answer(socket: &mut WebSocketStream<TcpStream>, seq: u32, payload: &str) {
    socket.send(Message::text(format!("[3,\"{RUN}-{seq}\",{payload}]"))).await.unwrap();
}

#[tokio::test]
async fn an_unanswered_call_is_resent_on_the_next_connection() {
    let stage = Stage::new("[reconnect]\nfirst = '10ms'\nlongest = '10ms'\n[connect]\nover = '0s'").await;
    let mut socket = stage.accept().await;
    assert!(next_text(&mut socket).await.contains("BootNotification"));
    answer(&mut socket, 0, ACCEPTED).await;
    let unanswered = next_text(&mut socket).await;
    drop(socket);
    let mut socket = stage.accept().await;
    assert_eq!(next_text(&mut socket).await, unanswered);
    answer(&mut socket, 1, "{}").await;
    next_text(&mut socket).await;
    // No new CALL after this one.
    stage.shared.drain.cancel();
    answer(&mut socket, 2, "{}").await;
    assert!(matches!(socket.next().await, Some(Ok(Message::Close(_)))), "it leaves with a close frame");
    drop(socket);
    let (ledger, counts) = stage.ledger().await;
    assert_eq!((ledger.sent, ledger.answered.count(), ledger.again.len()), (3, 3, 1));
    assert_eq!((counts.connects, counts.disconnects, counts.again), (2, 1, 1));
    assert_eq!((counts.connected, counts.registered, counts.answered), (0, 1, 3));
}

#[tokio::test]
async fn commands_are_answered_and_pings_are_sent() {
    let stage = Stage::new("[connect]\nover = '0s'\n[traffic]\nping_every = '20ms'").await;
    let mut socket = stage.accept().await;
    next_text(&mut socket).await;
    while !matches!(socket.next().await, Some(Ok(Message::Ping(_)))) {}
    socket.send(Message::text(r#"[2,"c1","Reset",{"type":"Soft"}]"#)).await.unwrap();
    assert_eq!(next_text(&mut socket).await, r#"[3,"c1",{"status":"Accepted"}]"#);
    socket.send(Message::text("nonsense")).await.unwrap();
    stage.shared.drain.cancel();
    answer(&mut socket, 0, ACCEPTED).await;
    while !matches!(socket.next().await, Some(Ok(Message::Close(_)))) {}
    drop(socket);
    let (_, counts) = stage.ledger().await;
    assert_eq!((counts.commands, counts.unexpected), (1, 1));
    assert!(counts.pings >= 1);
}

#[tokio::test]
async fn a_gateway_that_does_not_read_cannot_keep_a_station_from_stopping() {
    let stage = Stage::new("[connect]\nover = '0s'\n[traffic]\nmeter_values_bytes = 900000\n[chatty]\nstations = 1\nevery = '1ms'\nwindow = 100").await;
    let mut socket = stage.accept().await;
    next_text(&mut socket).await;
    answer(&mut socket, 0, ACCEPTED).await;
    for seq in 1.. {
        if !next_text(&mut socket).await.contains("StatusNotification") {
            break;
        }
        answer(&mut socket, seq, "{}").await;
    }
    // Nothing shows that the kernel takes no more; by now the station waits in a write.
    tokio::time::sleep(Duration::from_millis(300)).await;
    stage.shared.drain.cancel();
    stage.shared.stop.cancel();
    let (ledger, counts) = stage.ledger().await;
    assert!(ledger.answered.count() < u64::from(ledger.sent));
    assert_eq!(counts.connected, 0);
}

#[tokio::test]
async fn a_refused_attempt_is_counted_and_repeated() {
    let stage = Stage::new("[reconnect]\nfirst = '10ms'\nlongest = '10ms'\n[connect]\nover = '0s'").await;
    for _ in 0..3 {
        drop(stage.listener.accept().await.unwrap());
    }
    let mut socket = stage.accept().await;
    next_text(&mut socket).await;
    stage.shared.stop.cancel();
    let (ledger, counts) = stage.ledger().await;
    assert_eq!((counts.attempts, counts.connects), (4, 1));
    assert_eq!((ledger.sent, ledger.answered.count()), (1, 0));
}
