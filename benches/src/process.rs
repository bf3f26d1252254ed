//! A server in a process of its own, pinned to a core, and its cost according to `/proc`.

use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::servers::Echo;
use crate::station::Dialect;

const SERVER_CORE: &str = "0";

/// A running server, killed on drop.
pub(crate) struct Server {
    child: Child,
    /// The address it listens on.
    pub(crate) address: SocketAddr,
    /// The protocol it speaks.
    pub(crate) dialect: Dialect,
    /// Its data, deleted on drop.
    _dir: Option<tempfile::TempDir>,
}

impl Server {
    /// Starts one of the echo servers.
    pub(crate) fn echo(echo: Echo) -> Self {
        let this = std::env::current_exe().expect("this binary");
        let name = format!("{echo:?}").to_lowercase();
        let mut command = pinned(&this);
        let mut child =
            command.args(["serve", &name]).stdout(Stdio::piped()).spawn().expect("taskset and a server");
        let mut port = String::new();
        BufReader::new(child.stdout.take().expect("its output")).read_line(&mut port).expect("its port");
        let port: u16 = port.trim().parse().expect("a port");
        let dialect = if echo == Echo::Tcp { Dialect::Bytes } else { Dialect::Echo };
        Self { child, address: ([127, 0, 0, 1], port).into(), dialect, _dir: None }
    }

    /// Starts the gateway with its default promises: answers follow durable storage.
    pub(crate) fn gateway(binary: &Path, kafka: Option<&str>) -> Self {
        let dir = tempfile::tempdir_in(".").expect("a folder on a real disk");
        let (port, admin) = (free_port(), free_port());
        let bus = kafka.map_or_else(String::new, |brokers| {
            format!("[bus]\nkind = \"kafka\"\n[bus.kafka]\nbrokers = \"{brokers}\"\n")
        });
        let config = format!(
            "[node]\ndata_dir = \"{}\"\nworker_threads = 1\n[listeners.main]\naddress = \"127.0.0.1:{port}\"\n\
             [admin]\naddress = \"127.0.0.1:{admin}\"\n[session]\nping_interval = \"0s\"\n[log]\nlevel = \"warn\"\n{bus}",
            dir.path().display()
        );
        let file = dir.path().join("gateway.toml");
        std::fs::write(&file, config).expect("a configuration");
        let log = std::fs::File::create(dir.path().join("log")).expect("a log");
        let mut command = pinned(binary);
        let child = command.arg("run").arg("--config").arg(&file).stderr(log).spawn().expect("the gateway");
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let begin = Instant::now();
        while std::net::TcpStream::connect(address).is_err() {
            assert!(begin.elapsed() < Duration::from_secs(30), "the gateway does not start");
            std::thread::sleep(Duration::from_millis(50));
        }
        Self { child, address, dialect: Dialect::Ocpp, _dir: Some(dir) }
    }

    /// Returns the processor time so far: user and system, all threads.
    pub(crate) fn processor_seconds(&self) -> f64 {
        processor_seconds(&self.child.id().to_string())
    }

    /// Returns the resident memory.
    pub(crate) fn resident_bytes(&self) -> f64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("it runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("its memory");
        line.trim().trim_end_matches(" kB").parse::<f64>().expect("a number") * 1024.0
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have exited already.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Returns the processor time of a process, given by its id or `self`.
pub(crate) fn processor_seconds(process: &str) -> f64 {
    const TICKS_PER_SECOND: f64 = 100.0;
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).expect("it runs");
    let after_name = stat.rsplit(')').next().unwrap_or_default();
    let ticks: f64 =
        after_name.split_whitespace().skip(11).take(2).map(|ticks| ticks.parse::<f64>().unwrap_or(0.0)).sum();
    ticks / TICKS_PER_SECOND
}

fn pinned(binary: &Path) -> Command {
    let mut command = Command::new("taskset");
    command.args(["-c", SERVER_CORE]).arg(binary);
    command
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a port").port()
}

/// Touches this many GiB of memory and frees them.
pub(crate) fn touch_memory(gib: usize) {
    const PAGE: usize = 4096;
    let mut memory = vec![0_u8; gib << 30];
    memory.iter_mut().step_by(PAGE).for_each(|byte| *byte = 1);
    // Keeps the compiler from removing the writes.
    std::hint::black_box(&memory);
}
