"""KafkaBus over TLS with a password, against a real broker with a certificate of its own."""

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import SecretStr

from vegamite_common.bus.kafka import KafkaBus
from vegamite_common.bus.port import BusError
from vegamite_common.runtime.clock import SystemClock
from vegamite_common.runtime.section import KafkaSection
from vegamite_common.testing.bus_contract import ALL, assigned, numbered, numbers, read, spec_of
from vegamite_common.testing.certificate import Certificate, make_certificate
from vegamite_common.testing.services.kafka import KafkaServer

PASSWORD = "hush hush"
_LOGIN = "org.apache.kafka.common.security.plain.PlainLoginModule required"


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return make_certificate(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="module")
def broker(certificate: Certificate) -> Iterator[KafkaServer]:
    settings = {
        "listener.security.protocol.map": "PLAINTEXT:SASL_SSL,CONTROLLER:PLAINTEXT",
        "ssl.keystore.type": "PEM",
        "ssl.keystore.location": str(certificate.both),
        "ssl.truststore.type": "PEM",
        "ssl.truststore.location": str(certificate.certificate),
        "sasl.enabled.mechanisms": "PLAIN",
        "sasl.mechanism.inter.broker.protocol": "PLAIN",
        "listener.name.plaintext.plain.sasl.jaas.config": (
            f'{_LOGIN} username="broker" password="b" user_broker="b" user_vegamite="{PASSWORD}";'
        ),
    }
    with KafkaServer(settings) as server:
        yield server


def section(broker: KafkaServer, certificate: Certificate, **changes: object) -> KafkaSection:
    settings: dict[str, object] = {
        "bootstrap_servers": broker.bootstrap,
        "security_protocol": "SASL_SSL",
        "sasl_mechanism": "PLAIN",
        "sasl_username": "vegamite",
        "sasl_password": SecretStr(PASSWORD),
        "ssl_ca_file": certificate.certificate,
        "start_timeout_ms": 300,
    }
    return KafkaSection.model_validate({**settings, **changes})


async def test_everything_works_over_tls_with_a_password(
    broker: KafkaServer, certificate: Certificate
) -> None:
    bus = KafkaBus(section(broker, certificate, start_timeout_ms=60_000), SystemClock())
    await bus.start()
    await bus.create_topics([spec_of("secured")])
    await bus.check_topics([spec_of("secured")])
    member = await bus.join("secured", "group")
    await assigned(member, ALL)
    await member.seek(dict.fromkeys(ALL, 0))
    await bus.producer().publish("secured", 1, numbered(0, 5))
    assert numbers(await read(member, 5)) == list(range(5))
    await member.commit({1: 5})
    await bus.close()


@pytest.mark.parametrize(
    "changes",
    [
        {"sasl_password": SecretStr("wrong")},
        {"ssl_ca_file": None},
        {"security_protocol": "PLAINTEXT"},
        {"security_protocol": "SSL"},
    ],
    ids=["wrong password", "unknown certificate", "no encryption", "no password"],
)
async def test_a_cluster_that_does_not_let_us_in_is_an_error_that_shows_no_secret(
    broker: KafkaServer, certificate: Certificate, changes: dict[str, object]
) -> None:
    bus = KafkaBus(section(broker, certificate, request_timeout_ms=3000, **changes), SystemClock())
    with pytest.raises(BusError, match="Kafka, connecting") as caught:
        await bus.start()
    assert PASSWORD not in str(caught.value)
    assert "wrong" not in str(caught.value)
    await bus.close()


async def test_a_certificate_file_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    missing = KafkaSection(
        bootstrap_servers=address,
        security_protocol="SSL",
        ssl_ca_file=tmp_path / "none.pem",
        start_timeout_ms=0,
    )
    bus = KafkaBus(missing, SystemClock())
    with pytest.raises(BusError, match="can't be used"):
        await bus.start()
