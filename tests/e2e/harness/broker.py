"""A real Kafka broker for tests (tools/kafka.sh), and its records as an independent client reads them."""

import os
import signal
import subprocess
import time
import uuid
from dataclasses import dataclass
from pathlib import Path

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from .events import Event
from .gateway import REPOSITORY
from .waiting import free_port, wait_for

SCRIPT = REPOSITORY / "tools" / "kafka.sh"

NO_LEADER_YET = (KafkaError.NOT_LEADER_FOR_PARTITION, KafkaError.LEADER_NOT_AVAILABLE)


@dataclass(frozen=True)
class Record:
    """One Kafka record. Records with the same key are in one partition, ordered by `offset`."""

    topic: str
    partition: int
    offset: int
    key: str
    value: bytes
    headers: dict[str, str]

    @property
    def event(self) -> Event:
        return Event(self.value.decode("utf-8"))


class Broker:
    """One broker process on a port of its own. Its data survives `stop` and `kill9`."""

    def __init__(self, directory: Path, properties: dict[str, str] | None = None) -> None:
        """`properties` override the broker's configuration at every start, and may be changed between starts."""
        self.directory = directory
        self.port = free_port(count=2)
        self.properties = dict(properties or {})

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def start(self) -> "Broker":
        """Waits until the broker answers."""
        self._script("start")
        return self

    def stop(self) -> None:
        self._script("stop")

    def kill9(self) -> None:
        self._signal(signal.SIGKILL)

    def pause(self) -> None:
        """Makes the broker hang until `resume`: its connections stay open, and nothing is answered."""
        self._signal(signal.SIGSTOP)
        tasks = Path(f"/proc/{(self.directory / 'pid').read_text().strip()}/task")

        def stopped() -> bool:
            # The state follows the name, which is in parentheses.
            states = [(task / "stat").read_text().rpartition(") ")[2][0] for task in tasks.iterdir()]
            return all(state == "T" for state in states)

        # The signal stops the threads one by one, and until then each may still acknowledge something.
        wait_for(stopped, "every thread of the broker to stop", interval=0.001)

    def resume(self) -> None:
        self._signal(signal.SIGCONT)

    def clean(self) -> None:
        self._script("clean")

    def log_text(self) -> str:
        log = self.directory / "kafka.log"
        return log.read_text(encoding="utf-8", errors="replace") if log.exists() else ""

    def _signal(self, number: signal.Signals) -> None:
        os.kill(int((self.directory / "pid").read_text()), number)

    def _script(self, command: str) -> None:
        environment = os.environ | {
            "KAFKA_PORT": str(self.port),
            "KAFKA_DATA": str(self.directory),
            "KAFKA_PROPERTIES": "\n".join(f"{name}={value}" for name, value in self.properties.items()),
        }
        environment.pop("KAFKA_CONTROLLER_PORT", None)
        done = subprocess.run(
            [SCRIPT, command],
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr

    # -- topics and records -------------------------------------------------------------------------------------

    def fresh_topics(
        self,
        partitions: int = 6,
        replicas: int = 1,
        config: dict[str, str] | None = None,
        names: dict[str, str] | None = None,
    ) -> dict[str, str]:
        """Creates topics and returns them as the gateway's `[topics]` section, with unused names unless `names` gives them."""
        suffix = uuid.uuid4().hex[:8]
        topics = names or {
            "events": f"ocpp.events.{suffix}",
            "command_results": f"ocpp.command-results.{suffix}",
        }
        admin = AdminClient({"bootstrap.servers": self.address})
        created = admin.create_topics(
            [NewTopic(topic, partitions, replicas, config=config or {}) for topic in topics.values()]
        )
        for future in created.values():
            future.result(timeout=20)
        return topics

    def consumer(self) -> Consumer:
        """A consumer in a group of its own with nothing assigned; close it."""
        return Consumer(
            {
                "bootstrap.servers": self.address,
                "group.id": f"test-{uuid.uuid4()}",
                "enable.auto.commit": False,
                "auto.offset.reset": "error",
            }
        )

    def records(self, topic: str) -> list[Record]:
        """Every record up to the topic's present end, by partition and offset."""
        consumer = self.consumer()
        try:
            partitions = consumer.list_topics(topic, timeout=20).topics[topic].partitions
            ends = {}
            for partition in partitions:
                low, high = watermarks(consumer, topic, partition)
                if high > low:
                    ends[partition] = (low, high)
            consumer.assign([TopicPartition(topic, partition, low) for partition, (low, _) in ends.items()])
            found: list[Record] = []
            missing = {partition: high - 1 for partition, (_, high) in ends.items()}
            while missing:
                message = consumer.poll(20)
                assert message is not None, f"{topic}: nothing more came, partitions {missing} not at their end"
                assert message.error() is None, message.error()
                found.append(_record(message))
                if message.offset() >= missing.get(message.partition(), 1 << 62):
                    del missing[message.partition()]
            return sorted(found, key=lambda record: (record.partition, record.offset))
        finally:
            consumer.close()


def watermarks(consumer: Consumer, topic: str, partition: int) -> tuple[int, int]:
    """The first and the next offset of a partition. A broker may not know the leader of a new topic yet."""
    deadline = time.monotonic() + 20
    while True:
        try:
            return consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=20)
        except KafkaException as error:
            if error.args[0].code() not in NO_LEADER_YET or time.monotonic() > deadline:
                raise
            # Between two attempts.
            time.sleep(0.1)


def _record(message: Message) -> Record:
    return Record(
        message.topic(),
        message.partition(),
        message.offset(),
        (message.key() or b"").decode("utf-8"),
        message.value() or b"",
        {name: value.decode("utf-8") for name, value in message.headers() or []},
    )
