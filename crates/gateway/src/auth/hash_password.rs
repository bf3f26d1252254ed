//! `ocpp-gateway hash-password`: hashes a password from the standard input for the credentials file.

use std::io::Read;

use clap::Args;

use super::password;

/// The options of `hash-password`.
#[derive(Args)]
pub struct Options {
    /// The input is the hex text of a key, as OCPP 1.6 stations are given it.
    #[arg(long)]
    hex: bool,
    /// Use a slow hash (Argon2id): for passwords that somebody chose. Random keys do not need it.
    #[arg(long)]
    slow: bool,
}

/// Hashes the password on the standard input, without one line break at its end.
///
/// # Errors
/// What is wrong with the input, in one line.
pub fn hash(options: &Options) -> Result<String, String> {
    let mut input = Vec::new();
    std::io::stdin().read_to_end(&mut input).map_err(|error| format!("cannot read the password: {error}"))?;
    if input.last() == Some(&b'\n') {
        input.pop();
    }
    if options.hex {
        let text = String::from_utf8(input).map_err(|_| "the input is not hex text")?;
        input = password::from_hex_any(text.trim()).ok_or("the input is not hex text")?;
    }
    if input.is_empty() {
        return Err("the password is empty".into());
    }
    if options.slow {
        password::hash_slow(&input).map_err(|error| error.to_string())
    } else {
        Ok(password::hash_fast(&input))
    }
}
