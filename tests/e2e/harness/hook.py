"""A backend behind a URL: an HTTP server that responds as a test says, and records the requests."""

import contextlib
import json
import ssl
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Answer = tuple[int, str]
"""An HTTP status and a body."""


@dataclass(frozen=True)
class Asked:
    """One request."""

    headers: dict[str, str]
    text: str
    at: float = field(default_factory=time.monotonic)

    @property
    def json(self) -> dict[str, Any]:
        return json.loads(self.text)


class Hook:
    """`with Hook(respond) as hook:`; `respond(asked)` returns status and body, in a thread of its own per request."""

    def __init__(self, respond: Callable[[Asked], Answer], *, port: int = 0, tls: ssl.SSLContext | None = None) -> None:
        self.respond = respond
        self.asked: list[Asked] = []
        self.connections = 0
        """TCP connections so far."""
        self.at_once = 0
        """The most requests that were in progress at the same time."""
        self._in_progress = 0
        self._lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", port), self._handler())
        self._server.daemon_threads = True
        self.scheme = "http"
        if tls:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True)
            self.scheme = "https"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})

    @property
    def url(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self._server.server_address[1]}/ask"

    def __enter__(self) -> "Hook":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        hook = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def setup(self) -> None:
                with hook._lock:
                    hook.connections += 1
                super().setup()

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"])).decode()
                asked = Asked({name.lower(): value for name, value in self.headers.items()}, body)
                with hook._lock:
                    hook.asked.append(asked)
                    hook._in_progress += 1
                    hook.at_once = max(hook.at_once, hook._in_progress)
                try:
                    status, text = hook.respond(asked)
                finally:
                    with hook._lock:
                        hook._in_progress -= 1
                # The client may have stopped waiting.
                with contextlib.suppress(ConnectionError):
                    self.send_response(status)
                    if status != 204:
                        self.send_header("Content-Length", str(len(text.encode())))
                    self.end_headers()
                    self.wfile.write(text.encode())

            def log_message(self, *_: object) -> None:
                pass

        return Handler


def payload(text: str) -> Answer:
    """A response with exactly this payload text."""
    return 200, f'{{"payload":{text}}}'
