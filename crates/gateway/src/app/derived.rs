//! What follows from the options of several features at once.

use std::collections::HashMap;

use ocpp_bus::kafka::KafkaOptions;
use ocpp_bus::kafka::consumer::ConsumerOptions;
use ocpp_commands::Limits;

use crate::backend::Rules;
use crate::bus_options::BusKind;
use crate::config::Config;
use crate::listener::options::ListenerOptions;
use crate::settings::Settings;
use crate::settings::overrides::Fallbacks;

/// The rules that sessions keep.
fn session_options(config: &Config) -> ocpp_station::Options {
    let session = &config.session;
    ocpp_station::Options {
        max_unacknowledged: session.max_unacknowledged,
        ping_interval: session.ping_interval,
        idle_timeout: session.idle_timeout,
        write_timeout: session.write_timeout,
        close_timeout: session.close_timeout,
        hold_limit: config.bus.hold_limit,
        grace: config.commands.grace,
        before_boot: config.registration.before_boot,
        trigger_boot: config.registration.trigger_boot,
        boot_interval: config.registration.interval,
        authorization: config.answers.authorization,
        validation: config.validation.rules(),
        lenient: false,
        fractional_seconds: config.answers.fractional_seconds,
        close_after_timeouts: config.commands.close_after_timeouts,
    }
}

/// What holds for stations, whatever their listener says.
pub(super) fn default_settings(config: &Config) -> Settings {
    let default = ListenerOptions::default();
    Settings {
        session: session_options(config),
        subprotocols: default.subprotocols.0,
        fallback: Fallbacks::default(),
    }
}

/// What the configuration says of stations, by listener.
pub(super) fn settings(config: &Config) -> HashMap<String, Settings> {
    let of = |listener: &ListenerOptions| Settings {
        session: ocpp_station::Options { lenient: listener.lenient, ..session_options(config) },
        subprotocols: listener.subprotocols.0.clone(),
        fallback: Fallbacks::default(),
    };
    config.listeners.iter().map(|(name, listener)| (name.clone(), of(listener))).collect()
}

/// What answers by a backend depend on.
pub(super) fn backend_rules(config: &Config) -> Rules<'_> {
    Rules {
        answers: &config.answers,
        hooks: &config.hooks,
        // What is larger would not fit into the event of the answer.
        largest: config.session.max_message_size.as_u64(),
    }
}

/// What a command may ask for, and how much is remembered.
pub(super) fn command_limits(config: &Config) -> Limits {
    config.commands.limits(config.session.max_message_size.as_u64())
}

/// Where commands are read from; nowhere on the local bus.
pub(super) fn consumer_options(config: &Config) -> Option<ConsumerOptions> {
    let is_read = config.bus.kind == BusKind::Kafka && !config.topics.commands.is_empty();
    is_read.then(|| ConsumerOptions {
        topic: config.topics.commands.clone(),
        group: config.commands.consumer_group.clone(),
        most_open: config.commands.max_in_flight,
        // What a crash brings again must still be known.
        widest: (config.commands.remembered / 2).max(1),
        max_value_bytes: config.session.max_event_bytes(),
    })
}

/// What the Kafka client and the spool beside it are told.
pub(super) fn kafka_options(config: &Config) -> KafkaOptions {
    config.bus.kafka(&config.node, &config.topics, config.session.max_event_bytes())
}
