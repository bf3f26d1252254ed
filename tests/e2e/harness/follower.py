"""A second Kafka broker beside a `Broker`, so that records can have two replicas and lose one.

One broker alone cannot lack replicas: Kafka 4 asks for no more in-sync replicas than a partition has (KIP-966).
"""

import signal
import subprocess
from pathlib import Path

from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource

from .broker import Broker
from .gateway import REPOSITORY
from .waiting import free_port, wait_for

_LIBS = REPOSITORY / ".tools" / "kafka" / "libs"


class Follower:
    """A broker process that joins the cluster of `leader`, which must be running."""

    def __init__(self, leader: Broker) -> None:
        self.leader = leader
        self.directory = leader.directory.with_name(leader.directory.name + "-follower")
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def start(self) -> "Follower":
        """Waits until it has joined the cluster."""
        self.directory.mkdir(parents=True, exist_ok=True)
        properties = self.directory / "server.properties"
        listener = f"PLAINTEXT://127.0.0.1:{self.port}"
        settings = _read(self.leader.directory / "server.properties") | {
            "process.roles": "broker",
            "node.id": "2",
            "listeners": listener,
            "advertised.listeners": listener,
            "log.dirs": str(self.directory / "logs"),
        }
        properties.write_text("".join(f"{name}={value}\n" for name, value in settings.items()))
        if not (self.directory / "logs").exists():
            cluster = _read(self.leader.directory / "logs" / "meta.properties")["cluster.id"]
            self._java("kafka.tools.StorageTool", "format", "-t", cluster, "-c", str(properties)).wait(60)
        self._process = self._java("kafka.Kafka", str(properties))
        wait_for(lambda: self._brokers() == 2, "the second broker in the cluster", 60, 0.3)
        return self

    def _java(self, *arguments: str) -> subprocess.Popen[bytes]:
        options = ["-Xms128m", "-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"]
        logging = f"-Dlog4j2.configurationFile={REPOSITORY / 'tools' / 'kafka' / 'log4j2.properties'}"
        with (self.directory / "kafka.log").open("ab") as log:
            return subprocess.Popen(
                ["java", *options, logging, "-cp", f"{_LIBS}/*", *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def _brokers(self) -> int:
        admin = AdminClient({"bootstrap.servers": self.leader.address, "log_level": 0})
        return len(admin.list_topics(timeout=10).brokers)

    def kill9(self) -> None:
        if self._process:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()


def alter_topic(broker: Broker, topic: str, **config: str) -> None:
    """Changes a topic's configuration; a dot in a name is written `__`."""
    entries = [
        ConfigEntry(name.replace("__", "."), value, incremental_operation=AlterConfigOpType.SET)
        for name, value in config.items()
    ]
    resource = ConfigResource(ConfigResource.Type.TOPIC, topic, incremental_configs=entries)
    admin = AdminClient({"bootstrap.servers": broker.address, "log_level": 0})
    for future in admin.incremental_alter_configs([resource]).values():
        future.result(timeout=20)


def _read(properties: Path) -> dict[str, str]:
    lines = [line for line in properties.read_text().splitlines() if "=" in line and not line.startswith("#")]
    return dict(line.split("=", 1) for line in lines)
