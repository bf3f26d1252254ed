"""A station on a bare TCP socket: cheap enough for hundreds in one process, and free to misbehave.

Owns the handshake and the frames of RFC 6455 as far as tests need them, and every way to disconnect: close frame, half-close, reset,
silence. `station.Station` is the well-behaved one. Nothing here knows what the gateway should do.
"""

import asyncio
import contextlib
import json
import socket
import struct
from collections import deque
from collections.abc import Callable
from typing import Any

from .gateway import Gateway

SUBPROTOCOLS = {"1.6": "ocpp1.6", "2.0.1": "ocpp2.0.1", "2.1": "ocpp2.1"}
TEXT, CLOSE, PING, PONG = 1, 8, 9, 10
SEGMENT = 536
"""TCP's smallest default segment, in bytes."""
_KEY = "dGhlIHNhbXBsZSBub25jZQ=="


class RefusedError(Exception):
    """The handshake was answered with a status other than 101, or not at all (status 0)."""

    def __init__(self, status: int) -> None:
        super().__init__(f"HTTP {status}" if status else "the connection ended before an answer")
        self.status = status


def frame(opcode: int, payload: bytes, fin: bool = True) -> bytes:
    """A client's frame. The mask is zero, which is valid and keeps the payload readable in a dump."""
    first = opcode | (0x80 if fin else 0)
    if len(payload) < 126:
        head = struct.pack("!BB", first, 0x80 | len(payload))
    elif len(payload) < 1 << 16:
        head = struct.pack("!BBH", first, 0x80 | 126, len(payload))
    else:
        head = struct.pack("!BBQ", first, 0x80 | 127, len(payload))
    return head + b"\0\0\0\0" + payload


def call_text(id: str, action: str, payload: dict[str, Any]) -> str:
    return json.dumps([2, id, action, payload], separators=(",", ":"))


