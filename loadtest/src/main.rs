//! The binary: reads the command line, runs the role it names, and turns the result into an exit code.
//!
//! 0: passed. 1: the gateway broke a promise or missed a limit. 2: the run could not start, usage errors included. 3: the run
//! says nothing about the gateway, because the load test was the bottleneck or broke.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use ocpp_loadtest::coordinator::{self, Options, Watch};
use ocpp_loadtest::error::chain;
use ocpp_loadtest::report::{Report, html, standalone, summary};
use ocpp_loadtest::scenario::{Scenario, builtin, units};
use ocpp_loadtest::verify::{self, Source};
use ocpp_loadtest::worker;
use tokio::runtime::{Builder, Runtime};

/// Simulates charging stations (OCPP 1.6, 2.0.1, 2.1) against a gateway, and verifies that nothing is lost.
#[derive(Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run a scenario: a TOML file, or the name of a built-in one.
    Run(Box<RunArgs>),
    /// List the built-in scenarios; with a name, print its file.
    Scenarios {
        /// The scenario to print.
        name: Option<String>,
    },
    /// Regenerate the HTML page of a report from its JSON.
    Html {
        /// The JSON of a run.
        json: PathBuf,
        /// Where to write the page.
        html: PathBuf,
    },
    /// Write each plot of a report to an SVG file of its own, for use in documents.
    Plots {
        /// The JSON of a run.
        json: PathBuf,
        /// Folder for the NAME.svg files.
        folder: PathBuf,
        /// Only these plots, for example `connections,latency`; all by default.
        #[arg(long, value_name = "NAMES", value_delimiter = ',')]
        only: Vec<String>,
    },
    /// Simulate stations; started by `run`.
    #[command(hide = true)]
    Worker,
    /// Read the bus; started by `run`.
    #[command(hide = true)]
    Verifier,
}

#[derive(Args)]
struct RunArgs {
    /// A scenario file, or the name of a built-in scenario.
    scenario: String,
    /// Where stations connect, overriding the scenario; may be repeated.
    #[arg(long, value_name = "WS_URL")]
    target: Vec<String>,
    /// The gateways' admin listeners, for metrics, commands and the local log; may be repeated.
    #[arg(long, value_name = "HTTP_URL", default_value = "http://127.0.0.1:9100")]
    admin: Vec<String>,
    /// Use no admin listener: no metrics and no commands.
    #[arg(long)]
    no_admin: bool,
    /// Where the verification reads events.
    #[arg(long, value_enum, default_value_t = Bus::Local)]
    bus: Bus,
    /// Kafka's brokers.
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:19092")]
    kafka: String,
    /// The topic of events.
    #[arg(long, default_value = "ocpp.events")]
    topic: String,
    /// Read the bus during the run, or after it. A local log is read through the gateway.
    #[arg(long, value_enum, default_value_t = When::During)]
    verify: When,
    /// The gateway is restarted during the run and may forget CALLs that it has not answered.
    #[arg(long)]
    gateway_restarts: bool,
    /// A process to watch, as NAME=PID; may be repeated. Put the gateway first; the name of a gateway begins with "gateway".
    #[arg(long, value_name = "NAME=PID", value_parser = watch)]
    watch: Vec<Watch>,
    /// Number of stations, overriding the scenario.
    #[arg(long)]
    stations: Option<u32>,
    /// CALLs per second of all stations together, overriding the scenario.
    #[arg(long)]
    rate: Option<f64>,
    /// Duration, overriding the scenario.
    #[arg(long, value_parser = units::parse)]
    duration: Option<Duration>,
    /// Time over which stations connect, overriding the scenario.
    #[arg(long, value_parser = units::parse)]
    connect_over: Option<Duration>,
    /// Number of worker processes, overriding the scenario.
    #[arg(long)]
    workers: Option<u32>,
    /// How late the load test itself may send (p99), overriding the scenario.
    #[arg(long, value_parser = units::parse)]
    send_lag_limit: Option<Duration>,
    /// Folder for NAME.json and NAME.html.
    #[arg(long, default_value = "loadtest/out")]
    out: PathBuf,
    /// Print no progress.
    #[arg(long)]
    quiet: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Bus {
    /// The gateways' local logs, through their admin listeners.
    Local,
    /// A Kafka topic.
    Kafka,
    /// No verification.
    None,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum When {
    During,
    After,
}

fn watch(text: &str) -> Result<Watch, String> {
    let (name, pid) = text.split_once('=').ok_or("expected NAME=PID")?;
    Ok((name.to_owned(), pid.parse().map_err(|_| format!("{pid:?} is not a process id"))?))
}

fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Run(args) => run(*args),
        Command::Scenarios { name: None } => list(),
        Command::Scenarios { name: Some(name) } => match builtin::find(&name) {
            Some(text) => print(text),
            None => fail(&format!("there is no built-in scenario {name:?}")),
        },
        Command::Html { json, html } => done(render(&json, &html)),
        Command::Plots { json, folder, only } => done(plots(&json, &folder, &only)),
        Command::Worker => play(worker::run()),
        Command::Verifier => play(verify::run()),
    }
}

