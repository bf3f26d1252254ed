"""A damaged spool: scenario 7.

A gateway without Kafka writes a spool. Copies of it are damaged at random and given to a gateway with Kafka. What must arrive follows
from the undamaged files, read as documented (`harness.spool_files`): every record of which no byte was changed.
"""

import random
import shutil
import threading
from dataclasses import dataclass, field
from pathlib import Path

from confluent_kafka import Consumer, TopicPartition
from harness.broker import Broker, watermarks
from harness.load import Load
from harness.spool_files import Stored, Touched, damage, read_log, undamaged
from harness.verdict import Verdict
from harness.waiting import free_port, wait_for

from .stage import Stage, WatchedGateway

RUNS = 200
THREADS = 3
PARTITIONS = 2
STATIONS = 40
EVENTS = 2500
SEED = 7
# A small message size makes small segments, and so several.
SMALL = {"max_message_size": "16KiB"}
REPORTS = ("damaged", "torn", "are lost", "missing")


@dataclass
class Totals:
    """What all runs found together."""

    runs: int = 0
    whole: int = 0
    """Records that should arrive."""
    delivered: int = 0
    again: int = 0
    lost: list[str] = field(default_factory=list)
    reordered: list[str] = field(default_factory=list)
    forged: list[str] = field(default_factory=list)
    """Records that arrived but were never stored, or not like this."""
    other: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)


def spool_corrupted(stage: Stage) -> None:
    """7: a spool is damaged at random, 200 times: everything undamaged arrives, and the damage is reported"""
    original, records = _make_spool(stage)
    stage.note(f"{len(records)} records in {len(list(original.glob('*.log')))} segments")
    stage.start_kafka()
    totals = Totals()
    runs = stage.repetitions(RUNS)
    failures: list[BaseException] = []

    def series(which: int) -> None:
        try:
            topics = stage.broker.fresh_topics(partitions=PARTITIONS)
            wait_for(lambda: _exists(stage.broker, topics["events"]), "the topic to be known", 20)
            for run in range(which, runs, THREADS):
                _Run(stage, run, topics, original, records).play(totals)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=series, args=(which,)) for which in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
    stage.note(f"{totals.runs} runs, {totals.whole} undamaged records, {totals.delivered} arrived")
    stage.row.verdict = Verdict(
        stations=STATIONS,
        answered=totals.whole,
        events=totals.delivered,
        lost=totals.lost,
        reordered=totals.reordered,
        duplicates=totals.again,
    )
    for name, found in (
        ("undamaged records lost", totals.lost),
        ("reordered", totals.reordered),
        ("arrived but were never stored", totals.forged),
        ("other faults", totals.other),
    ):
        stage.expect(not found, f"{len(found)} {name}: {'; '.join(found[:5])}")


def _make_spool(stage: Stage) -> tuple[Path, list[Stored]]:
    """A spool of several segments, as a killed gateway leaves it."""
    folder = stage.directory / "spool"
    config = {
        "session": SMALL,
        "bus": {
            "kind": "kafka",
            "kafka": {"brokers": f"127.0.0.1:{free_port()}"},
            "spool": {"dir": str(folder), "after": "1s", "max_size": "4MiB"},
        },
        "log": {"level": "info"},
    }
    gateway = WatchedGateway(stage.directory / "maker", config)
    stage.closing.callback(gateway.kill9)
    gateway.start(until="/livez")
    load = Load(gateway, stage.directory / "stations", STATIONS, pace=0.02, spread=0.2)
    stage.closing.callback(load.kill)
    load.open()
    wait_for(lambda: (gateway.bus["spool"] or {}).get("records", 0) >= EVENTS, f"{EVENTS} spooled events", 90)
    load.kill()
    gateway.kill9()
    return folder, read_log(folder)


