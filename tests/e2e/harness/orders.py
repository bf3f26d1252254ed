"""Commands over HTTP, many at a time: the admin listener as an asynchronous test wants it."""

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import quote

import requests

from .contract import violations
from .events import Event
from .gateway import Gateway
from .obedient import Obedient, body
from .waiting import wait_for

# Stations of a test that is over read nothing any more, and need not be waited for.
SOON: dict[str, Any] = {"commands": {"grace": "100ms"}, "session": {"close_timeout": "500ms"}}
"""Configuration: a station gets its first command soon."""

ASYNC = {"Prefer": "respond-async"}

# A request waits for its outcome; asyncio's own pool is too small for many of them.
_POOL = ThreadPoolExecutor(160)


def post(
    node: Gateway, station: str, command: dict[str, Any], headers: dict[str, str] | None = None
) -> asyncio.Future[requests.Response]:
    """Sends a command; the result is the response, when it comes."""
    path = f"/api/v1/stations/{station}/commands"
    return asyncio.wrap_future(_POOL.submit(node.post, path, command, headers=headers or {}))


def show(node: Gateway, id: str) -> requests.Response:
    """What the gateway knows of a command."""
    return node.get(f"/api/v1/commands/{quote(id, safe='')}")


def call_back(node: Gateway, id: str) -> requests.Response:
    """Asks for a command not to be sent."""
    return requests.delete(f"{node.admin_url}/api/v1/commands/{quote(id, safe='')}", timeout=10)


async def in_state(node: Gateway, id: str, state: str) -> None:
    """Waits until a command that has not ended is `waiting`, `kept` or `sending`."""

    def look() -> bool:
        return show(node, id).json().get("state") == state

    await asyncio.to_thread(wait_for, look, f"{id} is {state}")


async def ended(node: Gateway, id: str, timeout: float = 15.0) -> dict[str, Any]:
    """Waits until a command has ended; its outcome."""

    def look() -> dict[str, Any] | None:
        shown = show(node, id)
        return shown.json() if "status" in shown.json() and shown.status_code == 200 else None

    return await asyncio.to_thread(wait_for, look, f"the end of {id}", timeout)


def results(node: Gateway) -> dict[str, Event]:
    """The result events of the local log by command id; fails when a command has two, or the contract refuses one.

    On the local bus nothing is delivered twice by itself: an event that is told again after a crash has the id of the first.
    """
    found: dict[str, Event] = {}
    for event in node.events(type="ocpp.command.result"):
        assert violations(event.json) == [], event.text
        first = found.setdefault(event.data["commandId"], event)
        assert first.text == event.text, f"two results: {first.text} and {event.text}"
    return found


def problem(response: requests.Response, status: int) -> dict[str, Any]:
    """Fails unless the response is a problem (RFC 9457) of this status; its body."""
    assert response.status_code == status, f"{response.status_code}: {response.text}"
    assert response.headers["Content-Type"] == "application/problem+json"
    body = response.json()
    assert body["status"] == status
    assert body["title"]
    assert body["detail"]
    return body


async def leave(node: Gateway, how: str) -> None:
    """Ends the gateway: `sigterm` or `kill9`."""
    if how == "sigterm":
        assert await asyncio.to_thread(node.sigterm) == 0
    else:
        node.kill9()


async def settled(node: Gateway, station: Obedient) -> None:
    """Returns when whatever was on its way to the station before has arrived: a command of now is served last."""
    id = f"last-{time.monotonic_ns()}"
    assert (await post(node, station.identity, body(id))).json()["status"] == "answered"
    assert station.arrived.pop() == id


async def arrival(station: Obedient, id: str) -> None:
    """Waits until a command is at the station."""
    await asyncio.to_thread(wait_for, lambda: id in station.arrived, f"{id} at the station")
