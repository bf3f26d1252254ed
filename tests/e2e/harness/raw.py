"""A TCP connection on which a test controls every byte: HTTP requests and WebSocket frames, valid or not.

Owns the bytes of RFC 7230 and RFC 6455. Knows nothing of OCPP. Blocking, with a time limit on everything.
"""

import base64
import contextlib
import hashlib
import socket
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10

KEY = "dGhlIHNhbXBsZSBub25jZQ=="
ACCEPT = base64.b64encode(hashlib.sha1(KEY.encode() + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest()).decode()

UPGRADE_HEADERS = {
    "Host": "gateway.test",
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": KEY,
}

# A mask of zeros is valid, and leaves a payload of 100 MB as it is.
_MASK = b"\0\0\0\0"


def upgrade_request(
    target: str,
    subprotocols: Iterable[str] = ("ocpp1.6",),
    *,
    method: str = "GET",
    changes: dict[str, str | None] | None = None,
) -> bytes:
    """A handshake request. Each of `subprotocols` becomes a header line; `None` in `changes` removes a header."""
    headers = UPGRADE_HEADERS | (changes or {})
    lines = [f"{method} {target} HTTP/1.1"]
    lines += [f"{name}: {value}" for name, value in headers.items() if value is not None]
    lines += [f"Sec-WebSocket-Protocol: {line}" for line in subprotocols]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def frame(
    opcode: int,
    payload: bytes = b"",
    *,
    fin: bool = True,
    masked: bool = True,
    reserved: int = 0,
    length: int | None = None,
) -> bytes:
    """A WebSocket frame. `reserved` is the three RSV bits; `length` is what the header claims, if it should lie."""
    length = len(payload) if length is None else length
    first = (0x80 if fin else 0) | (reserved << 4) | opcode
    mask_bit = 0x80 if masked else 0
    if length < 126:
        head = struct.pack("!BB", first, mask_bit | length)
    elif length < 1 << 16:
        head = struct.pack("!BBH", first, mask_bit | 126, length)
    else:
        head = struct.pack("!BBQ", first, mask_bit | 127, length)
    return head + (_MASK if masked else b"") + payload


@dataclass(frozen=True)
class Response:
    """An HTTP response."""

    status: int
    headers: list[tuple[str, str]]
    body: str

    def header(self, name: str) -> str | None:
        """The value of a header that occurs once or not at all."""
        values = [value for key, value in self.headers if key.lower() == name.lower()]
        assert len(values) <= 1, f"{name} is there {len(values)} times"
        return values[0] if values else None


class RawStation:
    """One TCP connection to a station listener."""

    def __init__(self, port: int, timeout: float = 10.0) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout)
        self._read = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    @property
    def address(self) -> str:
        """This end's address, as the gateway reports it."""
        host, port = self.socket.getsockname()
        return f"{host}:{port}"

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def text(self, text: str) -> None:
        """Sends a whole text message."""
        self.send(frame(TEXT, text.encode()))

    def upgrade(self, target: str, subprotocols: Iterable[str] = ("ocpp1.6",), **request: object) -> Response:
        """Sends a handshake and returns the response, whatever it is."""
        self.send(upgrade_request(target, subprotocols, **request))
        return self.response()

    def response(self) -> Response:
        """Reads one HTTP response; the body only if its length is stated."""
        while b"\r\n\r\n" not in self._read:
            more = self.socket.recv(65536)
            assert more, f"the connection ended inside a response: {self._read!r}"
            self._read += more
        head, self._read = self._read.split(b"\r\n\r\n", 1)
        status_line, *lines = head.decode("latin-1").split("\r\n")
        headers = [(name, value.strip()) for name, _, value in (line.partition(":") for line in lines)]
        response = Response(int(status_line.split()[1]), headers, "")
        length = int(response.header("Content-Length") or 0)
        body = self._take(length) or b""
        return Response(response.status, headers, body.decode())

    def frame(self, *, compressed: bool = False) -> tuple[int, bytes] | None:
        """The next frame as opcode and payload; None if the connection has ended in whatever way.

        It must be `compressed` (RSV1) or not; the payload is returned as it came.
        """
        head = self._take(2)
        if head is None:
            return None
        assert not head[1] & 0x80, "a server does not mask (RFC 6455 5.1)"
        expected = 0xC0 if compressed else 0x80
        assert head[0] & 0xF0 == expected, (
            "the gateway sends whole messages, and no reserved bits but the one asked for"
        )
        length = head[1]
        if length == 126:
            (length,) = struct.unpack("!H", self._take(2) or b"")
        elif length == 127:
            (length,) = struct.unpack("!Q", self._take(8) or b"")
        payload = self._take(length)
        return None if payload is None else (head[0] & 0x0F, payload)

    def message(self) -> str:
        """The next frame, which must be a text message."""
        received = self.frame()
        assert received is not None, "the connection ended"
        assert received[0] == TEXT, received
        return received[1].decode()

    def close_code(self) -> int | None:
        """Reads to the end and answers the close frame; returns the gateway's close code, or None if it sent none."""
        code = None
        while (received := self.frame()) is not None:
            if received[0] == CLOSE:
                assert code is None, "a second close frame"
                (code,) = struct.unpack("!H", received[1][:2])
                with contextlib.suppress(ConnectionError):
                    self.send(frame(CLOSE, received[1][:2]))
            else:
                assert code is None, f"{received} after the close frame"
        return code

    def ended(self) -> bool:
        """Waits for the next frame or the end; returns whether the gateway has ended the connection."""
        return self.frame() is None

    def _take(self, count: int) -> bytes | None:
        while len(self._read) < count:
            try:
                more = self.socket.recv(65536)
            except ConnectionError:
                return None
            if not more:
                return None
            self._read += more
        taken, self._read = self._read[:count], self._read[count:]
        return taken
