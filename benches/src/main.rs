//! What a connection and a message cost the server, side by side in one run: a bare TCP echo, a tuned tokio-tungstenite
//! echo, an echo on the gateway's own engine, and the gateway.
//!
//!     make bench-cost
//!
//! The servers run one after the other on core 0 (`taskset`), the load on core 1. Processor time is the server's own, all of
//! its threads, from `/proc`. What is compared is only what one run gives: the machine is not quiet.

// A benchmark stops at the first thing that is not as it should be, and prints its table.
#![allow(clippy::expect_used, clippy::print_stdout, clippy::print_stderr)]

mod load;
mod process;
mod servers;
mod station;

use std::path::PathBuf;

use clap::{Parser, Subcommand};

use crate::load::{Cost, Load};
use crate::process::Server;
use crate::servers::Echo;

#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Measures every server and prints the ratios.
    Compare {
        #[command(flatten)]
        load: Load,
        /// The gateway's binary; without it the echo servers alone are compared.
        #[arg(long)]
        gateway: Option<PathBuf>,
        /// Leaves the echo servers out, for a profile of the gateway; there are no ratios then.
        #[arg(long, requires = "gateway")]
        gateway_only: bool,
        /// A Kafka, `host:port`: the gateway is measured once more with it.
        #[arg(long)]
        kafka: Option<String>,
    },
    /// Is one of the echo servers, on a free port that it prints. For `compare`.
    Serve {
        /// Which one.
        echo: Echo,
    },
}

fn main() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    match Arguments::parse().command {
        Command::Serve { echo } => runtime.block_on(servers::serve(echo)),
        Command::Compare { load, gateway, gateway_only, kafka } => {
            let mut rows = Vec::new();
            let mut measure = |name: &str, server: Server| {
                eprintln!("measuring {name}");
                process::touch_memory(load.warm);
                rows.push((name.to_owned(), runtime.block_on(load.measure(&server))));
            };
            if !gateway_only {
                measure("tcp echo", Server::echo(Echo::Tcp));
                measure("tungstenite echo", Server::echo(Echo::Tungstenite));
                measure("engine echo", Server::echo(Echo::Engine));
            }
            if let Some(gateway) = gateway {
                measure("gateway, local log", Server::gateway(&gateway, None));
                if let Some(kafka) = kafka {
                    measure("gateway, Kafka", Server::gateway(&gateway, Some(&kafka)));
                }
            }
            print(load, &rows);
        }
    }
}

fn print(load: Load, rows: &[(String, Cost)]) {
    println!(
        "{} connections; {} bytes a message; {} messages/s and closed loop, {} s each\n",
        load.connections,
        station::MESSAGE_BYTES,
        load.rate,
        load.seconds
    );
    println!(
        "| server | accepts/s | idle B/conn | after 60 KB B/conn | CPU µs/msg, fixed rate | p99 ms | CPU µs/msg, closed loop | msg/s |"
    );
    println!("|---|---|---|---|---|---|---|---|");
    for (name, cost) in rows {
        println!(
            "| {name} | {:.0} | {:.0} | {:.0} | {:.1} | {:.1} | {:.1} | {:.0} |",
            cost.accepts,
            cost.idle,
            cost.after_large,
            cost.fixed.cpu_micros,
            cost.fixed.p99_millis,
            cost.closed.cpu_micros,
            cost.closed.rate,
        );
    }
    println!(
        "\n| ratio | accepts, to tcp | CPU fixed rate, to tungstenite | CPU closed loop, to tungstenite |"
    );
    println!("|---|---|---|---|");
    let find = |wanted: &str| rows.iter().find(|(name, _)| name == wanted).map(|(_, cost)| cost);
    let (Some(tcp), Some(tuned)) = (find("tcp echo"), find("tungstenite echo")) else { return };
    for (name, cost) in rows {
        println!(
            "| {name} | {:.2} | {:.2} | {:.2} |",
            cost.accepts / tcp.accepts,
            cost.fixed.cpu_micros / tuned.fixed.cpu_micros,
            cost.closed.cpu_micros / tuned.closed.cpu_micros,
        );
    }
    let busiest = rows.iter().map(|(_, cost)| cost.fixed.driver_share).fold(0.0, f64::max);
    println!("\nThe load took {:.0} % of its core at most at the fixed rate.", busiest * 100.0);
}