fn run(args: RunArgs) -> ExitCode {
    let out = args.out.clone();
    let options = match options(args) {
        Ok(options) => options,
        Err(problem) => return fail(&problem),
    };
    if let Err(error) = std::fs::create_dir_all(&out) {
        return fail(&format!("{}: {error}", out.display()));
    }
    let runtime = match runtime() {
        Ok(runtime) => runtime,
        Err(problem) => return fail(&problem),
    };
    let report = match runtime.block_on(Box::pin(coordinator::run(options))) {
        Ok(report) => report,
        Err(error) => return fail(&chain(&error)),
    };
    print(&summary::summary(&report));
    // Not `with_extension`: a name may have a dot of its own.
    let file = |kind: &str| out.join(format!("{}.{kind}", report.scenario.name));
    let (json, page) = (file("json"), file("html"));
    match write(&report, &json, &page) {
        Ok(()) => {
            print(&format!("\n{} and {}\n", page.display(), json.display()));
            ExitCode::from(report.exit_code())
        }
        Err(problem) => fail(&problem),
    }
}

fn options(args: RunArgs) -> Result<Options, String> {
    let mut scenario = Scenario::load(&args.scenario).map_err(|error| chain(&error))?;
    if !args.target.is_empty() {
        scenario.targets = args.target;
    }
    scenario.stations = args.stations.unwrap_or(scenario.stations);
    scenario.traffic.messages_per_second = args.rate.unwrap_or(scenario.traffic.messages_per_second);
    scenario.duration = args.duration.unwrap_or(scenario.duration);
    scenario.connect.over = args.connect_over.unwrap_or(scenario.connect.over);
    scenario.workers = args.workers.unwrap_or(scenario.workers);
    scenario.limits.send_lag_p99 = args.send_lag_limit.unwrap_or(scenario.limits.send_lag_p99);
    scenario.check().map_err(|error| chain(&error))?;
    let source = match args.bus {
        Bus::None => None,
        Bus::Kafka => Some(Source::Kafka { brokers: args.kafka, topic: args.topic }),
        Bus::Local if args.no_admin => {
            return Err(
                "the local log is read through the admin listener; with --no-admin, use --bus kafka or --bus none".into()
            );
        }
        Bus::Local => Some(Source::Local { admins: args.admin.clone() }),
    };
    Ok(Options {
        scenario,
        admins: if args.no_admin { Vec::new() } else { args.admin },
        source,
        during: args.verify == When::During,
        restarts_allowed: args.gateway_restarts,
        watch: args.watch,
        quiet: args.quiet,
    })
}

fn write(report: &Report, json: &Path, page: &Path) -> Result<(), String> {
    let text = serde_json::to_string_pretty(report).map_err(|error| error.to_string())?;
    save(json, &text)?;
    save(page, &html::page(report))
}

fn render(json: &Path, page: &Path) -> Result<(), String> {
    save(page, &html::page(&read(json)?))
}

fn plots(json: &Path, folder: &Path, only: &[String]) -> Result<(), String> {
    let files = standalone::files(&read(json)?);
    if let Some(unknown) = only.iter().find(|name| files.iter().all(|file| file.0 != name.as_str())) {
        let names: Vec<_> = files.iter().map(|file| file.0).collect();
        return Err(format!("there is no plot {unknown:?}; the plots are {}", names.join(", ")));
    }
    std::fs::create_dir_all(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    for (name, text) in files {
        if only.is_empty() || only.iter().any(|one| one == name) {
            save(&folder.join(format!("{name}.svg")), &text)?;
        }
    }
    Ok(())
}

fn read(json: &Path) -> Result<Report, String> {
    let text = std::fs::read(json).map_err(|error| format!("{}: {error}", json.display()))?;
    serde_json::from_slice(&text).map_err(|error| format!("{}: {error}", json.display()))
}

fn save(path: &Path, text: &str) -> Result<(), String> {
    std::fs::write(path, text).map_err(|error| format!("{}: {error}", path.display()))
}

fn done(result: Result<(), String>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => fail(&problem),
    }
}

/// Runs a role in a process that the coordinator started.
fn play<E: std::error::Error + 'static>(role: impl Future<Output = Result<(), E>>) -> ExitCode {
    let runtime = match runtime() {
        Ok(runtime) => runtime,
        Err(problem) => return fail(&problem),
    };
    let result = runtime.block_on(Box::pin(role));
    // A read from standard input may still be pending.
    runtime.shutdown_background();
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&chain(&error)),
    }
}

fn runtime() -> Result<Runtime, String> {
    let built = Builder::new_current_thread().enable_all().build();
    built.map_err(|error| format!("cannot start the runtime: {error}"))
}

fn list() -> ExitCode {
    let mut text = String::new();
    for (name, file) in builtin::SCENARIOS {
        match Scenario::parse(name, file) {
            Ok(scenario) => text.push_str(&format!("{name:<15} {}\n", scenario.about)),
            Err(error) => return fail(&format!("{name}: {error}")),
        }
    }
    print(&text)
}

fn print(text: &str) -> ExitCode {
    match std::io::stdout().lock().write_all(text.as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::from(2),
    }
}

fn fail(text: &str) -> ExitCode {
    // If nobody reads standard error, the exit code still tells.
    drop(writeln!(std::io::stderr(), "ocpp-loadtest: {text}"));
    ExitCode::from(2)
}
