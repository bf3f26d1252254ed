"""Commands while the disk hangs: what happens while a step waits for it must not undo the step.

Proves P1 and P2 for commands in races that only a hanging disk makes certain: two tasks that send a station's offline queue, callers
that disconnect in the middle, batches whose commands are forgotten elsewhere, and what a restart finds and queues.
"""

import asyncio
import json
import socket
import time
from collections import Counter

import pytest
import requests
from harness.disk import COMPILER, Disk
from harness.gateway import merged
from harness.obedient import Obedient, body
from harness.orders import ASYNC, SOON, arrival, ended, in_state, post, results, show
from harness.waiting import wait_for

pytestmark = pytest.mark.skipif(COMPILER is None, reason="there is no C compiler for disk_shim.c")

EVENTS, COMMANDS = "/data/events/", "/data/commands/"


@pytest.fixture
def held(gateway, tmp_path):
    """A gateway on a disk that can be held."""

    def start(config):
        disk = Disk(tmp_path / "disk")
        node = gateway(merged(SOON, config), start=False)
        node.environment = disk.environment
        node.start()
        return node, disk

    return start


class ByHand(Obedient):
    """A station that answers on demand."""

    def __init__(self, identity):
        super().__init__(identity, delay=None)
        self.ids = {}

    def _listener(self, wire):
        note = super()._listener(wire)

        def on_text(text):
            frame = json.loads(text)
            if frame[0] == 2:
                self.ids[frame[3]["data"]] = frame[1]
            note(text)

        return on_text

    async def answer(self, id):
        await arrival(self, id)
        self.wire.send(json.dumps([3, self.ids[id], {"status": "Accepted"}]))


def ask_and_go(node, method, path, payload=None, after=0.3):
    """Sends a request and disconnects before the response."""
    text = b"" if payload is None else json.dumps(payload).encode()
    head = f"{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(text)}\r\n\r\n"
    with socket.create_connection(("127.0.0.1", node.admin_port)) as client:
        client.sendall(head.encode() + text)
        # Nothing shows that the gateway has begun with it.
        time.sleep(after)


def waiting_at(node, station):
    return node.get(f"/api/v1/stations/{station}").json()["commandsWaiting"]


def batch(node, id):
    return node.get(f"/api/v1/batches/{id}").json()


async def until(condition, what, timeout=15):
    await asyncio.to_thread(wait_for, condition, what, timeout)


async def test_an_offline_queue_is_sent_by_one_task_alone(held):
    """The queue is empty but the result of its last command not published when another is queued: that one is sent once."""
    node, disk = held({"session": {"command_queue": 2}})
    assert (await post(node, "CP-1", body("A", ifOffline="queue"))).status_code == 202
    station = await ByHand("CP-1").connect(node)
    await arrival(station, "A")
    with disk.holding(EVENTS):
        await station.answer("A")
        # Its end is recorded, but its result cannot be published.
        await until(lambda: show(node, "A").json().get("action") is None, "A to have an end")
        others = [post(node, "CP-1", body("B1", ifOffline="queue"))]
        await arrival(station, "B1")
        for waiting, id in enumerate(("B2", "B3"), start=1):
            others.append(post(node, "CP-1", body(id, ifOffline="queue")))
            await until(lambda waiting=waiting: waiting_at(node, "CP-1") == waiting, f"{id} to wait")
        assert (await post(node, "CP-1", body("X", ifOffline="queue"))).status_code == 202
    await ended(node, "A")
    for id in ("B1", "B2", "B3", "X"):
        await station.answer(id)
        await ended(node, id)
    await asyncio.gather(*others)
    # A second send would have happened by now.
    assert (await post(node, "CP-1", body("invalid", action="Nonsense"))).json()["status"] == "invalid"
    assert Counter(station.arrived) == dict.fromkeys(["A", "B1", "B2", "B3", "X"], 1)


