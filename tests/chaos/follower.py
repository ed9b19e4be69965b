"""Reading a topic as a client would, whatever its brokers do."""

import asyncio
from collections.abc import Callable

from tests.chaos.environment import Environment
from tests.chaos.load import PARTITIONS
from vegamite_common.bus.port import BusError, Message, Reader


class Follower:
    """Reads one topic from its start, and keeps at it; `take` is given each record, in the order of its partition."""

    def __init__(self, env: Environment, topic: str, take: Callable[[Message], None]) -> None:
        self._env = env
        self._topic = topic
        self._take = take
        self._reader: Reader | None = None
        self.next_offsets = dict.fromkeys(range(PARTITIONS), 0)
        self.taking = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin to read."""
        self._reader = await self._env.bus.reader(self._topic)
        await self._reader.seek(self.next_offsets)
        self._task = asyncio.create_task(self._read(self._reader), name=f"follow {self._topic}")

    async def close(self) -> None:
        """Read no more."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})

    async def ends(self) -> dict[int, int]:
        """Return where the topic ends, asked until its brokers answer."""
        assert self._reader is not None
        while True:
            self.check()
            try:
                return await self._reader.end_offsets(range(PARTITIONS))
            except BusError:
                await asyncio.sleep(0.1)  # a broker is away

    async def caught_up(self) -> dict[int, int]:
        """Return the topic's ends once all before them was taken."""
        ends = await self.ends()
        while any(self.next_offsets[at] < end for at, end in ends.items()):
            self.check()
            await asyncio.sleep(0.02)  # until what is there has come
        return ends

    def check(self) -> None:
        """Raise what ended the reading, if something did."""
        if self._task is not None and self._task.done():
            self._task.result()

    async def _read(self, reader: Reader) -> None:
        while True:
            try:
                fetched = await reader.poll(max_records=2_000, timeout=0.2)
            except BusError:
                await asyncio.sleep(0.1)  # a broker is away
                continue
            async with self.taking:
                for item in fetched:
                    for message in item.messages:
                        self._take(message)
                        self.next_offsets[item.partition] = message.offset + 1
