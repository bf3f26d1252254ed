//! The address of an admin listener: `http://HOST[:PORT][/PATH]`, or `https://…` if a proxy in front of it terminates TLS.
//!
//! Owns parsing it and appending a request's path to it. Does not connect.

use std::fmt;
use std::str::FromStr;

use hyper::Uri;
use hyper::http::uri::Scheme;

/// Has a host, and neither a query nor credentials.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Origin {
    scheme: Scheme,
    /// Host and port.
    address: String,
    /// The prefix of every request's path, without a trailing slash.
    path: String,
}

/// The text is not such an address.
#[derive(PartialEq, Eq, Debug, thiserror::Error)]
#[error("{0:?} is not an address like http://HOST:PORT")]
pub(super) struct InvalidOrigin(String);

impl FromStr for Origin {
    type Err = InvalidOrigin;

    fn from_str(text: &str) -> Result<Self, InvalidOrigin> {
        let invalid = || InvalidOrigin(text.to_owned());
        let uri: Uri = text.parse().map_err(|_| invalid())?;
        let host = uri.host().filter(|host| !host.is_empty()).ok_or_else(invalid)?;
        let default_port = match uri.scheme() {
            Some(scheme) if *scheme == Scheme::HTTP => 80,
            Some(scheme) if *scheme == Scheme::HTTPS => 443,
            _ => return Err(invalid()),
        };
        let has_credentials = uri.authority().is_some_and(|authority| authority.as_str().contains('@'));
        if uri.query().is_some() || has_credentials {
            return Err(invalid());
        }
        Ok(Self {
            scheme: uri.scheme().cloned().ok_or_else(invalid)?,
            address: format!("{host}:{}", uri.port_u16().unwrap_or(default_port)),
            path: uri.path().trim_end_matches('/').to_owned(),
        })
    }
}

impl Origin {
    /// Host and port, for error messages.
    pub(super) fn address(&self) -> &str {
        &self.address
    }

    pub(super) fn is_https(&self) -> bool {
        self.scheme == Scheme::HTTPS
    }

    /// Appends a path with its query.
    ///
    /// # Errors
    /// When the result is longer than a URI may be.
    pub(super) fn join(&self, path_and_query: &str) -> Result<Uri, InvalidOrigin> {
        let text = format!("{self}{path_and_query}");
        text.parse().map_err(|_| InvalidOrigin(text))
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}://{}{}", self.scheme, self.address, self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_a_host_with_a_port() {
        for (text, shown) in [
            ("http://localhost", "http://localhost:80"),
            ("http://127.0.0.1:9100/", "http://127.0.0.1:9100"),
            ("http://[::1]:4318/otlp/", "http://[::1]:4318/otlp"),
            ("https://gateway.example/admin", "https://gateway.example:443/admin"),
        ] {
            assert_eq!(text.parse::<Origin>().unwrap().to_string(), shown);
        }
        for text in
            ["", "localhost:9100", "ftp://localhost", "http://", "http://a b", "http://u:p@h", "http://h/?x"]
        {
            assert_eq!(text.parse::<Origin>(), Err(InvalidOrigin(text.to_owned())));
        }
    }

    #[test]
    fn a_path_is_appended_to_that_of_the_origin() {
        let origin: Origin = "http://[::1]:9100/gateway/".parse().unwrap();
        let uri = origin.join("/api/v1/stations?limit=5").unwrap();
        assert_eq!(uri.to_string(), "http://[::1]:9100/gateway/api/v1/stations?limit=5");
        assert!(origin.join(&format!("/{}", "a".repeat(70_000))).is_err());
    }
}
