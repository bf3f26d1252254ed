"""Stations that record the commands they receive: which arrived, in which order, how often.

Owns how such a station answers a CALL: at once, later, or never. A command is a DataTransfer with the command's own id in `data` (see
`body`), and the answer repeats it, so that no answer can be mistaken for another's. Checks nothing.
"""

import asyncio
import json
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

from .gateway import Gateway
from .station import BOOT
from .wire import Wire, call_text

ACTION = "DataTransfer"
"""Exists in every version, in both directions, and may carry any text."""


def body(id: str, **more: Any) -> dict[str, Any]:
    """A command that an `Obedient` recognises."""
    return {"commandId": id, "action": ACTION, "payload": {"vendorId": "test", "data": id}} | more


class Obedient:
    """One station. What it records spans all its connections."""

    def __init__(self, identity: str, version: str = "1.6", delay: float | None = 0.0) -> None:
        """`delay`: seconds until a CALL is answered; `None`: never. It may be changed at any time."""
        self.identity = identity
        self.version = version
        self.delay = delay
        self.arrived: list[str] = []
        """The ids of the commands that arrived, in order, over all connections."""
        self.answered: list[str] = []
        """The ids of those that it has answered, in order."""
        self.wire: Wire | None = None
        self._calls = 0
        self._waiting: dict[str, asyncio.Future[list[Any]]] = {}

    async def connect(self, gateway: Gateway, boots: bool = True) -> "Obedient":
        """Connects and boots; without `boots` it sends nothing."""
        self.wire = await Wire.connect(gateway, self.identity, self.version, timeout=30)
        self.wire.on_text = self._listener(self.wire)
        if boots:
            await self.call("BootNotification", BOOT[self.version])
        return self

    async def call(self, action: str, payload: dict[str, Any], timeout: float = 30.0) -> list[Any]:
        """Sends a CALL and returns its answer."""
        self._calls += 1
        id = f"{self.identity}-{self._calls}"
        waiting = self._waiting[id] = asyncio.get_running_loop().create_future()
        self.wire.send(call_text(id, action, payload))
        return await asyncio.wait_for(waiting, timeout)

    def _listener(self, wire: Wire) -> Callable[[str], None]:
        def on_text(text: str) -> None:
            frame = json.loads(text)
            if frame[0] != 2:
                self._waiting.pop(frame[1]).set_result(frame)
                return
            id = frame[3]["data"]
            self.arrived.append(id)
            if self.delay is None:
                return
            answer = json.dumps([3, frame[1], {"status": "Accepted", "data": id}], separators=(",", ":"))
            if self.delay:
                asyncio.get_running_loop().call_later(self.delay, self._answer, wire, id, answer)
            else:
                self._answer(wire, id, answer)

        return on_text

    def _answer(self, wire: Wire, id: str, text: str) -> None:
        if not wire.transport.is_closing():
            wire.send(text)
            self.answered.append(id)


async def connect_all(stations: Iterable[Obedient], gateway: Gateway, at_once: int = 50) -> None:
    """Connects and boots them, `at_once` at a time."""
    places = asyncio.Semaphore(at_once)

    async def connect(station: Obedient) -> None:
        async with places:
            await station.connect(gateway)

    await asyncio.gather(*(connect(station) for station in stations))


def wire_counts(stations: Iterable[Obedient]) -> Counter[str]:
    """How often each command arrived at any station."""
    return Counter(id for station in stations for id in station.arrived)
