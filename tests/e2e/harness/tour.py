"""The five-minute tour with its frames recorded: the stations of docs/examples, and the events that they must cause.

Owns what a frame looks like as an event. Used for both kinds of bus.
"""

import asyncio
import importlib.util
import json
from types import ModuleType

from .contract import member_text, violations
from .events import Event
from .gateway import REPOSITORY, Gateway
from .station import Station

TYPES = {2: "CALL", 3: "CALLRESULT", 4: "CALLERROR", 5: "CALLRESULTERROR", 6: "SEND"}

# Valid but unusual JSON, which a gateway that decodes and encodes payloads would change.
ODD_PAYLOADS = [
    '{"vendorId":"v","data":"1.50 and \\u00e9 and \\/"}',
    '{ "vendorId" :\t"v" , "data"\n:  "\u00e9\U0001f50c" }',
    '{"data":"b","vendorId":"v","data":"twice"}',
]


def example(name: str) -> ModuleType:
    """A script of docs/examples as a module."""
    spec = importlib.util.spec_from_file_location(name, REPOSITORY / "docs" / "examples" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


async def drive(gateway: Gateway, identity: str, version: str) -> list[tuple[str, str]]:
    """Connects, boots, charges with a real OCPP client, sends the odd payloads and disconnects; returns every frame in order.

    The client is `websockets` with its own defaults, including pings and an offer of compression.
    """
    async with await Station.connect(gateway, identity, version, compression="deflate", ping_interval=20) as station:
        if version == "1.6":
            script = example("station_16")
            client, charge = script.LoudStation(identity, station), script.charge
        else:
            script = example("station_201")
            library = script.LIBRARY[version]
            client = library.ChargePoint(identity, station)

            async def charge(client) -> None:
                await script.charge(client, library.call)

        reader = asyncio.create_task(client.start())
        await charge(client)
        reader.cancel()
        await asyncio.gather(reader, return_exceptions=True)
        for number, payload in enumerate(ODD_PAYLOADS):
            answer = await station.call("DataTransfer", payload, id=f"odd-{number} \u00e9")
            assert answer[0] == 3, answer
        return station.frames


def check_events(events: list[Event], frames: list[tuple[str, str]], identity: str, version: str) -> None:
    """Fails unless the events of one session report exactly these frames, in order, with payloads byte for byte."""
    for event in events:
        assert violations(event.json) == [], str(event)
        assert event.station == identity
        assert event.data["ocppVersion"] == version
    assert len({event.json["id"] for event in events}) == len(events), "event ids are unique"
    assert len({event.data["sessionId"] for event in events}) == 1, "one session"

    first, *messages, last = events
    assert first.type == "ocpp.station.connected"
    assert first.data["subprotocol"] == f"ocpp{version}"
    assert last.type == "ocpp.station.disconnected"
    assert last.data["reason"] == "stationClosed"
    assert last.data["messagesIn"] == sum(direction == "sent" for direction, _ in frames)
    assert last.data["messagesOut"] == sum(direction == "received" for direction, _ in frames)

    published = [
        (event.type, event.data["messageType"], event.data["messageId"], event.payload_text) for event in messages
    ]
    assert published == [_expected(direction, text) for direction, text in frames]
    actions = {json.loads(text)[1]: json.loads(text)[2] for direction, text in frames if direction == "sent"}
    for event in messages:
        assert event.data["action"] == actions[event.data["messageId"]]


def _expected(direction: str, text: str) -> tuple[str, str, str, str]:
    frame = json.loads(text)
    # What the station sent, the gateway received.
    event_type = "ocpp.message.received" if direction == "sent" else "ocpp.message.sent"
    payload = member_text(text, 3 if frame[0] == 2 else 2)
    return event_type, TYPES[frame[0]], frame[1], payload
