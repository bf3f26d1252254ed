//! The binary: parses the command line, runs the gateway until a signal, and reports every failure in one line and an exit
//! code (2: the configuration, 1: anything else). The sub-commands that operate a running gateway are `ocpp-cli`'s.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use ocpp_cli::output::{fail, say};
use ocpp_gateway::app::{App, Preflight};
use ocpp_gateway::auth::hash_password;
use ocpp_gateway::config::{Config, ConfigError};
use ocpp_gateway::telemetry;
use tokio::signal::unix::{SignalKind, signal};

/// Returns memory to the system after large messages and storms of connections (docs/adr/0014); librdkafka uses it, too. Its
/// settings are built in (`.cargo/config.toml`); `MALLOC_CONF` overrides them.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Holds the WebSockets of EV charging stations (OCPP 1.6, 2.0.1, 2.1) and carries their messages to Kafka.
#[derive(Parser)]
#[command(version, args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    sources: Sources,
}

#[derive(Subcommand)]
enum Command {
    /// Run the gateway (the default).
    Run(Sources),
    /// Check the configuration and exit: 0 if it can be used.
    CheckConfig(Sources),
    /// Read a password from the standard input and print its hash for the credentials file.
    HashPassword(hash_password::Options),
    #[command(flatten)]
    Client(ocpp_cli::Command),
}

#[derive(Args, Default)]
struct Sources {
    /// The configuration file; built-in defaults without one.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Override one key; may be repeated.
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = key_value)]
    overrides: Vec<(String, String)>,
}

fn key_value(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("expected KEY=VALUE")?;
    Ok((key.trim().to_owned(), value.to_owned()))
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    match cli.command.unwrap_or(Command::Run(cli.sources)) {
        Command::Run(sources) => run(&sources),
        Command::CheckConfig(sources) => check_config(&sources),
        Command::HashPassword(options) => match hash_password::hash(&options) {
            Ok(hash) => say(&hash),
            Err(error) => fail(1, &error),
        },
        Command::Client(command) => ocpp_cli::run(command),
    }
}

fn load(sources: &Sources) -> Result<Config, ExitCode> {
    Config::load(sources.config.as_deref(), &sources.overrides).map_err(|error| fail(2, &error.to_string()))
}

/// Tells everything that is wrong, a line each.
fn check_config(sources: &Sources) -> ExitCode {
    let found = match Config::load(sources.config.as_deref(), &sources.overrides) {
        Ok(config) => Preflight::of(&config),
        Err(ConfigError(problems)) => Preflight { problems, notes: Vec::new() },
    };
    if found.problems.is_empty() {
        let lines: Vec<_> =
            found.notes.iter().map(String::as_str).chain(["the configuration can be used"]).collect();
        return say(&lines.join("\n"));
    }
    found.problems.iter().fold(ExitCode::SUCCESS, |_, problem| fail(2, problem))
}

fn run(sources: &Sources) -> ExitCode {
    let config = match load(sources) {
        Ok(config) => config,
        Err(code) => return code,
    };
    if let Err(error) = telemetry::start(&config.log) {
        return fail(1, &format!("cannot start logging: {error}"));
    }
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    if config.node.worker_threads > 0 {
        builder.worker_threads(config.node.worker_threads);
    }
    let runtime = match builder.enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(1, &format!("cannot start the runtime: {error}")),
    };
    let result = runtime.block_on(Box::pin(serve(config)));
    // Does not wait for threads that still block after the drain's deadline.
    runtime.shutdown_background();
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(1, &error),
    }
}

async fn serve(config: Config) -> Result<(), String> {
    let signals = |kind| signal(kind).map_err(|error| format!("cannot listen for signals: {error}"));
    let (mut terminate, mut interrupt) =
        (signals(SignalKind::terminate())?, signals(SignalKind::interrupt())?);
    let app = App::start(config).map_err(|error| ocpp_bus::chain(&error))?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    tokio::select! {
        () = Box::pin(app.drain()) => Ok(()),
        _ = terminate.recv() => Err("a second signal: left at once, without draining".into()),
        _ = interrupt.recv() => Err("a second signal: left at once, without draining".into()),
    }
}
