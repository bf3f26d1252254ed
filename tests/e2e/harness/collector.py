"""A collector of spans: OTLP over HTTP and gRPC, checked against OpenTelemetry's own protobuf definitions.

Owns receiving and decoding. A request that is not an `ExportTraceServiceRequest` to the letter is kept as a complaint.
"""

import base64
import json
import ssl
import threading
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import grpc
from google.protobuf import json_format
from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.trace.v1.trace_pb2 import Span as SpanMessage

# OTLP's JSON has these in hex where protobuf's has base64.
_IDS = ("traceId", "spanId", "parentSpanId")


class Span:
    """A span as it was received."""

    def __init__(self, message: SpanMessage, resource: dict[str, str]) -> None:
        self.name, self.kind = message.name, message.kind
        self.trace_id, self.span_id = message.trace_id.hex(), message.span_id.hex()
        self.parent_id = message.parent_span_id.hex() or None
        self.start, self.end = message.start_time_unix_nano, message.end_time_unix_nano
        self.failed = message.status.code == 2
        self.attributes = {one.key: one.value.string_value for one in message.attributes}
        self.resource = resource

    def __repr__(self) -> str:
        return f"{self.name} {self.trace_id}/{self.parent_id}/{self.span_id} {self.attributes}"


class _Received:
    """What a collector has received."""

    def __init__(self) -> None:
        self.spans: list[Span] = []
        self.complaints: list[str] = []
        self.requests = 0

    def keep(self, request: ExportTraceServiceRequest) -> None:
        for group in request.resource_spans:
            resource = {one.key: one.value.string_value for one in group.resource.attributes}
            for scope in group.scope_spans:
                self.spans += [Span(span, resource) for span in scope.spans]

    def named(self, name: str) -> list[Span]:
        return [span for span in list(self.spans) if span.name == name]


class Collector(_Received):
    """OTLP over HTTP, on a free port or on one that is given; use it with `with`."""

    def __init__(self, port: int = 0, *, tls: ssl.SSLContext | None = None) -> None:
        super().__init__()
        self.content_type = "application/json"
        """What requests must be."""
        self.answer: tuple[int, bytes] = (200, b"{}")
        """Status and body for whatever comes."""
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                collector.requests += 1
                status, answer = collector.answer
                if status == 200:
                    collector._take(self.path, self.headers["Content-Type"], body)
                self.send_response(status)
                self.send_header("Content-Type", collector.content_type)
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        scheme = "http"
        if tls:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True)
            scheme = "https"
        self.endpoint = f"{scheme}://127.0.0.1:{self._server.server_port}"

    def _take(self, path: str, content_type: str, body: bytes) -> None:
        try:
            assert (path, content_type) == ("/v1/traces", self.content_type)
            if content_type == "application/x-protobuf":
                request = ExportTraceServiceRequest.FromString(body)
            else:
                request = json_format.ParseDict(_with_base64(json.loads(body)), ExportTraceServiceRequest())
        except (AssertionError, ValueError, DecodeError, json_format.ParseError) as error:
            self.complaints.append(f"{error}: {body[:500]!r}")
            return
        self.keep(request)

    def __enter__(self) -> "Collector":
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


class GrpcCollector(_Received):
    """OTLP over gRPC, on a free port; use it with `with`."""

    def __init__(self) -> None:
        super().__init__()
        self.refusal: grpc.StatusCode | None = None
        """The status that every call ends with; none accepts it."""
        self.rejected_spans = 0
        """What a response says was rejected."""
        self._server = grpc.server(ThreadPoolExecutor(2))
        service = "opentelemetry.proto.collector.trace.v1.TraceService"
        export = grpc.unary_unary_rpc_method_handler(
            self._export, ExportTraceServiceRequest.FromString, ExportTraceServiceResponse.SerializeToString
        )
        self._server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(service, {"Export": export})])
        self.endpoint = f"http://127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"

    def _export(self, request: ExportTraceServiceRequest, context: grpc.ServicerContext) -> ExportTraceServiceResponse:
        self.requests += 1
        if self.refusal:
            context.abort(self.refusal, "not today")
        self.keep(request)
        response = ExportTraceServiceResponse()
        response.partial_success.rejected_spans = self.rejected_spans
        return response

    def __enter__(self) -> "GrpcCollector":
        self._server.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.stop(None).wait()


def _with_base64(value: Any) -> Any:
    if isinstance(value, list):
        return [_with_base64(one) for one in value]
    if not isinstance(value, dict):
        return value
    return {
        key: base64.b64encode(bytes.fromhex(one)).decode() if key in _IDS else _with_base64(one)
        for key, one in value.items()
    }