@pytest.mark.parametrize("where", [EVENTS, COMMANDS])
async def test_a_cancelled_command_has_its_result_even_if_the_caller_is_gone(held, where):
    node, disk = held({})
    assert (await post(node, "CP-1", body("A", ifOffline="queue"))).status_code == 202
    with disk.holding(where):
        # Keeps the disk busy, so that what follows has to wait.
        busy = post(node, "CP-2", body("busy", ifOffline="queue"), ASYNC)
        await asyncio.to_thread(ask_and_go, node, "DELETE", "/api/v1/commands/A")
    await busy
    assert (await ended(node, "A"))["status"] == "expired"
    again = await asyncio.wait_for(post(node, "CP-1", body("A", ifOffline="queue")), 10)
    assert again.json()["error"]["code"] == "calledBack"
    assert "A" in results(node)


async def test_a_batch_starts_even_if_the_caller_is_gone(held):
    node, disk = held({})
    to = {"stations": ["CP-1", "CP-2"]}
    with disk.holding(COMMANDS):
        payload = {"batchId": "b", "to": to, "action": "ClearCache"}
        await asyncio.to_thread(ask_and_go, node, "POST", "/api/v1/commands", payload)
    await until(lambda: batch(node, "b")["state"] == "ended", "the batch to end")
    assert batch(node, "b")["statuses"] == {"offline": 2}


async def forget(node):
    """Sends other commands, more than are remembered."""
    for number in range(5):
        await post(node, "CP-9", body(f"other-{number}"))


async def test_a_batch_knows_its_commands_whatever_is_forgotten(held):
    node, _ = held({"commands": {"remembered": 3}})
    to = {"stations": ["CP-1", "CP-2", "CP-3"]}
    node.post("/api/v1/commands", {"batchId": "b", "to": to, "action": "ClearCache", "ratePerSecond": 0.05})
    await until(lambda: batch(node, "b")["ended"] == 1, "the first to end")
    await forget(node)
    assert requests.delete(f"{node.admin_url}/api/v1/batches/b", timeout=10).status_code == 202
    await until(lambda: batch(node, "b")["state"] == "ended", "the batch to end")
    assert batch(node, "b")["statuses"] == {"offline": 1, "expired": 2}
    results(node)


async def test_a_batch_ends_once_after_a_crash_whatever_is_forgotten(held):
    node, _ = held({"commands": {"remembered": 3}})
    stations = [await Obedient(f"CP-{number}").connect(node) for number in range(3)]
    asked = {key: value for key, value in body("b").items() if key != "commandId"}
    to = {"stations": [station.identity for station in stations]}
    node.post("/api/v1/commands", {"batchId": "b", "to": to, "ratePerSecond": 0.5, **asked})
    await until(lambda: batch(node, "b")["ended"] == 1, "the first to end")
    await forget(node)
    node.kill9()
    node.start(until="/livez")
    for station in stations:
        await station.connect(node)
    await until(lambda: batch(node, "b")["state"] == "ended", "the batch to end", 30)
    assert batch(node, "b")["ended"] == 3
    assert all(len(station.arrived) <= 1 for station in stations)
    results(node)


async def test_what_a_restart_queues_goes_to_a_station_that_is_already_connected(held):
    """After a crash, hundreds of commands end slowly; the one that goes to the offline queue is behind them."""
    node, disk = held({"commands": {"grace": "300s"}, "session": {"command_queue": 2000}, "log": {"level": "info"}})
    station = await Obedient("CP-1").connect(node)
    await station.wire.leave()
    # It sends nothing, so that commands wait.
    station = await Obedient("CP-1").connect(node, boots=False)
    taken = await asyncio.gather(*(post(node, "CP-1", body(f"f-{number}"), ASYNC) for number in range(600)))
    assert {response.status_code for response in taken} == {202}
    assert (await post(node, "CP-1", body("X", ifOffline="queue"), ASYNC)).status_code == 202
    await in_state(node, "X", "waiting")
    node.kill9()
    node.start(until="/livez")
    station = await Obedient("CP-1").connect(node)
    assert (await ended(node, "X", 30))["status"] == "answered"
    assert station.arrived == ["X"]