class Wire(asyncio.Protocol):
    """One connection.

    `texts` holds the texts that arrived and were not received yet, unless `on_text` gets them as they arrive. `ended` is done when the
    connection has ended; its result is the close code of the gateway's close frame, `None` if there was none.
    """

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self.transport: asyncio.Transport | None = None
        self.status: asyncio.Future[int] = loop.create_future()
        self.ended: asyncio.Future[int | None] = loop.create_future()
        self.texts: deque[str] = deque()
        self.on_text: Callable[[str], None] | None = None
        self.pings = 0
        self.answers_pings = True
        self.close_code: int | None = None
        self._arrived = asyncio.Event()
        self._buffer = bytearray()
        self._upgraded = False
        self._half_closed = False

    # -- beginnings ---------------------------------------------------------------------------------------------

    @classmethod
    async def dial(cls, port: int, *, receive_buffer: int | None = None) -> "Wire":
        """A TCP connection on which nothing has been sent.

        With a `receive_buffer` it has the small segments of a mobile connection, too, so that a station that stops reading is
        soon felt: with the large segments of the loopback interface, the kernel would buffer megabytes for the gateway.
        """
        raw = socket.socket()
        raw.setblocking(False)
        if receive_buffer is not None:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
            raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, SEGMENT)
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        loop = asyncio.get_running_loop()
        try:
            await loop.sock_connect(raw, ("127.0.0.1", port))
        except BaseException:
            raw.close()
            raise
        _, wire = await loop.create_connection(cls, sock=raw)
        return wire

    @classmethod
    async def connect(
        cls,
        gateway: Gateway,
        identity: str,
        version: str = "1.6",
        *,
        receive_buffer: int | None = None,
        timeout: float = 10.0,
    ) -> "Wire":
        """Connects and waits until the gateway has answered 101.

        Raises RefusedError on any other status, and OSError if there is no connection at all.
        """
        wire = await cls.dial(gateway.port, receive_buffer=receive_buffer)
        wire.ask(identity, version)
        await wire.upgraded(timeout)
        return wire

    def ask(self, identity: str, version: str = "1.6", *, behind: bytes = b"") -> None:
        """Sends the handshake, and in the same segment whatever should follow `behind` it without waiting."""
        self.transport.write(
            (
                f"GET /ocpp/{identity} HTTP/1.1\r\nHost: gateway\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
                f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {_KEY}\r\n"
                f"Sec-WebSocket-Protocol: {SUBPROTOCOLS[version]}\r\n\r\n"
            ).encode()
            + behind
        )

    async def upgraded(self, timeout: float = 10.0) -> None:
        """Waits for the response to the handshake; raises RefusedError if it is not 101."""
        status = await asyncio.wait_for(asyncio.shield(self.status), timeout)
        if status != 101:
            raise RefusedError(status)

    @property
    def address(self) -> str:
        """This end's address, the gateway's `remoteAddress`, which distinguishes sessions."""
        host, port = self.transport.get_extra_info("sockname")
        return f"{host}:{port}"

    # -- frames -------------------------------------------------------------------------------------------------

    def send(self, text: str) -> None:
        self.transport.write(frame(TEXT, text.encode()))

    def send_bytes(self, data: bytes) -> None:
        """Sends raw bytes: part of a frame, several frames, or anything else."""
        self.transport.write(data)

    async def receive(self, timeout: float = 10.0) -> list[Any]:
        """The next text, decoded. Raises ConnectionError if the connection ends first."""
        return json.loads(await asyncio.wait_for(self._next(), timeout))

    async def _next(self) -> str:
        while not self.texts:
            if self.ended.done():
                raise ConnectionError(f"the connection has ended, close code {self.close_code}")
            self._arrived.clear()
            await self._arrived.wait()
        return self.texts.popleft()

    async def call(self, id: str, action: str, payload: dict[str, Any], timeout: float = 10.0) -> list[Any]:
        """Sends a CALL and returns its answer."""
        self.send(call_text(id, action, payload))
        answer = await self.receive(timeout)
        assert answer[1] == id, f"an answer to {answer[1]!r} while {id!r} waits: {answer}"
        return answer

    async def silence(self, seconds: float) -> None:
        """Fails if a text arrives, or the connection ends, within `seconds`."""
        try:
            answer = await self.receive(seconds)
        except TimeoutError:
            return
        raise AssertionError(f"expected silence, got {answer}")

    # -- ends ---------------------------------------------------------------------------------------------------

    def say_goodbye(self, code: int = 1000) -> None:
        """Sends a close frame without waiting for the answer."""
        self.transport.write(frame(CLOSE, struct.pack("!H", code)))

    def half_close(self) -> None:
        """Sends nothing more but keeps reading (FIN without a close frame)."""
        self._half_closed = True
        self.transport.write_eof()

    def reset(self) -> None:
        """Sends an RST: data in transit in either direction is lost."""
        raw = self.transport.get_extra_info("socket")
        with contextlib.suppress(OSError):
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.transport.abort()

    def stop_reading(self) -> None:
        self.transport.pause_reading()

    def go_on_reading(self) -> None:
        self.transport.resume_reading()

    async def leave(self, timeout: float = 10.0) -> int | None:
        """Sends a close frame and waits for the end; returns the gateway's close code."""
        if not self.ended.done():
            self.say_goodbye()
        return await self.end(timeout)

    async def end(self, timeout: float = 10.0) -> int | None:
        """Waits for the end of the connection; returns the gateway's close code, None without a close frame."""
        return await asyncio.wait_for(asyncio.shield(self.ended), timeout)

    # -- asyncio.Protocol ---------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def connection_lost(self, error: Exception | None) -> None:
        if not self.status.done():
            self.status.set_result(0)
        if not self.ended.done():
            self.ended.set_result(self.close_code)
        self._arrived.set()

    def eof_received(self) -> bool:
        return False

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        if not self._upgraded:
            end = self._buffer.find(b"\r\n\r\n")
            if end < 0:
                return
            status = int(self._buffer.split(b" ", 2)[1])
            del self._buffer[: end + 4]
            self._upgraded = True
            if not self.status.done():
                self.status.set_result(status)
            if status != 101:
                return
        self._frames()

    def _frames(self) -> None:
        buffer = self._buffer
        at = 0
        while len(buffer) - at >= 2:
            opcode, length, head = buffer[at] & 0x0F, buffer[at + 1] & 0x7F, 2
            if length == 126:
                head = 4
                if len(buffer) - at < head:
                    break
                length = int.from_bytes(buffer[at + 2 : at + 4], "big")
            elif length == 127:
                head = 10
                if len(buffer) - at < head:
                    break
                length = int.from_bytes(buffer[at + 2 : at + 10], "big")
            if len(buffer) - at < head + length:
                break
            payload = bytes(buffer[at + head : at + head + length])
            at += head + length
            self._on_frame(opcode, payload)
        del buffer[:at]

    def _on_frame(self, opcode: int, payload: bytes) -> None:
        if opcode == TEXT:
            if self.on_text:
                self.on_text(payload.decode())
            else:
                self.texts.append(payload.decode())
                self._arrived.set()
        elif opcode == PING:
            self.pings += 1
            if self.answers_pings:
                self._reply(frame(PONG, payload))
        elif opcode == CLOSE:
            self.close_code = int.from_bytes(payload[:2], "big") if payload else 1005
            self._reply(frame(CLOSE, payload[:2]))

    def _reply(self, data: bytes) -> None:
        if not self._half_closed and not self.transport.is_closing():
            self.transport.write(data)
