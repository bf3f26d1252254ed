//! The binary: reads the command line, runs the gateway until a signal, and turns every failure into one line and an
//! exit code (2: the configuration, 1: anything else).

use std::io::{Read, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use ocpp_gateway::app::{App, READINESS_TICK};
use ocpp_gateway::auth::password;
use ocpp_gateway::config::Config;
use ocpp_gateway::telemetry;
use tokio::signal::unix::{SignalKind, signal};

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
    HashPassword {
        /// The input is the hex text of a key, as OCPP 1.6 stations are given it.
        #[arg(long)]
        hex: bool,
        /// Use a slow hash (Argon2id): for passwords that somebody chose. Random keys do not need it.
        #[arg(long)]
        slow: bool,
    },
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
        Command::CheckConfig(sources) => match load(&sources) {
            Ok(_) => say("the configuration can be used"),
            Err(code) => code,
        },
        Command::HashPassword { hex, slow } => match hash_password(hex, slow) {
            Ok(hash) => say(&hash),
            Err(error) => fail(1, &error),
        },
    }
}

fn load(sources: &Sources) -> Result<Config, ExitCode> {
    Config::load(sources.config.as_deref(), &sources.overrides).map_err(|error| fail(2, &error.to_string()))
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
    // What still blocks after the drain's deadline is not waited for.
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
    loop {
        tokio::select! {
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            () = tokio::time::sleep(READINESS_TICK) => drop(app.readiness.check()),
        }
    }
    tokio::select! {
        () = Box::pin(app.drain()) => Ok(()),
        _ = terminate.recv() => Err("a second signal: left at once, without draining".into()),
        _ = interrupt.recv() => Err("a second signal: left at once, without draining".into()),
    }
}

fn hash_password(hex: bool, slow: bool) -> Result<String, String> {
    let mut input = Vec::new();
    std::io::stdin().read_to_end(&mut input).map_err(|error| format!("cannot read the password: {error}"))?;
    if input.last() == Some(&b'\n') {
        input.pop();
    }
    if hex {
        let text = String::from_utf8(input).map_err(|_| "the input is not hex text")?;
        input = password::from_hex_any(text.trim()).ok_or("the input is not hex text")?;
    }
    if input.is_empty() {
        return Err("the password is empty".into());
    }
    if slow {
        password::hash_slow(&input).map_err(|error| error.to_string())
    } else {
        Ok(password::hash_fast(&input))
    }
}

fn say(text: &str) -> ExitCode {
    match writeln!(std::io::stdout(), "{text}") {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

fn fail(code: u8, text: &str) -> ExitCode {
    // With nobody to read the standard error stream, the exit code still tells.
    drop(writeln!(std::io::stderr(), "ocpp-gateway: {text}"));
    ExitCode::from(code)
}
