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
        /// How often all are measured, one after the other; figures are medians. The machine may be another in a minute.
        #[arg(long, default_value_t = 1)]
        rounds: usize,
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

/// What each server cost in each round: medians, and of what is compared the medians of each round's ratio.
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
        "\nThe load took {:.0} % of its core at most at the fixed rate.",
        shares.fold(0.0, f64::max) * 100.0
    );
}

fn median(figures: impl Iterator<Item = f64>) -> f64 {
    let mut figures: Vec<f64> = figures.collect();
    figures.sort_by(f64::total_cmp);
    figures.get(figures.len() / 2).copied().unwrap_or(f64::NAN)
}
