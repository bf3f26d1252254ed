"""Registration: what may be exchanged with a station before it is accepted, and what outlives a connection and a process.

Proves the matrix of OCPP 1.6 section 4.2 and of 2.x use cases B01 to B03; that registrations and 1.6 transaction ids survive a
reconnect, a restart and a kill -9; and that a repeated StartTransaction gets the same id.
"""

import asyncio
import json
import re
from typing import Any

import pytest
from harness.contract import violations
from harness.gateway import Gateway
from harness.station import BOOT, Station
from harness.waiting import wait_for

VERSIONS = ["1.6", "2.0.1", "2.1"]

# What a station may not send before it is accepted, unless triggered. Minimal valid payloads.
TALK: dict[str, dict[str, dict[str, Any]]] = {
    "1.6": {
        "Heartbeat": {},
        "Authorize": {"idTag": "TAG"},
        "StatusNotification": {"connectorId": 1, "errorCode": "NoError", "status": "Available"},
        "StartTransaction": {"connectorId": 1, "idTag": "TAG", "meterStart": 0, "timestamp": "2026-01-01T00:00:00Z"},
        "MeterValues": {"connectorId": 1, "meterValue": []},
        "StopTransaction": {"transactionId": 1, "timestamp": "2026-01-01T00:00:00Z", "meterStop": 1},
        "SignCertificate": {"csr": "c"},
        "DataTransfer": {"vendorId": "v"},
        "SignedFirmwareStatusNotification": {"status": "Idle"},
    },
    "2.0.1": {
        "Heartbeat": {},
        "Authorize": {"idToken": {"idToken": "TAG", "type": "Central"}},
        "StatusNotification": {
            "timestamp": "2026-01-01T00:00:00Z",
            "connectorStatus": "Available",
            "evseId": 1,
            "connectorId": 1,
        },
        "TransactionEvent": {
            "eventType": "Started",
            "timestamp": "2026-01-01T00:00:00Z",
            "triggerReason": "Authorized",
            "seqNo": 0,
            "transactionInfo": {"transactionId": "t"},
        },
        "NotifyReport": {"requestId": 1, "generatedAt": "2026-01-01T00:00:00Z", "seqNo": 0},
        "SecurityEventNotification": {"type": "StartupOfTheDevice", "timestamp": "2026-01-01T00:00:00Z"},
        "SignCertificate": {"csr": "c"},
        "DataTransfer": {"vendorId": "v"},
    },
}
TALK["2.1"] = TALK["2.0.1"]

READ = {"1.6": "GetConfiguration", "2.0.1": "GetVariables", "2.1": "GetVariables"}
START = {"1.6": "RemoteStartTransaction", "2.0.1": "RequestStartTransaction", "2.1": "RequestStartTransaction"}
STOP = {"1.6": "RemoteStopTransaction", "2.0.1": "RequestStopTransaction", "2.1": "RequestStopTransaction"}
PAYLOADS = {
    "GetConfiguration": {},
    "GetVariables": {"getVariableData": [{"component": {"name": "c"}, "variable": {"name": "v"}}]},
    "RemoteStartTransaction": {"idTag": "TAG"},
    "RequestStartTransaction": {"remoteStartId": 1, "idToken": {"idToken": "TAG", "type": "Central"}},
    "RemoteStopTransaction": {"transactionId": 1},
    "RequestStopTransaction": {"transactionId": "t"},
}

READ_ANSWERS = {
    "1.6": {},
    "2.0.1": {
        "getVariableResult": [
            {"attributeStatus": "UnknownVariable", "component": {"name": "c"}, "variable": {"name": "v"}}
        ]
    },
}
READ_ANSWERS["2.1"] = READ_ANSWERS["2.0.1"]

# Requests that trigger a pending station, and what it may send then.
TRIGGERS = {
    "1.6": [
        ("TriggerMessage", {"requestedMessage": "StatusNotification", "connectorId": 1}, {"StatusNotification"}),
        ("TriggerMessage", {"requestedMessage": "MeterValues"}, {"MeterValues"}),
        ("ExtendedTriggerMessage", {"requestedMessage": "SignChargePointCertificate"}, {"SignCertificate"}),
        (
            "ExtendedTriggerMessage",
            {"requestedMessage": "FirmwareStatusNotification"},
            {"SignedFirmwareStatusNotification"},
        ),
    ],
    "2.0.1": [
        ("TriggerMessage", {"requestedMessage": "Heartbeat"}, {"Heartbeat"}),
        ("TriggerMessage", {"requestedMessage": "TransactionEvent"}, {"TransactionEvent"}),
        ("TriggerMessage", {"requestedMessage": "SignChargingStationCertificate"}, {"SignCertificate"}),
        ("GetBaseReport", {"requestId": 1, "reportBase": "FullInventory"}, {"NotifyReport"}),
    ],
}
TRIGGERS["2.1"] = [*TRIGGERS["2.0.1"], ("GetReport", {"requestId": 1}, {"NotifyReport"})]


