//! Chooses among a client's offers of permessage-deflate (RFC 7692 section 7.1).
//!
//! The server demands `no_context_takeover` in both directions, whether or not the client offered it, as sections 7.1.1.1 and
//! 7.1.1.2 allow, so that no connection needs a codec of its own. It respects the window that a client asks it to use. It does not
//! limit the client's window, because it inflates with the largest one.

use crate::codec::WINDOW_BITS;

/// The largest window, which is also the default.
const LARGEST_WINDOW_BITS: u8 = 15;

/// A header that does not follow the grammar of RFC 6455 section 9.1. The handshake must fail.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the Sec-WebSocket-Extensions header is malformed")]
pub struct MalformedOffer;

/// permessage-deflate as negotiated, without context takeover in either direction.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Deflate {
    /// As the client asked.
    server_max_window_bits: Option<u8>,
}

impl Deflate {
    /// Reads every `Sec-WebSocket-Extensions` line of a request, in order, and accepts the first acceptable offer. Offers with a
    /// parameter that is unknown, repeated, invalid or not supported by the codec are declined.
    ///
    /// # Errors
    /// If a line is malformed, even one about another extension.
    pub fn negotiate<'a>(lines: impl IntoIterator<Item = &'a [u8]>) -> Result<Option<Self>, MalformedOffer> {
        let mut accepted = None;
        for line in lines {
            let mut reader = Reader { rest: line };
            while let Some(offer) = reader.offer()? {
                if accepted.is_none() && offer.name == b"permessage-deflate" {
                    accepted = Self::accept(&offer.parameters);
                }
            }
        }
        Ok(accepted)
    }

    fn accept(parameters: &[Parameter<'_>]) -> Option<Self> {
        let mut deflate = Self { server_max_window_bits: None };
        for (place, (name, value)) in parameters.iter().enumerate() {
            let value = value.as_deref();
            let is_repeated = parameters.iter().take(place).any(|(earlier, _)| earlier == name);
            let is_kept = match (*name, value) {
                (b"server_no_context_takeover" | b"client_no_context_takeover", None)
                | (b"client_max_window_bits", None) => true,
                (b"client_max_window_bits", Some(value)) => window_bits(value).is_some(),
                (b"server_max_window_bits", Some(value)) => {
                    deflate.server_max_window_bits =
                        window_bits(value).filter(|bits| WINDOW_BITS.contains(bits));
                    deflate.server_max_window_bits.is_some()
                }
                _ => false,
            };
            if is_repeated || !is_kept {
                return None;
            }
        }
        Some(deflate)
    }

    /// The size of the window that the server deflates with, as a power of two.
    pub fn window_bits(self) -> u8 {
        self.server_max_window_bits.unwrap_or(LARGEST_WINDOW_BITS)
    }

    /// The value of `Sec-WebSocket-Extensions` in the response.
    pub fn response(self) -> String {
        let mut response =
            String::from("permessage-deflate; server_no_context_takeover; client_no_context_takeover");
        if let Some(bits) = self.server_max_window_bits {
            response.push_str("; server_max_window_bits=");
            response.push_str(&bits.to_string());
        }
        response
    }
}

impl Default for Deflate {
    /// Uses the largest window.
    fn default() -> Self {
        Self { server_max_window_bits: None }
    }
}

/// A decimal number from 8 to 15 without leading zeros (RFC 7692 section 7.1.2).
fn window_bits(value: &[u8]) -> Option<u8> {
    match value {
        [digit @ b'8'..=b'9'] => Some(digit - b'0'),
        [b'1', digit @ b'0'..=b'5'] => Some(10 + digit - b'0'),
        _ => None,
    }
}

/// A name, and a value without its quotes.
type Parameter<'a> = (&'a [u8], Option<Vec<u8>>);

struct Offer<'a> {
    name: &'a [u8],
    parameters: Vec<Parameter<'a>>,
}

/// Reads the grammar `1#( token *( ";" token [ "=" ( token / quoted-string ) ] ) )`; a quoted value must be a token, too.
struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// The next offer. Empty list elements are ignored (RFC 9110 section 5.6.1).
    fn offer(&mut self) -> Result<Option<Offer<'a>>, MalformedOffer> {
        self.skip_spaces();
        while self.skip(b',') {
            self.skip_spaces();
        }
        if self.rest.is_empty() {
            return Ok(None);
        }
        let name = self.token()?;
        let mut parameters = Vec::new();
        loop {
            self.skip_spaces();
            if self.rest.is_empty() || self.skip(b',') {
                return Ok(Some(Offer { name, parameters }));
            }
            if !self.skip(b';') {
                return Err(MalformedOffer);
            }
            self.skip_spaces();
            let name = self.token()?;
            self.skip_spaces();
            let value = if self.skip(b'=') {
                self.skip_spaces();
                Some(self.value()?)
            } else {
                None
            };
            parameters.push((name, value));
        }
    }

    fn value(&mut self) -> Result<Vec<u8>, MalformedOffer> {
        if !self.skip(b'"') {
            return self.token().map(<[u8]>::to_vec);
        }
        let mut value = Vec::new();
        loop {
            let (byte, rest) = self.rest.split_first().ok_or(MalformedOffer)?;
            self.rest = rest;
            match byte {
                b'"' => break,
                b'\\' => {
                    let (escaped, rest) = rest.split_first().ok_or(MalformedOffer)?;
                    self.rest = rest;
                    value.push(*escaped);
                }
                _ => value.push(*byte),
            }
        }
        if value.is_empty() || !value.iter().copied().all(is_token) { Err(MalformedOffer) } else { Ok(value) }
    }

    fn token(&mut self) -> Result<&'a [u8], MalformedOffer> {
        let length = self.rest.iter().position(|byte| !is_token(*byte)).unwrap_or(self.rest.len());
        let (token, rest) = self.rest.split_at(length);
        self.rest = rest;
        if token.is_empty() { Err(MalformedOffer) } else { Ok(token) }
    }

    fn skip(&mut self, byte: u8) -> bool {
        match self.rest.split_first() {
            Some((first, rest)) if *first == byte => {
                self.rest = rest;
                true
            }
            _ => false,
        }
    }

    fn skip_spaces(&mut self) {
        while self.skip(b' ') || self.skip(b'\t') {}
    }
}

