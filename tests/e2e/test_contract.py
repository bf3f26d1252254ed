"""docs/asyncapi.yaml refuses invalid events: a contract that accepts everything would make every other test vacuous."""

import copy
import json

import pytest
from harness.contract import event_types, member_text, violations
from harness.events import parse_stream

SESSION = {"sessionId": "0199e0c4-7e0b-7cc1-a1b2-000000000001", "ocppVersion": "2.1"}
CALL = SESSION | {"messageType": "CALL", "messageId": "42", "action": "Heartbeat", "payload": {}}
RESULT = CALL | {"messageType": "CALLRESULT"}
ERROR = SESSION | {
    "messageType": "CALLERROR",
    "messageId": "42",
    "errorCode": "NotImplemented",
    "errorDescription": "",
    "errorDetails": {},
}
COMMAND_ERROR = {"code": "Odd", "description": "", "details": {}}
COMMAND = {"commandId": "c-1", "action": "Reset"}
OFFLINE = COMMAND | {"status": "offline", "sent": "no", "error": COMMAND_ERROR}

# Event type -> what `data` may be.
DATA = {
    "ocpp.station.connected": [
        SESSION
        | {
            "remoteAddress": "[::1]:50000",
            "securityProfile": 1,
            "subprotocol": None,
            "replaced": SESSION["sessionId"],
        },
        SESSION | {"remoteAddress": "127.0.0.1:50000", "securityProfile": 0, "subprotocol": "ocpp2.1"},
    ],
    "ocpp.station.disconnected": [
        SESSION | {"reason": "idle", "closeCode": None, "durationMs": 0, "messagesIn": 0, "messagesOut": 0},
        SESSION
        | {"reason": "gatewayLost", "closeCode": None, "durationMs": 0, "messagesIn": None, "messagesOut": None},
        SESSION
        | {
            "reason": "operator",
            "note": "a new key",
            "closeCode": 1000,
            "durationMs": 0,
            "messagesIn": 0,
            "messagesOut": 0,
        },
    ],
    "ocpp.station.rejected": [
        {"reason": "wrongCredentials", "remoteAddress": "127.0.0.1:50000", "httpStatus": 401},
    ],
    "ocpp.station.twins": [
        {"replacements": 10, "remoteAddresses": ["10.0.0.1", "10.0.0.2"], "damped": True},
    ],
    "ocpp.message.received": [
        CALL | {"answeredBy": "gateway"},
        CALL | {"answeredBy": "backend", "answerUntil": "2026-11-20T10:30:05.123Z", "payload": None},
        RESULT,
        ERROR | {"errorDetails": "not an object"},
        CALL | {"messageType": "SEND"},
        SESSION | {"messageType": "MALFORMED", "reason": "not_json", "raw": "[2,"},
    ],
    "ocpp.message.sent": [
        CALL,
        RESULT,
        RESULT | {"answeredBy": "backend"},
        ERROR,
        ERROR | {"answeredBy": "gateway"},
        ERROR | {"messageType": "CALLRESULTERROR"},
    ],
    "ocpp.command.result": [
        OFFLINE,
        SESSION | COMMAND | {"status": "answered", "sent": "yes", "payload": {}},
        SESSION | COMMAND | {"status": "error", "sent": "yes", "error": COMMAND_ERROR},
    ],
    "ocpp.command.summary": [
        {"batchId": "b", "action": "Reset", "stations": 3, "statuses": {"answered": 2, "offline": 1}},
    ],
}
CASES = [(kind, data) for kind, variants in DATA.items() for data in variants]


def envelope(kind, data):
    return {
        "specversion": "1.0",
        "id": "0199e0c4-7e0b-7cc1-a1b2-000000000002",
        "source": "/ocpp-gateway/gw-1",
        "type": kind,
        "subject": "CP-001",
        "time": "2026-11-20T10:30:00.123Z",
        "datacontenttype": "application/json",
        "data": data,
    }


def test_every_event_type_has_a_case():
    assert set(DATA) == set(event_types())


@pytest.mark.parametrize(("kind", "data"), CASES)
def test_valid_events_are_valid(kind, data):
    assert violations(envelope(kind, data)) == []


@pytest.mark.parametrize(("kind", "data"), CASES)
def test_only_events_of_a_trace_may_have_a_traceparent(kind, data):
    traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    may = kind.startswith("ocpp.message.") or kind == "ocpp.command.result"
    assert (violations(envelope(kind, data) | {"traceparent": traceparent}) == []) == may
    assert violations(envelope(kind, data) | {"traceparent": traceparent.upper()})


def is_optional(kind, data, name):
    # The CALL that a station's CALLRESULT answers may be unknown; most sessions replace none; an operator need not give a reason.
    unknown_call = kind == "ocpp.message.received" and data.get("messageType") == "CALLRESULT"
    # The event of an answer says who gave it only if it was delegated.
    unsaid = kind == "ocpp.message.sent" and name == "answeredBy"
    # A record that is not a command has a result all the same.
    unread = kind == "ocpp.command.result" and data.get("status") not in ("answered", "error")
    return name in ("replaced", "note") or (name == "action" and (unknown_call or unread)) or unsaid


