//! The collector that spans are sent to: its address, the three encodings of OTLP, and what its responses mean.
//!
//! Owns one request and its response. Neither batches nor counts nor retries. The messages are OpenTelemetry's own, generated
//! from its protobuf definitions (`opentelemetry-proto`); `messages.rs` fills them in.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::header::{CONTENT_TYPE, HeaderValue, USER_AGENT};
use hyper::http::uri::PathAndQuery;
use hyper::{Request, StatusCode, Uri};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use prost::Message;
use serde::Deserialize;
use tonic::client::Grpc;
use tonic_prost::ProstCodec;

use crate::https::{self, ClientOptions, HttpsClient};
use crate::spans::endpoint::{Endpoint, Protocol};

/// How long connecting may take; it counts towards the time of the request.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// The largest response that is read.
const MAX_RESPONSE: usize = 64 * 1024;
/// The method of a collector's gRPC service that takes spans.
const GRPC_METHOD: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";

/// Why a batch was not accepted.
#[derive(Debug, thiserror::Error)]
pub(super) enum ExportError {
    #[error("the spans cannot be encoded: {0}")]
    Encode(#[from] serde_json::Error),
    #[error("the request cannot be built: {0}")]
    Request(#[from] hyper::http::Error),
    #[error("the collector did not answer within {0:?}")]
    Timeout(Duration),
    #[error("{}", ocpp_bus::chain(.0))]
    Unreachable(#[from] hyper_util::client::legacy::Error),
    #[error("the response cannot be read: {0}")]
    Response(Box<dyn std::error::Error + Send + Sync>),
    #[error("the collector answers {status}: {body}")]
    Refused { status: StatusCode, body: String },
    #[error("the collector answers {:?}: {}", .0.code(), ocpp_bus::chain(.0))]
    RefusedCall(#[from] tonic::Status),
}

/// A collector, with the connections to it.
#[derive(Debug)]
pub(super) struct Collector {
    endpoint: Endpoint,
    timeout: Duration,
    transport: Transport,
}

#[derive(Debug)]
enum Transport {
    Http { client: HttpsClient<Full<Bytes>>, traces: Uri, encoding: Encoding },
    Grpc(Grpc<HttpsClient<tonic::body::Body>>),
}

#[derive(Clone, Copy, Debug)]
enum Encoding {
    Json,
    Protobuf,
}

impl Collector {
    /// Prepares the connections; none is opened before the first batch. A batch may take `timeout`.
    ///
    /// # Errors
    /// When TLS is asked for and the system's root certificates cannot be read.
    pub(super) fn open(endpoint: Endpoint, timeout: Duration) -> std::io::Result<Self> {
        let options = ClientOptions {
            connect_timeout: CONNECT_TIMEOUT,
            max_idle: 1,
            http2: endpoint.protocol == Protocol::Grpc,
            tls: endpoint.is_tls(),
        };
        let http = |encoding| -> std::io::Result<Transport> {
            let traces = endpoint.traces().map_err(std::io::Error::other)?;
            Ok(Transport::Http { client: https::client(options)?, traces, encoding })
        };
        let transport = match endpoint.protocol {
            Protocol::HttpJson => http(Encoding::Json)?,
            Protocol::HttpProtobuf => http(Encoding::Protobuf)?,
            Protocol::Grpc => {
                Transport::Grpc(Grpc::with_origin(https::client(options)?, endpoint.uri.clone()))
            }
        };
        Ok(Self { endpoint, timeout, transport })
    }

    /// Where it is.
    pub(super) fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Sends spans. Returns how many of them the collector has rejected although it accepted the request.
    pub(super) async fn export(&mut self, request: ExportTraceServiceRequest) -> Result<usize, ExportError> {
        let exchange = async {
            match &mut self.transport {
                Transport::Http { client, traces, encoding } => {
                    encoding.exchange(client, traces.clone(), &request).await
                }
                Transport::Grpc(grpc) => call(grpc, request).await,
            }
        };
        tokio::time::timeout(self.timeout, exchange).await.map_err(|_| ExportError::Timeout(self.timeout))?
    }
}

impl Encoding {
    async fn exchange(
        self,
        client: &HttpsClient<Full<Bytes>>,
        traces: Uri,
        request: &ExportTraceServiceRequest,
    ) -> Result<usize, ExportError> {
        let (content_type, body) = match self {
            Self::Json => ("application/json", serde_json::to_vec(request)?),
            Self::Protobuf => ("application/x-protobuf", request.encode_to_vec()),
        };
        let request = Request::post(traces)
            .header(CONTENT_TYPE, HeaderValue::from_static(content_type))
            .header(USER_AGENT, HeaderValue::from_static("ocpp-gateway"))
            .body(Full::new(Bytes::from(body)))?;
        let response = client.request(request).await?;
        let status = response.status();
        let body = Limited::new(response.into_body(), MAX_RESPONSE).collect().await;
        let body = body.map_err(ExportError::Response)?.to_bytes();
        if !status.is_success() {
            let body = String::from_utf8_lossy(&body).chars().take(200).collect();
            return Err(ExportError::Refused { status, body });
        }
        Ok(self.rejected(&body))
    }

    /// How many spans a response says were rejected. One that cannot be read rejects none.
    fn rejected(self, body: &[u8]) -> usize {
        match self {
            Self::Json => {
                serde_json::from_slice(body).map_or(0, |response: JsonResponse| response.rejected())
            }
            Self::Protobuf => {
                ExportTraceServiceResponse::decode(body).map_or(0, |response| rejected(&response))
            }
        }
    }
}

async fn call(
    grpc: &mut Grpc<HttpsClient<tonic::body::Body>>,
    request: ExportTraceServiceRequest,
) -> Result<usize, ExportError> {
    grpc.ready().await?;
    let method = PathAndQuery::from_static(GRPC_METHOD);
    let response = grpc.unary(tonic::Request::new(request), method, ProstCodec::default()).await?;
    Ok(rejected(response.get_ref()))
}

fn rejected(response: &ExportTraceServiceResponse) -> usize {
    let count = response.partial_success.as_ref().map_or(0, |partial| partial.rejected_spans);
    usize::try_from(count).unwrap_or(0)
}

/// A response in JSON. The generated message takes a number only, but protobuf's JSON spells 64-bit integers as strings, and
/// so do collectors.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct JsonResponse {
    partial_success: JsonPartialSuccess,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct JsonPartialSuccess {
    rejected_spans: serde_json::Value,
}

impl JsonResponse {
    fn rejected(&self) -> usize {
        let count = &self.partial_success.rejected_spans;
        let number = count.as_u64().or_else(|| count.as_str()?.parse().ok());
        number.and_then(|count| usize::try_from(count).ok()).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rejected_spans_are_counted_in_every_spelling() {
        for (text, rejected) in [
            ("{}", 0),
            (r#"{"partialSuccess":{}}"#, 0),
            (r#"{"partialSuccess":{"rejectedSpans":"3","errorMessage":"no"}}"#, 3),
            (r#"{"partialSuccess":{"rejectedSpans":4}}"#, 4),
            ("nonsense", 0),
        ] {
            assert_eq!(Encoding::Json.rejected(text.as_bytes()), rejected, "{text}");
        }
        // Field 1 of the response, a message of 2 bytes: its field 1, the number 5.
        assert_eq!(Encoding::Protobuf.rejected(&[0x0a, 2, 0x08, 5]), 5);
        assert_eq!(Encoding::Protobuf.rejected(&[]), 0);
        assert_eq!(Encoding::Protobuf.rejected(&[0xff]), 0);
    }
}
