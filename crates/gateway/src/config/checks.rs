//! Whether the values make sense, each and together. Owns every limit that a key has.

use std::time::Duration;

use super::answers::{action_named, hook_target, is_stations};
use super::{AuthMode, BusKind, Config};
use crate::command::request::RATES;
use crate::spans::export::Endpoint;

impl Config {
    /// Everything that is wrong, one line each.
    pub(super) fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        let mut demand = |holds: bool, text: &str| {
            if !holds {
                problems.push(text.to_owned());
            }
        };
        demand(!self.node.id.is_empty() && self.node.id.len() <= 64, "node.id must have 1 to 64 characters");
        demand(!self.listeners.is_empty(), "listeners: at least one is needed");
        let counts = [
            ("handshake.max_arriving", self.handshake.max_arriving),
            ("handshake.max_concurrent", self.handshake.max_concurrent),
            ("session.max_unacknowledged", self.session.max_unacknowledged),
            ("session.command_queue", self.session.command_queue),
            ("credentials.slow_hash_threads", self.credentials.slow_hash_threads),
            ("registration.max_stations", self.registration.max_stations),
            ("admin.max_connections", self.admin.max_connections),
            ("bus.queue_events", self.bus.queue_events),
            ("commands.max_in_flight", self.commands.max_in_flight),
            ("commands.offline_queue", self.commands.offline_queue),
            ("commands.max_batches", self.commands.max_batches),
            ("commands.remembered", self.commands.remembered),
            ("hooks.max_in_flight", self.hooks.max_in_flight),
            ("hooks.max_waiting", self.hooks.max_waiting),
            ("telemetry.queue_spans", self.telemetry.queue_spans),
        ];
        for (key, count) in counts {
            demand((1..=100_000_000).contains(&count), &format!("{key} must be between 1 and 100 million"));
        }
        demand(
            self.session.ping_interval.is_zero() || self.session.ping_interval >= Duration::from_millis(10),
            "session.ping_interval must be 0s or at least 10ms",
        );
        demand(!self.handshake.timeout.is_zero(), "handshake.timeout must be positive");
        demand(self.handshake.backlog > 0, "handshake.backlog must be positive");
        demand(!self.credentials.reload_interval.is_zero(), "credentials.reload_interval must be positive");
        let message = self.session.max_message_size.as_u64();
        demand(
            (1024..=64 << 20).contains(&message),
            "session.max_message_size must be between 1 KiB and 64 MiB",
        );
        let buffer = self.session.read_buffer_size.as_u64();
        demand((512..=1 << 20).contains(&buffer), "session.read_buffer_size must be between 512 B and 1 MiB");
        demand(!self.session.idle_timeout.is_zero(), "session.idle_timeout must be positive");
        demand(!self.session.write_timeout.is_zero(), "session.write_timeout must be positive");
        demand(
            self.session.ping_interval.is_zero() || self.session.ping_interval < self.session.idle_timeout,
            "session.ping_interval must be shorter than session.idle_timeout",
        );
        demand(
            (1..=86_400 * 365).contains(&self.registration.interval.as_secs()),
            "registration.interval must be between 1s and a year: 0 would leave the station to choose",
        );
        demand(
            !self.commands.default_timeout.is_zero()
                && self.commands.default_timeout <= self.commands.max_timeout,
            "commands.default_timeout must be positive and not above commands.max_timeout",
        );
        demand(
            RATES.contains(&self.commands.batch_rate),
            "commands.batch_rate must be between 0.01 and 100000",
        );
        demand(!self.commands.offline_ttl.is_zero(), "commands.offline_ttl must be positive");
        demand(!self.commands.remember_for.is_zero(), "commands.remember_for must be positive");
        demand(
            !self.commands.consumer_group.is_empty() || self.topics.commands.is_empty(),
            "commands.consumer_group must not be empty while topics.commands is read",
        );
        demand(
            [self.hooks.connect_timeout, self.hooks.request_timeout, self.hooks.retry_pause]
                .iter()
                .all(|time| !time.is_zero()),
            "hooks.connect_timeout, hooks.request_timeout and hooks.retry_pause must be positive",
        );
        demand(self.hooks.breaker_failures > 0, "hooks.breaker_failures must be positive");
        demand(
            (1024..=64 << 20).contains(&self.hooks.max_response_size.as_u64()),
            "hooks.max_response_size must be between 1 KiB and 64 MiB",
        );
        demand(self.bus.queue_events >= 16, "bus.queue_events must be at least 16");
        let queue = self.bus.queue_bytes.as_u64();
        demand(queue < u64::from(u32::MAX), "bus.queue_bytes must be below 4 GiB");
        demand(queue >= 2 * message, "bus.queue_bytes must be at least twice session.max_message_size");
        let event = u64::try_from(self.max_event_bytes()).unwrap_or(u64::MAX);
        demand(
            self.bus.local.segment_size.as_u64() >= 2 * event,
            "bus.local.segment_size must be at least twice the largest event (session.max_message_size, or 1 MiB)",
        );
        demand(self.bus.local.linger <= Duration::from_secs(1), "bus.local.linger must be at most 1s");
        demand(self.bus.kafka.linger <= Duration::from_secs(1), "bus.kafka.linger must be at most 1s");
        let max_size = self.bus.local.max_size.as_u64();
        demand(
            max_size == 0 || max_size >= 2 * self.bus.local.segment_size.as_u64(),
            "bus.local.max_size must be 0 (unlimited) or at least twice bus.local.segment_size",
        );
        demand(
            self.bus.spool.max_size.as_u64() >= 16 * event,
            "bus.spool.max_size must be at least sixteen times the largest event",
        );
        demand(
            (0.0..=1.0).contains(&self.bus.spool.alarm_level),
            "bus.spool.alarm_level must be between 0 and 1",
        );
        demand(!self.bus.spool.after.is_zero(), "bus.spool.after must be positive");
        demand(
            self.bus.kind == BusKind::Kafka || self.bus.spool.dir.as_os_str().is_empty(),
            "bus.spool.dir is for bus.kind = \"kafka\": the local bus is a log already",
        );
        demand(
            (0.0..=1.0).contains(&self.bus.expendable.above),
            "bus.expendable.above must be between 0 and 1",
        );
        demand(
            self.bus.expendable.actions.iter().all(|action| ocpp_protocol::Action::find(action).is_some()),
            "bus.expendable.actions must be OCPP actions",
        );
        let telemetry = &self.telemetry;
        demand((0.0..=1.0).contains(&telemetry.sampling), "telemetry.sampling must be between 0 and 1");
        demand(
            !telemetry.export_interval.is_zero() && !telemetry.export_timeout.is_zero(),
            "telemetry.export_interval and telemetry.export_timeout must be positive",
        );
        demand(!self.shutdown.deadline.is_zero(), "shutdown.deadline must be positive");
        demand(
            self.shutdown.close_spread < self.shutdown.deadline,
            "shutdown.close_spread must be shorter than shutdown.deadline",
        );
        if !telemetry.otlp_endpoint.is_empty()
            && let Err(error) = Endpoint::parse(&telemetry.otlp_endpoint, telemetry.protocol)
        {
            problems.push(format!("telemetry.otlp_endpoint: {error}"));
        }
        self.answer_problems(&mut problems);
        let mut addresses = vec![("admin.address".to_owned(), self.admin.address)];
        for (name, listener) in &self.listeners {
            if listener.auth == AuthMode::Basic && self.credentials.file.as_os_str().is_empty() {
                problems.push(format!("listeners.{name}.auth = \"basic\" needs credentials.file"));
            }
            if listener.subprotocols.0.is_empty() {
                problems.push(format!("listeners.{name}.subprotocols must not be empty"));
            }
            if let Err(error) = crate::stations::check_tags(&listener.tags) {
                problems.push(format!("listeners.{name}.tags: {error}"));
            }
            if !listener.path_prefix.is_empty()
                && (!listener.path_prefix.starts_with('/') || listener.path_prefix.ends_with('/'))
            {
                problems.push(format!("listeners.{name}.path_prefix must start with / and not end with it"));
            }
            let key = format!("listeners.{name}.address");
            if listener.address.port() != 0
                && let Some((other, _)) = addresses.iter().find(|(_, address)| *address == listener.address)
            {
                problems.push(format!("{key} and {other} are the same"));
            }
            addresses.push((key, listener.address));
        }
        if let Err(error) = self.log.level.parse::<tracing_subscriber::EnvFilter>() {
            problems.push(format!("log.level: {error}"));
        }
        if self.bus.kind == BusKind::Kafka
            && let Err(error) = self.kafka_options().check()
        {
            problems.push(format!("bus.kafka: {error}"));
        }
        problems
    }

    fn answer_problems(&self, problems: &mut Vec<String>) {
        for (name, answer) in &self.answers.actions {
            if !action_named(name).is_some_and(is_stations) {
                problems.push(format!("answers.{name}: stations never call {name}; remove the table"));
            }
            if !(SHORTEST_WAIT..=LONGEST_WAIT).contains(&answer.deadline) {
                problems.push(format!(
                    "answers.{name}.deadline must be between {SHORTEST_WAIT:?} and {LONGEST_WAIT:?}: stations stop waiting, too"
                ));
            }
            if !answer.url.is_empty()
                && let Err(problem) = hook_target(&answer.url)
            {
                problems.push(format!("answers.{name}.url: {problem}"));
            }
            if answer.url.is_empty() && !answer.bearer_token_file.as_os_str().is_empty() {
                problems.push(format!("answers.{name}.bearer_token_file needs answers.{name}.url"));
            }
        }
    }
}

/// A backend that has less time could never answer.
const SHORTEST_WAIT: Duration = Duration::from_millis(10);
/// OCPP 2.1 Part 2, 3.2, suggests that a station waits 30 s for an answer; nobody waits longer than this.
const LONGEST_WAIT: Duration = Duration::from_secs(120);