def decide(node: Gateway, status: str, identity: str = "CP-1") -> None:
    response = node.put(f"/api/v1/stations/{identity}/registration", {"status": status})
    assert response.status_code == 200, response.text


def command(node: Gateway, action: str, payload: dict[str, Any] | None = None) -> asyncio.Task[dict[str, Any]]:
    body = {"action": action, "payload": payload or PAYLOADS[action]}
    return asyncio.create_task(asyncio.to_thread(lambda: node.post("/api/v1/stations/CP-1/commands", body).json()))


async def served(station: Station, why: str = "") -> set[str]:
    """The actions that are answered with a CALLRESULT; all others get SecurityError, with a text that says `why`."""
    answered = set()
    for action, payload in TALK[station.version].items():
        answer = await station.call(action, payload)
        if answer[0] == 3:
            answered.add(action)
        else:
            assert answer[2] == "SecurityError", (action, answer)
            assert why in answer[3]
    return answered


def everything(version: str) -> set[str]:
    return set(TALK[version])


# -- the matrix ---------------------------------------------------------------------------------------------------


async def asked_to_boot(station: Station, status: str = "Accepted") -> None:
    """The gateway's next CALL asks the station to boot; it answers with this status."""
    trigger = await station.next_call()
    assert trigger[2:] == ["TriggerMessage", {"requestedMessage": "BootNotification"}]
    await station.answer(trigger, {"status": status})


@pytest.mark.parametrize("version", VERSIONS)
async def test_a_station_that_believes_to_be_registered_is_asked_to_boot(gateway, version):
    """Its registration is lost, or in another node's folder: it reconnects without a BootNotification, and sends on."""
    former, node = gateway(), gateway()
    async with await Station.connect(former, "CP-1", version) as station:
        assert (await station.boot())["status"] == "Accepted"
        assert await served(station) == everything(version)
    async with await Station.connect(node, "CP-1", version) as station:
        assert await served(station, "not registered") == set()
        await asked_to_boot(station)
        assert (await station.boot())["status"] == "Accepted"
        assert await served(station) == everything(version)
        assert not station.calls, "once"
    assert node.metric("ocpp_gateway_boot_triggers_total", outcome="accepted") == 1
    assert node.metric("ocpp_gateway_boot_triggers_total") == 1
    exchange = [
        event
        for event in node.await_events(lambda events: events[-1].type == "ocpp.station.disconnected", "the end")
        if event.data.get("action") == "TriggerMessage"
    ]
    assert [(event.type, event.data["messageType"]) for event in exchange] == [
        ("ocpp.message.sent", "CALL"),
        ("ocpp.message.received", "CALLRESULT"),
    ]
    assert [violations(event.json) for event in exchange] == [[], []]


async def test_a_silent_station_is_asked_to_boot_and_one_that_boots_is_not(gateway):
    node = gateway()
    async with (
        await Station.connect(node, "CP-1", "1.6") as silent,
        await Station.connect(node, "CP-2", "2.0.1") as booting,
    ):
        await booting.boot()
        await asked_to_boot(silent, "Rejected")
        await booting.silence(0.3)
    assert node.metric("ocpp_gateway_boot_triggers_total", outcome="refused") == 1


@pytest.mark.parametrize("version", VERSIONS)
async def test_commands_that_may_help_reach_a_station_that_never_booted(gateway, version):
    node = gateway({"registration": {"trigger_boot": False}, "commands": {"grace": "100ms"}})
    async with await Station.connect(node, "CP-1", version) as station:
        assert await served(station) == set()
        start = command(node, START[version])
        reset = {"type": "Hard" if version == "1.6" else "Immediate"}
        for action, payload in (
            (READ[version], None),
            ("Reset", reset),
            ("TriggerMessage", {"requestedMessage": "BootNotification"}),
        ):
            outcome = command(node, action, payload)
            call = await station.next_call()
            assert call[2] == action
            answer = READ_ANSWERS[version] if action == READ[version] else {"status": "Accepted"}
            await station.answer(call, answer)
            assert (await outcome)["status"] == "answered"
        await station.silence(0.2)
        assert (await station.boot())["status"] == "Accepted"
        await station.answer(await station.next_call(), {"status": "Accepted"})
        assert (await start)["status"] == "answered", "it waited for the registration"
    assert node.metric("ocpp_gateway_boot_triggers_total") == 0