@pytest.mark.parametrize(("kind", "data"), CASES)
def test_a_missing_unknown_or_mistyped_member_is_a_violation(kind, data):
    for name in data:
        less = {key: value for key, value in data.items() if key != name}
        assert bool(violations(envelope(kind, less))) != is_optional(kind, data, name), f"{kind} without {name}"
        # A station's errorDetails may be anything.
        if name != "errorDetails" or kind != "ocpp.message.received":
            assert violations(envelope(kind, data | {name: [1]})), f"{kind} with a list as {name}"
    assert violations(envelope(kind, data | {"surplus": 1}))


def test_the_envelope_is_closed_and_complete():
    whole = envelope("ocpp.message.sent", RESULT)
    for name in whole:
        less = copy.copy(whole)
        del less[name]
        assert violations(less), f"without {name}"
    assert violations(whole | {"surplus": 1})
    for name, wrong in [
        ("specversion", "0.3"),
        ("id", "7"),
        ("source", "gw-1"),
        ("type", "ocpp.message.seen"),
        ("subject", ""),
        ("time", "2026-11-20T10:30:00Z"),
        ("time", "2026-13-20T10:30:00.000Z"),
        ("datacontenttype", "text/plain"),
    ]:
        assert violations(whole | {name: wrong}), f"{name} {wrong!r}"


@pytest.mark.parametrize(
    ("kind", "data", "change"),
    [
        ("ocpp.station.connected", DATA["ocpp.station.connected"][1], {"ocppVersion": "2.0"}),
        ("ocpp.station.connected", DATA["ocpp.station.connected"][1], {"remoteAddress": "127.0.0.1"}),
        ("ocpp.station.connected", DATA["ocpp.station.connected"][1], {"securityProfile": 4}),
        ("ocpp.station.disconnected", DATA["ocpp.station.disconnected"][0], {"reason": "bored"}),
        ("ocpp.station.disconnected", DATA["ocpp.station.disconnected"][0], {"closeCode": 7}),
        ("ocpp.station.disconnected", DATA["ocpp.station.disconnected"][0], {"durationMs": 1.5}),
        ("ocpp.station.rejected", DATA["ocpp.station.rejected"][0], SESSION),
        ("ocpp.message.received", CALL, {"answeredBy": "nobody"}),
        ("ocpp.message.received", CALL, {"answeredBy": "backend"}),
        ("ocpp.message.received", CALL, {"answeredBy": "gateway", "answerUntil": "2026-11-20T10:30:05.123Z"}),
        ("ocpp.message.sent", RESULT, {"answeredBy": "nobody"}),
        ("ocpp.message.received", CALL | {"messageType": "SEND"}, {"ocppVersion": "1.6"}),
        ("ocpp.message.received", DATA["ocpp.message.received"][5], {"raw": "x" * 4097}),
        ("ocpp.message.sent", CALL, {"payload": None}),
        ("ocpp.message.sent", CALL, {"messageId": "x" * 37}),
        ("ocpp.message.sent", ERROR, {"errorCode": "Odd"}),
        ("ocpp.message.sent", ERROR, {"errorDetails": []}),
        ("ocpp.command.result", OFFLINE, {"status": "sent"}),
        ("ocpp.command.result", OFFLINE, {"payload": {}}),
    ],
)
def test_invalid_values_are_violations(kind, data, change):
    assert violations(envelope(kind, data | change))


def test_commands_and_answers():
    command = {"commandId": "c", "stationId": "CP-001", "action": "Reset", "payload": {"type": "Soft"}}
    assert violations(command, "command") == []
    assert violations(command | {"timeoutMs": 30000, "ifOffline": "queue"}, "command") == []
    assert violations(command | {"timeout": "10s"}, "command") == []
    assert violations(command | {"timeoutMs": 0}, "command")
    assert violations(command | {"ifOffline": "maybe"}, "command")
    answer = {"stationId": "CP-001", "messageId": "42", "sessionId": SESSION["sessionId"]}
    assert violations(answer | {"payload": {}}, "answer") == []
    assert violations(answer | {"error": {"code": "InternalError"}}, "answer") == []
    assert violations({"stationId": "CP-001", "messageId": "42", "payload": {}}, "answer") == []
    assert violations(answer, "answer")
    assert violations(answer | {"error": {"code": "Odd"}}, "answer")
    assert violations(answer | {"payload": {}, "error": {"code": "InternalError"}}, "answer")


def test_member_text_keeps_the_spelling():
    text = '[2, "id" ,{ "a" : [1.50,\t"\\u00e9"] , "b":{}}\n]'
    assert member_text(text, 1) == '"id"'
    assert member_text(text, 2) == '{ "a" : [1.50,\t"\\u00e9"] , "b":{}}'
    assert member_text(text, 2, "a") == '[1.50,\t"\\u00e9"]'
    assert member_text(text, 2, "a", 0) == "1.50"
    with pytest.raises(KeyError):
        member_text(text, 2, "c")


def test_the_event_stream_is_split_as_the_standard_says():
    # A line separator and a next-line character are line ends for Python, not for the standard.
    data = RESULT | {"payload": {"text": "\u2028\x85"}}
    text = json.dumps(envelope("ocpp.message.sent", data), indent=1, ensure_ascii=False)
    lines = "".join(f"data: {line}\r\n" for line in text.split("\n"))
    stream = f": hello\nid: 7\nevent: ocpp.message.sent\n{lines}\r\n".encode()
    for size in (1, 2, 3, len(stream)):
        chunks = [stream[at : at + size] for at in range(0, len(stream), size)]
        (event,) = parse_stream(chunks)
        assert (event.position, event.text) == ("7", text)
