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
use super::socket::{Door, Socket};
use crate::station::{Behaviour, Ledger, Received, Station, Step};

/// How long a station waits for the gateway's close frame after its own.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// How a connection ended.
#[derive(Debug)]
enum Parting {
    /// The station has nothing left to do.
    Done,
    /// The run is over.
    End,
    /// The scenario cuts the connection.
    Cut,
    /// The gateway closed it, or the network failed.
    Lost(String),
}

/// Runs a station until it has drained, or the run is over.
pub(super) async fn live(mut station: Station, door: Door, shared: Arc<Shared>) -> Ledger {
    // When the next connection is due. A failed attempt does not move it: the station has been waiting ever since.
    let mut due = station.connect_due();
    if !wait_until(due, &shared.rest).await {
        return station.into_ledger();
    }
    loop {
        if shared.rest.is_cancelled() {
            station.rest();
            if station.is_done() {
                return station.into_ledger();
            }
        }
        let opening = door.open(station.identity(), station.version());
        let Some(opened) = shared.end.run_until_cancelled(opening).await else { break };
        let pause = match opened {
            Ok(socket) => {
                let now = Instant::now();
                shared.tally().connected(now.saturating_duration_since(due));
                station.connected(now);
                let (behaviour, was_registered) = (station.behaviour(), station.was_registered());
                let parting = Conversation { station: &mut station, socket, shared: &shared, was_registered }
                    .hold()
                    .await;
                station.lost();
                let reason = if let Parting::Lost(reason) = &parting { Some(reason.as_str()) } else { None };
                shared.tally().left(behaviour, station.is_misbehaving(), reason);
                let pause = match parting {
                    Parting::Done | Parting::End => break,
                    Parting::Cut => {
                        shared.tally().totals.counts.cut += 1;
                        Duration::ZERO
                    }
                    Parting::Lost(_) => station.pause(),
                };
                due = Instant::now() + pause;
                pause
            }
            Err(refusal) => {
                shared.tally().failed(&refusal.to_string());
                station.pause()
            }
        };
        if !wait_until(Instant::now() + pause, &shared.end).await {
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
struct Conversation<'a> {
    station: &'a mut Station,
    socket: Socket,
    shared: &'a Shared,
    was_registered: bool,
}

impl Conversation<'_> {
    /// Does what is due and handles what arrives. Of several at the same time the first in this list wins:
    ///
    /// * the end of the run, which ends everything
    /// * the order to drain: no new CALLs
    /// * a text, a close frame or an error, unless the station has stopped reading
    /// * the station's next step
    async fn hold(mut self) -> Parting {
        let shared = self.shared;
        let (mut end, mut rest) = (pin!(shared.end.cancelled()), pin!(shared.rest.cancelled()));
        let mut alarm = pin!(tokio::time::sleep_until(Instant::now().into()));
        let mut resting = false;
        loop {
            if let Err(parting) = self.act(end.as_mut()).await {
                return parting;
            }
            if self.station.is_done() {
                self.close().await;
                return Parting::Done;
            }
            let next = self.station.next_at();
            set(alarm.as_mut(), next);
            tokio::select! {
                biased;
                () = end.as_mut() => return Parting::End,
                () = rest.as_mut(), if !resting => {
                    resting = true;
                    self.station.rest();
                }
                received = self.socket.next(), if !self.station.is_deaf() => {
                    let Err(parting) = self.receive(received).await else { continue };
                    return parting;
                }
                () = alarm.as_mut(), if next.is_some() => {}
            }
        }
    }

    /// Does everything that is due, with one flush.
    async fn act(&mut self, end: Pin<&mut WaitForCancellationFuture<'_>>) -> Result<(), Parting> {
        let now = Instant::now();
        let mut said = false;
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
                    Step::Cut => return Err(Parting::Cut),
                    Step::Changed => continue,
                };
                said = true;
                self.socket.feed(message).await.map_err(lost)?;
            }
            if said {
                self.socket.flush().await.map_err(lost)?;
            }
            Ok(())
        };
        // A gateway that does not read must not keep the run from ending.
        match select(pin!(acting), end).await {
            Either::Left((acted, _)) => acted,
            Either::Right(_) => Err(Parting::End),
        }
    }

    async fn receive(&mut self, received: Option<Result<Message, Error>>) -> Result<(), Parting> {
        match received {
            Some(Ok(Message::Text(text))) => {
                let received = self.station.receive(&text, Instant::now());
                self.note(received).await
            }
            // The library answers pings itself.
            Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => Ok(()),
            Some(Ok(Message::Binary(_))) => self.note(Received::Unexpected).await,
            Some(Ok(Message::Close(frame))) => {
                let code = frame.map_or_else(|| "no code".into(), |frame| u16::from(frame.code).to_string());
                Err(Parting::Lost(format!("closed by the gateway: {code}")))
            }
            Some(Err(error)) => Err(lost(error)),
            None => Err(Parting::Lost("ended without a close frame".into())),
        }
    }

    async fn note(&mut self, received: Received) -> Result<(), Parting> {
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
        if self.station.behaviour() == Behaviour::SlowReader && self.station.is_deaf() {
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

fn lost(error: Error) -> Parting {
    Parting::Lost(match error {
        Error::Io(error) => format!("TCP: {}", error.kind()),
        Error::ConnectionClosed | Error::AlreadyClosed => "ended without a close frame".into(),
        other => other.to_string(),
    })
}
