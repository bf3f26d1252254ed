"""Commands for disconnected stations, and for stations whose connection breaks or is replaced while commands wait.

Proves: the offline queue is bounded, ordered, durable across restarts and crashes, and sent only once the station has booted or sent
a message and is accepted; expired commands are reported; commands that waited are sent once on the next connection.
"""

import asyncio
import json
import random
import time

import pytest
import requests
from harness.gateway import merged
from harness.obedient import ACTION, Obedient, body
from harness.orders import ASYNC, SOON, ended, in_state, leave, post, results, settled, show
from harness.waiting import wait_for
from harness.wire import Wire

# -- the queue --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("how", "word"), [("sigterm", "boot"), ("kill9", "message")])
async def test_a_hundred_commands_survive_a_restart_and_are_sent_in_order_after_the_first_message(gateway, how, word):
    node = gateway(SOON)
    station = Obedient("CP-1")
    if word == "message":
        # It is registered, so that it need not boot when it comes back.
        await station.connect(node)
        await station.wire.leave()
    ids = [f"c-{number:03}" for number in range(100)]
    for id in ids:
        response = await post(node, "CP-1", body(id, ifOffline="queue"))
        assert (response.status_code, response.json()["state"]) == (202, "kept"), response.text
    refused = (await post(node, "CP-1", body("c-100", ifOffline="queue"))).json()
    assert (refused["status"], refused["sent"]) == ("queueFull", "no")
    # The queue is full for one station only.
    assert (await post(node, "CP-2", body("other", ifOffline="queue"))).status_code == 202
    again = await post(node, "CP-1", body("c-007", ifOffline="queue"))
    assert (again.status_code, again.json()["state"]) == (202, "kept")
    await leave(node, how)
    await asyncio.to_thread(node.restart)
    assert show(node, "c-000").json()["state"] == "kept"
    # A restart does not make room.
    assert (await post(node, "CP-1", body("c-101", ifOffline="queue"))).json()["status"] == "queueFull"

    await station.connect(node, boots=False)
    # Five times the grace, in which nothing must come: being connected is not being ready.
    await asyncio.sleep(0.5)
    assert station.arrived == []
    if word == "boot":
        await station.call("BootNotification", {"chargePointVendor": "V", "chargePointModel": "M"})
    else:
        assert (await station.call("Heartbeat", {}))[0] == 3
    await ended(node, ids[-1], timeout=30)
    assert station.arrived == ids
    found = results(node)
    assert {found[id].data["status"] for id in ids} == {"answered"}
    assert [event.data["payload"]["data"] for id, event in found.items() if id in ids] == ids, (
        "the results are in order as well"
    )
    assert (await post(node, "CP-1", body("c-100"))).json() == refused, "a refusal is final"
    assert station.arrived == ids


async def test_the_payload_of_a_queued_command_is_sent_byte_for_byte(gateway):
    node = gateway(SOON)
    payload = '{ "vendorId" : "v",\t"data":"1.50 \\u00e9\\/" , "messageId": "\\u006d" }'
    text = f'{{"commandId":"c-1","action":"DataTransfer","ifOffline":"queue","payload":{payload}}}'
    url = f"{node.admin_url}/api/v1/stations/CP-1/commands"
    assert requests.post(url, data=text.encode(), timeout=10).status_code == 202
    node.kill9()
    await asyncio.to_thread(node.restart)
    wire = await Wire.connect(node, "CP-1")
    arrived: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    wire.on_text = lambda text: arrived.set_result(text) if text.startswith("[2") else None
    wire.send('[2,"1","BootNotification",{"chargePointVendor":"V","chargePointModel":"M"}]')
    assert (await asyncio.wait_for(arrived, 10)).endswith(f',"DataTransfer",{payload}]')


