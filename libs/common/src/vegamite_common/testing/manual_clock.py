"""A clock that stands still until a test moves it."""

import asyncio

from vegamite_common.domain.time import SECOND, Micros


class ManualClock:
    """Shows `now` until told otherwise; sleeping takes real time, so that loops that wait on it go round."""

    speed = 1.0
    simulated = True

    def __init__(self, now: Micros) -> None:
        self._now = now

    def now(self) -> Micros:
        """Return the instant that was set last."""
        return self._now

    def set(self, now: Micros) -> None:
        """Show another instant from here on, earlier or later."""
        self._now = now

    def advance(self, seconds: float) -> None:
        """Move on by so many seconds."""
        self._now += self.span(seconds)

    def span(self, seconds: float) -> Micros:
        """Return the seconds in microseconds."""
        return round(seconds * SECOND)

    def from_wall(self, wall: Micros) -> Micros:  # noqa: ARG002 - this clock has nothing to do with the machine's
        """Return the instant that was set last: all that happens, happens then."""
        return self._now

    async def sleep(self, seconds: float) -> None:
        """Wait for `seconds` real seconds."""
        await asyncio.sleep(seconds)
