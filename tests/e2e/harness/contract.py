"""The contract, docs/asyncapi.yaml, as a validator of records; and the exact text of JSON members.

Owns finding the right schema for an event. Does not own what the schemas say.
"""

import json
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import referencing
import yaml
from referencing.jsonschema import DRAFT7

ASYNCAPI = Path(__file__).resolve().parents[3] / "docs" / "asyncapi.yaml"
_URI = "urn:asyncapi"


@cache
def asyncapi() -> dict[str, Any]:
    """The document."""
    return yaml.safe_load(ASYNCAPI.read_text(encoding="utf-8"))


@cache
def event_types() -> dict[str, str]:
    """Event type -> name of its message in `components.messages`."""
    messages = asyncapi()["components"]["messages"]
    return {message["name"]: key for key, message in messages.items() if message["name"].startswith("ocpp.")}


@cache
def _validator(message: str) -> jsonschema.Draft7Validator:
    resource = referencing.Resource.from_contents(asyncapi(), default_specification=DRAFT7)
    registry = referencing.Registry().with_resource(_URI, resource)
    schema = {"$ref": f"{_URI}#/components/messages/{message}/payload"}
    return jsonschema.Draft7Validator(schema, registry=registry)


def violations(value: Any, message: str | None = None) -> list[str]:
    """How a decoded JSON value violates the contract, one line each; empty if it is valid.

    `message` is a name in `components.messages`; without it the value is taken for an event and its `type` decides.
    """
    if message is None:
        kind = value.get("type") if isinstance(value, dict) else None
        if kind not in event_types():
            return [f"no such event type: {kind!r}"]
        message = event_types()[kind]
    return [_explain(error) for error in _validator(message).iter_errors(value)]


def _explain(error: jsonschema.ValidationError) -> str:
    # Under oneOf the outer error says only that nothing matched; the nearest branch says why.
    best = jsonschema.exceptions.best_match([error]) or error
    where = "/".join(str(step) for step in best.absolute_path) or "(root)"
    return f"{where}: {best.message}"


def member_text(text: str, *path: str | int) -> str:
    """The JSON text of one member exactly as it is in `text`, without surrounding white space.

    `path` goes through objects by name and through arrays by index. Raises KeyError when there is no such member.
    """
    start, end = 0, len(text)
    for step in path:
        start, end = _members(text, start)[step]
    return text[start:end].strip(_SPACE)


_SPACE = " \t\r\n"
_DECODER = json.JSONDecoder()


def _members(text: str, at: int) -> dict[str | int, tuple[int, int]]:
    at = _skip(text, at)
    if text[at] not in "{[":
        raise KeyError(f"neither an object nor an array: {text[at : at + 20]!r}")
    is_object, closing = text[at] == "{", "}" if text[at] == "{" else "]"
    found: dict[str | int, tuple[int, int]] = {}
    at = _skip(text, at + 1)
    while text[at] != closing:
        name: str | int = len(found)
        if is_object:
            name, at = _DECODER.raw_decode(text, at)
            at = _skip(text, _skip(text, at) + 1)
        _, end = _DECODER.raw_decode(text, at)
        found[name] = (at, end)
        at = _skip(text, end)
        if text[at] == ",":
            at = _skip(text, at + 1)
    return found


def _skip(text: str, at: int) -> int:
    while at < len(text) and text[at] in _SPACE:
        at += 1
    return at
