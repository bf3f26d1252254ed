"""One node on the embedded default, no other server: a real client charges, and its events are in the local log."""

import subprocess
import sys

import pytest
from harness.gateway import REPOSITORY
from harness.tour import check_events, drive

VERSIONS = ["1.6", "2.0.1", "2.1"]


@pytest.mark.parametrize("version", VERSIONS)
async def test_every_frame_is_an_event_byte_for_byte(gateway, version):
    node = gateway()
    frames = await drive(node, "CP-001", version)
    events = node.await_events(lambda events: events and events[-1].type.endswith("disconnected"), "the last event")
    check_events(events, frames, "CP-001", version)


async def test_events_survive_a_restart(gateway):
    node = gateway()
    frames = await drive(node, "CP-001", "1.6")
    node.await_events(lambda events: events and events[-1].type.endswith("disconnected"), "the last event")
    before = [(event.position, event.text) for event in node.events()]
    node.kill9()
    node.start()
    events = node.events()
    assert [(event.position, event.text) for event in events[: len(before)]] == before
    check_events(events[: len(before)], frames, "CP-001", "1.6")


async def test_events_can_be_filtered_and_read_from_a_position(gateway):
    node = gateway()
    for identity in ("A", "B"):
        await drive(node, identity, "2.0.1")
    events = node.await_events(
        lambda events: sum(event.type == "ocpp.station.disconnected" for event in events) == 2,
        "both to disconnect",
    )
    assert [event.text for event in node.events(station="B")] == [e.text for e in events if e.station == "B"]
    only = node.events(type="ocpp.message.sent")
    assert [event.text for event in only] == [e.text for e in events if e.type == "ocpp.message.sent"]
    middle = events[len(events) // 2]
    assert node.events(start=middle.position)[0].text == middle.text


@pytest.mark.parametrize(
    ("script", "arguments"),
    [("station_16.py", ["CP-001"]), ("station_201.py", ["CP-002"]), ("station_201.py", ["CP-003", "2.1"])],
)
def test_the_scripts_of_the_tour_run(gateway, script, arguments):
    node = gateway()
    done = subprocess.run(
        [
            sys.executable,
            REPOSITORY / "docs" / "examples" / script,
            f"ws://127.0.0.1:{node.port}/ocpp",
            *arguments,
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "BootNotification   -> BootNotification(" in done.stdout
    node.await_events(
        lambda events: events[-1].type.endswith("disconnected"), "the station to disconnect", station=arguments[0]
    )


@pytest.mark.parametrize(
    ("script", "identity", "kind"), [("station_16.py", "CP-001", "Soft"), ("station_201.py", "CP-002", "OnIdle")]
)
def test_a_station_of_the_tour_that_stays_takes_the_command_of_the_readme(gateway, script, identity, kind):
    node = gateway()
    url = f"ws://127.0.0.1:{node.port}/ocpp"
    command = [sys.executable, REPOSITORY / "docs" / "examples" / script, url, "--stay"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as station:
        try:
            node.await_events(
                lambda events: any(event.data.get("action") == "BootNotification" for event in events),
                "the station to boot",
                station=identity,
                type="ocpp.message.sent",
            )
            body = {"action": "Reset", "payload": {"type": kind}, "timeout": "10s"}
            outcome = node.post(f"/api/v1/stations/{identity}/commands", body).json()
            assert (outcome["status"], outcome["payload"]) == ("answered", {"status": "Accepted"})
        finally:
            station.terminate()
