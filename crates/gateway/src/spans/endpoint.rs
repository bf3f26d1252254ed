//! The address of a collector, and the protocols that can be spoken to it.
//!
//! Owns the check that an address and a protocol go together. Connects to nothing.

use hyper::Uri;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How spans are encoded and carried: OpenTelemetry's names, as in `OTEL_EXPORTER_OTLP_PROTOCOL`.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Deserialize, Serialize, JsonSchema)]
pub enum Protocol {
    /// JSON over HTTP/1.1, without TLS
    #[default]
    #[serde(rename = "http/json")]
    HttpJson,
    /// protobuf over HTTP/1.1
    #[serde(rename = "http/protobuf")]
    HttpProtobuf,
    /// protobuf over HTTP/2
    #[serde(rename = "grpc")]
    Grpc,
}

/// The address of a collector, checked: `http://HOST[:PORT][/PATH]`, or the same with `https`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Endpoint {
    pub(super) uri: Uri,
    pub(super) protocol: Protocol,
}

/// Why something is not the address of a collector.
#[derive(Debug, thiserror::Error)]
pub enum EndpointError {
    /// Not a URL, or one with parts that have no meaning here.
    #[error("{0:?} is not an address such as http://HOST:4318")]
    Malformed(String),
    /// JSON is sent without TLS only.
    #[error("https needs telemetry.protocol = \"http/protobuf\" or \"grpc\"")]
    JsonOverTls,
}

impl Endpoint {
    /// Checks an address.
    ///
    /// # Errors
    /// When it is not the address of a collector, or none that `protocol` can be spoken to.
    pub fn parse(text: &str, protocol: Protocol) -> Result<Self, EndpointError> {
        let malformed = || EndpointError::Malformed(text.to_owned());
        let uri: Uri = text.parse().map_err(|_| malformed())?;
        let authority = uri.authority().ok_or_else(malformed)?;
        if uri.host().is_none_or(str::is_empty) || authority.as_str().contains('@') || uri.query().is_some() {
            return Err(malformed());
        }
        match uri.scheme_str() {
            Some("https") if protocol == Protocol::HttpJson => Err(EndpointError::JsonOverTls),
            Some("http" | "https") => Ok(Self { uri, protocol }),
            _ => Err(malformed()),
        }
    }

    /// Whether the collector is spoken to over TLS.
    pub(super) fn is_tls(&self) -> bool {
        self.uri.scheme_str() == Some("https")
    }

    /// Where OTLP over HTTP takes spans.
    pub(super) fn traces(&self) -> Result<Uri, hyper::http::Error> {
        let path = format!("{}/v1/traces", self.uri.path().trim_end_matches('/'));
        let mut parts = self.uri.clone().into_parts();
        parts.path_and_query = Some(path.parse()?);
        Ok(Uri::from_parts(parts)?)
    }
}

impl std::fmt::Display for Endpoint {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.uri.fmt(formatter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_a_url_that_the_protocol_can_be_spoken_to() {
        for (text, traces) in [
            ("http://localhost", "http://localhost/v1/traces"),
            ("http://127.0.0.1:9100/", "http://127.0.0.1:9100/v1/traces"),
            ("http://[::1]:4318/otlp/", "http://[::1]:4318/otlp/v1/traces"),
        ] {
            let endpoint = Endpoint::parse(text, Protocol::HttpJson).unwrap();
            assert_eq!(endpoint.traces().unwrap().to_string(), traces);
        }
        for text in
            ["", "localhost:9100", "ftp://localhost", "http://", "http://a b", "http://u:p@h", "http://h/?x"]
        {
            let result = Endpoint::parse(text, Protocol::HttpJson);
            assert!(matches!(result, Err(EndpointError::Malformed(_))), "{text:?}");
        }
        let over_tls = |protocol| Endpoint::parse("https://localhost", protocol);
        assert!(matches!(over_tls(Protocol::HttpJson), Err(EndpointError::JsonOverTls)));
        assert!(over_tls(Protocol::HttpProtobuf).is_ok() && over_tls(Protocol::Grpc).is_ok());
    }
}
