//! Whether a text is a date and time, as RFC 3339 writes it or as some stations do.
//!
//! Owns the two grammars. Does not convert: nothing in this crate needs the value.

/// How a text writes a date and time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum TimeForm {
    /// RFC 3339 with any number of fractional digits: `2026-11-20T10:30:00.5+01:00`.
    Rfc3339,
    /// A point in time that a person would understand, in another form of ISO 8601: without a zone, with `+02` or `+0200`,
    /// without seconds or time of day, with a comma or a space.
    Other,
    /// No date and time.
    None,
}

/// How `text` writes a date and time.
pub(crate) fn form_of(text: &str) -> TimeForm {
    let mut reader = Reader { rest: text.as_bytes(), is_strict: true };
    match reader.date_time() {
        Some(()) if !reader.rest.is_empty() => TimeForm::None,
        Some(()) if reader.is_strict => TimeForm::Rfc3339,
        Some(()) => TimeForm::Other,
        None => TimeForm::None,
    }
}

struct Reader<'a> {
    rest: &'a [u8],
    /// Everything so far is as in RFC 3339.
    is_strict: bool,
}

impl Reader<'_> {
    fn date_time(&mut self) -> Option<()> {
        self.date()?;
        if self.rest.is_empty() {
            return self.lax();
        }
        match self.next()? {
            b'T' | b't' => {}
            b' ' => self.lax()?,
            _ => return None,
        }
        self.time()?;
        self.zone()
    }

    fn date(&mut self) -> Option<()> {
        let year = self.number(4, 0..=9999)?;
        self.expect(b'-')?;
        let month = self.number(2, 1..=12)?;
        self.expect(b'-')?;
        let is_leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
        let days = match month {
            2 if is_leap => 29,
            2 => 28,
            4 | 6 | 9 | 11 => 30,
            _ => 31,
        };
        self.number(2, 1..=days).map(drop)
    }

    fn time(&mut self) -> Option<()> {
        self.number(2, 0..=23)?;
        self.expect(b':')?;
        self.number(2, 0..=59)?;
        if !self.take(b':') {
            return self.lax();
        }
        // 60 is a leap second.
        self.number(2, 0..=60)?;
        if self.take(b',') {
            self.lax()?;
        } else if !self.take(b'.') {
            return Some(());
        }
        let digits = self.rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
        self.rest = self.rest.get(digits..)?;
        (digits > 0).then_some(())
    }

    fn zone(&mut self) -> Option<()> {
        if self.rest.is_empty() {
            return self.lax();
        }
        match self.next()? {
            b'Z' | b'z' => return Some(()),
            b'+' | b'-' => {}
            _ => return None,
        }
        self.number(2, 0..=23)?;
        if self.rest.is_empty() {
            return self.lax();
        }
        if !self.take(b':') {
            self.lax()?;
        }
        self.number(2, 0..=59).map(drop)
    }

    /// Notes that RFC 3339 would not write it so.
    fn lax(&mut self) -> Option<()> {
        self.is_strict = false;
        Some(())
    }

    fn next(&mut self) -> Option<u8> {
        let (first, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(*first)
    }

    fn take(&mut self, byte: u8) -> bool {
        let is_next = self.rest.first() == Some(&byte);
        if is_next {
            self.rest = self.rest.get(1..).unwrap_or_default();
        }
        is_next
    }

    fn expect(&mut self, byte: u8) -> Option<()> {
        self.take(byte).then_some(())
    }

    fn number(&mut self, digits: usize, range: std::ops::RangeInclusive<u32>) -> Option<u32> {
        let (number, rest) = self.rest.split_at_checked(digits)?;
        self.rest = rest;
        let value = number
            .iter()
            .try_fold(0, |value, byte| byte.is_ascii_digit().then(|| value * 10 + u32::from(byte - b'0')))?;
        range.contains(&value).then_some(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rfc_3339_is_told_from_its_relatives_and_from_nonsense() {
        for text in [
            "2026-11-20T10:30:00Z",
            "2026-11-20t10:30:00z",
            "2026-11-20T10:30:00.1Z",
            "2026-11-20T10:30:00.123456789012Z",
            "2026-11-20T10:30:00+01:00",
            "2026-11-20T10:30:00.5-23:59",
            "2024-02-29T23:59:60Z",
            "2000-02-29T00:00:00Z",
            "0000-01-01T00:00:00Z",
        ] {
            assert_eq!(form_of(text), TimeForm::Rfc3339, "{text}");
        }
        for text in [
            "2026-11-20T10:30:00",
            "2026-11-20T10:30:00.1234567",
            "2026-11-20T10:30:00+02",
            "2026-11-20T10:30:00+0200",
            "2026-11-20T10:30Z",
            "2026-11-20 10:30:00Z",
            "2026-11-20T10:30:00,5Z",
            "1970-01-01",
        ] {
            assert_eq!(form_of(text), TimeForm::Other, "{text}");
        }
        for text in [
            "",
            "hello",
            "2026",
            "2026-11",
            "2026-13-20T10:30:00Z",
            "2026-00-20T10:30:00Z",
            "2026-11-31T10:30:00Z",
            "2026-02-29T10:30:00Z",
            "1900-02-29T10:30:00Z",
            "2026-11-20T24:00:00Z",
            "2026-11-20T10:60:00Z",
            "2026-11-20T10:30:61Z",
            "2026-11-20T10:30:00.Z",
            "2026-11-20T10:30:00+24:00",
            "2026-11-20T10:30:00+1:00",
            "2026-11-20T10:30:00Z ",
            " 2026-11-20T10:30:00Z",
            "2026-11-20T10:30:00ZZ",
            "2026-11-20T",
            "2026-11-20T10",
            "+2026-11-20T10:30:00Z",
            "2026-1-20T10:30:00Z",
            "20261120T103000Z",
            "2026-11-20T10:30:00\u{ff3a}",
            "\u{661}026-11-20T10:30:00Z",
        ] {
            assert_eq!(form_of(text), TimeForm::None, "{text}");
        }
    }
}
