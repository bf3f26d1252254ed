"""Commands over HTTP from asynchronous tests, many at a time."""

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

# Stations stop reading when their test ends, so that closing them must not take long.
SOON: dict[str, Any] = {"commands": {"grace": "100ms"}, "session": {"close_timeout": "500ms"}}
"""Configuration in which a station gets its first command soon."""

ASYNC = {"Prefer": "respond-async"}

# A request blocks until its outcome; asyncio's default pool is too small for many of them.
_POOL = ThreadPoolExecutor(160)


def post(
    node: Gateway, station: str, command: dict[str, Any], headers: dict[str, str] | None = None
) -> asyncio.Future[requests.Response]:
    """Sends a command; returns a future of the response."""
    path = f"/api/v1/stations/{station}/commands"
    return asyncio.wrap_future(_POOL.submit(node.post, path, command, headers=headers or {}))


def show(node: Gateway, id: str) -> requests.Response:
    """What the gateway knows of a command."""
    return node.get(f"/api/v1/commands/{quote(id, safe='')}")


def cancel(node: Gateway, id: str) -> requests.Response:
    """Cancels a command."""
    return requests.delete(f"{node.admin_url}/api/v1/commands/{quote(id, safe='')}", timeout=10)


async def in_state(node: Gateway, id: str, state: str) -> None:
    """Waits until a command that has not ended is `waiting`, `kept` (in the offline queue) or `sending`."""

    def look() -> bool:
        return show(node, id).json().get("state") == state

    await asyncio.to_thread(wait_for, look, f"{id} is {state}")


async def ended(node: Gateway, id: str, timeout: float = 15.0) -> dict[str, Any]:
    """Waits until a command has ended; returns its outcome."""

    def look() -> dict[str, Any] | None:
        shown = show(node, id)
        return shown.json() if "status" in shown.json() and shown.status_code == 200 else None

    return await asyncio.to_thread(wait_for, look, f"the end of {id}", timeout)


def results(node: Gateway) -> dict[str, Event]:
    """The result events in the local log, by command id. Fails if a command has two, or if one violates the contract.

    The local bus itself delivers nothing twice; an event that is published again after a crash has the id of the first.
    """
    found: dict[str, Event] = {}
    for event in node.events(type="ocpp.command.result"):
        assert violations(event.json) == [], event.text
        first = found.setdefault(event.data["commandId"], event)
        assert first.text == event.text, f"two results: {first.text} and {event.text}"
    return found


def problem(response: requests.Response, status: int) -> dict[str, Any]:
    """Fails unless the response is a problem (RFC 9457) with this status; returns its body."""
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
    """Waits until everything on its way to the station has arrived: a command sent now is served last."""
    id = f"last-{time.monotonic_ns()}"
    assert (await post(node, station.identity, body(id))).json()["status"] == "answered"
    assert station.arrived.pop() == id


async def arrival(station: Obedient, id: str) -> None:
    """Waits until a command has arrived at the station."""
    await asyncio.to_thread(wait_for, lambda: id in station.arrived, f"{id} at the station")
