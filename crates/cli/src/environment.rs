//! What the commands take from the environment. They read no configuration file: they may run on another machine.

/// The variables that the commands know.
#[derive(Default, Debug)]
pub(super) struct Environment {
    /// `OCPP_GATEWAY_ADMIN`: where the admin listener is, for when `--admin` does not say.
    pub(super) admin: Option<String>,
    /// `NO_COLOR` has a value (<https://no-color.org>).
    pub(super) no_color: bool,
}

impl Environment {
    /// Reads the variables. One that is empty, or whose value is not text, counts as absent.
    #[expect(
        clippy::disallowed_methods,
        reason = "the commands read their environment here and nowhere else"
    )]
    pub(super) fn read() -> Self {
        let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        Self { admin: variable("OCPP_GATEWAY_ADMIN"), no_color: variable("NO_COLOR").is_some() }
    }
}
