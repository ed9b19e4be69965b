import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from vegamite_common.bus.memory import MemoryBus
from vegamite_common.bus.offset_store import FileOffsetStore
from vegamite_common.bus.port import CANDLES, STATUS, TRADES, Bus, BusError, OffsetOutOfRangeError
from vegamite_common.runtime.clock import SimulatedClock, SystemClock
from vegamite_common.testing.bus_contract import BusContract, numbered, numbers, read, spec_of


class TestMemoryBus(BusContract):
    @pytest.fixture
    async def bus(self, clock: SimulatedClock) -> AsyncIterator[Bus]:
        bus = MemoryBus(clock=clock)
        await bus.start()
        yield bus
        await bus.close()