@pytest.mark.parametrize("version", VERSIONS)
async def test_an_operators_decision_counts_at_once(gateway, version):
    """A station that is locked in, and will not boot: the operator can let it in, and out again."""
    node = gateway()
    async with await Station.connect(node, "CP-1", version) as station:
        assert await served(station) == set()
        await asked_to_boot(station, "Rejected")
        for status, word in (("Accepted", None), ("Rejected", "rejected"), ("Pending", "pending"), ("Accepted", None)):
            decide(node, status)
            await asked_to_boot(station, "Rejected")
            assert await served(station, word or "") == (set() if word else everything(version)), status
        outcome = command(node, START[version])
        await station.answer(await station.next_call(), {"status": "Accepted"})
        assert (await outcome)["status"] == "answered", "commands reach it as well"
    node.restart()
    async with await Station.connect(node, "CP-1", version) as station:
        assert await served(station) == everything(version), "it is remembered"


@pytest.mark.parametrize("version", VERSIONS)
async def test_an_unregistered_station_is_served_if_configured(gateway, version):
    node = gateway({"registration": {"before_boot": "accept"}})
    async with await Station.connect(node, "CP-1", version) as station:
        assert await served(station) == everything(version)
        outcome = command(node, READ[version])
        await station.answer(await station.next_call(), {})
        assert (await outcome)["status"] == "answered"


@pytest.mark.parametrize("version", VERSIONS)
async def test_pending(gateway, version):
    node = gateway({"registration": {"default": "Pending", "interval": "17s"}})
    async with await Station.connect(node, "CP-1", version) as station:
        for _ in range(2):
            answer = await station.boot()
            assert (answer["status"], answer["interval"]) == ("Pending", 17)
            assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,3})?Z", answer["currentTime"])
        assert await served(station, "pending") == set()

        for action, payload, granted in TRIGGERS[version]:
            outcome = command(node, action, payload)
            await station.answer(await station.next_call(), {"status": "Accepted"})
            assert (await outcome)["status"] == "answered"
            assert await served(station) == granted, action
            assert await served(station, "pending") == set(), "what was asked for may be sent once"
        outcome = command(node, READ[version])
        await station.answer(await station.next_call(), {})
        assert (await outcome)["status"] == "answered", "a pending station may be configured"
        for action in (START[version], STOP[version]):
            assert (await command(node, action))["status"] == "invalid"
        await station.silence(0.2)

        # The operator's decision counts at once; the station learns of it by its next BootNotification.
        decide(node, "Accepted")
        await asked_to_boot(station)
        assert await served(station) == everything(version)
        assert (await command(node, START[version]))["status"] == "invalid", "it would refuse"
        assert (await station.boot())["status"] == "Accepted"
        assert await served(station) == everything(version)
        outcome = command(node, START[version])
        await station.answer(await station.next_call(), {"status": "Accepted"})
        assert (await outcome)["status"] == "answered"


@pytest.mark.parametrize("version", VERSIONS)
async def test_rejected(gateway, version):
    node = gateway()
    decide(node, "Rejected")
    async with await Station.connect(node, "CP-1", version) as station:
        for _ in range(2):
            assert (await station.boot())["status"] == "Rejected"
            assert await served(station, "rejected") == set()
        for action in (READ[version], START[version], "TriggerMessage"):
            triggers = {"requestedMessage": "StatusNotification"} if action == "TriggerMessage" else None
            outcome = await command(node, action, triggers)
            assert outcome["status"] == "invalid", "a rejected station is sent nothing"
        assert await served(station) == set()
        decide(node, "Accepted")
        assert await served(station) == everything(version), "it counts at once"
        assert (await station.boot())["status"] == "Accepted"
        assert await served(station) == everything(version)
        decide(node, "Rejected")
        assert await served(station, "rejected") == set(), "it counts at once"
        outcome = command(node, READ[version])
        await station.answer(await station.next_call(), READ_ANSWERS[version])
        assert (await outcome)["status"] == "answered", "it was accepted, and can be reset"
        assert (await station.boot())["status"] == "Rejected"
        assert await served(station, "rejected") == set()
        assert not station.calls, "a station that was accepted or rejected is not asked to boot"


