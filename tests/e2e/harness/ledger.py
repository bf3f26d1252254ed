"""What stations sent and were answered, compared with what is stored: lost, duplicated, reordered.

Owns the rules of promises P1 (answer after durable) and P3 (order per station), for either kind of bus. Does not own what stations
send (`fleet.py`) or how events are read.
"""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field

from .events import Event

_SHOWN = 5


@dataclass
class _Calls:
    """The CALLs of one station. A message id is used once, across all its connections."""

    sent: dict[str, int] = field(default_factory=dict)
    answered: set[str] = field(default_factory=set)


@dataclass(frozen=True)
class Figures:
    """The result. Only `sent`, `answered`, `events`, `unanswered_stored` and `redelivered` may differ from zero."""

    sent: int
    answered: int
    events: int
    """Stored CALLs, each counted once."""
    unanswered_stored: int
    """Stored CALLs that were never answered: allowed, since a crash may come between the two."""
    lost: list[str]
    """Answered, but not stored."""
    overtaken: list[str]
    """Not stored, although a later CALL of the same connection is."""
    reordered: list[str]
    """Stored before a CALL that was sent earlier."""
    duplicated: list[str]
    """Stored again, as another event."""
    unknown: list[str]
    """Stored, but never sent."""
    redelivered: int
    """Delivered again as the same event: allowed, since consumers deduplicate on the id."""

    @property
    def faults(self) -> dict[str, list[str]]:
        """Broken promises by name; empty if all were kept."""
        named = ("lost", "overtaken", "reordered", "duplicated", "unknown")
        return {name: getattr(self, name)[:_SHOWN] for name in named if getattr(self, name)}

    def __str__(self) -> str:
        return (
            f"sent {self.sent}, answered {self.answered}, events {self.events} "
            f"({self.unanswered_stored} of them unanswered), lost {len(self.lost)}, overtaken {len(self.overtaken)}, "
            f"reordered {len(self.reordered)}, duplicated {len(self.duplicated)}, unknown {len(self.unknown)}, "
            f"redelivered {self.redelivered}"
        )


class Ledger:
    """What all stations sent and were answered."""

    def __init__(self) -> None:
        self._stations: dict[str, _Calls] = defaultdict(_Calls)

    def sent(self, station: str, message_id: str) -> None:
        """Records that a CALL is about to be sent."""
        calls = self._stations[station]
        assert message_id not in calls.sent, f"{station} used the message id {message_id} before"
        calls.sent[message_id] = len(calls.sent)

    def answered(self, station: str, message_id: str) -> None:
        """Records its answer."""
        calls = self._stations[station]
        assert message_id in calls.sent, f"{station} got an answer to {message_id}, which it never sent"
        assert message_id not in calls.answered, f"{station} got two answers to {message_id}"
        calls.answered.add(message_id)

    @property
    def answers(self) -> int:
        """Answers so far."""
        return sum(len(calls.answered) for calls in self._stations.values())

    def compare(self, events: Iterable[Event]) -> Figures:
        """Compares with all events; those of a station must come in the order in which they are stored."""
        lost: list[str] = []
        overtaken: list[str] = []
        reordered: list[str] = []
        duplicated: list[str] = []
        unknown: list[str] = []
        redelivered = 0
        # station -> message id -> (event id, session)
        stored: dict[str, dict[str, tuple[str, str]]] = defaultdict(dict)
        latest: dict[str, int] = defaultdict(lambda: -1)
        for event in events:
            if event.type != "ocpp.message.received" or event.data["messageType"] != "CALL":
                continue
            station, message_id, event_id = event.station, event.data["messageId"], event.json["id"]
            name = f"{station} {message_id}"
            place = self._stations[station].sent.get(message_id)
            if place is None:
                unknown.append(name)
            elif message_id in stored[station]:
                if stored[station][message_id][0] == event_id:
                    redelivered += 1
                else:
                    duplicated.append(name)
            else:
                stored[station][message_id] = (event_id, event.data["sessionId"])
                if place < latest[station]:
                    reordered.append(name)
                latest[station] = max(latest[station], place)
        events_stored = unanswered_stored = 0
        for station, calls in self._stations.items():
            its_stored = stored[station]
            events_stored += len(its_stored)
            unanswered_stored += len(its_stored.keys() - calls.answered)
            lost += [
                f"{station} {message_id}"
                for message_id in calls.sent
                if message_id in calls.answered - its_stored.keys()
            ]
            overtaken += _overtaken(station, calls, its_stored)
        return Figures(
            sum(len(calls.sent) for calls in self._stations.values()),
            self.answers,
            events_stored,
            unanswered_stored,
            lost,
            overtaken,
            reordered,
            duplicated,
            unknown,
            redelivered,
        )


def _overtaken(station: str, calls: _Calls, stored: dict[str, tuple[str, str]]) -> list[str]:
    """CALLs missing between two stored ones of a session: what is stored must be a prefix of what was sent on a connection."""
    found: list[str] = []
    missing: list[str] = []
    session = None
    for message_id in calls.sent:
        if message_id not in stored:
            missing.append(message_id)
            continue
        if stored[message_id][1] == session:
            found += [f"{station} {name}" for name in missing]
        session, missing = stored[message_id][1], []
    return found
