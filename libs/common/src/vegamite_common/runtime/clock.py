"""Where time comes from: the machine, or a simulation that several processes share."""

import asyncio
import math
import time
from typing import Protocol

from vegamite_common.domain.time import SECOND, Micros


class Clock(Protocol):
    """Tells the time in microseconds since the epoch; never asked for by pure code, which is given instants."""

    @property
    def speed(self) -> float:
        """How many seconds of this clock pass in a real one; 1 except in a simulation."""
        ...

    @property
    def simulated(self) -> bool:
        """Whether the clock is a simulation; then the log's end, not its append times, decides what is past."""
        ...

    def now(self) -> Micros:
        """Return the current instant."""
        ...

    def span(self, seconds: float) -> Micros:
        """Return what `seconds` real seconds are on this clock, in microseconds."""
        ...

    def from_wall(self, wall: Micros) -> Micros:
        """Return this clock's instant at the machine's instant `wall`, as a broker on the same time reports it."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Wait for `seconds` real seconds."""
        ...


def wall_now() -> Micros:
    """Return the machine's clock in microseconds since the epoch."""
    return time.time_ns() // 1000


class SystemClock:
    """The machine's own clock."""

    speed = 1.0
    simulated = False

    def now(self) -> Micros:
        """Return the machine's instant."""
        return wall_now()

    def span(self, seconds: float) -> Micros:
        """Return the seconds in microseconds."""
        return round(seconds * SECOND)

    def from_wall(self, wall: Micros) -> Micros:
        """Return `wall` itself."""
        return wall

    async def sleep(self, seconds: float) -> None:
        """Wait for `seconds` real seconds."""
        await asyncio.sleep(seconds)


class SimulatedClock:
    """A clock that showed `origin` at the machine's instant `wall_origin` and has run at `speed` since.

    Processes that are given the same three numbers agree. Raises `ValueError` unless speed is above 0.
    """

    simulated = True

    def __init__(self, *, origin: Micros, wall_origin: Micros, speed: float) -> None:
        if not 0 < speed < math.inf:
            raise ValueError(f"a clock's speed is above 0 and finite, not {speed}")
        self.speed = float(speed)
        self.origin = origin
        self.wall_origin = wall_origin

    def now(self) -> Micros:
        """Return the simulated instant."""
        return self.from_wall(wall_now())

    def span(self, seconds: float) -> Micros:
        """Return the simulated microseconds that pass in `seconds` real seconds."""
        return round(seconds * self.speed * SECOND)

    def from_wall(self, wall: Micros) -> Micros:
        """Return the simulated instant at the machine's instant `wall`."""
        return self.origin + round((wall - self.wall_origin) * self.speed)

    async def sleep(self, seconds: float) -> None:
        """Wait for `seconds` real seconds."""
        await asyncio.sleep(seconds)
