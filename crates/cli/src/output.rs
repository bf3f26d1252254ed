//! The one writer of the standard output, and the line on the standard error stream that a failure ends with.
//!
//! Owns colours and what must not reach a terminal: stations choose their words, and a terminal obeys some of them.

use std::borrow::Cow;
use std::io::{IsTerminal, Write};
use std::process::ExitCode;

/// The standard output.
#[derive(Debug)]
pub struct Output {
    colours: bool,
}

/// What a colour means.
#[derive(Clone, Copy, Debug)]
pub(super) enum Colour {
    /// From the station.
    Inbound,
    /// To the station.
    Outbound,
    /// Went well.
    Good,
    /// Did not.
    Bad,
    /// Of less interest.
    Faint,
}

impl Output {
    /// With colours if they are wanted and the output is a terminal.
    pub fn new(colours_wanted: bool) -> Self {
        Self { colours: colours_wanted && std::io::stdout().is_terminal() }
    }

    /// Writes a line, at once.
    ///
    /// # Errors
    /// When it cannot be written, for instance because the reader has gone.
    pub fn line(&mut self, text: &str) -> std::io::Result<()> {
        // A lock for each line: the standard output is line-buffered, and nobody else writes to it.
        writeln!(std::io::stdout().lock(), "{text}")
    }

    /// The painter for this output.
    pub(super) fn paint(&self) -> Paint {
        Paint { colours: self.colours }
    }
}

/// Colours texts, or leaves them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Paint {
    pub(super) colours: bool,
}

impl Paint {
    /// The text in a colour (ECMA-48 SGR), or as it is.
    pub(super) fn text(self, colour: Colour, text: &str) -> String {
        let code = match colour {
            Colour::Inbound => 36,
            Colour::Outbound => 35,
            Colour::Good => 32,
            Colour::Bad => 31,
            Colour::Faint => 2,
        };
        if self.colours { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

/// A text that a terminal shows and does not obey: control characters become `\u001b` and the like.
pub(super) fn plain(text: &str) -> Cow<'_, str> {
    if !text.chars().any(char::is_control) {
        return Cow::Borrowed(text);
    }
    let mut plain = String::with_capacity(text.len() + 8);
    for character in text.chars() {
        if character.is_control() {
            plain.push_str(&format!("\\u{:04x}", u32::from(character)));
        } else {
            plain.push(character);
        }
    }
    Cow::Owned(plain)
}

/// Says one thing and ends well.
pub fn say(text: &str) -> ExitCode {
    match Output::new(false).line(text) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

/// Says on the standard error stream what went wrong.
pub fn fail(code: u8, text: &str) -> ExitCode {
    note(text);
    ExitCode::from(code)
}

/// A line on the standard error stream. With nobody to read it, the exit code still tells.
pub(super) fn note(text: &str) {
    drop(writeln!(std::io::stderr(), "ocpp-gateway: {}", plain(text)));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminal_is_not_given_orders() {
        assert_eq!(plain("Zähler 1"), "Zähler 1");
        assert_eq!(plain("a\x1b[2Jb\u{9b}c\nd\x7f"), "a\\u001b[2Jb\\u009bc\\u000ad\\u007f");
    }

    #[test]
    fn colours_are_only_for_terminals() {
        assert_eq!(Paint { colours: false }.text(Colour::Bad, "x"), "x");
        assert_eq!(Paint { colours: true }.text(Colour::Bad, "x"), "\x1b[31mx\x1b[0m");
    }
}
