//! The environment variables of the sub-commands. No configuration file is read: the gateway may be on another machine.

#[derive(Default, Debug)]
pub(super) struct Environment {
    /// `OCPP_GATEWAY_ADMIN`: the admin listener's address when `--admin` is not given.
    pub(super) admin: Option<String>,
    /// `NO_COLOR` disables colour (<https://no-color.org>).
    pub(super) no_color: bool,
}

impl Environment {
    /// A variable that is empty or not valid UTF-8 counts as unset.
    #[expect(clippy::disallowed_methods, reason = "the environment of the sub-commands is read only here")]
    pub(super) fn read() -> Self {
        let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        Self { admin: variable("OCPP_GATEWAY_ADMIN"), no_color: variable("NO_COLOR").is_some() }
    }
}
