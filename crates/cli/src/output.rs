//! The only writer of the standard output, and of the line on the standard error stream that reports a failure.
//!
//! Owns colours and escaping: what a station sends may contain control characters, which must not reach a terminal.

use std::borrow::Cow;
use std::io::{IsTerminal, Write};
use std::process::ExitCode;

/// The standard output, in colour or without.
#[derive(Debug)]
pub(super) struct Output {
    colours: bool,
}

/// What a colour stands for.
#[derive(Clone, Copy, Debug)]
pub(super) enum Colour {
    /// From the station.
    Inbound,
    /// To the station.
    Outbound,
    Good,
    Bad,
    /// Secondary: times, ids.
    Faint,
}

impl Output {
    /// Uses colours if they are wanted and the standard output is a terminal.
    pub(super) fn new(colours_wanted: bool) -> Self {
        Self { colours: colours_wanted && std::io::stdout().is_terminal() }
    }

    /// Writes a line and flushes it.
    ///
    /// # Errors
    /// When it cannot be written, for instance because the reader has closed the pipe.
    pub(super) fn line(&mut self, text: &str) -> std::io::Result<()> {
        // Locked once per line: the standard output is line-buffered and has no other writer.
        writeln!(std::io::stdout().lock(), "{text}")
    }

    pub(super) fn paint(&self) -> Paint {
        Paint { colours: self.colours }
    }
}

/// Colours text if the output takes colours.
#[derive(Clone, Copy, Debug)]
pub(super) struct Paint {
    pub(super) colours: bool,
}

impl Paint {
    /// Wraps the text in an SGR sequence of ECMA-48.
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

/// Escapes control characters as `\u001b` and the like, so that a terminal shows them and does not act on them.
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

/// Prints a line; the exit code is success if it could be written.
pub fn say(text: &str) -> ExitCode {
    match Output::new(false).line(text) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

/// Reports a failure on the standard error stream and returns the exit code.
pub fn fail(code: u8, text: &str) -> ExitCode {
    note(text);
    ExitCode::from(code)
}

/// Prints a line on the standard error stream. If that fails, only the exit code is left to tell.
pub(super) fn note(text: &str) {
    drop(writeln!(std::io::stderr(), "ocpp-gateway: {}", plain(text)));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_escaped() {
        assert_eq!(plain("Zähler 1"), "Zähler 1");
        assert_eq!(plain("a\x1b[2Jb\u{9b}c\nd\x7f"), "a\\u001b[2Jb\\u009bc\\u000ad\\u007f");
    }

    #[test]
    fn colours_are_only_for_terminals() {
        assert_eq!(Paint { colours: false }.text(Colour::Bad, "x"), "x");
        assert_eq!(Paint { colours: true }.text(Colour::Bad, "x"), "\x1b[31mx\x1b[0m");
    }
}
