"""Quix Streams: one tumbling window of a minute for each market, over a topic with a record a trade.

Usage: python quix_window.py BOOTSTRAP TOPIC TRADES STATE_DIRECTORY STYLE

Its own JSON deserializer, the record's timestamp as event time, results when the window closes; a commit every 5 s, at least
once, state in RocksDB: its defaults. Style `documented` is what its documentation recommends: its own aggregators, several to
a window, and a changelog topic. Style `tuned` is the quickest that was found: one aggregator of our own that keeps all that a
candle needs, and no changelog topic.
"""

import sys
from typing import Any

import progress
from quixstreams import Application
from quixstreams.dataframe.windows import Count, First, Last, Max, Min, Sum
from quixstreams.dataframe.windows.aggregations import Aggregator


class OneCandle(Aggregator):  # type: ignore[misc]  # a class of a package that isn't here when types are checked
    """Open, high, low, close, volume and count as one value."""

    def initialize(self) -> list[float]:
        """Return the candle of no trade."""
        return []

    def agg(self, old: list[float], new: dict[str, Any], timestamp: int) -> list[float]:  # noqa: ARG002
        """Return the candle with one more trade."""
        price, amount = float(new["price"]), float(new["amount"])
        if not old:
            return [price, price, price, price, amount, 1]
        old[1] = max(price, old[1])
        old[2] = min(price, old[2])
        old[3] = price
        old[4] += amount
        old[5] += 1
        return old

    def result(self, value: list[float]) -> list[float]:
        """Return the candle as it is."""
        return value


def numbers(trade: dict[str, Any]) -> dict[str, float]:
    """Return what the aggregators need, as numbers."""
    return {"price": float(trade["price"]), "amount": float(trade["amount"])}


def main(bootstrap: str, topic: str, trades: int, state: str, style: str) -> None:
    """Read the topic until it is ended from outside."""
    taken = progress.Progress(trades)
    tuned = style == "tuned"
    app = Application(
        broker_address=bootstrap,
        consumer_group=state.rsplit("/", 1)[-1],
        auto_offset_reset="earliest",
        state_dir=state,
        use_changelog_topics=not tuned,
        loglevel="WARNING",
        on_message_processed=lambda *_: taken.took(),
    )
    stream = app.dataframe(app.topic(topic, key_deserializer="str"))
    if tuned:
        window = stream.tumbling_window(duration_ms=60_000).agg(candle=OneCandle())
    else:
        window = (
            stream.apply(numbers)
            .tumbling_window(duration_ms=60_000)
            .agg(
                open=First("price"),
                high=Max("price"),
                low=Min("price"),
                close=Last("price"),
                volume=Sum("amount"),
                count=Count(),
            )
        )
    window.final().update(tell, metadata=True)
    app.run()


def tell(window: dict[str, Any], key: Any, timestamp: int, headers: Any) -> None:  # noqa: ARG001
    """Tell of a closed window."""
    names = ("open", "high", "low", "close", "volume", "count")
    values = window.get("candle") or [window[name] for name in names]
    progress.candle(key, window["start"], *values)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4], sys.argv[5])
