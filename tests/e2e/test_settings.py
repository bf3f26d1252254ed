"""What holds for one station only: by the rules file, by its tags, and set for it alone through the API.

Proves that each source reaches the wire, that the later wins, that a change takes effect without a restart and for a station that
is connected, that a wrong file changes nothing, and that what is set for a station outlives the process.
"""

import asyncio
import json
from pathlib import Path

import pytest
from harness.gateway import Gateway
from harness.station import Station
from harness.waiting import wait_for
from websockets import ConnectionClosed


def settings_of(node: Gateway, identity: str) -> dict[str, dict[str, object]]:
    return node.get(f"/api/v1/stations/{identity}/settings").json()["effective"]


def write(file: Path, text: str) -> None:
    """Puts a file in place in one step, as an editor does."""
    new = file.with_suffix(".new")
    new.write_text(text, encoding="utf-8")
    new.rename(file)


@pytest.fixture
def ruled(gateway, tmp_path):
    """A gateway with a rules file, and the file."""
    file = tmp_path / "rules.toml"
    file.write_text("", encoding="utf-8")
    return gateway({"rules": {"file": str(file), "reload_interval": "50ms"}}), file


async def test_a_rule_takes_effect_for_a_station_that_is_connected(ruled):
    node, file = ruled
    async with await Station.connect(node, "CP-1") as one, await Station.connect(node, "CP-2") as other:
        await one.boot()
        await other.boot()
        assert len((await one.call("Heartbeat", {}))[2]["currentTime"]) == len("2026-01-01T00:00:00.000Z")
        write(file, '[[rule]]\nstations = ["cp-1"]\nset.fractional_seconds = false\n')
        wait_for(lambda: settings_of(node, "CP-1")["fractional_seconds"]["value"] is False, "the rule")
        assert settings_of(node, "CP-1")["fractional_seconds"]["source"] == "rule 1"
        assert len((await one.call("Heartbeat", {}))[2]["currentTime"]) == len("2026-01-01T00:00:00Z")
        assert len((await other.call("Heartbeat", {}))[2]["currentTime"]) == len("2026-01-01T00:00:00.000Z")
    assert node.get("/api/v1/rules").json()["rules"] == [{"stations": ["cp-1"], "set": {"fractional_seconds": False}}]


async def test_a_rule_by_tag_lets_stations_in_that_offer_no_subprotocol(ruled):
    node, file = ruled
    write(file, '[[rule]]\ntags = ["odd"]\nset.lenient = true\nset.before_boot = "accept"\n')
    wait_for(lambda: node.get("/api/v1/rules").json()["rules"], "the rule")
    assert node.put("/api/v1/stations/CP-1/tags", {"tags": ["odd"]}).status_code == 200
    async with await Station.connect(node, "CP-1", subprotocols=[]) as odd:
        assert (await odd.call("Heartbeat", {}))[0] == 3, "accepted before its boot"
    other = await Station.connect(node, "CP-2", subprotocols=[])
    with pytest.raises(ConnectionClosed):
        await other.recv()


async def test_settings_of_a_station_are_in_force_at_once_and_outlive_the_process(gateway):
    node = gateway()
    async with await Station.connect(node, "CP-1") as station:
        await station.boot()
        answer = node.put("/api/v1/stations/CP-1/settings", {"ping_interval": "50ms", "boot_interval": "7m"})
        assert answer.status_code == 200, answer.text
        assert answer.json()["own"] == {"ping_interval": "50ms", "boot_interval": "7m"}
        assert (await station.boot())["interval"] == 420
        # In a thread, because the station answers the pings here.
        round_trips = "ocpp_gateway_ping_round_trip_seconds_count"
        await asyncio.to_thread(wait_for, lambda: node.metric(round_trips) > 1, "pings")
    node.kill9()
    node.start()
    assert settings_of(node, "CP-1")["boot_interval"] == {"value": "7m", "source": "station"}
    assert settings_of(node, "CP-2")["boot_interval"] == {"value": "5m", "source": "configuration"}
    assert node.put("/api/v1/stations/CP-1/settings", {}).json()["own"] == {}


def test_what_is_no_setting_is_refused(gateway):
    node = gateway()
    for body, words in [
        ({"pings": "1s"}, "pings"),
        ({"ping_interval": "soon"}, "soon"),
        ({"idle_timeout": "0s"}, "idle_timeout"),
        ({"subprotocols": ["ocpp1.5"]}, "ocpp1.5"),
    ]:
        answer = node.put("/api/v1/stations/CP-1/settings", body)
        assert answer.status_code == 400, json.dumps(body)
        assert words in answer.text


def test_a_wrong_file_is_refused_at_start_and_ignored_later(ruled):
    node, file = ruled
    write(file, "[[rule]]\nset.lenient = true\n")
    wait_for(lambda: node.get("/api/v1/rules").json()["rules"], "the rule")
    write(file, '[[rule]]\nset.lenient = "maybe"\n')
    failed = 'ocpp_gateway_rules_reloads_total{outcome="failed"} 1'
    wait_for(lambda: failed in node.get("/metrics").text, "the refusal to be counted")
    assert node.get("/api/v1/rules").json()["rules"] == [{"set": {"lenient": True}}]
    node.sigterm()
    node.start(until=None)
    assert node.process.wait(10) != 0
    assert "rules file" in node.log_text()


async def test_the_fallback_differs_by_station(gateway):
    # Nobody listens on this port.
    hook = {"url": "http://127.0.0.1:9/", "deadline": "300ms"}
    node = gateway({"answers": {"Authorize": hook}, "hooks": {"connect_timeout": "100ms"}})
    node.put("/api/v1/stations/CP-1/settings", {"fallback": {"Authorize": "builtin"}})
    for identity, status in [("CP-1", "Accepted"), ("CP-2", "Invalid")]:
        async with await Station.connect(node, identity) as station:
            await station.boot()
            assert (await station.call("Authorize", {"idTag": "T"}))[2]["idTagInfo"]["status"] == status
