"""A station over a bare WebSocket: sends what a test wants, valid or not, and records every frame.

It has the `send` and `recv` that the PyPI package `ocpp` asks of a connection, so the same object serves a real
OCPP client and a test that breaks the rules.
"""

import asyncio
import base64
import itertools
import json
from collections import deque
from typing import Any

from websockets.asyncio.client import ClientConnection, connect

from .gateway import Gateway

SUBPROTOCOLS = {"1.6": "ocpp1.6", "2.0.1": "ocpp2.0.1", "2.1": "ocpp2.1"}

BOOT = {
    "1.6": {"chargePointVendor": "Vendor", "chargePointModel": "Model"},
    "2.0.1": {"chargingStation": {"vendorName": "Vendor", "model": "Model"}, "reason": "PowerUp"},
}
BOOT["2.1"] = BOOT["2.0.1"]


def basic(user: str, password: str | bytes) -> str:
    """The value of an Authorization header (OCPP security profile 1); a 1.6 password may be any bytes."""
    secret = password if isinstance(password, bytes) else password.encode()
    return "Basic " + base64.b64encode(user.encode() + b":" + secret).decode()


class Station:
    """One connection of one station. Use it with `async with`, which closes it with a close frame."""

    def __init__(self, connection: ClientConnection, version: str) -> None:
        self.connection = connection
        self.version = version
        self.frames: list[tuple[str, str]] = []
        """Every frame in the order in which this side sent or received it: ("sent" | "received", text)."""
        self.calls: deque[list[Any]] = deque()
        """CALLs of the gateway that arrived while `call` waited for an answer."""
        self._ids = itertools.count(1)

    @classmethod
    async def connect(
        cls,
        gateway: Gateway,
        identity: str,
        version: str = "1.6",
        *,
        url: str | None = None,
        subprotocols: list[str] | None = None,
        password: str | bytes | None = None,
        **options: Any,
    ) -> "Station":
        """Opens the WebSocket; `options` are those of `websockets.connect`. Pings and compression are off by default."""
        headers = {} if password is None else {"Authorization": basic(identity, password)}
        offered = [SUBPROTOCOLS[version]] if subprotocols is None else subprotocols
        settings = {"ping_interval": None, "compression": None, "max_size": None, "proxy": None} | options
        connection = await connect(
            url or gateway.ws_url(identity),
            subprotocols=offered or None,
            additional_headers=headers,
            **settings,
        )
        return cls(connection, version)

    async def __aenter__(self) -> "Station":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    # -- frames -------------------------------------------------------------------------------------------------

    async def send(self, text: str) -> None:
        """Sends a text frame as it is."""
        self.frames.append(("sent", text))
        await self.connection.send(text)

    async def recv(self) -> str:
        """The next frame; raises `websockets.ConnectionClosed` when the connection has ended."""
        text = await self.connection.recv()
        self.frames.append(("received", text))
        return text

    async def receive(self, timeout: float = 10.0) -> list[Any]:
        """The next frame, decoded."""
        return json.loads(await asyncio.wait_for(self.recv(), timeout))

    async def silence(self, seconds: float = 0.5) -> None:
        """Fails if a frame arrives within `seconds`."""
        try:
            frame = await self.receive(seconds)
        except TimeoutError:
            return
        raise AssertionError(f"expected silence, got {frame}")

    # -- messages -----------------------------------------------------------------------------------------------

    async def call(
        self, action: str, payload: dict[str, Any] | str, *, id: str | None = None, timeout: float = 10.0
    ) -> list[Any]:
        """Sends a CALL and returns the decoded answer, CALLRESULT or CALLERROR.

        A payload that is a string is sent as it is. CALLs that arrive meanwhile are put into `calls`.
        """
        id = id or str(next(self._ids))
        text = payload if isinstance(payload, str) else json.dumps(payload)
        await self.send(f"[2,{json.dumps(id)},{json.dumps(action)},{text}]")
        while True:
            frame = await self.receive(timeout)
            if frame[0] == 2:
                self.calls.append(frame)
                continue
            assert frame[1] == id, f"an answer to {frame[1]!r} while {id!r} waits: {frame}"
            return frame

    async def boot(self) -> dict[str, Any]:
        """Sends a minimal BootNotification and returns the payload of the answer."""
        answer = await self.call("BootNotification", BOOT[self.version])
        assert answer[0] == 3, answer
        return answer[2]

    async def next_call(self, timeout: float = 10.0) -> list[Any]:
        """The next CALL of the gateway: `[2, id, action, payload]`."""
        frame = self.calls.popleft() if self.calls else await self.receive(timeout)
        assert frame[0] == 2, f"expected a CALL, got {frame}"
        return frame

    async def answer(self, call: list[Any], payload: dict[str, Any] | str) -> None:
        """Answers a CALL of the gateway with a CALLRESULT."""
        text = payload if isinstance(payload, str) else json.dumps(payload)
        await self.send(f"[3,{json.dumps(call[1])},{text}]")

    # -- ends ---------------------------------------------------------------------------------------------------

    async def close(self, code: int = 1000, reason: str = "") -> None:
        await self.connection.close(code, reason)

    def abort(self) -> None:
        """Drops the TCP connection without a close frame, as a power cut does."""
        self.connection.transport.abort()

    async def closed(self, timeout: float = 10.0) -> tuple[int, str]:
        """Waits until the gateway closes; returns close code and reason (1006 if there was no close frame)."""
        await asyncio.wait_for(self.connection.wait_closed(), timeout)
        return self.connection.close_code, self.connection.close_reason
