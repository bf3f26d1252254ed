//! Events from the gateways' local logs, through `GET /api/v1/events`.
//!
//! Owns the position in each log. A broken stream is opened again after the last event that was received; a gap that the log
//! itself reports is recorded.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use http_body_util::BodyExt;
use hyper::body::Incoming;
use thiserror::Error;
use tokio_util::sync::CancellationToken;

use super::checker::Checker;
use super::sse::{Message, Stream, TooLong};
use crate::http::{Http, HttpError};

/// The only type of interest; the gateway leaves out the others.
const KIND: &str = "ocpp.message.received";
/// Delay before a broken stream is opened again.
const RETRY_DELAY: Duration = Duration::from_millis(500);
/// Attempts to reach a gateway at the end, one each [`RETRY_DELAY`].
const MAX_ATTEMPTS: u32 = 60;
/// How long a stream may be silent; it sends a comment at least every 15 seconds.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);

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
    #[error("no data for a minute")]
    Silent,
    /// The response is not an event stream.
    #[error("not an event stream")]
    Form(#[from] TooLong),
    /// The gateway cannot read its log.
    #[error("the gateway cannot read its log: {0}")]
    Log(String),
}

/// One gateway's log.
#[derive(Debug)]
pub struct Log {
    http: Http,
    /// Position of the last event that was received.
    last: Option<u64>,
    stream: Option<Incoming>,
}

impl Log {
    /// Opens the log behind this admin listener. With `follow` the stream starts at the next event; without it, the log is read
    /// from its beginning when the run is over.
    ///
    /// # Errors
    /// When the gateway does not answer, or has no local log.
    pub async fn open(http: Http, follow: bool) -> Result<Self, LocalError> {
        let mut log = Self { http, last: None, stream: None };
        // Requested in either case: a gateway without a local log should be noticed before the run, not after.
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
        checker: &Mutex<Checker>,
        finish: &CancellationToken,
    ) -> Result<(), LocalError> {
        if let Some(stream) = self.stream.take() {
            let mut stream = Some(stream);
            while !finish.is_cancelled() {
                let following = async {
                    match stream.take() {
                        Some(stream) => self.follow(stream, checker).await,
                        None => {
                            tokio::time::sleep(RETRY_DELAY).await;
                            let from = self.from();
                            let again = self.ask(&from).await?;
                            self.follow(again, checker).await
                        }
                    }
                };
                // A broken stream is opened again; if that fails to the end, the last attempts below report it.
                drop(finish.run_until_cancelled(following).await);
            }
        } else {
            finish.cancelled().await;
        }
        let mut attempts = 0;
        loop {
            match self.read_to_end(checker).await {
                Ok(()) => return Ok(()),
                Err(error) if attempts == MAX_ATTEMPTS => return Err(error),
                Err(_) => attempts += 1,
            }
            tokio::time::sleep(RETRY_DELAY).await;
        }
    }

    async fn read_to_end(&mut self, checker: &Mutex<Checker>) -> Result<(), LocalError> {
        let stream = self.ask(&format!("{}&follow=false", self.from())).await?;
        self.follow(stream, checker).await
    }

    fn from(&self) -> String {
        self.last.map_or_else(|| "&from=earliest".into(), |last| format!("&from={}", last + 1))
    }

    async fn ask(&self, query: &str) -> Result<Incoming, LocalError> {
        let path = format!("/api/v1/events?type={KIND}{query}");
        self.http.stream(&path).await.map_err(|error| LocalError::Http(self.http.base().to_owned(), error))
    }

    /// Reads a stream until it ends.
    async fn follow(&mut self, mut body: Incoming, checker: &Mutex<Checker>) -> Result<(), LocalError> {
        let mut stream = Stream::default();
        loop {
            let frame =
                tokio::time::timeout(IDLE_TIMEOUT, body.frame()).await.map_err(|_| LocalError::Silent)?;
            let Some(frame) = frame else { return Ok(()) };
            let Ok(piece) = frame?.into_data() else { continue };
            let mut checker = checker.lock().unwrap_or_else(PoisonError::into_inner);
            let mut problem = None;
            stream.feed(&piece, |message| self.take(&message, &mut checker, &mut problem))?;
            if let Some(problem) = problem {
                return Err(LocalError::Log(problem));
            }
        }
    }

