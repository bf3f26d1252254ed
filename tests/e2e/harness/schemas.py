"""The official JSON schemas of OCPP, in the copies of the PyPI package `ocpp`: example payloads, wrong ones, and a verdict.

Owns what a message of each action may look like, judged by `jsonschema` and by nothing of the gateway.
"""

import copy
import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import jsonschema
import ocpp

FOLDERS = {"1.6": "v16", "2.0.1": "v201", "2.1": "v21"}
# What a station sends, in one version or another; a CSMS sends the rest, and DataTransfer, too.
_FROM_STATIONS = """
    Authorize BatterySwap BootNotification ClearedChargingLimit ClosePeriodicEventStream DataTransfer
    DiagnosticsStatusNotification FirmwareStatusNotification Get15118EVCertificate GetCertificateChainStatus
    GetCertificateStatus Heartbeat LogStatusNotification MeterValues NotifyChargingLimit NotifyCustomerInformation
    NotifyDERAlarm NotifyDERStartStop NotifyDisplayMessages NotifyEVChargingNeeds NotifyEVChargingSchedule NotifyEvent
    NotifyMonitoringReport NotifyPriorityCharging NotifyReport NotifySettlement OpenPeriodicEventStream
    PublishFirmwareStatusNotification PullDynamicScheduleUpdate ReportChargingProfiles ReportDERControl
    ReservationStatusUpdate SecurityEventNotification SignCertificate SignedFirmwareStatusNotification StartTransaction
    StatusNotification StopTransaction TransactionEvent VatNumberValidation
"""
FROM_STATIONS = set(_FROM_STATIONS.split())
# Message type 6 of 2.1.
SENDS = {"NotifyPeriodicEventStream"}


class Case(NamedTuple):
    """A payload, and the name of the member that makes it wrong; none if it is right."""

    payload: Any
    wrong: str | None


@cache
def from_stations(version: str) -> list[str]:
    """Every action that a station may send as a CALL."""
    return [action for action in _actions(version) if action in FROM_STATIONS]


@cache
def to_stations(version: str) -> list[str]:
    """Every action that a CSMS may send."""
    ours = FROM_STATIONS - {"DataTransfer"} | SENDS
    return [action for action in _actions(version) if action not in ours]


@cache
def schema(version: str, action: str, kind: str) -> dict[str, Any] | None:
    """`kind` is `Request` or `Response`."""
    suffix = "" if (version, kind) == ("1.6", "Request") else kind
    file = _folder(version) / f"{action}{suffix}.json"
    return json.loads(file.read_text(encoding="utf-8-sig")) if file.exists() else None


def example(version: str, action: str, kind: str, full: bool = False) -> dict[str, Any]:
    """A payload that is right: with every member, or with those alone that are required."""
    root = schema(version, action, kind)
    payload = _value(root, root, full)
    assert not _errors(version, action, kind, payload), (version, action, kind, payload)
    return payload


def cases(version: str, action: str, kind: str) -> Iterator[Case]:
    """The smallest and the largest right payload, and for every member of the message one with each kind of mistake."""
    root = schema(version, action, kind)
    yield Case(example(version, action, kind), None)
    full = example(version, action, kind, full=True)
    yield Case(full, None)
    for wrong, payload in _mistakes(root, full):
        errors = _errors(version, action, kind, payload)
        assert errors, f"{version} {action}{kind}: {payload} is right"
        yield Case(payload, wrong)


def _actions(version: str) -> list[str]:
    names = (file.stem for file in _folder(version).glob("*.json") if not file.stem.endswith("Response"))
    return sorted(name.removesuffix("Request") for name in names)


def _folder(version: str) -> Path:
    return Path(ocpp.__file__).parent / FOLDERS[version] / "schemas"


@cache
def _validator(version: str, action: str, kind: str) -> jsonschema.Draft7Validator:
    checker = jsonschema.FormatChecker(["date-time"])
    assert not checker.conforms("hello", "date-time"), "times are not checked"
    return jsonschema.Draft7Validator(schema(version, action, kind), format_checker=checker)


def _errors(version: str, action: str, kind: str, payload: Any) -> list[str]:
    return [error.message for error in _validator(version, action, kind).iter_errors(payload)]


def _resolved(root: dict[str, Any], part: dict[str, Any]) -> dict[str, Any]:
    return root["definitions"][part["$ref"].rpartition("/")[2]] if "$ref" in part else part


def _value(root: dict[str, Any], part: dict[str, Any], full: bool) -> Any:
    part = _resolved(root, part)
    match part.get("type"):
        case "object":
            members = part.get("properties", {})
            names = members if full else part.get("required", [])
            return {name: _value(root, members[name], full) for name in names}
        case "array":
            return [_value(root, part["items"], full)] * max(1, part.get("minItems", 0))
        case "string" if "enum" in part:
            return part["enum"][-1]
        case "string" if part.get("format") == "date-time":
            return "2026-11-20T10:30:00.123Z"
        case "string":
            return "x" * min(part.get("maxLength", 40), 40)
        case "integer" | "number":
            return int(min(part.get("minimum", 1), part.get("maximum", 1)))
        case "boolean":
            return True
        case None:
            return {"any": ["thing"]}


def _mistakes(root: dict[str, Any], full: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """Each with the name of the wrong member."""
    yield "surplus", full | {"surplus": 1}
    for name, part in root.get("properties", {}).items():
        part = _resolved(root, part)
        if name in root.get("required", []):
            yield name, {key: value for key, value in full.items() if key != name}
        for value in _wrong(part, full[name]):
            yield name, full | {name: value}
        # One level deeper, where the schemas have their types.
        element = full[name][0] if isinstance(full[name], list) else full[name]
        if part.get("type") in ("object", "array") and isinstance(element, dict) and name != "customData":
            whole = copy.deepcopy(full)
            inner = whole[name][0] if isinstance(whole[name], list) else whole[name]
            inner["surplus"] = 1
            yield "surplus", whole


def _wrong(part: dict[str, Any], right: Any) -> Iterator[Any]:
    kind = part.get("type")
    if kind is None:
        return
    yield None
    yield {"surplus": 1} if kind == "string" else "nonsense"
    if kind == "string" and "maxLength" in part and "enum" not in part:
        yield "x" * (part["maxLength"] + 1)
    if part.get("format") == "date-time":
        yield "2026-13-20T10:30:00Z"
        yield "2026-11-20T10:30:00"
    if "enum" in part:
        yield "Nonsense"
    if kind == "integer":
        yield 1.5
    if kind == "array":
        yield from ([] for _ in range(1) if part.get("minItems"))
        if "maxItems" in part:
            yield right[:1] * (part["maxItems"] + 1)
    if "minimum" in part:
        yield part["minimum"] - 1
    if "maximum" in part:
        yield part["maximum"] + 1
