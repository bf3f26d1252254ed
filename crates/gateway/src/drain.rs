//! Leaving gently (P8): unready, stop accepting, answer what is in flight, close stations over a configured time, make
//! every event durable, and be gone by the deadline.

use std::time::{Duration, Instant};

use crate::app::App;
use ocpp_station::CloseReason;

impl App {
    /// Takes everything down. Returns by `shutdown.deadline` at the latest.
    pub async fn drain(self) {
        let started = Instant::now();
        let deadline = started + self.config.shutdown.deadline;
        self.readiness.drain();
        self.stop_accepting.cancel();
        if let Some(intake) = &self.intake {
            intake.stop();
        }
        self.tasks.close();
        let sessions = self.registry.all();
        tracing::info!(sessions = sessions.len(), "leaving: no new stations, closing the connected ones");
        // The events of the last moment need a moment of their own.
        let flush = (self.config.shutdown.deadline / 4).min(Duration::from_secs(5));
        let in_time =
            tokio::time::timeout_at((deadline - flush).into(), Box::pin(self.close_stations(sessions)))
                .await
                .is_ok();
        if !in_time {
            tracing::warn!(
                sessions = self.registry.all().len(),
                "the deadline came before every station was closed"
            );
        }
        let (bus, journal) = (self.shared.bus.clone(), self.shared.journal.clone());
        let commands = self.shared.dispatcher.journal.clone();
        let intake = self.intake;
        let events = tokio::task::spawn_blocking(move || {
            // The offsets of commands go last but for what they rest on.
            if let Some(intake) = intake {
                intake.close(deadline);
            }
            bus.close(deadline)
        })
        .await;
        // An end that is not noted by then is told again by the next start, as the same event.
        drop(tokio::time::timeout_at(deadline.into(), self.shared.sessions.close()).await);
        let states =
            tokio::task::spawn_blocking(move || journal.close(deadline) + commands.close(deadline)).await;
        self.spans.finish(deadline).await;
        self.stop_rest.cancel();
        self.rest.close();
        match (events, states) {
            (Ok(0), Ok(0)) => {
                tracing::info!(seconds = started.elapsed().as_secs_f64(), "left; every event is durable")
            }
            (Ok(events), Ok(states)) => {
                tracing::warn!(
                    events,
                    states,
                    "left at the deadline; these were not durable and not answered"
                );
            }
            (Err(error), _) | (_, Err(error)) => tracing::error!(%error, "closing the bus failed"),
        }
    }

    async fn close_stations(&self, sessions: Vec<std::sync::Arc<crate::session::SessionHandle>>) {
        let spread = self.config.shutdown.close_spread;
        let count = u32::try_from(sessions.len()).unwrap_or(u32::MAX).max(1);
        let started = tokio::time::Instant::now();
        for (index, session) in (0_u32..).zip(&sessions) {
            tokio::time::sleep_until(started + spread * index / count).await;
            session.end(CloseReason::Shutdown);
        }
        // The stations admitted while the listeners were stopping.
        for session in self.registry.all() {
            session.end(CloseReason::Shutdown);
        }
        self.tasks.wait().await;
        // Every command that a session had is reported by now; its result is on its way.
        let commands = &self.shared.dispatcher.tasks;
        commands.close();
        commands.wait().await;
    }
}