    fn take(&mut self, message: &Message, checker: &mut Checker, problem: &mut Option<String>) {
        match message.name.as_str() {
            KIND => {
                self.last = message.id.or(self.last);
                checker.record(&message.data);
            }
            "gap" | "missed" => checker.gap(&String::from_utf8_lossy(&message.data)),
            "error" => *problem = Some(String::from_utf8_lossy(&message.data).into_owned()),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;
    use tokio_util::task::TaskTracker;

    use super::*;

    /// Answers one request with this body, then closes or breaks the connection; returns the path that was requested.
    async fn serve(listener: &TcpListener, body: &str, whole: bool) -> String {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut request = vec![0; 4096];
        let length = stream.read(&mut request).await.unwrap();
        let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
        let chunk = format!("{:x}\r\n{body}\r\n", body.len());
        let end = if whole { "0\r\n\r\n" } else { "" };
        let chunk = if body.is_empty() { String::new() } else { chunk };
        stream.write_all(format!("{head}{chunk}{end}").as_bytes()).await.unwrap();
        let request = String::from_utf8_lossy(&request[..length]).into_owned();
        request.split(' ').nth(1).unwrap().to_owned()
    }

    fn event(position: u64) -> String {
        format!(
            "id: {position}\nevent: {KIND}\ndata: {{\"id\":\"e{position}\",\"type\":\"{KIND}\",\"subject\":\"x\",\"data\":{{}}}}\n\n"
        )
    }

    async fn stage(follow: bool) -> (TcpListener, tokio::task::JoinHandle<Result<Log, LocalError>>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let tasks = TaskTracker::new();
        let http = Http::new(&format!("http://{}", listener.local_addr().unwrap()), tasks.clone());
        (listener, tasks.spawn(Log::open(http, follow)))
    }

    fn checker() -> Arc<Mutex<Checker>> {
        Arc::new(Mutex::new(Checker::new("LT-", "r1", 1, false)))
    }

    #[tokio::test]
    async fn a_stream_that_breaks_is_opened_again_after_the_last_event() {
        let (listener, opening) = stage(true).await;
        let asked = serve(&listener, "", true).await;
        assert!(asked.ends_with("&from=earliest&follow=false"), "{asked}");
        let asked = serve(&listener, &(event(7) + &event(9)), false).await;
        assert!(asked.ends_with(&format!("?type={KIND}")), "{asked}");
        let log = opening.await.unwrap().unwrap();
        let (checker, finish) = (checker(), CancellationToken::new());
        let reading = {
            let (checker, finish) = (Arc::clone(&checker), finish.clone());
            TaskTracker::new().spawn(async move { log.read(&checker, &finish).await })
        };
        let asked =
            serve(&listener, &(event(10) + "event: gap\ndata: {\"from\":11,\"to\":12}\n\n"), false).await;
        assert!(asked.ends_with("&from=10"), "{asked}");
        let asked = serve(&listener, "", false).await;
        assert!(asked.ends_with("&from=11"), "{asked}");
        finish.cancel();
        // The reopened stream may or may not be requested once more before the end is noticed.
        let mut asked = serve(&listener, "", true).await;
        if !asked.ends_with("&follow=false") {
            asked = serve(&listener, "", true).await;
        }
        assert!(asked.ends_with("&from=11&follow=false"), "{asked}");
        reading.await.unwrap().unwrap();
        let checker = std::mem::replace(&mut *checker.lock().unwrap(), Checker::new("", "", 0, false));
        let verdict = checker.compare(&[]);
        assert_eq!((verdict.events, verdict.gaps), (3, 1));
    }

    #[tokio::test]
    async fn after_the_run_the_whole_log_is_read_at_once() {
        let (listener, opening) = stage(false).await;
        serve(&listener, "", true).await;
        let log = opening.await.unwrap().unwrap();
        let (checker, finish) = (checker(), CancellationToken::new());
        finish.cancel();
        let reading = log.read(&checker, &finish);
        let events = event(1) + &event(2);
        let (read, asked) = tokio::join!(reading, serve(&listener, &events, true));
        read.unwrap();
        assert!(asked.ends_with("&from=earliest&follow=false"), "{asked}");
        assert_eq!(checker.lock().unwrap().read().0, 2);
    }

    #[tokio::test]
    async fn a_log_that_the_gateway_cannot_read_is_an_error() {
        let (listener, opening) = stage(false).await;
        serve(&listener, "", true).await;
        let mut log = opening.await.unwrap().unwrap();
        let checker = checker();
        let reading = log.read_to_end(&checker);
        let (read, _) = tokio::join!(reading, serve(&listener, "event: error\ndata: broken\n\n", true));
        assert!(matches!(read, Err(LocalError::Log(problem)) if problem == "broken"));
    }
}
