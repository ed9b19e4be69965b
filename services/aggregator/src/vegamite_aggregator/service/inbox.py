"""Records of one partition on their way from the poll to its transaction: bounded, in order."""

import asyncio
from collections import deque
from collections.abc import Sequence

from vegamite_common.bus.port import Fetched, Message
from vegamite_common.domain.time import Micros

RECORD_OVERHEAD = 200
"""What a record weighs in memory besides its value, in bytes."""


class Inbox:
    """A queue that takes records while it has room; what doesn't fit is left in the log, to be fetched again.

    Remembers where the log ended when it was last fetched from, with records or without.
    """

    def __init__(self, *, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._messages: deque[Message] = deque()
        self._bytes = 0
        self._something = asyncio.Event()
        self.overflowed = False
        self.end_offset = 0
        self.fetched_time: Micros = 0

    def __len__(self) -> int:
        return len(self._messages)

    def put(self, fetched: Fetched) -> bool:
        """Take what was fetched; False, and nothing taken, where there is no room, until `clear` or the last was taken."""
        self.end_offset = fetched.end_offset
        self.fetched_time = fetched.fetched_time
        if self.overflowed or (fetched.messages and self._bytes >= self._max_bytes):
            self.overflowed = True
            return False
        for message in fetched.messages:
            self._messages.append(message)
            self._bytes += len(message.value) + RECORD_OVERHEAD
        if fetched.messages:
            self._something.set()
        return True

    def take(self, *, max_records: int, max_bytes: int) -> list[Message]:
        """Return the oldest records, at least one if there is any, and at most so many records and bytes."""
        taken: list[Message] = []
        weight = 0
        while self._messages and len(taken) < max_records:
            weight += len(self._messages[0].value) + RECORD_OVERHEAD
            if taken and weight > max_bytes:
                break
            message = self._messages.popleft()
            self._bytes -= len(message.value) + RECORD_OVERHEAD
            taken.append(message)
        if not self._messages:
            self._something.clear()
        return taken

    def put_back(self, messages: Sequence[Message]) -> None:
        """Have the last of those that were taken be the next again, in their order, room or not."""
        self._messages.extendleft(reversed(messages))
        self._bytes += sum(len(message.value) + RECORD_OVERHEAD for message in messages)
        if messages:
            self._something.set()

    def clear(self) -> None:
        """Forget all: reading starts anew."""
        self._messages.clear()
        self._bytes = 0
        self._something.clear()
        self.overflowed = False
        self.end_offset = 0
        self.fetched_time = 0

    def wake(self) -> None:
        """End a wait although nothing came."""
        self._something.set()

    async def wait(self, seconds: float) -> None:
        """Return once there is something, or after so many real seconds."""
        if self._messages:
            return
        try:
            async with asyncio.timeout(seconds):
                await self._something.wait()
        except TimeoutError:
            return
        if not self._messages:
            self._something.clear()
