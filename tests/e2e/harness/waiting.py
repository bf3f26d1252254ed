"""Waiting for conditions, and ports for servers.

A test says what it waits for, and a failure repeats it. A test that sleeps says why no condition can be waited for.
"""

import os
import random
import socket
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

PORTS = range(20000, 32000)


def wait_for(condition: Callable[[], T], what: str, timeout: float = 15.0, interval: float = 0.05) -> T:
    """Calls `condition` until it returns something true, and returns that; fails with `what` after `timeout` seconds.

    It blocks: an `async` test that must keep reading its sockets calls it with `asyncio.to_thread`.
    """
    deadline = time.monotonic() + timeout
    while True:
        result = condition()
        if result:
            return result
        if time.monotonic() >= deadline:
            raise AssertionError(f"waited {timeout:g} s in vain for {what}; last seen: {result!r}")
        time.sleep(interval)


def _ports() -> range:
    """Ports of this process: pytest's workers share none, because a port is free until its server binds it.

    They lie below the range from which the kernel takes the ports of outgoing connections, so that none of these has the port of
    a server by chance.
    """
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    share = (PORTS.stop - PORTS.start) // workers
    return range(PORTS.start + worker * share, PORTS.start + (worker + 1) * share)


def free_port(count: int = 1) -> int:
    """The first of `count` adjacent free TCP ports on 127.0.0.1."""
    ports = _ports()
    for _ in range(200):
        first = random.randrange(ports.start, ports.stop - count)
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
    raise AssertionError(f"no free port in {ports}")