def test_the_operator_chooses_one_of_three_statuses(gateway):
    node = gateway()
    for status in ("accepted", "", "Blocked"):
        assert node.put("/api/v1/stations/CP-1/registration", {"status": status}).status_code == 400
    decide(node, "Pending")
    shown = node.get("/api/v1/stations/CP-1").json()
    assert (shown["registration"], shown["registrationDecision"], shown["connected"]) == (None, "Pending", False)


# -- persistence -------------------------------------------------------------------------------------------------


def reconnect(node: Gateway) -> None:
    """Leaves the gateway alone: only the station reconnects."""


def sigterm(node: Gateway) -> None:
    node.restart()


def kill9(node: Gateway) -> None:
    node.kill9()
    node.start()


ENDS = [reconnect, sigterm, kill9]


@pytest.mark.parametrize("end", ENDS)
async def test_registration_outlives_the_connection(gateway, end):
    """A reconnecting station does not boot again and is served according to its last BootNotification."""
    node = gateway()
    decisions = {"ACCEPTED": "Accepted", "PENDING": "Pending", "REJECTED": "Rejected", "UNDECIDED": None}
    for identity, decision in decisions.items():
        if decision:
            decide(node, decision, identity)
        async with await Station.connect(node, identity, "2.0.1") as station:
            assert (await station.boot())["status"] == (decision or "Accepted")
    for _ in range(2):
        end(node)
        for identity, decision in decisions.items():
            # In another spelling, which is the same station.
            async with await Station.connect(node, identity.lower(), "2.0.1") as station:
                accepted = decision in (None, "Accepted")
                assert await served(station) == (everything("2.0.1") if accepted else set()), identity
            shown = node.get(f"/api/v1/stations/{identity}").json()
            assert (shown["id"], shown["registration"]) == (identity, decision or "Accepted")


async def test_an_answered_boot_survives_a_kill_at_any_moment(gateway):
    """The answer to a BootNotification is a promise: eight times, the process is killed right after it."""
    node = gateway()
    for number in range(8):
        station = await Station.connect(node, f"CP-{number}")
        await station.boot()
        kill9(node)
        async with await Station.connect(node, f"CP-{number}") as station:
            assert (await station.call("Heartbeat", {}))[0] == 3


# -- transaction ids ----------------------------------------------------------------------------------------------

AT = "2026-01-01T00:00:00Z"
FIRST = {"connectorId": 1, "idTag": "TAG", "meterStart": 100, "timestamp": AT}
# The same start, spelled as another retry might.
RESPELLED = f'{{ "timestamp":"{AT}", "meterStart" : 100,"idTag":"T\\u0041G","connectorId":1}}'
OTHERS = [
    FIRST | {"connectorId": 2},
    FIRST | {"idTag": "TAH"},
    FIRST | {"meterStart": 101},
    FIRST | {"timestamp": "2026-01-01T00:00:01Z"},
]


async def start(station: Station, payload: dict[str, Any] | str, id: str | None = None) -> int:
    answer = await station.call("StartTransaction", payload, id=id)
    assert answer[0] == 3, answer
    transaction = answer[2]["transactionId"]
    assert 0 < transaction < 2**31
    return transaction


@pytest.mark.parametrize("end", ENDS)
async def test_a_repeated_start_has_the_same_transaction(gateway, end):
    node = gateway()
    async with await Station.connect(node, "CP-1") as station:
        await station.boot()
        first = await start(station, FIRST, id="start-1")
        assert await start(station, FIRST, id="start-1") == first, "same message id"
        assert await start(station, FIRST, id="start-2") == first, "new message id"
        assert await start(station, RESPELLED) == first
        others = [await start(station, other) for other in OTHERS]
        assert len({first, *others}) == 5, "other starts are other transactions"
    end(node)
    async with await Station.connect(node, "CP-1") as station:
        assert await start(station, FIRST, id="start-1") == first
        assert await start(station, FIRST, id="start-3") == first
        assert [await start(station, other) for other in OTHERS] == others
        assert await start(station, FIRST | {"meterStart": 7}) not in {first, *others}
        answer = await station.call(
            "StopTransaction", {"transactionId": first, "timestamp": AT, "meterStop": 200, "idTag": "TAG"}
        )
        assert answer[0] == 3
    async with await Station.connect(node, "CP-2") as station:
        await station.boot()
        assert await start(station, FIRST) > 0


