"""Frames that are not OCPP messages, and messages that a station may not send (OCPP-J 4.1.3, 4.2.3, 4.3 and 4.4).

Proves for each version: the answer with the right id, code and spelling, or silence where that is right; that the connection stays
open; and that every such frame is published as it came. With `validation.mode`, the same for payloads.
"""

import json

import pytest
from harness.contract import member_text, violations
from harness.station import BOOT, Station

VERSIONS = ["1.6", "2.0.1", "2.1"]

# The spelling of a code in 1.6 and in later versions.
SPELLINGS = {
    "rpc": ("FormationViolation", "RpcFrameworkError"),
    "format": ("FormationViolation", "FormatViolation"),
    "occurrence": ("OccurenceConstraintViolation", "OccurrenceConstraintViolation"),
    "type": ("TypeConstraintViolation", "TypeConstraintViolation"),
    "property": ("PropertyConstraintViolation", "PropertyConstraintViolation"),
}

LONG_ID = "i" * 37
DEEP = "[" * 10_000 + "]" * 10_000

# (text, code that answers it or None for silence, id of the answer as spelled, reason in the event)
NO_ID = '"-1"'
IN_EVERY_VERSION = [
    # Broken JSON: the id is used if it can be read; what looks like an answer is not answered.
    ('[2,"a","Heartbeat",{}', "rpc", '"a"', "not_json"),
    ('[2,"a","Heartbeat",{]}', "rpc", '"a"', "not_json"),
    ('[2,"a\\"\\u0062","Heartbeat",', "rpc", '"a\\"\\u0062"', "not_json"),
    ('[2,"a","Heartbeat",{}] and more', "rpc", '"a"', "not_json"),
    ('[2,"a","Heartbeat",{"x":01}]', "rpc", '"a"', "not_json"),
    ('[2,"a', "rpc", NO_ID, "not_json"),
    ("[2", "rpc", NO_ID, "not_json"),
    ("hello", "rpc", NO_ID, "not_json"),
    ('{"a":', "rpc", NO_ID, "not_json"),
    ("\u00e9\U0001f50c", "rpc", NO_ID, "not_json"),
    ("x" * 5000, "rpc", NO_ID, "not_json"),
    ('[3,"a",{', None, None, "not_json"),
    ('[4,"a","GenericError"', None, None, "not_json"),
    # JSON, but not a message.
    ("{}", "rpc", NO_ID, "not_an_array"),
    ("null", "rpc", NO_ID, "not_an_array"),
    ("42", "rpc", NO_ID, "not_an_array"),
    ('"text"', "rpc", NO_ID, "not_an_array"),
    ("[]", "rpc", NO_ID, "bad_message_type"),
    ('["2","a","Heartbeat",{}]', "rpc", NO_ID, "bad_message_type"),
    ('[2.5,"a","Heartbeat",{}]', "rpc", NO_ID, "bad_message_type"),
    # An invalid CALL.
    ("[2]", "rpc", NO_ID, "bad_length"),
    ('[2,"a"]', "rpc", '"a"', "bad_length"),
    ('[2,"a","Heartbeat"]', "rpc", '"a"', "bad_length"),
    ('[2,"a","Heartbeat",{},{}]', "rpc", '"a"', "bad_length"),
    ('[2,7,"Heartbeat",{}]', "rpc", NO_ID, "bad_id"),
    ('[2,null,"Heartbeat",{}]', "rpc", NO_ID, "bad_id"),
    (f'[2,"{LONG_ID}","Heartbeat",{{}}]', "rpc", NO_ID, "id_too_long"),
    ('[2,"a",5,{}]', "rpc", '"a"', "bad_action"),
    ('[2,"a",null,{}]', "rpc", '"a"', "bad_action"),
    ('[2,"a","Heartbeat",[]]', "rpc", '"a"', "payload_not_object"),
    ('[2,"a","Heartbeat","{}"]', "rpc", '"a"', "payload_not_object"),
    ('[2,"a","Heartbeat",0]', "rpc", '"a"', "payload_not_object"),
    (f'[2,"a","DataTransfer",{{"vendorId":"v","data":{DEEP}}}]', "format", '"a"', "too_deep"),
    # An invalid answer that no CALL waits for.
    ("[3]", None, None, "bad_id"),
    ("[3,7,{}]", None, None, "bad_id"),
    ("[4]", None, None, "bad_id"),
    ('[4,7,"GenericError","",{}]', None, None, "bad_id"),
]
RESULTS = ['[3,"a"]', '[3,"a",[]]', '[3,"a",{},{}]', '[3,"a","text"]']
UNKNOWN_TYPES = [('[9,"a","Heartbeat",{}]', '"a"'), ('[0,"a"]', '"a"'), ('[-2,"a"]', '"a"'), ("[7]", NO_ID)]
OF_21 = [('[5,"a","FormatViolation","",{}]', '"a"'), ('[6,"a","NotifyPeriodicEventStream",{}]', '"a"')]
SENDS = [
    '[6,"a"]',
    '[6,7,"NotifyPeriodicEventStream",{}]',
    '[6,"a",5,{}]',
    '[6,"a","NotifyPeriodicEventStream",7]',
    '[6,"a"',
]


