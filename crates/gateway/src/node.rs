//! Options of the node itself: its name, its threads, the folders it keeps its state in, and how it shuts down.

use std::path::PathBuf;
use std::time::Duration;

use ocpp_options::{DurationText, Problems};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// This node.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(default)]
pub struct NodeOptions {
    /// Names this node in the `source` of events and in the Kafka client's id. 1 to 64 characters, unique in a cluster.
    pub id: String,
    /// The folder for everything kept on disk: `events/` (the local log), `stations/` (registrations, transaction ids and
    /// which sessions are open), `commands/` (commands that are queued, being sent, or ended), `undelivered/` (events that Kafka
    /// can never accept). It is locked: one process at a time.
    pub data_dir: PathBuf,
    /// This node's number among `count`, from 0.
    pub number: u16,
    /// How many nodes give out ids of OCPP 1.6 transactions that must differ; each needs a `number` of its own. The ids have 31 bits,
    /// which the nodes share. Choose it once, for as many nodes as there may be: after a change, ids may repeat those of other nodes.
    pub count: u16,
    /// Worker threads; 0 means one for each core.
    #[schemars(extend("x-tuning" = true))]
    pub worker_threads: usize,
}

impl Default for NodeOptions {
    fn default() -> Self {
        Self { id: "gw-1".into(), data_dir: PathBuf::from("data"), number: 0, count: 1, worker_threads: 0 }
    }
}

impl NodeOptions {
    /// The folder of the local event log, unless another is configured.
    pub fn events_dir(&self) -> PathBuf {
        self.data_dir.join("events")
    }

    /// The folder of the stations' states.
    pub fn stations_dir(&self) -> PathBuf {
        self.data_dir.join("stations")
    }

    /// The folder of the commands.
    pub fn commands_dir(&self) -> PathBuf {
        self.data_dir.join("commands")
    }

    /// The folder of the events that storage can never accept.
    pub fn dead_letter_dir(&self) -> PathBuf {
        self.data_dir.join("undelivered")
    }

    /// What is wrong with these values.
    pub fn check(&self, problems: &mut Problems) {
        let length = self.id.len();
        problems.demand((1..=64).contains(&length), "node.id must have 1 to 64 characters");
        problems.demand((1..=1024).contains(&self.count), "node.count must be between 1 and 1024");
        problems.demand(self.number < self.count, "node.number must be less than node.count");
    }
}

/// What SIGTERM does.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(default)]
pub struct ShutdownOptions {
    /// The process has exited by then, with exit code 0.
    #[serde(with = "DurationText")]
    pub deadline: Duration,
    /// Stations are closed (1001) evenly over this time, so that they do not come back all at once.
    #[serde(with = "DurationText")]
    pub close_spread: Duration,
}

impl Default for ShutdownOptions {
    fn default() -> Self {
        Self { deadline: Duration::from_secs(30), close_spread: Duration::from_secs(10) }
    }
}

impl ShutdownOptions {
    /// What is wrong with these values.
    pub fn check(&self, problems: &mut Problems) {
        problems.demand_positive("shutdown.deadline", self.deadline);
        problems.demand(
            self.close_spread < self.deadline,
            "shutdown.close_spread must be shorter than shutdown.deadline",
        );
    }
}
