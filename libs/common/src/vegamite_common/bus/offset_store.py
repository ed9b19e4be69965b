"""Where the bus inside the process notes which offsets it may have used, so that none is ever used twice."""

import asyncio
import json
import os
from pathlib import Path
from typing import Protocol

from vegamite_common.bus.port import BusError


class OffsetStore(Protocol):
    """Durable upper bounds of used offsets, by topic and partition."""

    async def load(self) -> dict[str, dict[int, int]]:
        """Return {topic: {partition: bound}}: every offset below the bound may have been used."""
        ...

    async def reserve(self, topic: str, partition: int, bound: int) -> None:
        """Return once it is durable that offsets below `bound` may be used; raise `BusError` where it can't be made so."""
        ...


class VolatileOffsetStore:
    """Remembers bounds as long as it lives: for a bus whose offsets nobody stores."""

    def __init__(self) -> None:
        self._bounds: dict[str, dict[int, int]] = {}

    async def load(self) -> dict[str, dict[int, int]]:
        """Return a copy of the bounds."""
        return {topic: dict(bounds) for topic, bounds in self._bounds.items()}

    async def reserve(self, topic: str, partition: int, bound: int) -> None:
        """Note the bound."""
        self._bounds.setdefault(topic, {})[partition] = bound


class FileOffsetStore:
    """Bounds in one JSON file, replaced as a whole and synced to the disk before `reserve` returns."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._bounds: dict[str, dict[int, int]] = {}
        self._lock = asyncio.Lock()

    async def load(self) -> dict[str, dict[int, int]]:
        """Read the file; none means that nothing was used. Raise `BusError` where it isn't what was written."""
        self._bounds = await asyncio.to_thread(self._read)
        return {topic: dict(bounds) for topic, bounds in self._bounds.items()}

    async def reserve(self, topic: str, partition: int, bound: int) -> None:
        """Write the bound and sync file and directory."""
        async with self._lock:
            self._bounds.setdefault(topic, {})[partition] = bound
            text = json.dumps(self._bounds, sort_keys=True)
            writing = asyncio.ensure_future(asyncio.to_thread(self._write, text))
            try:
                await asyncio.shield(writing)
            except asyncio.CancelledError:
                # The lock is held until the thread is done, or the next write would meet this one.
                await asyncio.wait({writing})
                raise
            except OSError as error:
                raise BusError(f"{self._path} can't be written: {error.strerror}") from error

    def _read(self) -> dict[str, dict[int, int]]:
        try:
            table = json.loads(self._path.read_text(encoding="utf-8"))
            return {
                str(topic): {int(partition): int(bound) for partition, bound in bounds.items()}
                for topic, bounds in table.items()
            }
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise BusError(f"{self._path} can't be read: {error.strerror}") from error
        except (ValueError, AttributeError, TypeError) as error:
            raise BusError(f"{self._path} is damaged: not a table of offsets") from error

    def _write(self, text: str) -> None:
        fresh = self._path.with_name(self._path.name + ".new")
        with fresh.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(self._path)
        directory = os.open(self._path.parent, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
