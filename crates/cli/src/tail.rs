//! `ocpp-gateway tail`: shows the messages of one station, or of all, as they become durable.
//!
//! Owns following the stream: when it breaks, the tail reconnects and resumes after the last position. If the gateway's bus
//! has no positions (Kafka), events in between are not shown, and a note says so.

use std::time::Duration;

use clap::Args;

use super::http::{Api, ClientError, with_query};
use super::line::event_line;
use super::output::{Output, note, plain};
use super::sse::{EventStream, StreamEvent};
use super::{Failure, chain};

/// The gateway sends at least a comment every 15 s.
const SILENCE: Duration = Duration::from_secs(60);
/// The pause before reconnecting: doubled after each failure, up to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// The options of `tail`.
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

struct Tail<'a> {
    api: &'a Api,
    options: &'a Options,
    output: Output,
    /// The position of the last event read, shown or not.
    position: Option<u64>,
}

/// Returns only with a failure.
pub(super) async fn run(api: &Api, options: &Options, output: Output) -> Result<u8, Failure> {
    let mut tail = Tail { api, options, output, position: None };
    // No second attempt at the first stream: the address or the station may be wrong.
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
        // Once a position is known it takes precedence; `from` may have been deleted from the log since.
        let from = self.options.from.as_deref().filter(|_| self.position.is_none());
        let parameters = [("station", self.options.station.as_deref()), ("from", from)];
        let response = self.api.watch(&with_query("/api/v1/events", &parameters), self.position).await?;
        Ok(EventStream::new(response.pieces(SILENCE)))
    }

    /// Reconnects until it succeeds, or until the gateway refuses the request.
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

    /// Shows events until the stream breaks, and returns why it did.
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
            name => match event_line(data, self.options.all, self.output.paint()) {
                Ok(line) => self.output.line(&line)?,
                // A newer gateway may send what this version does not know.
                Err(_) => self.output.line(&format!("{} {}", plain(name), plain(data)))?,
            },
        }
        Ok(())
    }
}
