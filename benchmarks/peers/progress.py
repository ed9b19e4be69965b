"""What every program of the comparison tells, a JSON document a line on standard output; needs nothing but Python.

`{"at": …, "trades": …}`: so many trades were taken in by the instant `at`, on the clock that all processes of a machine
share (CLOCK_MONOTONIC, in seconds). `{"candle": […]}`: a finished candle, [market, open time in milliseconds, open, high,
low, close, volume, number of trades].
"""

import json
import sys
import time

STEPS = 100


class Progress:
    """Counts the trades of a run of `trades`, and tells about a hundred times how many were taken in."""

    def __init__(self, trades: int) -> None:
        self.trades = trades
        self.taken = 0
        self._step = max(1, trades // STEPS)
        self._next = 0

    def took(self, count: int = 1) -> None:
        """Add trades that were taken in."""
        self.taken += count
        if self.taken >= self._next:
            self.tell()

    def tell(self) -> None:
        """Tell how far it is now."""
        say({"at": time.monotonic(), "trades": self.taken})
        self._next = min(self.taken - self.taken % self._step + self._step, self.trades)


def candle(market: str, open_time_ms: int, *numbers: object) -> None:
    """Tell of a finished candle: open, high, low, close, volume and number of trades."""
    say({"candle": [market, open_time_ms, *numbers]})


def say(document: object) -> None:
    """Write one line."""
    sys.stdout.write(json.dumps(document) + "\n")
    sys.stdout.flush()
