//! `ocpp-gateway tail`: a station's messages as they become durable, or everybody's.
//!
//! Owns following the stream: when it breaks, it is asked for again from the position that was read last. Where the gateway
//! keeps no positions (Kafka), what happens in between is not shown, and that is said.

use std::time::Duration;

use clap::Args;

use super::http::{Api, ClientError, with_query};
use super::line::line;
use super::output::{Output, note, plain};
use super::sse::{EventStream, StreamEvent};
use super::{Failure, chain};

/// The gateway says something at least every 15 s, if only that it is there.
const SILENCE: Duration = Duration::from_secs(60);
/// How long to wait before the stream is asked for again: doubled each time, up to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// What to watch.
#[derive(Args)]
pub struct Options {
    /// The station's identity.
    #[arg(required_unless_present = "all", conflicts_with = "all")]
    station: Option<String>,
    /// Every station; each line names its own.
    #[arg(long)]
    all: bool,
    /// Begin with the past: `earliest`, or a position in the log. Only where the bus is the local log.
    #[arg(long, value_name = "POSITION")]
    from: Option<String>,
    /// One event a line, as it is stored.
    #[arg(long)]
    json: bool,
}

/// A watch in progress.
struct Tail<'a> {
    api: &'a Api,
    options: &'a Options,
    output: Output,
    /// The last event read, shown or not.
    position: Option<u64>,
}

/// Never ends by itself, except with a failure.
pub(super) async fn run(api: &Api, options: &Options, output: Output) -> Result<u8, Failure> {
    let mut tail = Tail { api, options, output, position: None };
    // A stream that never began is not asked for again: the address or the station may be wrong.
    let mut stream = tail.open().await?;
    loop {
        let broken = tail.follow(stream).await?;
        let lost = if tail.position.is_some() { "" } else { "; what happens meanwhile is not shown" };
        note(&format!("{broken}; trying again{lost}"));
        stream = tail.reopen().await?;
    }
}

impl Tail<'_> {
    async fn open(&self) -> Result<EventStream, Failure> {
        // Where the position is known it counts, and `from` may have been deleted since.
        let from = self.options.from.as_deref().filter(|_| self.position.is_none());
        let parameters = [("station", self.options.station.as_deref()), ("from", from)];
        let response = self.api.watch(&with_query("/api/v1/events", &parameters), self.position).await?;
        Ok(EventStream::new(response.pieces(SILENCE)))
    }

    /// Asks for the stream until it comes. Gives up only when the gateway says that it never will.
    async fn reopen(&self) -> Result<EventStream, Failure> {
        let mut pause = FIRST_PAUSE;
        loop {
            tokio::time::sleep(pause).await;
            match self.open().await {
                Ok(stream) => return Ok(stream),
                Err(Failure::Refused { status, detail }) if status.is_client_error() => {
                    return Err(Failure::Refused { status, detail });
                }
                Err(_) => pause = (pause * 2).min(LONGEST_PAUSE),
            }
        }
    }

    /// Shows the stream until it breaks; says how.
    async fn follow(&mut self, mut stream: EventStream) -> Result<String, Failure> {
        loop {
            match stream.next().await {
                Ok(Some(event)) => self.show(&event)?,
                Ok(None) => return Ok("the gateway has ended the stream".to_owned()),
                Err(Failure::Client(error @ (ClientError::Broken(_) | ClientError::Timeout { .. }))) => {
                    return Ok(chain(&error));
                }
                Err(failure) => return Err(failure),
            }
        }
    }

    fn show(&mut self, event: &StreamEvent) -> Result<(), Failure> {
        self.position = event.id.or(self.position);
        let Some(data) = &event.data else { return Ok(()) };
        match event.name.as_str() {
            "missed" => note(&format!("too slow: some events are not shown: {data}")),
            "gap" => note(&format!("these positions of the log are gone: {data}")),
            "error" => note(&format!("the gateway cannot read its log: {data}")),
            _ if self.options.json => self.output.line(data)?,
            name => match line(data, self.options.all, self.output.paint()) {
                Ok(line) => self.output.line(&line)?,
                // A later gateway may tell what this client does not know.
                Err(_) => self.output.line(&format!("{} {}", plain(name), plain(data)))?,
            },
        }
        Ok(())
    }
}
