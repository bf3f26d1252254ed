//! The load, the same for every server: all stations connect, idle, send one large message, send at a fixed rate, and then send
//! as fast as they are answered.

use std::rc::Rc;
use std::time::{Duration, Instant};

use clap::Args;
use tokio::task::{JoinSet, LocalSet};

use crate::process::{Server, processor_seconds};
use crate::station::{LARGE_BYTES, MESSAGE_BYTES, Message, Station};

/// The size of the load.
#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct Load {
    /// Number of connections.
    #[arg(long, default_value_t = 12_000)]
    pub(crate) connections: usize,
    /// Messages per second at the fixed rate.
    #[arg(long, default_value_t = 10_000)]
    pub(crate) rate: usize,
    /// Seconds at the fixed rate, and again in a closed loop.
    #[arg(long, default_value_t = 10)]
    pub(crate) seconds: u64,
    /// GiB of memory to touch before each server is measured. A host reclaims memory that a virtual machine has not used for a
    /// while, and returning it costs a multiple of what a server does with a page: a server that writes a log would pay for
    /// that.
    #[arg(long, default_value_t = 4)]
    pub(crate) warm: usize,
    /// Seconds to wait before memory is read.
    #[arg(long, default_value_t = 5)]
    pub(crate) settle: u64,
}

/// What one server cost.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cost {
    /// Connections per second that had their first message answered, all opened at once.
    pub(crate) accepts: f64,
    /// Resident bytes of a connection that has sent its first message.
    pub(crate) idle: f64,
    /// The same after each has sent a large message …
    pub(crate) after_large: f64,
    /// … and at the end: a gateway remembers its recent answers.
    pub(crate) after_all: f64,
    /// At the fixed rate, open loop.
    pub(crate) fixed: Run,
    /// As fast as answers arrive.
    pub(crate) closed: Run,
}

/// One run of messages.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Run {
    /// The server's processor time per message.
    pub(crate) cpu_micros: f64,
    /// Messages answered per second.
    pub(crate) rate: f64,
    /// From when a message was due to its answer.
    pub(crate) p99_millis: f64,
    /// The load's own share of its core.
    pub(crate) driver_share: f64,
}

/// Large messages in flight at the same time.
const LARGE_AT_ONCE: usize = 64;

impl Load {
    /// Measures a server under this load.
    pub(crate) async fn measure(self, server: &Server) -> Cost {
        LocalSet::new().run_until(self.phases(server)).await
    }

    async fn phases(self, server: &Server) -> Cost {
        let empty = server.resident_bytes();
        let begin = Instant::now();
        let mut connecting = JoinSet::new();
        for number in 0..self.connections {
            connecting.spawn_local(Station::connect(server.address, server.dialect, number));
        }
        let mut stations = Vec::with_capacity(self.connections);
        while let Some(station) = connecting.join_next().await {
            stations.push(station.expect("a task").expect("a connection"));
        }
        let accepts = self.connections as f64 / begin.elapsed().as_secs_f64();
        let idle = self.resident(server, empty).await;
        let large = Rc::new(Message::meter_values(LARGE_BYTES));
        for group in stations.chunks_mut(LARGE_AT_ONCE) {
            let calls = group.iter_mut().map(|station| station.call(&large));
            for answered in futures_util::future::join_all(calls).await {
                answered.expect("an answer");
            }
        }
        let after_large = self.resident(server, empty).await;
        let message = Rc::new(Message::meter_values(MESSAGE_BYTES));
        let fixed = self.run(server, &mut stations, &message, Some(self.rate)).await;
        let closed = self.run(server, &mut stations, &message, None).await;
        let after_all = self.resident(server, empty).await;
        Cost { accepts, idle, after_large, after_all, fixed, closed }
    }

    async fn resident(self, server: &Server, empty: f64) -> f64 {
        tokio::time::sleep(Duration::from_secs(self.settle)).await;
        (server.resident_bytes() - empty) / self.connections as f64
    }

    /// Every station sends its share of `rate`; `None` is a closed loop.
    async fn run(
        self,
        server: &Server,
        stations: &mut Vec<Station>,
        message: &Rc<Message>,
        rate: Option<usize>,
    ) -> Run {
        let connections = stations.len();
        let every = rate.map(|rate| Duration::from_secs_f64(connections as f64 / rate as f64));
        let begin = Instant::now() + Duration::from_millis(200);
        let end = begin + Duration::from_secs(self.seconds);
        let (server_before, driver_before) = (server.processor_seconds(), processor_seconds("self"));
        let mut running = JoinSet::new();
        for (number, mut station) in stations.drain(..).enumerate() {
            let message = Rc::clone(message);
            running.spawn_local(async move {
                let mut latencies = Vec::new();
                let mut due = begin + every.unwrap_or_default().mul_f64(number as f64 / connections as f64);
                while due < end {
                    tokio::time::sleep_until(due.into()).await;
                    station.call(&message).await.expect("an answer");
                    latencies.push(due.elapsed());
                    due = every.map_or_else(Instant::now, |every| due + every);
                }
                (station, latencies)
            });
        }
        let mut latencies = Vec::new();
        while let Some(ended) = running.join_next().await {
            let (station, mine) = ended.expect("a task");
            stations.push(station);
            latencies.extend(mine);
        }
        let seconds = begin.elapsed().as_secs_f64();
        latencies.sort_unstable();
        let count = latencies.len() as f64;
        Run {
            cpu_micros: (server.processor_seconds() - server_before) / count * 1e6,
            rate: count / seconds,
            p99_millis: latencies[(latencies.len() - 1) * 99 / 100].as_secs_f64() * 1e3,
            driver_share: (processor_seconds("self") - driver_before) / seconds,
        }
    }
}