/// RFC 9110 section 5.6.2.
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOTH: &str = "permessage-deflate; server_no_context_takeover; client_no_context_takeover";

    fn answer(lines: &[&str]) -> Option<String> {
        let lines = lines.iter().map(|line| line.as_bytes());
        Deflate::negotiate(lines).unwrap().map(Deflate::response)
    }

    #[test]
    fn an_offer_is_answered_with_no_context_takeover() {
        let offers = [
            "permessage-deflate",
            "permessage-deflate; client_max_window_bits",
            "permessage-deflate; client_max_window_bits=8",
            "permessage-deflate;client_no_context_takeover;server_no_context_takeover",
            " ,, permessage-deflate ; client_max_window_bits = \"1\\2\" ,",
            "x-webkit-deflate-frame, permessage-deflate",
        ];
        for offer in offers {
            assert_eq!(answer(&[offer]).as_deref(), Some(BOTH), "{offer}");
        }
        assert_eq!(answer(&["foo; bar=\"b\"", "permessage-deflate"]).as_deref(), Some(BOTH), "several lines");
        assert_eq!(answer(&[]), None);
        assert_eq!(answer(&["", "permessage-bzip2"]), None);
    }

    #[test]
    fn a_window_that_the_client_asks_for_is_kept() {
        for bits in 9..=15 {
            let offer = format!("permessage-deflate; server_max_window_bits={bits}");
            assert_eq!(answer(&[&offer]), Some(format!("{BOTH}; server_max_window_bits={bits}")));
            let deflate = Deflate::negotiate([offer.as_bytes()]).unwrap().unwrap();
            assert_eq!(deflate.window_bits(), bits);
        }
        assert_eq!(Deflate::default().window_bits(), 15);
    }

    #[test]
    fn an_offer_that_cannot_be_kept_gives_way_to_the_next() {
        let refused = [
            "server_max_window_bits=8",
            "server_max_window_bits=7",
            "server_max_window_bits=16",
            "server_max_window_bits=09",
            "server_max_window_bits",
            "client_max_window_bits=16",
            "client_max_window_bits=x",
            "client_no_context_takeover=1",
            "server_no_context_takeover=true",
            "client_no_context_takeover; client_no_context_takeover",
            "client_max_window_bits; client_max_window_bits=10",
            "server_max_window_bits=10; server_max_window_bits=10",
            "unknown",
        ];
        for parameters in refused {
            let offer = format!("permessage-deflate; {parameters}");
            assert_eq!(answer(&[&offer]), None, "{offer}");
            let with_another =
                format!("{offer}, permessage-deflate; server_max_window_bits=10, permessage-deflate");
            let expected = format!("{BOTH}; server_max_window_bits=10");
            assert_eq!(answer(&[&with_another]), Some(expected), "{offer}");
        }
    }

    #[test]
    fn a_malformed_header_is_an_error() {
        let malformed = [
            "permessage-deflate;",
            "permessage-deflate; =10",
            "permessage-deflate; a=",
            "permessage-deflate; a=\"",
            "permessage-deflate; a=\"\"",
            "permessage-deflate; a=\"b c\"",
            "permessage-deflate; a=\"b\\",
            "permessage-deflate; a b",
            "permessage deflate",
            "permessage-deflate, (comment)",
            ";",
            "perm\u{e9}ssage-deflate",
        ];
        for line in malformed {
            assert_eq!(Deflate::negotiate([line.as_bytes()]), Err(MalformedOffer), "{line}");
        }
    }

    proptest::proptest! {
        /// Whatever is offered, it is refused, malformed, or answered with a window that was asked for.
        #[test]
        fn any_header_is_accepted_declined_or_refused(
            line in proptest::collection::vec(
                proptest::sample::select(vec![
                    "permessage-deflate", "server_max_window_bits", "client_max_window_bits", "x", ";", ",", "=",
                    "\"", "\\", " ", "8", "9", "12", "15", "16", "\u{e9}",
                ]),
                0..16,
            )
        ) {
            let line = line.concat();
            if let Ok(Some(deflate)) = Deflate::negotiate([line.as_bytes()]) {
                let bits = deflate.window_bits();
                assert!(bits == 15 || line.contains(&bits.to_string()), "{line}");
                assert!(line.contains("permessage-deflate"), "{line}");
            }
        }
    }
}