@pytest.mark.parametrize("away", ["running", "stopped"])
async def test_expired_commands_are_reported_and_not_sent(gateway, away):
    """The gateway is running, or stopped, when they expire."""
    node = gateway(merged(SOON, {"commands": {"offline_ttl": "3s"}}))
    soon = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 2))
    late = "2099-01-01T00:00:00Z"
    for id, more in (("ttl", {}), ("own", {"expiresAt": soon}), ("longer", {"expiresAt": late})):
        assert (await post(node, "CP-1", body(id, ifOffline="queue", **more))).status_code == 202
    over = await post(node, "CP-1", body("over", ifOffline="queue", expiresAt="2020-01-01T00:00:00Z"))
    assert (over.status_code, over.json()["status"]) == (200, "expired")
    if away == "stopped":
        node.kill9()
        until = time.time() + 3
        await asyncio.to_thread(wait_for, lambda: time.time() > until, "the expiry")
        await asyncio.to_thread(node.restart)
    for id in ("own", "ttl", "longer"):
        outcome = await ended(node, id)
        assert (outcome["status"], outcome["sent"]) == ("expired", "no")
    station = await Obedient("CP-1").connect(node)
    await settled(node, station)
    assert station.arrived == []
    found = results(node)
    assert {found[id].data["status"] for id in ("own", "ttl", "longer", "over")} == {"expired"}
    assert (await post(node, "CP-2", body("room", ifOffline="queue"))).status_code == 202


@pytest.mark.parametrize("first", ["Pending", "Rejected"])
async def test_queued_commands_wait_until_the_station_is_accepted(gateway, first):
    node = gateway(SOON | {"registration": {"default": first, "trigger_boot": False}})
    for id in ("c-1", "c-2"):
        assert (await post(node, "CP-1", body(id, ifOffline="queue"))).status_code == 202
    station = await Obedient("CP-1").connect(node)
    await station.call("Heartbeat", {})
    # Five times the grace, in which nothing must come.
    await asyncio.sleep(0.5)
    assert station.arrived == []
    assert show(node, "c-1").json()["state"] == "kept"
    assert node.put("/api/v1/stations/CP-1/registration", {"status": "Accepted"}).status_code == 200
    await station.call("BootNotification", {"chargePointVendor": "V", "chargePointModel": "M"})
    assert (await ended(node, "c-2"))["status"] == "answered"
    assert station.arrived == ["c-1", "c-2"]


async def test_queued_commands_keep_their_order_even_if_urgent(gateway):
    """Urgent commands overtake only those that wait for a connected station; the offline queue is first in, first out."""
    node = gateway(SOON)
    payloads = {"RemoteStopTransaction": {"transactionId": 1}, "Reset": {"type": "Soft"}}
    sent = ["GetConfiguration", "RemoteStopTransaction", "ClearCache", "Reset"]
    for action in sent:
        payload = payloads.get(action, {})
        command = {"commandId": action, "action": action, "payload": payload, "ifOffline": "queue"}
        assert (await post(node, "CP-1", command)).status_code == 202
    wire = await Wire.connect(node, "CP-1")
    wire.send('[2,"1","BootNotification",{"chargePointVendor":"V","chargePointModel":"M"}]')
    assert (await wire.receive())[0] == 3
    arrived = []
    for _ in sent:
        call = await wire.receive()
        arrived.append(call[2])
        wire.send(json.dumps([3, call[1], {}]))
    assert arrived == sent


async def test_a_station_that_disconnects_during_delivery_gets_the_rest_later(gateway):
    node = gateway(SOON)
    ids = [f"c-{number:02}" for number in range(30)]
    for id in ids:
        await post(node, "CP-1", body(id, ifOffline="queue"))
    station = Obedient("CP-1", delay=0.005)
    cut = random.Random(5)
    for round in range(5):
        await station.connect(node)

        def progressed(least: int = len(station.arrived) + 1 + cut.randrange(4)) -> bool:
            return len(station.arrived) >= least

        await asyncio.to_thread(wait_for, progressed, f"commands in round {round}", 10, 0.001)
        station.wire.reset()
        await station.wire.end()
    await station.connect(node)
    outcomes = [await ended(node, id) for id in ids]
    assert sorted(set(station.arrived)) == station.arrived, "in order, and none twice"
    for id, outcome in zip(ids, outcomes, strict=True):
        # A command that was being sent when the connection broke has ended; it may not have arrived.
        assert outcome["status"] in ("answered", "offline", "replaced")
        assert outcome["status"] != "answered" or id in station.arrived
    lost = [outcome for outcome in outcomes if outcome["status"] != "answered"]
    assert len(lost) <= 5
    assert {outcome["sent"] for outcome in lost} <= {"yes"}
    assert list(results(node)) == ids


