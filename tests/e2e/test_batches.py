"""One command for many stations: which ones it reaches, its rate, a result for each and a summary, cancellation, restarts."""

import asyncio
import time

import pytest
import requests
from harness.contract import violations
from harness.station import Station
from harness.waiting import wait_for


class Crowd:
    """Stations CP-000, CP-001, … that accept every command, and a record of what they were sent."""

    def __init__(self):
        self.asked = []
        self.stations = []
        self.tasks = []

    @classmethod
    async def connect(cls, node, count):
        crowd = cls()
        for number in range(count):
            identity = f"CP-{number:03}"
            station = await Station.connect(node, identity)
            await station.boot()
            crowd.stations.append(station)
            crowd.tasks.append(asyncio.create_task(crowd.obey(identity, station)))
        return crowd

    async def obey(self, identity, station):
        while True:
            call = await station.next_call(timeout=60)
            self.asked.append((time.monotonic(), identity))
            await station.answer(call, {"status": "Accepted"})

    @property
    def identities(self):
        return [identity for _, identity in self.asked]

    async def leave(self):
        for task in self.tasks:
            task.cancel()
        # A task whose connection ended has failed, which does not matter here.
        await asyncio.gather(*self.tasks, return_exceptions=True)
        for station in self.stations:
            await station.close()


def summary(node, batch):
    events = node.events(type="ocpp.command.summary")
    found = [event for event in events if event.data["batchId"] == batch]
    assert [violations(event.json) for event in found] == [[]] * len(found)
    return found


def results(node, batch):
    found = [e for e in node.events(type="ocpp.command.result") if e.data["commandId"].startswith(f"{batch}:")]
    assert [violations(event.json) for event in found] == [[]] * len(found)
    return found


def begin(node, batch, to, **more):
    body = {"batchId": batch, "to": to, "action": "ClearCache", **more}
    response = node.post("/api/v1/commands", body)
    assert response.status_code == 202, response.text
    assert response.headers["location"] == f"/api/v1/batches/{batch}"
    return response.json()


def delete(node, batch):
    return requests.delete(f"{node.admin_url}/api/v1/batches/{batch}", timeout=10).status_code


def ended(node, batch):
    wait_for(lambda: node.get(f"/api/v1/batches/{batch}").json()["state"] == "ended", f"{batch} to end", 60)
    return node.get(f"/api/v1/batches/{batch}").json()


async def test_a_list_a_tag_and_all(gateway):
    node = gateway({"listeners": {"main": {"tags": ["site"]}}})
    crowd = await Crowd.connect(node, 4)
    for number in (1, 2):
        assert node.put(f"/api/v1/stations/CP-00{number}/tags", {"tags": ["depot"]}).status_code == 200
    listed = node.get("/api/v1/stations?tag=depot").json()["stations"]
    assert [station["id"] for station in listed] == ["CP-001", "CP-002"]
    for batch, to, reached in (
        ("list", {"stations": ["CP-003", "CP-000", "AWAY"]}, ["CP-003", "CP-000"]),
        ("tag", {"tag": "depot"}, ["CP-001", "CP-002"]),
        ("listener", {"tag": "site"}, ["CP-000", "CP-003"]),
        ("all", {"all": True}, ["CP-000", "CP-001", "CP-002", "CP-003"]),
        ("nobody", {"tag": "nowhere"}, []),
    ):
        crowd.asked.clear()
        begin(node, batch, to)
        state = await asyncio.to_thread(ended, node, batch)
        assert sorted(crowd.identities) == sorted(reached), batch
        statuses = {"answered": len(reached)} if reached else {}
        if batch == "list":
            statuses["offline"] = 1
        assert state["statuses"] == statuses
        (event,) = summary(node, batch)
        assert (event.data["statuses"], event.data["stations"]) == (statuses, sum(statuses.values()))
        assert len(results(node, batch)) == sum(statuses.values())
    # A repeated batch is recognised and not sent again.
    crowd.asked.clear()
    begin(node, "all", {"all": True})
    assert await asyncio.to_thread(ended, node, "all") == node.get("/api/v1/batches/all").json()
    assert crowd.asked == []
    await crowd.leave()


@pytest.mark.serial
async def test_a_batch_keeps_its_rate(gateway):
    node = gateway()
    crowd = await Crowd.connect(node, 20)
    begin(node, "paced", {"all": True}, ratePerSecond=20)
    await asyncio.to_thread(ended, node, "paced")
    assert len(crowd.asked) == 20
    took = crowd.asked[-1][0] - crowd.asked[0][0]
    # Nineteen gaps of 50 ms; the rate limiter may catch up on 200 ms.
    assert 0.7 < took < 5, took
    await crowd.leave()


async def test_commands_that_were_not_sent_are_cancelled(gateway):
    node = gateway()
    crowd = await Crowd.connect(node, 3)
    to = {"stations": ["AWAY", "CP-000", "CP-001", "CP-002"]}
    begin(node, "slow", to, ratePerSecond=1, ifOffline="queue")
    await asyncio.to_thread(wait_for, lambda: len(crowd.asked) == 1, "the first station's turn")
    assert delete(node, "slow") == 202
    state = await asyncio.to_thread(ended, node, "slow")
    sent = len(crowd.asked)
    assert sent < 3
    assert state["statuses"] == {"answered": sent, "expired": 4 - sent}
    ended_as = [event.data for event in results(node, "slow")]
    assert len({data["commandId"] for data in ended_as}) == 4 == len(ended_as)
    expired = [data for data in ended_as if data["status"] == "expired"]
    assert {(data["sent"], data["error"]["code"]) for data in expired} == {("no", "calledBack")}
    assert len(summary(node, "slow")) == 1
    assert delete(node, "slow") == 409
    await crowd.leave()


async def test_a_batch_resumes_after_a_crash(gateway):
    """Killed in the middle of a batch: each station has one result, and none was sent the command twice."""
    node = gateway()
    before = await Crowd.connect(node, 30)
    begin(node, "long", {"all": True}, ratePerSecond=20, ifOffline="queue")
    await asyncio.to_thread(wait_for, lambda: len(before.asked) >= 8, "eight stations to be asked")
    node.kill9()
    await before.leave()
    node.start()
    after = await Crowd.connect(node, 30)
    state = await asyncio.to_thread(ended, node, "long")
    asked = before.identities + after.identities
    assert len(asked) == len(set(asked)), "no station twice"
    assert len(after.asked) > 0
    assert sum(state["statuses"].values()) == 30, state
    found = {event.json["id"]: event.data for event in results(node, "long")}
    assert len({data["commandId"] for data in found.values()}) == 30 == len(found)
    for data in found.values():
        if data["status"] != "answered":
            assert (data["status"], data["sent"]) == ("offline", "unknown")
    assert len({event.json["id"] for event in summary(node, "long")}) == 1
    await after.leave()
