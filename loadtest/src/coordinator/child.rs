//! A child process of the run.
//!
//! Owns the process: dropping it kills it. Its messages go into the coordinator's one channel.

use std::process::Stdio;

use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::BufReader;
use tokio::process::{ChildStdin, Command};
use tokio::sync::mpsc;
use tokio_util::task::TaskTracker;

use crate::pipe::{Incoming, Outgoing, PipeError};

/// A child process.
pub(super) struct Child {
    process: tokio::process::Child,
    outgoing: Outgoing<ChildStdin>,
}

impl Child {
    /// Starts this binary in another role.
    pub(super) fn start<T, M>(
        role: &str,
        tasks: &TaskTracker,
        sender: mpsc::Sender<M>,
        wrap: impl Fn(Result<T, PipeError>) -> M + Send + 'static,
    ) -> std::io::Result<Self>
    where
        T: DeserializeOwned + Send + 'static,
        M: Send + 'static,
    {
        let mut process = Command::new(std::env::current_exe()?)
            .arg(role)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            // Ctrl-C is for the coordinator, which ends the others in order.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()?;
        let missing = || std::io::Error::other("a pipe is missing");
        let outgoing = Outgoing::new(process.stdin.take().ok_or_else(missing)?);
        let incoming = Incoming::new(BufReader::new(process.stdout.take().ok_or_else(missing)?));
        incoming.forward(tasks, sender, wrap);
        Ok(Self { process, outgoing })
    }

    /// Sends a message. A process that is gone is noticed by the error at the end of its own pipe.
    pub(super) async fn send<T: Serialize>(&mut self, message: &T) {
        drop(self.outgoing.send(message).await);
    }

    /// Waits until it exits; kills it if it does not.
    pub(super) async fn end(mut self) {
        drop(self.outgoing);
        if tokio::time::timeout(TIMEOUT, self.process.wait()).await.is_err() {
            // Nothing else can be done about a process that cannot be killed.
            drop(self.process.kill().await);
        }
    }
}

/// How long a process may take to exit after its last message.
const TIMEOUT: std::time::Duration = std::time::Duration::from_secs(5);