class _Run:
    """One damaged copy, and what becomes of it."""

    def __init__(
        self, stage: Stage, number: int, topics: dict[str, str], original: Path, records: list[Stored]
    ) -> None:
        self.number, self.topics, self.records, self.stage = number, topics, records, stage
        self.directory = stage.directory / f"run-{number}"
        self.spool = self.directory / "spool"
        shutil.copytree(original, self.spool)
        (self.spool / "lock").unlink(missing_ok=True)
        config = {
            "session": SMALL,
            "bus": {
                "kind": "kafka",
                "kafka": {"brokers": stage.broker.address},
                "spool": {"dir": str(self.spool), "after": "5s", "max_size": "4MiB"},
            },
            "topics": topics,
            "log": {"level": "info"},
        }
        self.gateway = WatchedGateway(self.directory / "gateway", config)

    def play(self, totals: Totals) -> None:
        done, touched = damage(self.spool, random.Random(SEED * 1_000_003 + self.number))
        whole = undamaged(self.records, touched)
        what = f"run {self.number} ({done})"
        consumer = self.stage.broker.consumer()
        try:
            begins = _ends(consumer, self.topics["events"])
            other: list[str] = []
            try:
                self.gateway.start(until="/livez")
                wait_for(self.gateway.is_settled, "the spool to be drained", 60, 0.05)
                code = self.gateway.sigterm()
                if code:
                    other.append(f"{what}: after SIGTERM the gateway ended with {code}")
            except AssertionError as error:
                other.append(f"{what}: {error}")
            finally:
                self.gateway.kill9()
            arrived = _read(consumer, self.topics["events"], begins)
        finally:
            consumer.close()
        self._judge(totals, what, whole, touched, arrived, other)
        if not other:
            shutil.rmtree(self.directory)

    def _judge(
        self,
        totals: Totals,
        what: str,
        whole: list[Stored],
        touched: list[Touched],
        arrived: list[tuple[str, bytes]],
        other: list[str],
    ) -> None:
        log = self.gateway.log_text()
        if "panicked at" in log:
            other.append(f"{what}: the gateway panicked")
        is_hit = len(whole) < len(self.records)
        if is_hit and not any(word in log for word in REPORTS):
            other.append(f"{what}: {len(self.records) - len(whole)} records are gone and the log says nothing")
        by_value = {record.value: record for record in self.records}
        first: dict[bytes, None] = {}
        forged = []
        for key, value in arrived:
            if value not in by_value or by_value[value].key != key:
                forged.append(f"{what}: {value[:200]!r}")
            first.setdefault(value, None)
        lost = [f"{what}: position {record.position}" for record in whole if record.value not in first]
        reordered = []
        latest: dict[str, int] = {}
        for value in first:
            if value in by_value:
                record = by_value[value]
                if record.position < latest.get(record.key, -1):
                    reordered.append(f"{what}: position {record.position} of {record.key}")
                latest[record.key] = record.position
        with totals.lock:
            totals.runs += 1
            totals.whole += len(whole)
            totals.delivered += len(first)
            totals.again += len(arrived) - len(first)
            totals.lost += lost
            totals.reordered += reordered
            totals.forged += forged
            totals.other += other
        self.stage.row.peak_rss = max(self.stage.row.peak_rss, self.gateway.peak_rss)


def _exists(broker: Broker, topic: str) -> bool:
    consumer = broker.consumer()
    try:
        return len(consumer.list_topics(topic, timeout=20).topics[topic].partitions) == PARTITIONS
    finally:
        consumer.close()


def _ends(consumer: Consumer, topic: str) -> dict[int, int]:
    return {number: watermarks(consumer, topic, number)[1] for number in range(PARTITIONS)}


def _read(consumer: Consumer, topic: str, begins: dict[int, int]) -> list[tuple[str, bytes]]:
    """Keys and values from these offsets to the end; those of one key are in order."""
    ends = _ends(consumer, topic)
    open_ = {number for number, end in ends.items() if end > begins[number]}
    consumer.assign([TopicPartition(topic, number, begins[number]) for number in open_])
    found: list[tuple[str, bytes]] = []
    while open_:
        message = consumer.poll(20)
        assert message is not None, f"nothing more arrives from {topic}"
        assert message.error() is None, message.error()
        found.append(((message.key() or b"").decode(), message.value()))
        if message.offset() + 1 >= ends[message.partition()]:
            open_.discard(message.partition())
    return found
