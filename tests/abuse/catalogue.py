"""Every abuse, in the order in which they run. Separate from the command, because the abusers' process imports it."""

import functools
import time

from .flood import Flood
from .frames import LOADS
from .half_open import REQUEST_LINE, HalfOpen
from .stage import Abuse, Abusers
from .tally import Tally

FLOOD_SECONDS = 5.0
HALF_OPEN = 12_000
HALF_OPEN_SECONDS = 45.0
QUIET_SECONDS = 10.0


def flood(name: str, count: int, address: tuple[str, int]) -> Abusers:
    return Flood(address, f"{name}-{count}", count, LOADS[name])


def half_open(first: bytes, drip: bytes, address: tuple[str, int]) -> Abusers:
    return HalfOpen(address, HALF_OPEN, first, drip)


class Nobody:
    """The baseline without abuse."""

    def run(self, seconds: float) -> Tally:
        time.sleep(seconds)
        return Tally(seconds=seconds)


def nobody(_: tuple[str, int]) -> Abusers:
    return Nobody()


def abuses() -> list[Abuse]:
    floods = (
        ("bomb", "bomb", (1, 50)),
        ("swollen", "message", (1, 20)),
        ("tables", "message", (1,)),
        ("pings", "ping", (1, 20)),
        ("pings-unread", "ping", (20,)),
        ("fragmented", "fragment", (20,)),
        ("endless", "fragment", (20,)),
        ("empty", "fragment", (20,)),
    )
    return [
        Abuse("none", "", QUIET_SECONDS, nobody),
        *(
            Abuse(f"{name}-{count}", unit, FLOOD_SECONDS, functools.partial(flood, name, count))
            for name, unit, counts in floods
            for count in counts
        ),
        *(
            Abuse(f"half-open-{name}", "handshake", HALF_OPEN_SECONDS, functools.partial(half_open, first, drip))
            for name, first, drip in (
                ("silent", b"", b""),
                ("line", REQUEST_LINE, b""),
                ("drip", b"", REQUEST_LINE * 10),
            )
        ),
    ]
