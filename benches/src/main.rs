//! What a connection and a message cost the server, side by side in one run: a bare TCP echo, a tuned tokio-tungstenite
//! echo, an echo on the gateway's own engine, and the gateway.
//!
//!     make bench-cost
//!
//! The servers run one after another on core 0 (`taskset`), the load on core 1. Processor time is that of all threads of the
//! server, from `/proc`. Compare only figures of the same run: the machine is not quiet.

// A benchmark stops at the first problem, and prints its table.
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
    /// Measure every server and print the ratios.
    Compare {
        #[command(flatten)]
        load: Load,
        /// The gateway's binary; without it, only the echo servers are compared.
        #[arg(long)]
        gateway: Option<PathBuf>,
        /// Leave out the echo servers, to profile the gateway; no ratios are printed.
        #[arg(long, requires = "gateway")]
        gateway_only: bool,
        /// A Kafka, `host:port`, with which the gateway is measured as well.
        #[arg(long)]
        kafka: Option<String>,
        /// Rounds in which all servers are measured; figures are medians, because the machine's speed varies over minutes.
        #[arg(long, default_value_t = 1)]
        rounds: usize,
    },
    /// Run one of the echo servers on a free port, and print the port. Used by `compare`.
    Serve {
        /// The server to run.
        echo: Echo,
    },
}

fn main() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    match Arguments::parse().command {
        Command::Serve { echo } => runtime.block_on(servers::serve(echo)),
        Command::Compare { load, gateway, gateway_only, kafka, rounds } => {
            let mut rows: Vec<(&str, Vec<Cost>)> = Vec::new();
            let mut measure = |name: &'static str, server: Server| {
                eprintln!("measuring {name}");
                process::touch_memory(load.warm);
                let cost = runtime.block_on(load.measure(&server));
                match rows.iter_mut().find(|(known, _)| *known == name) {
                    Some((_, costs)) => costs.push(cost),
                    None => rows.push((name, vec![cost])),
                }
            };
            for _ in 0..rounds {
                if !gateway_only {
                    measure("tcp echo", Server::echo(Echo::Tcp));
                    measure("tungstenite echo", Server::echo(Echo::Tungstenite));
                    measure("engine echo", Server::echo(Echo::Engine));
                }
                if let Some(gateway) = &gateway {
                    measure("gateway, local log", Server::gateway(gateway, None));
                    if let Some(kafka) = &kafka {
                        measure("gateway, Kafka", Server::gateway(gateway, Some(kafka)));
                    }
                }
            }
            print(load, &rows);
        }
    }
}

/// Prints the medians of all rounds, and the medians of each round's ratios.
fn print(load: Load, rows: &[(&str, Vec<Cost>)]) {
    println!(
        "{} connections; {} bytes a message; {} messages/s and closed loop, {} s each\n",
        load.connections,
        station::MESSAGE_BYTES,
        load.rate,
        load.seconds
    );
    println!(
        "| server | accepts/s | idle B/conn | after 60 KB B/conn | at the end B/conn | CPU µs/msg, fixed rate | p99 ms | CPU µs/msg, closed loop | msg/s |"
    );
    println!("|---|---|---|---|---|---|---|---|---|");
    for (name, costs) in rows {
        let of = |figure: fn(&Cost) -> f64| median(costs.iter().map(figure));
        println!(
            "| {name} | {:.0} | {:.0} | {:.0} | {:.0} | {:.1} | {:.1} | {:.1} | {:.0} |",
            of(|cost| cost.accepts),
            of(|cost| cost.idle),
            of(|cost| cost.after_large),
            of(|cost| cost.after_all),
            of(|cost| cost.fixed.cpu_micros),
            of(|cost| cost.fixed.p99_millis),
            of(|cost| cost.closed.cpu_micros),
            of(|cost| cost.closed.rate),
        );
    }
    println!(
        "\n| ratio | accepts, to tcp | CPU fixed rate, to tungstenite | CPU closed loop, to tungstenite |"
    );
    println!("|---|---|---|---|");
    let find = |wanted: &str| rows.iter().find(|(name, _)| *name == wanted).map(|(_, costs)| costs);
    let (Some(tcp), Some(tuned)) = (find("tcp echo"), find("tungstenite echo")) else { return };
    for (name, costs) in rows {
        let to = |base: &[Cost], figure: fn(&Cost) -> f64| {
            median(costs.iter().zip(base).map(|(cost, base)| figure(cost) / figure(base)))
        };
        println!(
            "| {name} | {:.2} | {:.2} | {:.2} |",
            to(tcp, |cost| cost.accepts),
            to(tuned, |cost| cost.fixed.cpu_micros),
            to(tuned, |cost| cost.closed.cpu_micros),
        );
    }
    let shares = rows.iter().flat_map(|(_, costs)| costs).map(|cost| cost.fixed.driver_share);
    println!(
        "\nThe load itself took at most {:.0} % of its core at the fixed rate.",
        shares.fold(0.0, f64::max) * 100.0
    );
}

fn median(figures: impl Iterator<Item = f64>) -> f64 {
    let mut figures: Vec<f64> = figures.collect();
    figures.sort_by(f64::total_cmp);
    figures.get(figures.len() / 2).copied().unwrap_or(f64::NAN)
}
