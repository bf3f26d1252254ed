"""The rule that every station's events obey, whatever its connections did: one session after the other, each whole."""

from collections.abc import Iterable
from dataclasses import dataclass

from .events import Event


@dataclass(frozen=True)
class Told:
    """A session as the events tell it."""

    id: str
    station: str
    remote: str
    replaced: str | None
    reason: str | None
    """Why it ended; None while it lasts."""


def sessions_of(events: Iterable[Event]) -> list[Told]:
    """The sessions of one station, in order.

    Fails unless each has exactly one `connected` and at most one `disconnected`, all its events lie between the two, only the last may
    lack its end, and the session numbers grow.
    """
    told: list[Told] = []
    for event in events:
        session = event.data["sessionId"]
        where = f"event {event.position}, {event}"
        if event.type == "ocpp.station.connected":
            if told:
                assert told[-1].reason is not None, f"{where}: a session begins before {told[-1].id} has ended"
                assert session > told[-1].id, f"{where}: the session number does not grow"
            told.append(Told(session, event.station, event.data["remoteAddress"], event.data.get("replaced"), None))
            continue
        assert told, f"{where}: before any session"
        assert session == told[-1].id, f"{where}: belongs to {session}, in the middle of {told[-1].id}"
        assert told[-1].reason is None, f"{where}: after the end of its session"
        if event.type == "ocpp.station.disconnected":
            last = told.pop()
            told.append(Told(last.id, last.station, last.remote, last.replaced, event.data["reason"]))
    for before, after in zip(told, told[1:], strict=False):
        assert after.replaced in (None, before.id), f"{after.id} replaced {after.replaced}, not the one before it"
        if before.reason == "replaced":
            assert after.replaced == before.id, f"{before.id} was replaced, and {after.id} does not say so"
    return told
