"""How many records a partition may set apart: so many in a window, whose count is stored with the fence.

The window is one of the clock, not of append times. The record that has to wait keeps its append time for ever, so a window
of append times would never pass; and a backlog of a day, read in a minute, would let 24 times as many through.
"""

import msgspec

from vegamite_common.domain.time import Micros


class SetApart(msgspec.Struct, frozen=True):
    """The records that a partition has set apart in the window that began at `since` (clock microseconds; None: none yet)."""

    since: Micros | None = None
    count: int = 0

    def left(self, limit: int, *, now: Micros, window: Micros) -> int:
        """Return how many more records may be set apart now."""
        return max(0, limit - self._at(now, window).count)

    def plus(self, count: int, *, now: Micros, window: Micros) -> "SetApart":
        """Return what holds once `count` more were set apart now; the first one of a window begins it."""
        if not count:
            return self
        before = self._at(now, window)
        return SetApart(now if before.since is None else before.since, before.count + count)

    def _at(self, now: Micros, window: Micros) -> "SetApart":
        # A clock that went back doesn't keep a window open for longer than it lasts.
        over = self.since is None or not self.since <= now < self.since + window
        return SetApart() if over else self
