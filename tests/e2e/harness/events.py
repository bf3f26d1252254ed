"""Events as a consumer sees them: the text of one CloudEvents object, and the event stream that carries it."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from .contract import member_text


@dataclass(frozen=True)
class Event:
    """One event. `text` is what was delivered, byte for byte; everything else is parsed from it."""

    text: str
    position: str | None = None
    """Its position in the local log; None if it came from Kafka."""

    @cached_property
    def json(self) -> dict[str, Any]:
        return json.loads(self.text)

    @property
    def type(self) -> str:
        return self.json["type"]

    @property
    def station(self) -> str:
        return self.json["subject"]

    @property
    def data(self) -> dict[str, Any]:
        return self.json["data"]

    @property
    def payload_text(self) -> str:
        """The OCPP payload exactly as it was on the wire."""
        return member_text(self.text, "data", "payload")

    def __str__(self) -> str:
        data = {key: value for key, value in self.data.items() if key not in ("sessionId", "payload")}
        return f"{self.station} {self.type} {data}"


def parse_stream(chunks: Iterable[bytes]) -> Iterator[Event]:
    """The events of a server-sent-events stream (HTML standard, 9.2.6)."""
    fields: dict[str, str] = {}
    for line in _lines(chunks):
        if not line:
            if "data" in fields:
                name, event = fields.get("event"), Event(fields["data"], fields.get("id"))
                # Messages about the stream itself: missing positions, and events that this reader was too slow for.
                assert name not in ("gap", "missed", "error"), f"{name}: {event.text}"
                assert name == event.type, f"the stream calls it {name}: {event}"
                yield event
            fields = {}
            continue
        name, _, value = line.partition(":")
        if not name:
            continue
        value = value.removeprefix(" ")
        fields[name] = f"{fields[name]}\n{value}" if name == "data" and name in fields else value


def _lines(chunks: Iterable[bytes]) -> Iterator[str]:
    """Splits at LF, CR LF and CR as the standard says, and not at the other characters of `str.splitlines`."""
    rest = b""
    for chunk in chunks:
        rest += chunk
        # A CR at the very end may be the first half of a CR LF.
        keep = rest.endswith(b"\r")
        *lines, last = (rest[:-1] if keep else rest).replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
        rest = last + (b"\r" if keep else b"")
        for line in lines:
            yield line.decode("utf-8")
