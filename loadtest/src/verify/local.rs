//! Events from the gateways' local logs, through `GET /api/v1/events`.
//!
//! Owns the position in each log. A stream that breaks is opened again after the last event that was seen; a hole that the
//! log itself reports is written into the books.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use http_body_util::BodyExt;
use hyper::body::Incoming;
use thiserror::Error;
use tokio_util::sync::CancellationToken;

use super::ledger::Ledger;
use super::sse::{Message, Stream, TooLong};
use crate::http::{Http, HttpError};

/// Only these are of interest; the gateway leaves out the others.
const KIND: &str = "ocpp.message.received";
/// The wait before a broken stream is opened again.
const PAUSE: Duration = Duration::from_millis(500);
/// At the end a gateway that cannot be reached is asked so often.
const LAST_ATTEMPTS: u32 = 60;
/// A stream says something at least every 15 seconds, if only that there is nothing to say.
const SILENCE: Duration = Duration::from_secs(60);

/// Why a log could not be read to its end.
#[derive(Debug, Error)]
pub enum LocalError {
    /// The gateway does not answer.
    #[error("{0}")]
    Http(String, #[source] HttpError),
    /// The stream broke.
    #[error("the stream broke")]
    Broken(#[from] hyper::Error),
    /// It fell silent.
    #[error("nothing came for a minute")]
    Silent,
    /// It is no stream of events.
    #[error("no stream of events")]
    Form(#[from] TooLong),
    /// The gateway cannot read its log.
    #[error("the gateway cannot read its log: {0}")]
    Log(String),
}

/// One gateway's log.
#[derive(Debug)]
pub struct Log {
    http: Http,
    /// The last event that was seen.
    last: Option<u64>,
    stream: Option<Incoming>,
}

impl Log {
    /// Of the gateway with this admin listener. With `follow` the stream is opened at what happens next; without, the log
    /// is read from its beginning when the run is over.
    ///
    /// # Errors
    /// When the gateway does not answer, or has no local log.
    pub async fn open(http: Http, follow: bool) -> Result<Self, LocalError> {
        let mut log = Self { http, last: None, stream: None };
        // Asked in either case: a gateway without a local log should be known before the run, not after.
        let stream = log.ask("&from=earliest&follow=false").await?;
        if follow {
            log.stream = Some(log.ask("").await?);
        } else {
            drop(stream);
        }
        Ok(log)
    }

    /// Reads until `finish`, and then to the durable end.
    ///
    /// # Errors
    /// When the end cannot be reached.
    pub async fn read(
        mut self,
        ledger: &Mutex<Ledger>,
        finish: &CancellationToken,
    ) -> Result<(), LocalError> {
        if let Some(stream) = self.stream.take() {
            let mut stream = Some(stream);
            while !finish.is_cancelled() {
                let following = async {
                    match stream.take() {
                        Some(stream) => self.follow(stream, ledger).await,
                        None => {
                            tokio::time::sleep(PAUSE).await;
                            let from = self.from();
                            let again = self.ask(&from).await?;
                            self.follow(again, ledger).await
                        }
                    }
                };
                // Whatever broke, it is opened again; the last attempt below has the last word.
                drop(finish.run_until_cancelled(following).await);
            }
        } else {
            finish.cancelled().await;
        }
        let mut attempts = 0;
        loop {
            match self.read_to_end(ledger).await {
                Ok(()) => return Ok(()),
                Err(error) if attempts == LAST_ATTEMPTS => return Err(error),
                Err(_) => attempts += 1,
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn read_to_end(&mut self, ledger: &Mutex<Ledger>) -> Result<(), LocalError> {
        let stream = self.ask(&format!("{}&follow=false", self.from())).await?;
        self.follow(stream, ledger).await
    }

    fn from(&self) -> String {
        self.last.map_or_else(|| "&from=earliest".into(), |last| format!("&from={}", last + 1))
    }

    async fn ask(&self, query: &str) -> Result<Incoming, LocalError> {
        let path = format!("/api/v1/events?type={KIND}{query}");
        self.http.stream(&path).await.map_err(|error| LocalError::Http(self.http.base().to_owned(), error))
    }

    /// Reads a stream until it ends.
    async fn follow(&mut self, mut body: Incoming, ledger: &Mutex<Ledger>) -> Result<(), LocalError> {
        let mut stream = Stream::default();
        loop {
            let frame = tokio::time::timeout(SILENCE, body.frame()).await.map_err(|_| LocalError::Silent)?;
            let Some(frame) = frame else { return Ok(()) };
            let Ok(piece) = frame?.into_data() else { continue };
            let mut ledger = ledger.lock().unwrap_or_else(PoisonError::into_inner);
            let mut problem = None;
            stream.feed(&piece, |message| self.take(&message, &mut ledger, &mut problem))?;
            if let Some(problem) = problem {
                return Err(LocalError::Log(problem));
            }
        }
    }

    fn take(&mut self, message: &Message, ledger: &mut Ledger, problem: &mut Option<String>) {
        match message.name.as_str() {
            KIND => {
                self.last = message.id.or(self.last);
                ledger.take(&message.data);
            }
            "gap" | "missed" => ledger.gap(&String::from_utf8_lossy(&message.data)),
            "error" => *problem = Some(String::from_utf8_lossy(&message.data).into_owned()),
            _ => {}
        }
    }
}
