"""The one place that decides where a test's server comes from, and says which it took."""

import contextlib
import os
from collections.abc import Callable, Iterator

from vegamite_common.testing.services import docker
from vegamite_common.testing.services.influxdb import InfluxAddress, InfluxServer
from vegamite_common.testing.services.kafka import KafkaServer
from vegamite_common.testing.services.postgres import PostgresServer

Say = Callable[[str], None]


@contextlib.contextmanager
def open_postgres(say: Say) -> Iterator[str]:
    """Give a superuser's URL: $VEGAMITE_TEST_POSTGRES, else a container, else a server from packages."""
    given = os.environ.get("VEGAMITE_TEST_POSTGRES")
    if given:
        say("PostgreSQL: the one in VEGAMITE_TEST_POSTGRES")
        yield given
    elif docker.image_available(docker.POSTGRES_IMAGE):
        say(f"PostgreSQL: Docker, {docker.POSTGRES_IMAGE}")
        with docker.run_postgres() as url:
            yield url
    else:
        with PostgresServer() as server:
            say(f"PostgreSQL: from packages, process {server.pid}")
            yield server.url


@contextlib.contextmanager
def open_kafka(say: Say) -> Iterator[str]:
    """Give a bootstrap address: $VEGAMITE_TEST_KAFKA, else a container, else a broker from packages."""
    given = os.environ.get("VEGAMITE_TEST_KAFKA")
    if given:
        say("Kafka: the one in VEGAMITE_TEST_KAFKA")
        yield given
    elif docker.image_available(docker.KAFKA_IMAGE):
        say(f"Kafka: Docker, {docker.KAFKA_IMAGE}")
        with docker.run_kafka() as bootstrap:
            yield bootstrap
    else:
        with KafkaServer() as server:
            say(f"Kafka: from packages, process {server.pid} on {server.bootstrap}")
            yield server.bootstrap


@contextlib.contextmanager
def open_influxdb(say: Say) -> Iterator[InfluxAddress]:
    """Give an address with a token: $VEGAMITE_TEST_INFLUXDB, else a container, else a server built from its sources."""
    given = os.environ.get("VEGAMITE_TEST_INFLUXDB")
    if given:
        say("InfluxDB: the one in VEGAMITE_TEST_INFLUXDB")
        yield InfluxAddress.parse(given)
    elif docker.image_available(docker.INFLUXDB_IMAGE):
        say(f"InfluxDB: Docker, {docker.INFLUXDB_IMAGE}")
        with docker.run_influxdb() as address:
            yield address
    else:
        with InfluxServer() as server:
            say(f"InfluxDB: from its sources, process {server.pid} on port {server.port}")
            yield server.address
