"""Measures the round trip of commands through Kafka. Run by hand; not a test.

    OCPP_GATEWAY_BIN=target/release/ocpp-gateway .tools/venv/bin/python tests/e2e/measure_commands.py [--rate 500] [--seconds 30]

A round trip begins when a command's record is passed to the producer and ends when its result's record is returned by the consumer:
both in this process, by one clock, so that the figure includes Kafka twice and the gateway once. The stations run in a process of
their own and answer at once. Commands are evenly spaced, to the stations in turn, whatever has been answered; the first seconds do not
count. The broker is that of the tests: one node with a small heap.
"""

import argparse
import asyncio
import json
import multiprocessing
import tempfile
import threading
import time
from multiprocessing.connection import Connection
from pathlib import Path
from types import SimpleNamespace

from confluent_kafka import Consumer, Producer, TopicPartition
from harness.broker import Broker
from harness.gateway import Gateway, binary
from harness.obedient import Obedient, body, connect_all

WARM_UP_SECONDS = 5.0
PATIENCE_SECONDS = 30.0
RESULT_PARTITIONS = 3
TOPICS = {"events": "ocpp.events", "command_results": "ocpp.command-results", "commands": "ocpp.commands"}


def identities(count: int) -> list[str]:
    return [f"CP-{number:05}" for number in range(count)]


def serve_stations(port: int, count: int, pipe: Connection) -> None:
    """The stations' process: reports when all have booted, and stays until it is asked to exit."""

    async def serve() -> None:
        # They need to know no more of the gateway.
        gateway = SimpleNamespace(port=port)
        await connect_all([Obedient(identity) for identity in identities(count)], gateway)
        pipe.send("booted")
        await asyncio.to_thread(pipe.recv)

    asyncio.run(serve())


class ResultReader(threading.Thread):
    """Records when each result arrived; its content is read afterwards."""

    def __init__(self, brokers: str) -> None:
        super().__init__(daemon=True)
        self.seen: list[tuple[float, bytes]] = []
        self.stop = threading.Event()
        settings = {"group.id": "measure", "enable.auto.commit": False, "log_level": 0}
        self._consumer = Consumer({"bootstrap.servers": brokers} | settings)
        topic = TOPICS["command_results"]
        self._consumer.assign([TopicPartition(topic, partition, 0) for partition in range(RESULT_PARTITIONS)])

    def run(self) -> None:
        while not self.stop.is_set():
            message = self._consumer.poll(0.1)
            if message is not None and message.error() is None:
                self.seen.append((time.monotonic(), message.value()))
        self._consumer.close()


def send_commands(producer: Producer, names: list[str], rate: float, seconds: float) -> dict[str, float]:
    """Sends at an even rate for this long; returns when each command was sent."""
    sent: dict[str, float] = {}
    began = time.monotonic()
    for number in range(int(rate * seconds)):
        due = began + number / rate
        while (left := due - time.monotonic()) > 0:
            producer.poll(0)
            time.sleep(min(left, 0.001))
        id, name = f"c-{number}", names[number % len(names)]
        text = json.dumps(body(id))
        sent[id] = time.monotonic()
        producer.produce(TOPICS["commands"], text, key=name)
    producer.flush()
    return sent


def measure(rate: float, seconds: float, count: int, directory: Path) -> None:
    broker = Broker(directory / "kafka").start()
    pipe, far_end = multiprocessing.Pipe()
    stations = None
    gateway = Gateway(
        directory / "gateway",
        {"bus": {"kind": "kafka", "kafka": {"brokers": broker.address}}, "topics": TOPICS, "log": {"level": "info"}},
    )
    try:
        others = {name: topic for name, topic in TOPICS.items() if name != "commands"}
        broker.fresh_topics(partitions=RESULT_PARTITIONS, names=others)
        broker.fresh_topics(names={"commands": TOPICS["commands"]})
        gateway.start()
        spawn = multiprocessing.get_context("spawn")
        stations = spawn.Process(target=serve_stations, args=(gateway.port, count, far_end))
        stations.start()
        assert pipe.recv() == "booted"
        reader = ResultReader(broker.address)
        reader.start()
        producer = Producer({"bootstrap.servers": broker.address, "linger.ms": 1, "log_level": 0})
        sent = send_commands(producer, identities(count), rate, WARM_UP_SECONDS + seconds)
        deadline = time.monotonic() + PATIENCE_SECONDS
        while len(reader.seen) < len(sent) and time.monotonic() < deadline:
            time.sleep(0.05)
        reader.stop.set()
        reader.join()
        report(sent, reader.seen, rate, count)
        pipe.send("go")
        stations.join(PATIENCE_SECONDS)
        gateway.sigterm()
    finally:
        if stations is not None and stations.is_alive():
            stations.kill()
        gateway.kill9()
        broker.clean()


def report(sent: dict[str, float], seen: list[tuple[float, bytes]], rate: float, count: int) -> None:
    first = min(sent.values())
    trips: list[float] = []
    statuses: dict[str, int] = {}
    for at, value in seen:
        data = json.loads(value)["data"]
        statuses[data["status"]] = statuses.get(data["status"], 0) + 1
        began = sent[data["commandId"]]
        if began - first >= WARM_UP_SECONDS:
            trips.append((at - began) * 1000)
    trips.sort()
    took = max(sent.values()) - first
    print(f"{binary()}, {count} stations")
    print(f"{len(sent)} commands in {took:.1f} s ({len(sent) / took:.0f}/s, {rate:.0f}/s wanted): {statuses}")
    shown = ", ".join(
        f"p{share * 100:g} {trips[int(share * (len(trips) - 1))]:.1f}" for share in (0.5, 0.9, 0.99, 0.999)
    )
    print(f"round trip of {len(trips)} after {WARM_UP_SECONDS:.0f} s of warm-up, in ms: {shown}, max {trips[-1]:.1f}")


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--rate", type=float, default=500, help="commands a second")
    options.add_argument("--seconds", type=float, default=30, help="how long, after the warm-up")
    options.add_argument("--stations", type=int, default=1000)
    chosen = options.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        measure(chosen.rate, chosen.seconds, chosen.stations, Path(directory))


if __name__ == "__main__":
    main()
