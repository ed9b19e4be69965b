"""How long to wait before the next try: exponential, with full jitter, capped, and reset by success."""

from __future__ import annotations

import random
from collections.abc import Callable


class Backoff:
    """Delays in real seconds; each is drawn evenly from (0, first * 2**n], capped at `limit_seconds`."""

    def __init__(
        self,
        *,
        first_seconds: float = 0.2,
        limit_seconds: float = 30.0,
        draw: Callable[[], float] = random.random,
    ) -> None:
        self._first = first_seconds
        self._limit = limit_seconds
        self._draw = draw
        self._failures = 0

    def next_delay(self) -> float:
        """The delay after one more failure; never 0, so that a loop can't spin."""
        ceiling = min(self._limit, self._first * 2.0 ** min(self._failures, 62))
        self._failures += 1
        return ceiling * max(0.05, self._draw())

    def reset(self) -> None:
        """Forget the failures: something succeeded."""
        self._failures = 0
