//! The lifecycle of one station: connect, exchange messages, reconnect, until it has drained.
//!
//! Owns the socket of its station, as its only reader and its only writer. The state machine decides what is sent, and when.

use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::{Either, select};
use futures_util::{SinkExt, StreamExt};
use tokio::time::Sleep;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_util::sync::{CancellationToken, WaitForCancellationFuture};

use super::Shared;
use super::socket::{Dialer, Socket};
use crate::station::{Behaviour, Ledger, Received, Station, Step};

/// How long a station waits for the gateway's close frame after its own.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// How a connection ended.
#[derive(Debug)]
enum Ending {
    /// The station has nothing left to do.
    Done,
    /// The run is over.
    Stopped,
    /// The scenario cuts the connection.
    Cut,
    /// The gateway closed it, or the network failed.
    Lost(String),
}

/// Runs a station until it has drained, or the run is over.
pub(super) async fn run(mut station: Station, dialer: Dialer, shared: Arc<Shared>) -> Ledger {
    // When the next connection is due. A failed attempt does not move it: the station has been waiting ever since.
    let mut due = station.connect_due();
    if !wait_until(due, &shared.drain).await {
        return station.into_ledger();
    }
    loop {
        if shared.drain.is_cancelled() {
            station.drain();
            if station.is_done() {
                return station.into_ledger();
            }
        }
        let dialing = dialer.dial(station.identity(), station.version());
        let Some(dialed) = shared.stop.run_until_cancelled(dialing).await else { break };
        let pause = match dialed {
            Ok(socket) => {
                let now = Instant::now();
                shared.tally().connected(now.saturating_duration_since(due));
                station.connected(now);
                let (behaviour, was_registered) = (station.behaviour(), station.was_registered());
                let ending =
                    Connection { station: &mut station, socket, shared: &shared, was_registered }.run().await;
                station.lost();
                let reason = if let Ending::Lost(reason) = &ending { Some(reason.as_str()) } else { None };
                shared.tally().left(behaviour, station.is_misbehaving(), reason);
                let pause = match ending {
                    Ending::Done | Ending::Stopped => break,
                    Ending::Cut => {
                        shared.tally().totals.counts.cut += 1;
                        Duration::ZERO
                    }
                    Ending::Lost(_) => station.backoff(),
                };
                due = Instant::now() + pause;
                pause
            }
            Err(refusal) => {
                shared.tally().failed(&refusal.to_string());
                station.backoff()
            }
        };
        if !wait_until(Instant::now() + pause, &shared.stop).await {
            break;
        }
    }
    station.into_ledger()
}

/// Waits until `due`; returns false if it was cancelled first.
async fn wait_until(due: Instant, cancelled: &CancellationToken) -> bool {
    cancelled.run_until_cancelled(tokio::time::sleep_until(due.into())).await.is_some()
}

/// One connection.
struct Connection<'a> {
    station: &'a mut Station,
    socket: Socket,
    shared: &'a Shared,
    was_registered: bool,
}