def table(version: str) -> list[tuple[str, str | None, str | None, str | None]]:
    """IN_EVERY_VERSION for one version, with its spelling of the codes and its own additional rows."""
    at = 0 if version == "1.6" else 1
    rows = [(text, code and SPELLINGS[code][at], id, reason) for text, code, id, reason in IN_EVERY_VERSION]
    unknown = UNKNOWN_TYPES if version == "2.1" else UNKNOWN_TYPES + OF_21
    # 1.6 and 2.1 ignore an unknown type; 2.0.1 contradicts itself, and its more specific section 4.4 asks for an answer.
    answers = "MessageTypeNotSupported" if version == "2.0.1" else None
    rows += [(text, answers, answers and id, "unknown_message_type") for text, id in unknown]
    # Only 2.1 reports an invalid answer, with a message type of its own.
    complaint = "RpcFrameworkError" if version == "2.1" else None
    rows += [(text, complaint, complaint and '"a"', "invalid_result") for text in RESULTS]
    if version == "2.1":
        reasons = ["bad_length", "bad_id", "bad_action", "payload_not_object", "not_json"]
        rows += [(text, None, None, reason) for text, reason in zip(SENDS, reasons, strict=True)]
    return rows


async def replies(station: Station, text: str) -> list[str]:
    """All replies to a frame: what arrives before the answer to a Heartbeat sent after it."""
    await station.send(text)
    await station.send('[2,"after","Heartbeat",{}]')
    said = []
    while not (frame := await station.recv()).startswith('[3,"after",'):
        said.append(frame)
    return said


def check_error(text: str, type: int, id: str, code: str) -> None:
    """Fails unless it is a CALLERROR or CALLRESULTERROR of five elements with the id as the station spelled it."""
    frame = json.loads(text)
    assert (frame[0], member_text(text, 1), frame[2]) == (type, id, code)
    assert len(frame) == 5
    assert 0 < len(frame[3]) <= 255
    assert frame[4] == {}


@pytest.mark.parametrize("version", VERSIONS)
async def test_malformed_frames(gateway, version):
    node = gateway()
    rows = table(version)
    async with await Station.connect(node, "CP-1", version) as station:
        await station.boot()
        for text, code, id, reason in rows:
            said = await replies(station, text)
            assert len(said) == (code is not None), (text[:100], said)
            if code:
                check_error(said[0], 5 if reason == "invalid_result" else 4, id, code)
    events = [e for e in node.events(type="ocpp.message.received") if e.data["messageType"] == "MALFORMED"]
    assert [violations(event.json) for event in events] == [[]] * len(rows)
    assert [(event.data["raw"], event.data["reason"]) for event in events] == [(row[0][:4096], row[3]) for row in rows]
    for event, (_, _, id, _) in zip(events, rows, strict=True):
        if id not in (None, NO_ID):
            assert member_text(event.text, "data", "messageId") == id
    for reason in {row[3] for row in rows}:
        count = sum(row[3] == reason for row in rows)
        assert node.metric("ocpp_gateway_malformed_messages_total", reason=reason) == count
    sent = [e for e in node.events(type="ocpp.message.sent") if e.data["messageType"].endswith("ERROR")]
    assert [violations(event.json) for event in sent] == [[]] * sum(row[1] is not None for row in rows)


@pytest.mark.parametrize("version", VERSIONS)
async def test_empty_texts_are_signs_of_life(gateway, version):
    node = gateway()
    async with await Station.connect(node, "CP-1", version) as station:
        await station.boot()
        for text in ("", " ", "\r\n\t "):
            assert await replies(station, text) == []
    assert node.metric("ocpp_gateway_leniencies_total", kind="emptyText") == 3
    assert not any(event.data.get("messageType") == "MALFORMED" for event in node.events())


# -- actions ------------------------------------------------------------------------------------------------------

