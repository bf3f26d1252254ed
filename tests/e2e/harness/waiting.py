"""Waiting for something to become true, and ports to start things on.

Tests never sleep for a fixed time: they say what they wait for, and the failure says it too.
"""

import random
import socket
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def wait_for(condition: Callable[[], T], what: str, timeout: float = 15.0, interval: float = 0.05) -> T:
    """Calls `condition` until it returns something true and returns that; fails with `what` after `timeout` seconds.

    It blocks: from an `async` test that has to keep reading its sockets meanwhile, use `asyncio.to_thread`.
    """
    deadline = time.monotonic() + timeout
    while True:
        result = condition()
        if result:
            return result
        if time.monotonic() >= deadline:
            raise AssertionError(f"waited {timeout:g} s in vain for {what}; last seen: {result!r}")
        time.sleep(interval)


def free_port(count: int = 1) -> int:
    """The first of `count` neighbouring free TCP ports on 127.0.0.1.

    They lie below the range from which the kernel takes the ports of outgoing connections, so that no
    connection of a test sits on them by chance when the server comes to bind.
    """
    for _ in range(200):
        first = random.randrange(20000, 32000)
        sockets = [socket.socket() for _ in range(count)]
        try:
            for offset, candidate in enumerate(sockets):
                candidate.bind(("127.0.0.1", first + offset))
            return first
        except OSError:
            continue
        finally:
            for candidate in sockets:
                candidate.close()
    raise AssertionError("no free port between 20000 and 32000")
