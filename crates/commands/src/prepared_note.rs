//! The note that a command is about to be sent, on its way to the journal of the commands.

use ocpp_bus::{Publisher, Record};

/// The note that a command is about to be sent. It must be durable first, or a crash could make the command go out twice.
#[derive(Debug)]
pub struct PreparedNote {
    publisher: Publisher,
    note: Option<Record>,
}

impl PreparedNote {
    pub(crate) fn new(publisher: Publisher, note: Record) -> Self {
        Self { publisher, note: Some(note) }
    }

    /// Waits until the note is durable. Cancel-safe.
    pub async fn durable(&mut self) {
        while let Some(note) = self.note.take() {
            if let Err(note) = self.publisher.try_publish(note) {
                let cost = note.cost();
                self.note = Some(note);
                self.publisher.reserve(cost).await;
            }
        }
        self.publisher.watermark().wait(self.publisher.published()).await;
    }
}
