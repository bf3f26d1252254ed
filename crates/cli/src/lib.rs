//! The command line for people: what can be asked of a running gateway, over its admin API.
//!
//! Owns the sub-commands, where the gateway is, and what the exit codes mean. Knows nothing that the API does not say, so it
//! works against a gateway on another machine. Everything for the standard output goes through `output.rs`.
//!
//! Exit codes: 0 done (of `send`: the station answered, or the gateway keeps the command for it); 1 the gateway cannot be
//! asked; 2 the gateway refuses, or the arguments make no sense; 3 the station answered with an error; 4 the command ended
//! without the station's answer.

mod disconnect;
mod environment;
mod http;
mod line;
mod origin;
pub mod output;
mod send;
mod sse;
mod stations;
mod tail;

use std::process::ExitCode;

use clap::{Args, Subcommand};

use self::environment::Environment;
use self::http::{Api, ClientError};
use self::origin::Origin;
use self::output::Output;

/// What can be asked of a running gateway.
#[derive(Subcommand)]
pub enum Command {
    /// List the stations that a running gateway knows.
    Stations(Asked<stations::Options>),
    /// Send a command to a station and wait for its outcome.
    ///
    /// Exit code 0: the station answered. 3: it answered with an error. 4: no answer (timeout, offline, expired, queueFull,
    /// invalid, replaced). 2: the gateway refuses. 1: the gateway cannot be asked.
    Send(Asked<send::Options>),
    /// Watch a station's messages as they become durable: ← from the station, → to it.
    Tail(Asked<tail::Options>),
    /// Close a station's connection; it is free to come back.
    Disconnect(Asked<disconnect::Options>),
}

/// What is asked, and of whom.
#[derive(Args)]
pub struct Asked<O: Args> {
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    options: O,
}

/// Where the gateway is.
#[derive(Args)]
struct Place {
    /// The gateway's admin listener; OCPP_GATEWAY_ADMIN, or http://127.0.0.1:9100, if not given.
    #[arg(long, value_name = "URL")]
    admin: Option<Origin>,
}

/// Why a command did not work. One line, for people.
#[derive(Debug, thiserror::Error)]
enum Failure {
    /// The arguments, or what they point to.
    #[error("{0}")]
    Usage(String),
    /// The gateway says no, in its own words.
    #[error("{detail} ({status})")]
    Refused { status: hyper::StatusCode, detail: String },
    /// The gateway cannot be asked.
    #[error("{}", chain(.0))]
    Client(#[from] ClientError),
    /// What came is not what this version of the client knows.
    #[error("the gateway's answer is not understood: {0}")]
    NotUnderstood(String),
    /// The output cannot be written.
    #[error("cannot write: {0}")]
    Output(#[from] std::io::Error),
}

impl Failure {
    fn code(&self) -> u8 {
        match self {
            Self::Usage(_) => 2,
            Self::Refused { status, .. } if status.is_client_error() => 2,
            Self::Refused { .. } | Self::Client(_) | Self::NotUnderstood(_) | Self::Output(_) => 1,
        }
    }

    /// Whoever read the output has read enough.
    fn is_reader_gone(&self) -> bool {
        matches!(self, Self::Output(error) if error.kind() == std::io::ErrorKind::BrokenPipe)
    }
}

/// Runs a command to its end. A reader that goes away (`… | head`) is a clean end.
pub fn run(command: Command) -> ExitCode {
    let environment = Environment::read();
    let output = Output::new(!environment.no_color);
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return output::fail(1, &format!("cannot start the runtime: {error}")),
    };
    match runtime.block_on(Box::pin(perform(command, environment.admin, output))) {
        Ok(code) => ExitCode::from(code),
        Err(failure) if failure.is_reader_gone() => ExitCode::SUCCESS,
        Err(failure) => output::fail(failure.code(), &failure.to_string()),
    }
}

async fn perform(command: Command, default: Option<String>, output: Output) -> Result<u8, Failure> {
    match command {
        Command::Stations(asked) => stations::run(&asked.place.api(default)?, &asked.options, output).await,
        Command::Send(asked) => send::run(&asked.place.api(default)?, &asked.options, output).await,
        Command::Tail(asked) => tail::run(&asked.place.api(default)?, &asked.options, output).await,
        Command::Disconnect(asked) => {
            disconnect::run(&asked.place.api(default)?, &asked.options, output).await
        }
    }
}

impl Place {
    fn api(self, default: Option<String>) -> Result<Api, Failure> {
        let origin = match (self.admin, default) {
            (Some(origin), _) => origin,
            (None, Some(text)) => {
                text.parse().map_err(|error| Failure::Usage(format!("OCPP_GATEWAY_ADMIN: {error}")))?
            }
            (None, None) => DEFAULT_ADMIN.parse().map_err(ClientError::Address)?,
        };
        Ok(Api::new(origin)?)
    }
}

/// An error with everything behind it, in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

/// What `admin.address` is when nobody has configured it.
const DEFAULT_ADMIN: &str = "http://127.0.0.1:9100";