impl Connection<'_> {
    /// Does what is due and handles what arrives. Of several at the same time the first in this list wins:
    ///
    /// * the end of the run, which ends everything
    /// * the order to drain: no new CALLs
    /// * a text, a close frame or an error, unless the station has stopped reading
    /// * the station's next step
    async fn run(mut self) -> Ending {
        let shared = self.shared;
        let (mut stop, mut drain) = (pin!(shared.stop.cancelled()), pin!(shared.drain.cancelled()));
        let mut alarm = pin!(tokio::time::sleep_until(Instant::now().into()));
        let mut draining = false;
        loop {
            if let Err(ending) = self.act(stop.as_mut()).await {
                return ending;
            }
            if self.station.is_done() {
                self.close().await;
                return Ending::Done;
            }
            let next = self.station.next_at();
            set(alarm.as_mut(), next);
            tokio::select! {
                biased;
                () = stop.as_mut() => return Ending::Stopped,
                () = drain.as_mut(), if !draining => {
                    draining = true;
                    self.station.drain();
                }
                received = self.socket.next(), if !self.station.has_stopped_reading() => {
                    let Err(ending) = self.receive(received).await else { continue };
                    return ending;
                }
                () = alarm.as_mut(), if next.is_some() => {}
            }
        }
    }

    /// Does everything that is due, with one flush.
    async fn act(&mut self, stop: Pin<&mut WaitForCancellationFuture<'_>>) -> Result<(), Ending> {
        let now = Instant::now();
        let mut sent = false;
        let acting = async {
            while let Some(step) = self.station.step(now) {
                let message = match step {
                    Step::Send { text, lag } => {
                        self.shared.tally().sent(self.station.behaviour(), lag);
                        Message::text(text)
                    }
                    Step::Ping => {
                        self.shared.tally().totals.counts.pings += 1;
                        Message::Ping(bytes::Bytes::from_static(b"loadtest"))
                    }
                    Step::Cut => return Err(Ending::Cut),
                    Step::Changed => continue,
                };
                sent = true;
                self.socket.feed(message).await.map_err(lost)?;
            }
            if sent {
                self.socket.flush().await.map_err(lost)?;
            }
            Ok(())
        };
        // A gateway that does not read must not keep the run from ending.
        match select(pin!(acting), stop).await {
            Either::Left((acted, _)) => acted,
            Either::Right(_) => Err(Ending::Stopped),
        }
    }

    async fn receive(&mut self, received: Option<Result<Message, Error>>) -> Result<(), Ending> {
        match received {
            Some(Ok(Message::Text(text))) => {
                let received = self.station.receive(&text, Instant::now());
                self.handle(received).await
            }
            // The library answers pings itself.
            Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => Ok(()),
            Some(Ok(Message::Binary(_))) => self.handle(Received::Unexpected).await,
            Some(Ok(Message::Close(frame))) => {
                let code = frame.map_or_else(|| "no code".into(), |frame| u16::from(frame.code).to_string());
                Err(Ending::Lost(format!("closed by the gateway: {code}")))
            }
            Some(Err(error)) => Err(lost(error)),
            None => Err(Ending::Lost("ended without a close frame".into())),
        }
    }

    async fn handle(&mut self, received: Received) -> Result<(), Ending> {
        match received {
            Received::Answered { action, latency, refused } => {
                let mut tally = self.shared.tally();
                tally.answered(self.station.behaviour(), action, latency, refused);
                if self.station.was_registered() && !self.was_registered {
                    self.was_registered = true;
                    tally.totals.counts.registered += 1;
                }
                Ok(())
            }
            Received::Command(answer) => {
                self.shared.tally().totals.counts.commands += 1;
                self.socket.send(Message::text(answer)).await.map_err(lost)
            }
            Received::Unexpected => {
                self.shared.tally().totals.counts.unexpected += 1;
                Ok(())
            }
        }
    }

    /// Leaves as a station does that is switched off: with close frames both ways.
    async fn close(&mut self) {
        if self.station.behaviour() == Behaviour::SlowReader && self.station.has_stopped_reading() {
            return;
        }
        let closing = async {
            // The connection ends whatever arrives now.
            if self.socket.close(None).await.is_ok() {
                while let Some(Ok(_)) = self.socket.next().await {}
            }
        };
        // After a timeout, dropping the socket is all that is left to do.
        drop(tokio::time::timeout(CLOSE_TIMEOUT, closing).await);
    }
}

fn set(alarm: Pin<&mut Sleep>, next: Option<Instant>) {
    if let Some(next) = next
        && alarm.deadline() != next.into()
    {
        alarm.reset(next.into());
    }
}

fn lost(error: Error) -> Ending {
    Ending::Lost(match error {
        Error::Io(error) => format!("TCP: {}", error.kind()),
        Error::ConnectionClosed | Error::AlreadyClosed => "ended without a close frame".into(),
        other => other.to_string(),
    })
}
