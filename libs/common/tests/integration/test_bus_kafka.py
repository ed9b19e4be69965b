from collections.abc import AsyncIterator

import pytest

from vegamite_common.bus.kafka import KafkaBus
from vegamite_common.bus.port import Bus
from vegamite_common.runtime.clock import SimulatedClock
from vegamite_common.runtime.section import KafkaSection
from vegamite_common.testing.bus_contract import BusContract
from vegamite_common.testing.bus_rebalances import RebalanceContract


class TestKafkaBus(BusContract, RebalanceContract):
    @pytest.fixture
    async def bus(self, kafka_bootstrap: str, clock: SimulatedClock) -> AsyncIterator[Bus]:
        bus = KafkaBus(KafkaSection(bootstrap_servers=kafka_bootstrap), clock)
        await bus.start()
        yield bus
        await bus.close()
