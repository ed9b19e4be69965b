"""One partition of the bus inside the process: records in order, bounded by bytes, held back by its groups."""

import asyncio
from collections.abc import Sequence

from vegamite_common.bus.port import Ack, BusError, Message, Record

_OVERHEAD_BYTES = 250
"""About what a record costs besides its key and value: the objects that hold it."""

_KEPT_SHARE = 4
"""A quarter of the room stays with records that the groups have read, for a member whose transaction failed."""


class MemoryLog:
    """An append-only list of messages from offset `begin` to `end`; trimmed at its head when it grows too large."""

    def __init__(self, *, begin: int, retained_bytes: int) -> None:
        self.lock = asyncio.Lock()
        self.reserved = begin
        self._messages: list[Message] = []
        self._head = 0
        self._end = begin
        self._sums: list[int] = []
        self._total = 0
        self._retained_bytes = retained_bytes
        self._last_append_time = 0
        self._holders: dict[object, int] = {}
        self._room = asyncio.Event()
        self._closed = False

    @property
    def begin(self) -> int:
        """The offset of the oldest record still here, or the end."""
        return self._end - (len(self._messages) - self._head)

    @property
    def end(self) -> int:
        """The offset that the next record gets."""
        return self._end

    @staticmethod
    def size_of(record: Record) -> int:
        """What a record takes of the room, in bytes."""
        return len(record[0] or b"") + len(record[1]) + _OVERHEAD_BYTES

    def hold(self, holder: object, position: int) -> None:
        """Keep what `holder` hasn't read: everything from `position` on."""
        self._holders[holder] = position
        self._room.set()

    def release(self, holder: object) -> None:
        """Keep nothing for `holder` any more."""
        self._holders.pop(holder, None)
        self._room.set()

    def close(self) -> None:
        """Wake whoever waits for room, with a `BusError`."""
        self._closed = True
        self._room.set()

    async def make_room(self, size: int, *, patience_seconds: float) -> None:
        """Drop the oldest records until `size` bytes fit; wait while what the holders haven't read fills three quarters.

        A batch larger than that waits until they have read everything. Slow holders are waited for; raises `TimeoutError`
        once they have read nothing at all for `patience_seconds`.
        """
        allowed = self._retained_bytes - self._retained_bytes // _KEPT_SHARE - size
        while self._unread() > max(allowed, 0):
            self._room.clear()
            async with asyncio.timeout(patience_seconds):
                await self._room.wait()
            if self._closed:
                raise BusError("the bus is not running")
        while (
            self._messages and self._total - self._before(self.begin) > self._retained_bytes - size
        ):
            if self.begin == self._barrier():
                break
            self._head += 1
        if self._head > 1024 and self._head * 2 > len(self._messages):
            del self._messages[: self._head]
            del self._sums[: self._head]
            self._head = 0

    def append(self, partition: int, records: Sequence[Record], now: int) -> Ack:
        """Append at the clock's instant `now`, never before the record before."""
        self._last_append_time = max(now, self._last_append_time)
        base = self._end
        for at, record in enumerate(records):
            key, value = record
            self._messages.append(Message(partition, base + at, self._last_append_time, key, value))
            self._sums.append(self._total)
            self._total += self.size_of(record)
        self._end += len(records)
        return Ack(partition, base, len(records), self._last_append_time)

    def read(self, position: int, count: int) -> list[Message]:
        """Return up to `count` messages from `position` on; it must lie in the log."""
        at = self._head + position - self.begin
        return self._messages[at : at + count]

    def _barrier(self) -> int:
        return max(self.begin, min(self._holders.values(), default=self._end))

    def _unread(self) -> int:
        return self._total - self._before(self._barrier())

    def _before(self, offset: int) -> int:
        """How many bytes were appended before the record at `offset`, which is here or the end."""
        at = self._head + offset - self.begin
        return self._sums[at] if at < len(self._sums) else self._total