ACTIONS = [
    ("NoSuchAction", "NotImplemented", VERSIONS),
    ("", "NotImplemented", VERSIONS),
    ("heartbeat", "NotImplemented", VERSIONS),
    ("HeartbeatRequest", "NotImplemented", VERSIONS),
    ("Heartbeat-Signed", "NotImplemented", VERSIONS),
    ('Heart\\u00e9\\"beat', "NotImplemented", VERSIONS),
    ("A" * 5000, "NotImplemented", VERSIONS),
    ("TransactionEvent", "NotImplemented", ["1.6"]),
    ("NotifySettlement", "NotImplemented", ["1.6", "2.0.1"]),
    ("StartTransaction", "NotImplemented", ["2.0.1", "2.1"]),
    # Known actions that a station may not send.
    ("Reset", "NotSupported", VERSIONS),
    ("TriggerMessage", "NotSupported", VERSIONS),
    ("RemoteStartTransaction", "NotSupported", ["1.6"]),
    ("GetVariables", "NotSupported", ["2.0.1", "2.1"]),
]


@pytest.mark.parametrize("version", VERSIONS)
async def test_before_its_boot_an_unknown_action_is_a_security_error(gateway, version):
    node = gateway()
    async with await Station.connect(node, "CP-1", version) as station:
        for action in ("NoSuchAction", "Reset"):
            assert (await station.call(action, {}))[2] == "SecurityError"
        await station.boot()
        assert (await station.call("NoSuchAction", {}))[2] == "NotImplemented"


async def test_a_result_that_is_refused_is_told_with_its_action(gateway):
    """OCPP 2.1: either side refuses a result that it cannot use, of whatever id, with a CALLRESULTERROR, which is not answered."""
    node = gateway({"registration": {"trigger_boot": False}})
    async with await Station.connect(node, "CP-1", "2.1") as station:
        [early] = await replies_before_boot(station, '[3,"x"]')
        await station.boot()
        [said] = await replies(station, '[3,"x"]')
        check_error(said, 5, '"x"', "RpcFrameworkError")
        assert early == said, "whoever the station is"
        await station.call("NotifyDisplayMessages", {"requestId": 1}, id="7")
        for id in ("7", "8"):
            assert await replies(station, f'[5,"{id}","FormatViolation","",{{}}]') == []
    events = [e for e in node.events(type="ocpp.message.received") if e.data["messageType"] == "CALLRESULTERROR"]
    assert [violations(event.json) for event in events] == [[], []]
    assert [event.data.get("action") for event in events] == ["NotifyDisplayMessages", None]


@pytest.mark.parametrize("version", VERSIONS)
async def test_actions_that_a_station_may_not_send(gateway, version):
    node = gateway()
    rows = [(action, code) for action, code, versions in ACTIONS if version in versions]
    async with await Station.connect(node, "CP-1", version) as station:
        await station.boot()
        for action, code in rows:
            [said] = await replies(station, f'[2,"a","{action}",{{"x":1.50}}]')
            check_error(said, 4, '"a"', code)
    events = [e for e in node.events(type="ocpp.message.received") if e.data["messageId"] == "a"]
    assert [violations(event.json) for event in events if event.data["action"]] == [[]] * (len(rows) - 1)
    assert [event.data["action"] for event in events] == [json.loads(f'"{action}"') for action, _ in rows]
    assert {event.payload_text for event in events} == {'{"x":1.50}'}


async def test_a_send_is_never_answered(gateway):
    node = gateway({"validation": {"mode": "enforce"}})
    stream = '{"id":1,"pending":0,"basetime":"2026-01-01T00:00:00Z","data":[{"t":1.5,"v":"7"}]}'
    async with await Station.connect(node, "CP-1", "2.1") as station:
        assert await replies_before_boot(station, f'[6,"s","NotifyPeriodicEventStream",{stream}]') == []
        await station.boot()
        for text in (
            f'[6,"s","NotifyPeriodicEventStream",{stream}]',
            '[6,"s","NotifyPeriodicEventStream",{}]',
            '[6,"s","NoSuchAction",{}]',
            '[6,"s","Heartbeat",{}]',
        ):
            assert await replies(station, text) == [], text
    events = [event for event in node.events() if event.data.get("messageType") == "SEND"]
    assert len(events) == 5
    assert [violations(event.json) for event in events] == [[]] * 5


async def replies_before_boot(station: Station, text: str) -> list[str]:
    """Like `replies`, for a station whose Heartbeat is refused."""
    await station.send(text)
    await station.send('[2,"after","Heartbeat",{}]')
    said = []
    while not (frame := await station.recv()).startswith('[4,"after","SecurityError"'):
        said.append(frame)
    return said


@pytest.mark.parametrize("version", VERSIONS)
async def test_null_stands_for_an_empty_payload(gateway, version):
    node = gateway({"validation": {"mode": "enforce"}})
    async with await Station.connect(node, "CP-1", version) as station:
        await station.boot()
        await station.send('[2,"a","Heartbeat",null]')
        assert (await station.receive())[:2] == [3, "a"]
    [event] = [event for event in node.events() if event.data.get("messageId") == "a" and "answeredBy" in event.data]
    assert event.payload_text == "null"


# -- payloads -----------------------------------------------------------------------------------------------------

