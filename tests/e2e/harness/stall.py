"""Stations that send without reading, until the gateway has stopped reading them.

Owns the one sign of that: for a while nothing more of what the station offers is read.
"""

import asyncio
import time

from .gateway import Gateway
from .wire import Wire, call_text

BUFFER = 100_000
"""Bytes that are kept ready to be sent: more than the gateway reads at once."""


async def stall(node: Gateway, wire: Wire, identity: str, *, quiet: float = 0.5, buffer: int = BUFFER) -> int:
    """Sends Heartbeats and reads no answer until the gateway has read nothing for `quiet` seconds; how many were sent."""
    wire.stop_reading()
    sent, read, since = 0, -1, time.monotonic()
    while time.monotonic() - since < quiet:
        while wire.transport.get_write_buffer_size() < buffer:
            sent += 1
            wire.send(call_text(f"{sent:036}", "Heartbeat", {}))
        # Lets the loop write; nothing announces that the gateway has stopped.
        await asyncio.sleep(0.1)
        now = node.get(f"/api/v1/stations/{identity}").json()["messagesIn"]
        if now != read:
            read, since = now, time.monotonic()
    return sent
