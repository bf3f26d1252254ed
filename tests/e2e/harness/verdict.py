"""Compares what stations were answered with what a consumer finds: lost, reordered, duplicated.

Owns the rules of promises P1 and P3 for stations that repeat unanswered CALLs (`load.py`). `ledger.py` does the same for stations that
never repeat a CALL.
"""

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from .broker import Record
from .load import History

_SHOWN = 5
# A repetition of these is an event of its own: a boot starts over, and a heartbeat asks for the time.
NEVER_REMEMBERED = ("BootNotification", "Heartbeat")


def _could_know(data: dict[str, Any], sessions: set[str]) -> bool:
    """Whether a gateway that forgot nothing knows this CALL again, of which there are events in these sessions.

    On another connection only what says when it happened cannot be a new message.
    """
    if data["action"] in NEVER_REMEMBERED:
        return False
    return data["sessionId"] in sessions or '"timestamp"' in json.dumps(data["payload"])


@dataclass
class Verdict:
    """The result. Lists name the station and what is wrong."""

    stations: int = 0
    answered: int = 0
    unanswered: int = 0
    """CALLs that were never answered although the fault was over."""
    events: int = 0
    """Events of any type, each counted once."""
    dead_letters: int = 0
    """Of these, dead letters."""
    lost: list[str] = field(default_factory=list)
    """Answered, but not found."""
    reordered: list[str] = field(default_factory=list)
    """Not in the order in which the station sent them, or outside the session they belong to."""
    duplicates: int = 0
    """Delivered again with the same event id: allowed, since consumers deduplicate on it."""
    foreign_duplicates: int = 0
    """CALLs that became two events with different ids."""
    unexpected_duplicates: list[str] = field(default_factory=list)
    """Of these, those that the gateway should have recognised."""
    unknown: list[str] = field(default_factory=list)
    """Found, but never sent."""
    unended: list[str] = field(default_factory=list)
    """Sessions that have begun and never ended, although the gateway has shut down."""
    refused: list[str] = field(default_factory=list)
    """CALLs answered with a CALLERROR, after which a station may discard its data."""
    longest_wait: float = 0.0
    """The longest time from a CALL's first transmission to its answer, in seconds."""

    @property
    def faults(self) -> dict[str, list[str]]:
        """Broken promises by name, with some examples."""
        named = {
            "lost": self.lost,
            "reordered": self.reordered,
            "duplicated as another event": self.unexpected_duplicates,
            "never sent": self.unknown,
            "without an end": self.unended,
            "answered with an error": self.refused,
        }
        found = {f"{len(value)} {name}": value[:_SHOWN] for name, value in named.items() if value}
        if self.unanswered:
            found[f"{self.unanswered} unanswered"] = []
        return found


def compare(
    history: History,
    records: Iterable[Record],
    *,
    dead_letters: Iterable[Mapping[str, Any]] = (),
    gateway_was_killed: bool = False,
) -> Verdict:
    """Compares what the stations sent with everything in the topic, by partition and offset, and with the dead letters.

    The gateway has shut down. If it was killed before, it has forgotten what it did not answer, so that a repeated CALL may become two
    events.
    """
    verdict = Verdict(stations=len(history.calls), refused=list(history.faults))
    sends: dict[str, dict[str, tuple[int, int]]] = {}
    for station, calls in history.calls.items():
        sends[station] = {call.id: (place, call.sends) for place, call in enumerate(calls)}
    found = {station: _Found(station, sends[station], verdict, gateway_was_killed) for station in sends}
    seen: set[str] = set()
    for record in records:
        event = json.loads(record.value)
        if event["id"] in seen:
            verdict.duplicates += 1
            continue
        seen.add(event["id"])
        if event["subject"] in found:
            found[event["subject"]].take(event, in_order=True)
    for object_ in dead_letters:
        event = object_["event"]
        # Also in the topic, or twice in the file: the gateway was killed after storing it and before knowing that.
        if event["id"] in seen:
            continue
        seen.add(event["id"])
        verdict.dead_letters += 1
        if event["subject"] in found:
            found[event["subject"]].take(event, in_order=False)
    verdict.events = len(seen)
    verdict.unended = [f"{station} {session}" for station, one in found.items() for session in sorted(one.open)]
    for station, calls in history.calls.items():
        for call in calls:
            if call.answered is None:
                verdict.unanswered += 1
                continue
            verdict.answered += 1
            verdict.longest_wait = max(verdict.longest_wait, call.answered - call.sent)
            if call.id not in found[station].stored:
                verdict.lost.append(f"{station} {call.id} {call.action}")
    return verdict


class _Found:
    """What was found of one station, in order."""

    def __init__(self, station: str, sends: dict[str, tuple[int, int]], verdict: Verdict, was_killed: bool) -> None:
        self.station, self.sends, self.verdict, self.was_killed = station, sends, verdict, was_killed
        self.stored: dict[str, set[str]] = defaultdict(set)
        """The sessions in which there is an event of a CALL, by message id."""
        self.open: set[str] = set()
        self._latest = -1
        self._session = ""
        self._has_ended = False
        self._events_of: dict[str, int] = defaultdict(int)

    def take(self, event: dict[str, Any], in_order: bool) -> None:
        """Records an event that was not seen before. Dead letters have no place in the order."""
        if in_order:
            self._judge_session(event)
        data = event["data"]
        if event["type"] == "ocpp.station.connected":
            self.open.add(data["sessionId"])
        elif event["type"] == "ocpp.station.disconnected":
            self.open.discard(data["sessionId"])
        if event["type"] != "ocpp.message.received" or data["messageType"] != "CALL":
            return
        id = data["messageId"]
        name = f"{self.station} {id} {data['action']}"
        if id not in self.sends:
            self.verdict.unknown.append(name)
            return
        place, sends = self.sends[id]
        self._events_of[id] += 1
        if id in self.stored:
            self.verdict.foreign_duplicates += 1
            could_know = not self.was_killed and _could_know(data, self.stored[id])
            if could_know or self._events_of[id] > sends:
                self.verdict.unexpected_duplicates.append(name)
        elif in_order:
            if place < self._latest:
                self.verdict.reordered.append(name)
            self._latest = max(self._latest, place)
        self.stored[id].add(data["sessionId"])

    def _judge_session(self, event: dict[str, Any]) -> None:
        session, kind = event["data"].get("sessionId"), event["type"]
        if session is None:
            return
        where = f"{self.station} {kind} of session {session} ({event['data'].get('messageId')})"
        if kind == "ocpp.station.connected":
            if session <= self._session:
                self.verdict.reordered.append(f"{where}: after {self._session}")
            if self._session and not self._has_ended:
                self.verdict.reordered.append(f"{where}: before the end of {self._session}")
            self._session, self._has_ended = session, False
            return
        if session != self._session or self._has_ended:
            self.verdict.reordered.append(f"{where}: in {self._session}")
        self._has_ended = self._has_ended or kind == "ocpp.station.disconnected"
