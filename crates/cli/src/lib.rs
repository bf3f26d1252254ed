//! The sub-commands that operate a running gateway over its admin API.
//!
//! Owns the sub-commands, their output and their exit codes. Speaks HTTP and shares no code with the gateway, so it works
//! against a gateway on another machine and of another version. All output goes through `output.rs`.
//!
//! Exit codes: 0 success (`send`: the station answered, or the gateway queued the command); 1 the gateway cannot be reached
//! or failed; 2 the gateway refused the request, or the arguments are invalid; 3 the station answered with an error; 4 the
//! command ended without an answer from the station.

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

/// The sub-commands, for the binary to flatten into its own.
#[derive(Subcommand)]
pub enum Command {
    /// List the stations that a running gateway knows.
    Stations(Targeted<stations::Options>),
    /// Send a command to a station and wait for its outcome.
    ///
    /// Exit code 0: the station answered. 3: it answered with an error. 4: no answer (timeout, offline, expired, queueFull,
    /// invalid, replaced). 2: the gateway refuses. 1: the gateway cannot be asked.
    Send(Targeted<send::Options>),
    /// Watch a station's messages as they become durable: ← from the station, → to it.
    Tail(Targeted<tail::Options>),
    /// Close a station's connection; it is free to come back.
    Disconnect(Targeted<disconnect::Options>),
}

/// The options of a sub-command, and the gateway that it is for.
#[derive(Args)]
pub struct Targeted<O: Args> {
    #[command(flatten)]
    target: Target,
    #[command(flatten)]
    options: O,
}

/// The gateway to talk to.
#[derive(Args)]
struct Target {
    /// The gateway's admin listener; OCPP_GATEWAY_ADMIN, or http://127.0.0.1:9100, if not given.
    #[arg(long, value_name = "URL")]
    admin: Option<Origin>,
}

/// Why a sub-command failed: one line for people, and an exit code.
#[derive(Debug, thiserror::Error)]
enum Failure {
    /// The arguments are invalid, or a file that they name cannot be read.
    #[error("{0}")]
    Usage(String),
    /// The gateway refused, and this is its reason.
    #[error("{detail} ({status})")]
    Refused { status: hyper::StatusCode, detail: String },
    /// The gateway cannot be reached.
    #[error("{}", chain(.0))]
    Client(#[from] ClientError),
    /// The response does not have the form that this version expects.
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

    /// Whether the output's reader has closed it.
    fn is_reader_gone(&self) -> bool {
        matches!(self, Self::Output(error) if error.kind() == std::io::ErrorKind::BrokenPipe)
    }
}

/// Runs a sub-command to completion and returns the process's exit code. If the reader closes the output (`… | head`), that is
/// success.
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
        Command::Stations(request) => {
            stations::run(&request.target.api(default)?, &request.options, output).await
        }
        Command::Send(request) => send::run(&request.target.api(default)?, &request.options, output).await,
        Command::Tail(request) => tail::run(&request.target.api(default)?, &request.options, output).await,
        Command::Disconnect(request) => {
            disconnect::run(&request.target.api(default)?, &request.options, output).await
        }
    }
}

impl Target {
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

/// An error and all its sources, in one line.
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

/// The gateway's default `admin.address`.
const DEFAULT_ADMIN: &str = "http://127.0.0.1:9100";
