"""A Kafka broker for tests (KRaft, one process), which can be stopped, killed and started again on its log."""

import base64
import subprocess
import uuid
from collections.abc import Mapping
from pathlib import Path

from vegamite_common.testing.services.kafka_jars import kafka_jars
from vegamite_common.testing.services.process import ServerProcess, ServiceError

_JVM = ["-Xmx512m", "-Xms128m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"]
_SETTINGS: Mapping[str, str] = {
    "process.roles": "broker,controller",
    "node.id": "1",
    "controller.listener.names": "CONTROLLER",
    "inter.broker.listener.name": "PLAINTEXT",
    "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
    "auto.create.topics.enable": "false",
    "group.initial.rebalance.delay.ms": "0",
    "offsets.topic.num.partitions": "4",
    "offsets.topic.replication.factor": "1",
    "transaction.state.log.num.partitions": "4",
    "transaction.state.log.replication.factor": "1",
    "transaction.state.log.min.isr": "1",
    "share.coordinator.state.topic.replication.factor": "1",
    "share.coordinator.state.topic.min.isr": "1",
    "log.retention.check.interval.ms": "1000",
    "controlled.shutdown.enable": "false",
    "broker.heartbeat.interval.ms": "500",
    "broker.session.timeout.ms": "3000",  # what a restart after SIGKILL waits for
}


class KafkaServer(ServerProcess):
    """One real broker on loopback, and its log."""

    name = "kafka"

    def __init__(
        self, settings: Mapping[str, str] | None = None, *, cluster_id: str | None = None
    ) -> None:
        """Choose folder and ports; `settings` are further lines of its server.properties."""
        super().__init__(ports=2)
        self._cluster_id = cluster_id or new_cluster_id()
        self._settings = dict(settings or {})

    @property
    def bootstrap(self) -> str:
        """The address to give to clients."""
        return f"127.0.0.1:{self.port}"

    def _command(self) -> list[str]:
        jars = kafka_jars()
        properties = self.directory / "server.properties"
        if not properties.exists():
            self._format(jars, properties)
        return [*_java(jars), "kafka.Kafka", str(properties)]

    def _format(self, jars: Path, properties: Path) -> None:
        (controller_port,) = self._other_ports
        settings = {
            **_SETTINGS,
            "listeners": f"PLAINTEXT://127.0.0.1:{self.port},CONTROLLER://127.0.0.1:{controller_port}",
            "advertised.listeners": f"PLAINTEXT://127.0.0.1:{self.port}",
            "log.dirs": str(self.directory / "log"),
            **self._settings,
        }
        # A broker of a cluster is told its voters; one alone is its own.
        alone = "controller.quorum.voters" not in settings
        if alone:
            settings["controller.quorum.bootstrap.servers"] = f"127.0.0.1:{controller_port}"
        unformatted = self.directory / "unformatted.properties"
        unformatted.write_text("".join(f"{name}={value}\n" for name, value in settings.items()))
        tool = ["kafka.tools.StorageTool", "format", "-t", self._cluster_id]
        formatted = subprocess.run(
            [
                *_java(jars),
                *tool,
                *(["--standalone"] if alone else []),
                "-c",
                str(unformatted),
            ],
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        if formatted.returncode != 0:
            raise ServiceError(
                f"Kafka's storage can't be formatted:\n{formatted.stdout}{formatted.stderr}"
            )
        unformatted.rename(properties)


def new_cluster_id() -> str:
    """Return a name for a cluster as Kafka wants it: 22 letters of base 64 that don't begin with a dash."""
    letters = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode()
    return letters.rstrip("=").replace("-", "A")


def _java(jars: Path) -> list[str]:
    return ["java", *_JVM, f"-Dlog4j2.configurationFile={jars / 'log4j2.xml'}", "-cp", f"{jars}/*"]
