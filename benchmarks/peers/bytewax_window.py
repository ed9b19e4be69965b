"""bytewax: one tumbling window of a minute for each market, over a topic with a record a trade.

Usage: PEER_BOOTSTRAP=… PEER_TOPIC=… PEER_TRADES=… PEER_STYLE=… python -m bytewax.run bytewax_window:flow

One worker, no recovery store. The event clock waits 10 s, as in bytewax's examples: it moves on with the machine's clock too,
and drops what then comes late. Style `documented` is what its documentation shows: `kop.input`, in batches of 1,000 records by
default, a step a record that decodes (orjson), a key, a fold in event time's order. Style `tuned` is the quickest that was
found: 5,000 records a batch, a whole batch decoded in one step into key and value, and a fold in order of arrival.
"""

import os
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import bytewax.operators as op
import orjson
import progress
from bytewax.connectors.kafka import operators as kop
from bytewax.connectors.stdio import StdOutSink
from bytewax.dataflow import Dataflow
from bytewax.operators import windowing

ORIGIN = datetime(2025, 10, 9, tzinfo=UTC)
BROKERS = [os.environ["PEER_BOOTSTRAP"]]
TOPICS = [os.environ["PEER_TOPIC"]]

taken = progress.Progress(int(os.environ["PEER_TRADES"]))


def decode(message: Any) -> dict[str, Any]:
    """Return the trade of one record."""
    trade: dict[str, Any] = orjson.loads(message.value)
    return trade


def time_of(trade: dict[str, Any]) -> datetime:
    """Return a trade's event time."""
    return datetime.fromtimestamp(trade["event_time"] / 1_000_000, UTC)


def fold(candle: list[float], trade: dict[str, Any]) -> list[float]:
    """Add a trade to open, high, low, close, volume, count."""
    return add(candle, float(trade["price"]), float(trade["amount"]))


def decode_batch(messages: list[Any]) -> list[tuple[str, tuple[datetime, float, float]]]:
    """Return key, time, price and amount of each record."""
    trades = []
    for message in messages:
        trade = orjson.loads(message.value)
        values = time_of(trade), float(trade["price"]), float(trade["amount"])
        trades.append((trade["market"], values))
    return trades


def fold_values(candle: list[float], trade: tuple[datetime, float, float]) -> list[float]:
    """As `fold`, of what `decode_batch` returns."""
    return add(candle, trade[1], trade[2])


def add(candle: list[float], price: float, amount: float) -> list[float]:
    """Add price and amount to open, high, low, close, volume, count."""
    if candle:
        candle[1] = max(price, candle[1])
        candle[2] = min(price, candle[2])
        candle[3] = price
        candle[4] += amount
        candle[5] += 1
    else:
        candle += [price, price, price, price, amount, 1]
    taken.took()
    return candle


def merge(one: list[float], other: list[float]) -> list[float]:
    """Join two parts of a window; a tumbling one has only one."""
    raise NotImplementedError(f"{one} and {other}")


def line(closed: tuple[str, tuple[int, list[float]]]) -> str:
    """Return the line that tells of a closed window."""
    market, (window, numbers) = closed
    opened = int((ORIGIN + window * timedelta(minutes=1)).timestamp() * 1000)
    return orjson.dumps({"candle": [market, opened, *numbers]}).decode()


def dataflow(*, tuned: bool) -> Dataflow:
    """Return the flow from topic to lines."""
    flow = Dataflow("candles")
    records = kop.input(
        "records", flow, brokers=BROKERS, topics=TOPICS, batch_size=5_000 if tuned else 1_000
    )
    op.inspect("errors", records.errs).then(op.raises, "raise")
    trades: Any
    folder: Callable[[list[float], Any], list[float]]
    if tuned:
        trades = op.flat_map_batch("decode", records.oks, decode_batch)
        folder = fold_values
    else:
        decoded = op.map("decode", records.oks, decode)
        trades = op.key_on("market", decoded, lambda trade: trade["market"])
        folder = fold
    windows = windowing.fold_window(
        "fold",
        trades,
        windowing.EventClock(
            ts_getter=(lambda trade: trade[0]) if tuned else time_of,
            wait_for_system_duration=timedelta(seconds=10),
        ),
        windowing.TumblingWindower(length=timedelta(minutes=1), align_to=ORIGIN),
        list,
        folder,
        merge,
        ordered=not tuned,
    )
    op.output("candles", op.map("line", windows.down, line), StdOutSink())
    return flow


flow = dataflow(tuned=os.environ["PEER_STYLE"] == "tuned")