async def test_commands_keep_their_order_across_reconnects(gateway):
    """A station replaces its connection again and again while commands arrive, as on a bad radio link."""
    # Room for all of them: how many wait in a session or between two depends on how soon the station is back.
    room = {"session": {"command_queue": 150}, "commands": {"offline_queue": 150}, "log": {"level": "info"}}
    node = gateway(merged(SOON, room))
    station = await Obedient("CP-1", delay=0.01).connect(node)
    ids = [f"c-{number:03}" for number in range(150)]

    async def give() -> None:
        for id in ids:
            while (response := await post(node, "CP-1", body(id, ifOffline="queue"), ASYNC)).status_code != 202:
                raise AssertionError(response.text)
            # A little faster than the station answers them.
            await asyncio.sleep(0.003)

    giving = asyncio.create_task(give())
    old = []
    while not giving.done():
        before = len(station.arrived)
        # How long such a connection lasts.
        await asyncio.sleep(0.08)
        old.append(station.wire)
        if len(old) % 2:
            station.wire.reset()
        await station.connect(node)
        assert len(station.arrived) >= before
    await giving
    outcomes = {id: await ended(node, id, 30) for id in ids}
    assert sorted(station.arrived) == station.arrived, "in the order in which they were sent"
    assert len(set(station.arrived)) == len(station.arrived), "none twice"
    for id, outcome in outcomes.items():
        assert outcome["status"] in ("answered", "offline", "replaced"), outcome
        assert outcome["status"] != "answered" or id in station.arrived
        assert outcome["sent"] == "yes", "none was given up that could be sent later"
    assert set(results(node)) == set(ids)
    print(f"\n{len(old)} reconnects, {len(station.arrived)} of {len(ids)} arrived")


# -- a connection that is replaced --------------------------------------------------------------------------------


@pytest.mark.parametrize("old_is", ["alive", "half-dead"])
@pytest.mark.parametrize("if_offline", ["fail", "queue"])
async def test_waiting_commands_are_sent_once_and_in_order_on_the_new_connection(gateway, old_is, if_offline):
    node = gateway(SOON)
    old = Obedient("CP-1", delay=None)
    if old_is == "alive":
        await old.connect(node)
        first = post(node, "CP-1", body("first", timeoutMs=40_000))
    else:
        # Its window is so small that a large command does not even leave the gateway's buffers.
        old.wire = await Wire.connect(node, "CP-1", receive_buffer=8192)
        assert (await old.wire.call("1", "BootNotification", {"chargePointVendor": "V", "chargePointModel": "M"}))[
            0
        ] == 3
        old.wire.stop_reading()
        large = {"vendorId": "test", "data": "x" * 900_000}
        first = post(node, "CP-1", {"commandId": "first", "action": ACTION, "payload": large, "timeoutMs": 40_000})
    await in_state(node, "first", "sending")
    ids = [f"c-{number:02}" for number in range(30)]
    outcomes = {}
    for id in ids:
        outcomes[id] = post(node, "CP-1", body(id, ifOffline=if_offline, timeoutMs=40_000))
        await in_state(node, id, "waiting")
    new = await Obedient("CP-1").connect(node)
    for one in outcomes.values():
        response = await one
        if response.status_code == 202:
            continue  # It was in the offline queue for a moment, between the two connections.
        assert (response.json()["status"], response.json()["sent"]) == ("answered", "yes")
    assert (await ended(node, ids[-1]))["status"] == "answered"
    assert {(await ended(node, id))["status"] for id in ids} == {"answered"}
    assert new.arrived == ids, "once each, in order"
    outcome = (await first).json()
    assert (outcome["status"], outcome["sent"]) == ("replaced", "yes")
    assert old.arrived == (["first"] if old_is == "alive" else [])
    if old_is == "half-dead":
        old.wire.reset()
    assert set(results(node)) == {"first", *ids}
