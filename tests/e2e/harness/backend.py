"""A backend on Kafka, as an independent client: produces commands, reads their results, sees what the group has committed.

Owns its topics and its consumer group, which nobody else uses. Checks only what holds for every result: the contract and the key.
"""

import asyncio
import json
import time
import uuid
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from typing import Any

from confluent_kafka import Consumer, Producer, TopicPartition

from .broker import Broker, watermarks
from .contract import violations
from .events import Event
from .gateway import merged
from .obedient import Obedient, body, wire_counts
from .waiting import wait_for


@dataclass(frozen=True)
class Result:
    """One result record. `seen_at` is when this process had it, by `time.monotonic`."""

    event: Event
    seen_at: float

    @property
    def id(self) -> str:
        """The event's id, the same for every delivery of one event."""
        return self.event.json["id"]

    @property
    def status(self) -> str:
        return self.event.data["status"]

    @property
    def sent(self) -> str:
        return self.event.data["sent"]


class Backend:
    """A backend with topics of its own on `broker`, which must be running. Close it."""

    def __init__(
        self, broker: Broker, *, command_partitions: int = 6, command_config: dict[str, str] | None = None
    ) -> None:
        suffix = uuid.uuid4().hex[:8]
        self.broker = broker
        self.group = f"gateways-{suffix}"
        self.topics = {
            "events": f"ocpp.events.{suffix}",
            "command_results": f"ocpp.command-results.{suffix}",
            "commands": f"ocpp.commands.{suffix}",
        }
        others = {name: topic for name, topic in self.topics.items() if name != "commands"}
        broker.fresh_topics(partitions=3, names=others)
        broker.fresh_topics(command_partitions, config=command_config, names={"commands": self.topics["commands"]})
        self.command_partitions = command_partitions
        self.results: dict[str, list[Result]] = defaultdict(list)
        """All results read so far, by command id, in the order of reading."""
        self.produced_at: dict[str, float] = {}
        """When each command was given to the producer, by `time.monotonic`."""
        self.undelivered: list[str] = []
        """Kafka's errors for records that it did not accept."""
        self._producer = Producer(
            {
                "bootstrap.servers": broker.address,
                "linger.ms": 1,
                "enable.idempotence": True,
                "message.max.bytes": 8 << 20,
                "reconnect.backoff.max.ms": 1000,
                "log_level": 0,
            }
        )
        self._consumer = self._open_consumer()

    def _open_consumer(self) -> Consumer:
        consumer = Consumer(
            {
                "bootstrap.servers": self.broker.address,
                "group.id": f"results-{uuid.uuid4()}",
                "enable.auto.commit": False,
                "fetch.wait.max.ms": 20,
                "reconnect.backoff.max.ms": 1000,
                "log_level": 0,
            }
        )
        consumer.assign([TopicPartition(self.topics["command_results"], partition, 0) for partition in range(3)])
        return consumer

    def close(self) -> None:
        self._consumer.close()

    def config(self, **over: Any) -> dict[str, Any]:
        """The configuration of a gateway that serves this backend, overridden by `over`."""
        base = {
            "bus": {"kind": "kafka", "kafka": {"brokers": self.broker.address}},
            "topics": self.topics,
            "commands": {"consumer_group": self.group, "grace": "100ms"},
            # Stations stop reading when their test ends, so that closing them must not take long.
            "session": {"close_timeout": "500ms"},
            "log": {"level": "info"},
        }
        return merged(base, over)

    # -- commands -----------------------------------------------------------------------------------------------

    def send(self, station: str, id: str, **more: Any) -> str:
        """Produces the command `body(id, **more)` with the station as its key; returns its id. It may stay in the producer until `flush`."""
        self.produced_at.setdefault(id, time.monotonic())
        self.produce(station, json.dumps(body(id, **more)))
        return id

    def produce(self, key: str | bytes | None, value: str | bytes | None, partition: int | None = None) -> None:
        """Produces any record."""
        place = {} if partition is None else {"partition": partition}
        self._producer.produce(self.topics["commands"], value, key=key, on_delivery=self._delivered, **place)
        self._producer.poll(0)

    def _delivered(self, error: Any, _: Any) -> None:
        if error is not None:
            self.undelivered.append(str(error))

    def flush(self, timeout: float = 30.0) -> None:
        """Waits until Kafka has everything."""
        assert self._producer.flush(timeout) == 0, "Kafka did not accept every command"
        assert self.undelivered == []

    # -- results ------------------------------------------------------------------------------------------------

    def read(self, seconds: float) -> None:
        """Reads results for this long."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            for message in self._consumer.consume(500, min(left, 0.1)):
                self._take(message)

    def await_results(self, ids: Collection[str], timeout: float = 30.0) -> None:
        """Reads until every one of `ids` has a result."""
        self.await_that(lambda: all(id in self.results for id in ids), timeout, lambda: self._missing(ids))

    def await_that(self, done: Callable[[], bool], timeout: float, what: Callable[[], str]) -> None:
        """Reads until `done`; fails with `what` after `timeout` seconds."""
        deadline = time.monotonic() + timeout
        while not done():
            assert time.monotonic() < deadline, f"waited {timeout:g} s in vain: {what()}"
            self.read(0.05)

    def _missing(self, ids: Collection[str]) -> str:
        missing = [id for id in ids if id not in self.results]
        return f"{len(missing)} of {len(ids)} commands have no result, among them {missing[:5]}"

    def _take(self, message: Any) -> None:
        if message.error() is not None:
            return  # The broker is away; what was not read is delivered later.
        event = Event(message.value().decode())
        assert violations(event.json) == [], event.text
        assert event.type == "ocpp.command.result"
        assert message.key().decode() == event.station
        self.results[event.data["commandId"]].append(Result(event, time.monotonic()))

    def first(self, id: str) -> Result:
        return self.results[id][0]

    def distinct_results(self) -> dict[str, list[Result]]:
        """Commands with more than one distinct event: each of these is a broken promise."""
        return {id: results for id, results in self.results.items() if len({result.id for result in results}) > 1}

    async def has_results(self, ids: Collection[str], timeout: float = 40.0) -> None:
        """`await_results` while the stations' event loop goes on."""
        await asyncio.to_thread(self.await_results, ids, timeout)

    def check_results(self, stations: Iterable[Obedient], ids: Collection[str]) -> None:
        """Exactly the commands `ids` have one result each, were sent at most once, and `sent` says so truthfully."""
        assert self.distinct_results() == {}
        assert set(self.results) == set(ids)
        wire = wire_counts(stations)
        assert [id for id, count in wire.items() if count > 1] == [], "sent twice"
        for id in ids:
            result = self.first(id)
            assert result.sent in (("yes", "unknown") if wire[id] else ("no", "unknown")), result.event.text
            if result.status == "answered":
                assert result.event.data["payload"]["data"] == id, "the answer to another command"

    # -- the group's offsets ------------------------------------------------------------------------------------

    async def has_committed(self, timeout: float = 20.0) -> None:
        """Waits until the group has committed everything."""
        await asyncio.to_thread(wait_for, lambda: self.lag() == 0, "the group at the end of the topic", timeout, 0.2)

    def lag(self) -> int:
        """Records of the command topic that the group has not committed. A partition without records counts as 0."""
        consumer = Consumer({"bootstrap.servers": self.broker.address, "group.id": self.group, "log_level": 0})
        try:
            topic = self.topics["commands"]
            places = [TopicPartition(topic, partition) for partition in range(self.command_partitions)]
            lag = 0
            for place in consumer.committed(places, timeout=20):
                low, high = watermarks(consumer, topic, place.partition)
                lag += high - (place.offset if place.offset >= 0 else low)
            return lag
        finally:
            consumer.close()
