//! What the command-line client takes from the environment. It reads no configuration file: it may run on another machine.

/// The environment of a command that asks a running gateway.
#[derive(Clone, Default, Debug)]
pub struct ClientEnvironment {
    /// `OCPP_GATEWAY_ADMIN`: where the admin listener is, for when `--admin` does not say.
    pub admin: Option<String>,
    /// `NO_COLOR` is set to something (<https://no-color.org>).
    pub no_color: bool,
}

impl ClientEnvironment {
    /// Reads the variables. One that is empty, or whose value is not text, counts as absent.
    #[expect(clippy::disallowed_methods, reason = "the configuration is what reads the environment")]
    pub fn read() -> Self {
        let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        Self { admin: variable("OCPP_GATEWAY_ADMIN"), no_color: variable("NO_COLOR").is_some() }
    }
}
