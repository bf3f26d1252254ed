"""P1, P2 and P3 through outages of Kafka: a short selection of `make faults`, which has the rest.

A hundred stations keep sending while a real broker is killed, and while the gateway is killed as it fills or drains its spool. They
reconnect and repeat what was not answered, as real stations do. Afterwards every answered CALL has its event, every station's events
are in order, and duplicates carry the same event id.
"""

import time

import pytest
from harness.load import Load
from harness.verdict import compare
from harness.waiting import wait_for

STATIONS = 100
SPOOLED = 1000


@pytest.fixture
def scene(gateway, own_kafka, tmp_path):
    """`scene(bus)`: Kafka, a gateway with this `[bus]`, and stations that send."""
    scenes = []

    def play(bus):
        scenes.append(Scene(gateway, own_kafka, tmp_path, bus))
        return scenes[-1]

    yield play
    for one in scenes:
        one.load.kill()


class Scene:
    """Kafka, one gateway and its stations."""

    def __init__(self, gateway, kafka, folder, bus):
        self.kafka = kafka.start()
        self.topics = kafka.fresh_topics()
        places = {"kind": "kafka", "kafka": {"brokers": kafka.address}}
        self.node = gateway({"bus": places | bus, "topics": self.topics, "log": {"level": "info"}})
        self.load = Load(self.node, folder / "stations", STATIONS, pace=0.2, spread=0.5)
        self.load.start()
        self.was_killed = False

    def state(self):
        return self.node.get("/health").json()["bus"]["state"]

    def until(self, *states, timeout=40.0):
        return wait_for(lambda: next((one for one in states if self.state() == one), None), f"{states}", timeout, 0.01)

    def talk(self):
        self.load.answers(2 * STATIONS, timeout=30)

    def kill_gateway(self):
        self.was_killed = True
        self.node.kill9()
        self.node.start(until="/livez")

    def end(self):
        """Waits until everything is answered and in Kafka; returns the comparison."""
        assert self.load.drain(40), f"not every station was answered: {self.load.status}"
        wait_for(self.is_settled, "Kafka to have everything", 40)
        assert self.node.sigterm() == 0
        verdict = compare(
            self.load.finish(), self.kafka.records(self.topics["events"]), gateway_was_killed=self.was_killed
        )
        print(f"\n{verdict}")
        assert verdict.faults == {}
        return verdict

    def is_settled(self):
        bus = self.node.get("/health").json()["bus"]
        return bus["state"] == "direct" and bus["inFlightRecords"] == 0 and not (bus["spool"] or {}).get("records")


def test_kafka_killed_with_a_spool_stops_no_station(scene, tmp_path):
    scene = scene({"spool": {"dir": str(tmp_path / "spool"), "after": "1s"}})
    scene.talk()
    scene.kafka.kill9()
    scene.until("spooling")
    assert scene.node.get("/readyz").status_code == 200, "stations are served"
    for _ in range(5):
        scene.talk()
    assert scene.node.metric("ocpp_gateway_bus_spool_records", bus="events") > 0
    scene.kafka.start()
    scene.until("direct")
    assert scene.node.metric("ocpp_gateway_bus_drained_total", bus="events") > 0
    assert scene.end().longest_wait < 8


def test_kafka_killed_without_a_spool_delays_answers(scene):
    scene = scene({"hold_limit": "2m"})
    scene.talk()
    scene.kafka.kill9()
    began = time.monotonic()
    scene.load.until(lambda status: status.open >= STATIONS, "every station to wait for an answer", 20)
    wait_for(lambda: scene.node.get("/readyz").status_code == 503, "the gateway to be unready", 20)
    status = scene.load.status
    assert (status.connected, status.refusals) == (STATIONS, 0)
    scene.kafka.start()
    verdict = scene.end()
    assert verdict.longest_wait < time.monotonic() - began + 5


def test_the_gateway_killed_while_spooling_and_while_draining(scene, tmp_path):
    scene = scene({"spool": {"dir": str(tmp_path / "spool"), "after": "1s"}})
    scene.talk()
    scene.kafka.kill9()
    scene.until("spooling")
    for _ in range(2):
        scene.talk()
        scene.kill_gateway()
    wait_for(lambda: scene.node.metric("ocpp_gateway_bus_spool_records", bus="events") > SPOOLED, "a spool", 40)
    scene.kafka.start()
    for _ in range(2):
        if scene.until("draining", "direct") == "draining":
            scene.kill_gateway()
    scene.until("direct")
    scene.talk()
    scene.end()
