//! What can be found out about a start without starting: `check-config`.
//!
//! Owns only the list. Each part is asked by whoever would open it. Nothing is listened on, connected to, or left on the disk.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::path::Path;

use ocpp_bus::{Registrar, chain};

use super::derived;
use crate::auth::credentials::Credentials;
use crate::backend::Answers;
use crate::bus_options::BusKind;
use crate::config::Config;
use crate::listener;
use crate::listener::options::AuthMode;
use crate::settings::Resolver;
use crate::settings::metrics::SettingsMetrics;
use crate::spans::export::Exporter;

/// What is known of a start beforehand.
#[derive(Debug, Default)]
pub struct Preflight {
    /// Why it cannot succeed: a line each, for people.
    pub problems: Vec<String>,
    /// What may keep it from succeeding, as things are now.
    pub notes: Vec<String>,
}

impl Preflight {
    /// Looks at everything that the start needs.
    pub fn of(config: &Config) -> Self {
        let mut found = Self::default();
        found.look_at_addresses(config);
        found.look_at_folders(config);
        found.look_at_files(config);
        if config.bus.kind == BusKind::Kafka
            && let Err(error) = derived::kafka_options(config).check_client()
        {
            found.problems.push(format!("bus.kafka: {}", chain(&error)));
        }
        found
    }

    fn look_at_addresses(&mut self, config: &Config) {
        let listeners = config.listeners.iter();
        let stations = listeners.map(|(name, rules)| (format!("listeners.{name}.address"), rules.address));
        for (key, address) in stations.chain([("admin.address".to_owned(), config.admin.address)]) {
            self.look_at_address(&key, address);
        }
    }

    fn look_at_address(&mut self, key: &str, address: SocketAddr) {
        match listener::claim(address) {
            Ok(_) => {}
            // Most likely by the gateway whose configuration this is.
            Err(error) if error.kind() == ErrorKind::AddrInUse => {
                self.notes.push(format!("{key} {address} is in use now"));
            }
            Err(error) => self.problems.push(format!("{key} {address}: {error}")),
        }
    }

    fn look_at_folders(&mut self, config: &Config) {
        let mut folders = vec![("node.data_dir", &config.node.data_dir)];
        match config.bus.kind {
            BusKind::Local => folders.push(("bus.local.dir", &config.bus.local.dir)),
            BusKind::Kafka => folders.push(("bus.spool.dir", &config.bus.spool.dir)),
        }
        for (key, folder) in folders.into_iter().filter(|(_, folder)| !folder.as_os_str().is_empty()) {
            if let Err(error) = try_to_write(folder) {
                self.problems.push(format!("{key} {}: {error}", folder.display()));
            }
        }
    }

    fn look_at_files(&mut self, config: &Config) {
        if config.listeners.values().any(|listener| listener.auth == AuthMode::Basic)
            && let Err(error) = Credentials::read(&config.credentials.file)
        {
            self.problems.push(chain(&error));
        }
        // Counted by nobody.
        if let Ok(metrics) = SettingsMetrics::register(&Registrar::default())
            && let Err(error) = Resolver::open(
                derived::default_settings(config),
                derived::settings(config),
                config.rules.path(),
                metrics,
            )
        {
            self.problems.push(chain(&error));
        }
        self.problems
            .extend(Answers::problems(&derived::backend_rules(config)).iter().map(|error| chain(error)));
        if let Err(error) = Exporter::check(&config.telemetry) {
            self.problems.push(chain(&error));
        }
    }
}

/// Writes a file into the folder, or where the folder would be created, and removes it again.
fn try_to_write(folder: &Path) -> std::io::Result<()> {
    let existing = folder.ancestors().find(|one| one.exists()).filter(|one| !one.as_os_str().is_empty());
    let file =
        existing.unwrap_or_else(|| Path::new(".")).join(format!(".check-config-{}", std::process::id()));
    std::fs::File::create_new(&file)?;
    std::fs::remove_file(&file)
}