async def started_together(node: Gateway, count: int, meter: int) -> list[int]:
    """The ids of transactions that so many stations start at the same time."""

    async def one(number: int) -> int:
        async with await Station.connect(node, f"CP-{number}") as station:
            await station.boot()
            return await start(station, FIRST | {"meterStart": meter})

    return await asyncio.gather(*(one(number) for number in range(count)))


async def test_no_two_stations_have_the_same_transaction(gateway):
    """Whatever restarts: 60 stations start at once, six times; and no two nodes have the same, which know nothing of each other."""
    nodes = [gateway({"node": {"id": f"gw-{number}", "number": number, "count": 2}}) for number in range(2)]
    given: list[int] = []
    latest = dict.fromkeys(range(60), 0)
    for meter, end in enumerate(ENDS):
        for node in nodes:
            ids = await started_together(node, 60, meter)
            if node is nodes[0]:
                assert all(id > latest[number] for number, id in enumerate(ids)), "a station's ids grow"
                latest = dict(enumerate(ids))
            given += ids
            end(node)
    assert len(set(given)) == len(given) == 60 * 2 * len(ENDS)
    for number, node in enumerate(nodes):
        assert node.metric("ocpp_gateway_greatest_transaction_id") % 2 == number
    assert max(node.metric("ocpp_gateway_greatest_transaction_id") for node in nodes) == max(given)


async def test_copies_sent_without_waiting_have_the_same_transaction(gateway):
    node = gateway()
    async with await Station.connect(node, "CP-1") as station:
        await station.boot()
        text = '{"connectorId":1,"idTag":"TAG","meterStart":100,"timestamp":"2026-01-01T00:00:00Z"}'
        for number in range(20):
            await station.send(f'[2,"{number}","StartTransaction",{text}]')
        answers = [await station.receive() for _ in range(20)]
        assert [answer[:2] for answer in answers] == [[3, str(number)] for number in range(20)]
        assert len({answer[2]["transactionId"] for answer in answers}) == 1


async def test_an_answered_transaction_survives_a_kill_at_any_moment(gateway):
    """Killed right after the answer, or before it: an id that was given stays, and no id is given twice."""
    node = gateway()
    async with await Station.connect(node, "CP-1") as station:
        await station.boot()
    given: dict[int, int] = {}
    for number in range(12):
        payload = FIRST | {"meterStart": number}
        station = await Station.connect(node, "CP-1")
        if number % 3 == 0:
            # The answer is not even awaited.
            await station.call("Heartbeat", {})
            await station.send(f'[2,"s","StartTransaction",{json.dumps(payload)}]')
        else:
            given[number] = await start(station, payload)
        kill9(node)
        async with await Station.connect(node, "CP-1") as station:
            again = await start(station, payload)
            assert given.setdefault(number, again) == again
    assert len(set(given.values())) == 12, "each transaction has its own id"
    events = node.events(station="CP-1")
    assert [violations(event.json) for event in events if violations(event.json)] == []


async def test_a_refused_tag_gets_a_transaction_as_well(gateway):
    node = gateway({"answers": {"authorization": "Invalid"}})
    async with await Station.connect(node, "CP-1") as station:
        await station.boot()
        answer = await station.call("StartTransaction", FIRST)
        assert answer[2]["idTagInfo"] == {"status": "Invalid"}
        assert answer[2]["transactionId"] > 0
        # Whatever a station reports at the end is acknowledged (OCPP 1.6 section 4.8 and its errata 3.18).
        for transaction in (-1, 0, 12345):
            payload = {"transactionId": transaction, "timestamp": AT, "meterStop": 1}
            assert (await station.call("StopTransaction", payload))[0] == 3


async def test_a_booting_station_is_told_the_time(gateway):
    node = gateway()
    for version in VERSIONS:
        async with await Station.connect(node, f"CP-{version}", version) as station:
            answer = await station.call("BootNotification", BOOT[version])
            assert set(answer[2]) == {"status", "currentTime", "interval"}
            assert answer[2]["interval"] == 300
            assert set((await station.call("Heartbeat", {}))[2]) == {"currentTime"}
    await asyncio.to_thread(wait_for, lambda: node.metric("ocpp_gateway_sessions") == 0, "all have left")
