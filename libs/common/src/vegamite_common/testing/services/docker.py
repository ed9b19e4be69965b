"""Servers as containers, where a Docker daemon answers and has, or can pull, their images."""

import contextlib
from collections.abc import Iterator

from vegamite_common.testing.services.process import free_ports

KAFKA_IMAGE = "apache/kafka:4.1.0"
POSTGRES_IMAGE = "postgres:17-bookworm"


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


@contextlib.contextmanager
def run_postgres() -> Iterator[str]:
    """Run a PostgreSQL container; gives its superuser's URL."""
    from testcontainers.postgres import PostgresContainer

    with PostgresContainer(POSTGRES_IMAGE, driver=None) as container:
        yield container.get_connection_url()


@contextlib.contextmanager
def run_kafka() -> Iterator[str]:
    """Run a Kafka container (KRaft, one process); gives its bootstrap address."""
    from testcontainers.core.container import DockerContainer
    from testcontainers.core.wait_strategies import LogMessageWaitStrategy

    (port,) = free_ports(1)
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
    # Docker's own client takes an address with the port; testcontainers' types don't say so.
    container.with_bind_ports(9092, ("127.0.0.1", port))  # type: ignore[arg-type]
    for name, value in environment.items():
        container = container.with_env(name, value)
    container = container.waiting_for(LogMessageWaitStrategy("Kafka Server started"))
    with container:
        yield f"127.0.0.1:{port}"
