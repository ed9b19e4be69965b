"""Servers as containers, where a Docker daemon answers and has, or can pull, their images."""

import contextlib
import secrets
from collections.abc import Iterator
from typing import Any

from vegamite_common.testing.services.influxdb import InfluxAddress
from vegamite_common.testing.services.process import free_ports

KAFKA_IMAGE = "apache/kafka:4.1.0"
POSTGRES_IMAGE = "postgres:17-bookworm"
INFLUXDB_IMAGE = "influxdb:2.7"

# Docker's own client takes an address with a port, None for a free one; testcontainers' types and methods don't say so.
_LOOPBACK = "127.0.0.1"
_LOOPBACK_ANY: Any = (_LOOPBACK, None)


def image_available(image: str) -> bool:
    """Say whether a daemon answers and the image is there, pulling it if need be."""
    import docker  # type: ignore[import-untyped]
    from docker.errors import (  # type: ignore[import-untyped]
        DockerException,
        ImageNotFound,
    )

    try:
        client = docker.from_env(timeout=10)
    except DockerException:
        return False
    with contextlib.closing(client):
        try:
            client.ping()
            try:
                client.images.get(image)
            except ImageNotFound:
                client.images.pull(image)
        except (DockerException, OSError):
            return False
    return True


def _reap_where_possible() -> None:
    """Do without the container that removes what a killed run leaves, where its image can't be had."""
    from testcontainers.core.config import testcontainers_config as config

    if not config.ryuk_disabled and not image_available(config.ryuk_image):
        config.ryuk_disabled = True


@contextlib.contextmanager
def run_postgres() -> Iterator[str]:
    """Run a PostgreSQL container, published on loopback; gives its superuser's URL."""
    from testcontainers.community.postgres import PostgresContainer

    _reap_where_possible()
    container = PostgresContainer(POSTGRES_IMAGE, password=secrets.token_hex(16), driver=None)
    container.ports[f"{container.port}"] = _LOOPBACK_ANY
    with container:
        port = container.get_exposed_port(container.port)
        yield f"postgresql://{container.username}:{container.password}@{_LOOPBACK}:{port}/{container.dbname}"


@contextlib.contextmanager
def run_kafka() -> Iterator[str]:
    """Run a Kafka container (KRaft, one process); gives its bootstrap address."""
    from testcontainers.core.container import DockerContainer
    from testcontainers.core.wait_strategies import LogMessageWaitStrategy

    _reap_where_possible()
    (port,) = free_ports(1)
    published: Any = (_LOOPBACK, port)
    environment = {
        "KAFKA_NODE_ID": "1",
        "KAFKA_PROCESS_ROLES": "broker,controller",
        "KAFKA_LISTENERS": "PLAINTEXT://:9092,CONTROLLER://:9093",
        "KAFKA_ADVERTISED_LISTENERS": f"PLAINTEXT://127.0.0.1:{port}",
        "KAFKA_CONTROLLER_LISTENER_NAMES": "CONTROLLER",
        "KAFKA_LISTENER_SECURITY_PROTOCOL_MAP": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT",
        "KAFKA_CONTROLLER_QUORUM_VOTERS": "1@localhost:9093",
        "KAFKA_OFFSETS_TOPIC_REPLICATION_FACTOR": "1",
        "KAFKA_TRANSACTION_STATE_LOG_REPLICATION_FACTOR": "1",
        "KAFKA_TRANSACTION_STATE_LOG_MIN_ISR": "1",
        "KAFKA_GROUP_INITIAL_REBALANCE_DELAY_MS": "0",
        "KAFKA_AUTO_CREATE_TOPICS_ENABLE": "false",
    }
    container = DockerContainer(KAFKA_IMAGE)
    container.ports["9092"] = published
    for name, value in environment.items():
        container = container.with_env(name, value)
    container = container.waiting_for(LogMessageWaitStrategy("Kafka Server started"))
    with container:
        yield f"127.0.0.1:{port}"


@contextlib.contextmanager
def run_influxdb() -> Iterator[InfluxAddress]:
    """Run an InfluxDB 2 container, published on loopback; gives its address and its administrator's token."""
    from testcontainers.core.container import DockerContainer
    from testcontainers.core.wait_strategies import LogMessageWaitStrategy

    _reap_where_possible()
    token = secrets.token_hex(16)
    environment = {
        "DOCKER_INFLUXDB_INIT_MODE": "setup",
        "DOCKER_INFLUXDB_INIT_USERNAME": "vegamite",
        "DOCKER_INFLUXDB_INIT_PASSWORD": secrets.token_hex(16),
        "DOCKER_INFLUXDB_INIT_ORG": "vegamite",
        "DOCKER_INFLUXDB_INIT_BUCKET": "first",
        "DOCKER_INFLUXDB_INIT_ADMIN_TOKEN": token,
        "INFLUXD_REPORTING_DISABLED": "true",
    }
    container = DockerContainer(INFLUXDB_IMAGE)
    container.ports["8086"] = _LOOPBACK_ANY
    for name, value in environment.items():
        container = container.with_env(name, value)
    # It listens twice: for its own set-up on another port, then for everybody.
    container = container.waiting_for(LogMessageWaitStrategy(r'Listening.*"port": 8086'))
    with container:
        yield InfluxAddress(f"http://{_LOOPBACK}:{container.get_exposed_port(8086)}", token)
