import uuid
from collections.abc import AsyncIterator

import pytest
from aiokafka import AIOKafkaProducer

from vegamite_common.bus.kafka import KafkaBus
from vegamite_common.bus.port import Bus
from vegamite_common.runtime.clock import SimulatedClock
from vegamite_common.runtime.section import KafkaSection
from vegamite_common.testing.bus_contract import BusContract, numbered, read, spec_of
from vegamite_common.testing.bus_rebalances import RebalanceContract


class TestKafkaBus(BusContract, RebalanceContract):
    @pytest.fixture
    async def bus(self, kafka_bootstrap: str, clock: SimulatedClock) -> AsyncIterator[Bus]:
        bus = KafkaBus(KafkaSection(bootstrap_servers=kafka_bootstrap), clock)
        await bus.start()
        yield bus
        await bus.close()

    async def test_what_another_program_writes_in_transactions_leaves_no_hole(
        self, bus: Bus, kafka_bootstrap: str
    ) -> None:
        topic = f"transactions-{uuid.uuid4().hex}"
        await bus.create_topics([spec_of(topic, partitions=1)])
        await bus.producer().publish(topic, 0, numbered(0, 2))
        producer = AIOKafkaProducer(
            bootstrap_servers=kafka_bootstrap, transactional_id=uuid.uuid4().hex
        )
        await producer.start()
        try:
            async with producer.transaction():
                await producer.send_and_wait(topic, b"2", key=b"k")
        finally:
            await producer.stop()
        await bus.producer().publish(topic, 0, numbered(4, 1))

        reader = await bus.reader(topic)
        await reader.seek({0: 0})
        messages = await read(reader, 5)

        assert [message.offset for message in messages] == [0, 1, 2, 3, 4]
        # The fifth is the transaction's marker, which the broker writes when it comes to it.
        values = [message.value for message in messages if message.key == b"k"]
        assert values == [b"0", b"1", b"2", b"4"]
        await reader.close()
