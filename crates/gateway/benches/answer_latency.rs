//! What answering after the durable acknowledgement costs: latency and processor time of the same load on a bus that
//! forgets at once, on the local log, and on Kafka, one after the other in one run.
//!
//!     cargo bench -p ocpp-gateway --bench answer_latency
//!
//! Variables: `STATIONS` (200), `RATE` (CALLs a second in all, 2000), `SECONDS` (10), `KAFKA` (`host:port`; left out
//! without it). Open loop: latency counts from when a CALL should have been sent. Gateway and stations share one process,
//! so the processor time is that of both; the differences between the rows are the bus's.

// A benchmark stops at the first thing that is not as it should be, and prints its table.
#![allow(clippy::expect_used, clippy::print_stdout)]

use std::time::{Duration, Instant};

use futures_util::{SinkExt, StreamExt};
use ocpp_bus::Bus;
use ocpp_bus::queue::QueueLimits;
use ocpp_gateway::app::{App, start_bus};
use ocpp_gateway::bus_options::BusKind;
use ocpp_gateway::config::Config;
use tokio::net::TcpStream;
use tokio_tungstenite::client_async;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;

const PAYLOAD: &str = r#"{"connectorId":1,"transactionId":217337208,"meterValue":[{"timestamp":"2026-11-20T10:30:00.123Z","sampledValue":[{"value":"12345.6","context":"Sample.Periodic","measurand":"Energy.Active.Import.Register","unit":"Wh"},{"value":"16.1","context":"Sample.Periodic","measurand":"Current.Import","phase":"L1","unit":"A"},{"value":"230.4","context":"Sample.Periodic","measurand":"Voltage","phase":"L1","unit":"V"}]}]}"#;

#[derive(Clone, Copy)]
struct Load {
    stations: usize,
    rate: usize,
    seconds: u64,
}

fn main() {
    let number =
        |name: &str, default: usize| variable(name).and_then(|text| text.parse().ok()).unwrap_or(default);
    let load = Load {
        stations: number("STATIONS", 200),
        rate: number("RATE", 2000),
        seconds: number("SECONDS", 10) as u64,
    };
    println!(
        "{} stations, {} CALLs/s of {} bytes, {} s each",
        load.stations,
        load.rate,
        PAYLOAD.len(),
        load.seconds
    );
    println!(
        "{:>10} {:>9} {:>9} {:>9} {:>9} {:>14}",
        "bus", "answered", "p50 ms", "p99 ms", "max ms", "CPU µs/CALL"
    );
    let mut kinds = vec!["forgetful", "local"];
    if variable("KAFKA").is_some() {
        kinds.push("kafka");
    }
    for kind in kinds {
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        runtime.block_on(measure(kind, load));
        runtime.shutdown_timeout(Duration::from_secs(1));
    }
}

#[allow(clippy::disallowed_methods)] // A benchmark has no configuration file.
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

async fn measure(kind: &str, load: Load) {
    let dir = tempfile::tempdir_in(".").expect("a folder on the disk that the gateway would use");
    let mut config = Config::load(None, &[]).expect("defaults");
    config.node.data_dir = dir.path().to_path_buf();
    config.admin.address = ([127, 0, 0, 1], 0).into();
    config.registration.before_boot = ocpp_station::options::BeforeBoot::Accept;
    let port =
        std::net::TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a port").port();
    for listener in config.listeners.values_mut() {
        listener.address = ([127, 0, 0, 1], port).into();
    }
    if let Some(brokers) = variable("KAFKA") {
        config.bus.kafka.brokers = brokers;
    }
    config.bus.kind = if kind == "kafka" { BusKind::Kafka } else { BusKind::Local };
    let app = if kind == "forgetful" {
        App::start_with(config, |_, metrics| {
            Bus::start_forgetful(QueueLimits { records: 100_000, bytes: 256 << 20 }, &metrics)
        })
    } else {
        App::start_with(config, start_bus)
    }
    .expect("the gateway starts");
    while app.readiness.check().is_err() {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let connected =
        futures_util::future::join_all((0..load.stations).map(|number| connect(port, number))).await;
    let cpu = processor_seconds();
    let begin = Instant::now() + Duration::from_millis(100);
    let tasks: Vec<_> = connected
        .into_iter()
        .enumerate()
        .map(|(number, socket)| station(socket, number, begin, load))
        .collect();
    let mut latencies: Vec<Duration> = futures_util::future::join_all(tasks).await.concat();
    let cpu = processor_seconds() - cpu;
    latencies.sort_unstable();
    let ms = |share: f64| latencies[((latencies.len() - 1) as f64 * share) as usize].as_secs_f64() * 1e3;
    println!(
        "{kind:>10} {:>9} {:>9.3} {:>9.3} {:>9.3} {:>14.1}",
        latencies.len(),
        ms(0.5),
        ms(0.99),
        ms(1.0),
        cpu / latencies.len() as f64 * 1e6
    );
    app.drain().await;
}

type Socket = tokio_tungstenite::WebSocketStream<TcpStream>;

async fn connect(port: u16, number: usize) -> Socket {
    let mut request =
        format!("ws://127.0.0.1:{port}/ocpp/B-{number}").into_client_request().expect("a request");
    request.headers_mut().insert("sec-websocket-protocol", "ocpp1.6".parse().expect("a header"));
    let stream = TcpStream::connect(("127.0.0.1", port)).await.expect("a connection");
    stream.set_nodelay(true).expect("no delay");
    client_async(request, stream).await.expect("a handshake").0
}

async fn station(mut socket: Socket, number: usize, begin: Instant, load: Load) -> Vec<Duration> {
    let every = Duration::from_secs_f64(load.stations as f64 / load.rate as f64);
    let mut due = begin + every.mul_f64(number as f64 / load.stations as f64);
    let end = begin + Duration::from_secs(load.seconds);
    let mut latencies = Vec::new();
    while due < end {
        tokio::time::sleep_until(due.into()).await;
        let id = latencies.len();
        let call = format!("[2,\"{id}\",\"MeterValues\",{PAYLOAD}]");
        socket.send(Message::text(call)).await.expect("sent");
        socket.next().await.expect("an answer").expect("a frame");
        latencies.push(due.elapsed());
        due += every;
    }
    latencies
}

/// Processor time of this process so far, user and system.
fn processor_seconds() -> f64 {
    const TICKS_PER_SECOND: f64 = 100.0;
    let stat = std::fs::read_to_string("/proc/self/stat").expect("Linux");
    let after_name = stat.rsplit(')').next().unwrap_or_default();
    let ticks: f64 =
        after_name.split_whitespace().skip(11).take(2).map(|ticks| ticks.parse::<f64>().unwrap_or(0.0)).sum();
    ticks / TICKS_PER_SECOND
}
