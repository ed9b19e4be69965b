"""What every client of the cluster is given: addresses, credentials, time limits, the clock; and its faults as ours."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import ConsumerStoppedError, KafkaError

from vegamite_common.bus.port import BusError
from vegamite_common.domain.time import Micros
from vegamite_common.runtime.clock import Clock
from vegamite_common.runtime.section import KafkaSection

OPERATIONAL = (KafkaError, ConsumerStoppedError, OSError, TimeoutError)
"""What a cluster can do to a correct program."""


class KafkaConnection:
    """How this process reaches the cluster."""

    def __init__(self, section: KafkaSection, clock: Clock) -> None:
        self.section = section
        self.clock = clock
        self.request_seconds = section.request_timeout_ms / 1000

    def arguments(self) -> dict[str, Any]:
        """The arguments that producer, consumer and admin client share. Raises `BusError` for unreadable certificates."""
        section = self.section
        arguments: dict[str, Any] = {
            "bootstrap_servers": section.bootstrap_servers,
            "client_id": section.client_id,
            "request_timeout_ms": section.request_timeout_ms,
            "retry_backoff_ms": 100,
            "metadata_max_age_ms": 60_000,
            "security_protocol": section.security_protocol,
        }
        if section.security_protocol in ("SSL", "SASL_SSL"):
            arguments["ssl_context"] = self._ssl_context()
        if section.security_protocol.startswith("SASL"):
            assert section.sasl_password is not None
            arguments["sasl_mechanism"] = section.sasl_mechanism
            arguments["sasl_plain_username"] = section.sasl_username
            arguments["sasl_plain_password"] = section.sasl_password.get_secret_value()
        return arguments

    def from_broker(self, milliseconds: int) -> Micros:
        """The clock's instant at a broker's append time."""
        return self.clock.from_wall(milliseconds * 1000)

    @asynccontextmanager
    async def admin(self) -> AsyncIterator[AIOKafkaAdminClient]:
        """An administration client for one task; what goes wrong inside the block is a `BusError`."""
        client = AIOKafkaAdminClient(**self.arguments())
        with faults("administration"):
            try:
                async with asyncio.timeout(self.request_seconds):
                    await client.start()
                yield client
            finally:
                await client.close()

    def _ssl_context(self) -> ssl.SSLContext:
        section = self.section
        try:
            context = ssl.create_default_context(cafile=section.ssl_ca_file)
            if section.ssl_cert_file is not None:
                password = section.ssl_key_password
                context.load_cert_chain(
                    section.ssl_cert_file,
                    section.ssl_key_file,
                    None if password is None else password.get_secret_value(),
                )
        except (OSError, ssl.SSLError) as error:
            raise BusError(f"kafka.ssl_*_file can't be used: {error}") from None
        return context


@contextmanager
def faults(what: str) -> Iterator[None]:
    """Turn what the cluster can do into a `BusError` that says what was being done."""
    try:
        yield
    except OPERATIONAL as error:
        raise BusError(f"Kafka, {what}: {describe(error)}") from error


def describe(error: BaseException) -> str:
    """One line for a fault."""
    text = str(error).splitlines()[0] if str(error) else ""
    name = type(error).__name__
    return text if name in text else f"{name}: {text}" if text else name
