"""The rule that every station's events obey, whatever its connections did: one complete session after another."""

from collections.abc import Iterable
from dataclasses import dataclass

from .events import Event


@dataclass(frozen=True)
class Session:
    """A session as its events show it."""

    id: str
    station: str
    remote: str
    replaced: str | None
    reason: str | None
    """Why it ended; None while it is open."""


def sessions_of(events: Iterable[Event]) -> list[Session]:
    """The sessions of one station, in order.

    Fails unless each has exactly one `connected` and at most one `disconnected`, all its events lie between the two, only the last may
    lack its end, and the session numbers grow.
    """
    found: list[Session] = []
    for event in events:
        session = event.data["sessionId"]
        where = f"event {event.position}, {event}"
        if event.type == "ocpp.station.connected":
            if found:
                assert found[-1].reason is not None, f"{where}: a session begins before {found[-1].id} has ended"
                assert session > found[-1].id, f"{where}: the session number does not grow"
            found.append(Session(session, event.station, event.data["remoteAddress"], event.data.get("replaced"), None))
            continue
        assert found, f"{where}: before any session"
        assert session == found[-1].id, f"{where}: belongs to {session}, in the middle of {found[-1].id}"
        assert found[-1].reason is None, f"{where}: after the end of its session"
        if event.type == "ocpp.station.disconnected":
            last = found.pop()
            found.append(Session(last.id, last.station, last.remote, last.replaced, event.data["reason"]))
    for before, after in zip(found, found[1:], strict=False):
        assert after.replaced in (None, before.id), f"{after.id} replaced {after.replaced}, not the one before it"
        if before.reason == "replaced":
            assert after.replaced == before.id, f"{before.id} was replaced, and {after.id} does not say so"
    return found