STATUS = '"connectorId":1,"errorCode":"NoError","status":"Available"'
METER = '"connectorId":1,"meterValue":[{"timestamp":"2026-01-01T00:00:00Z","sampledValue":[{"value":"1"}]}]'
EVENT = '"timestamp":"2026-01-01T00:00:00Z","connectorStatus":"Available","evseId":1,"connectorId":1'
STATION = '"reason":"PowerUp","chargingStation":{"vendorName":"V","model":"M"'

# (action, payload, error code or None, the field that the description must name)
PAYLOADS_16 = [
    ("StatusNotification", f"{{{STATUS}}}", None, ""),
    ("StatusNotification", '{"errorCode":"NoError","status":"Available"}', "occurrence", "connectorId"),
    ("StatusNotification", STATUS.replace("1", '"1"', 1), "type", "connectorId"),
    ("StatusNotification", STATUS.replace("1", "1.5", 1), "type", "connectorId"),
    ("StatusNotification", STATUS.replace("Available", "available"), "property", "status"),
    ("StatusNotification", STATUS + ',"surplus":1', "format", "surplus"),
    ("StatusNotification", STATUS + f',"info":"{"x" * 51}"', "property", "info"),
    ("Authorize", '"idTag":"' + "x" * 21 + '"', "property", "idTag"),
    ("Authorize", '"idTag":{}', "type", "idTag"),
    ("Authorize", "", "occurrence", "idTag"),
    ("MeterValues", METER, None, ""),
    ("MeterValues", '"connectorId":1,"meterValue":{}', "type", "meterValue"),
    ("MeterValues", METER.replace('"value"', '"valeu"'), "occurrence", "meterValue[0].sampledValue[0].value"),
    ("Heartbeat", '"surplus":1', "format", "surplus"),
]
PAYLOADS_2X = [
    ("StatusNotification", EVENT, None, ""),
    ("StatusNotification", EVENT.replace('"evseId":1,', ""), "occurrence", "evseId"),
    ("StatusNotification", EVENT.replace("1,", '"1",', 1), "type", "evseId"),
    ("StatusNotification", EVENT.replace("Available", "Free"), "property", "connectorStatus"),
    ("StatusNotification", EVENT + ',"surplus":1', "format", "surplus"),
    ("StatusNotification", EVENT + ',"customData":{"vendorId":"v","free":[1]}', None, ""),
    ("StatusNotification", EVENT + ',"customData":{"free":[1]}', "occurrence", "customData.vendorId"),
    ("BootNotification", STATION + "}", None, ""),
    ("BootNotification", STATION + ',"modem":{"iccid":"' + "1" * 21 + '"}}', "property", "chargingStation.modem.iccid"),
    ("BootNotification", STATION + ',"odd":1}', "format", "chargingStation.odd"),
    ("MeterValues", '"evseId":1,"meterValue":[]', "occurrence", "meterValue"),
    ("Heartbeat", '"surplus":1', "format", "surplus"),
]


@pytest.mark.parametrize("mode", ["off", "warn", "enforce"])
@pytest.mark.parametrize("version", VERSIONS)
async def test_payloads_are_checked_as_configured(gateway, version, mode):
    node = gateway({"validation": {"mode": mode, "exempt": []}})
    rows = PAYLOADS_16 if version == "1.6" else PAYLOADS_2X
    async with await Station.connect(node, "CP-1", version) as station:
        await station.boot()
        for action, members, code, field in rows:
            payload = members if members.startswith("{") else f"{{{members}}}"
            [said] = await replies(station, f'[2,"a","{action}",{payload}]')
            if mode == "enforce" and code:
                check_error(said, 4, '"a"', SPELLINGS[code][version != "1.6"])
                assert field in json.loads(said)[3], f"the description does not name {field}: {said}"
            else:
                assert said.startswith('[3,"a",'), (payload, said)
    violated = sum(code is not None for _, _, code, _ in rows)
    assert node.metric("ocpp_gateway_payload_violations_total") == (0 if mode == "off" else violated)
    received = [e for e in node.events(type="ocpp.message.received") if e.data.get("messageId") == "a"]
    assert len(received) == len(rows), "a refused CALL is published as well"


async def test_a_description_never_exceeds_its_limit(gateway):
    """A field's name comes from the station and may be as long as a message."""
    node = gateway({"validation": {"mode": "enforce"}})
    async with await Station.connect(node, "CP-1", "2.0.1") as station:
        await station.boot()
        for name in ("n" * 100_000, "\u00e9" * 400, "\U0001f50c" * 300, '\\"' * 400):
            payload = json.dumps(BOOT["2.0.1"])[:-1] + f',"{name}":1}}'
            [said] = await replies(station, f'[2,"a","BootNotification",{payload}]')
            check_error(said, 4, '"a"', "FormatViolation")
