r"""Rows in PostgreSQL's text format of COPY: a line a row, columns apart by tabs, `\N` for nothing.

For many rows nothing else is as cheap to make here: numbers go as the digits that they are printed with, which the
server reads exactly, and one format string makes the whole line.
"""

import re
from collections.abc import Iterable, Mapping

from vegamite_aggregator.core.facts import TradeBatch
from vegamite_aggregator.core.rows import StoredCandle
from vegamite_common.domain.market import Market
from vegamite_common.domain.time import SECOND, Micros, to_datetime

NOTHING = "\\N"

_SPECIAL = re.compile(r"[\\\t\n\r]")
_ESCAPES = {"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"}
_KNOWN_SECONDS = 10_000


class _Seconds(dict[int, str]):
    """The text of each second since the epoch, up to its fraction; remembers those met lately."""

    def __missing__(self, second: int) -> str:
        if len(self) >= _KNOWN_SECONDS:
            self.clear()
        text = self[second] = f"{to_datetime(second * SECOND):%Y-%m-%d %H:%M:%S}"
        return text


_seconds = _Seconds()


def escaped(text: str) -> str:
    """Return `text` as a column's value."""
    return _SPECIAL.sub(lambda found: _ESCAPES[found[0]], text)


def instant(micros: Micros) -> str:
    """Return an instant as a column's value, exact to the microsecond."""
    second = micros // SECOND
    return f"{_seconds[second]}.{micros - second * SECOND:06d}+00"


def trade_lines(batches: Iterable[TradeBatch], keys: Mapping[Market, int]) -> bytes:
    """Return the lines of the batches' trades, columns as in `trade_table.COLUMNS`."""
    lines: list[str] = []
    add = lines.append
    seconds = _seconds
    for batch in batches:
        market_key = keys[batch.market]
        job = NOTHING if batch.job is None else escaped(batch.job)
        rest = f"{instant(batch.received_time)}\t{batch.origin.value}\t{job}\n"
        plain = "".join([trade.trade_id for trade in batch.trades]).isalnum()
        # The hot loop of the whole service: local names, no calls.
        for trade in batch.trades:
            at = trade.event_time
            second = at // SECOND
            trade_id = trade.trade_id if plain else escaped(trade.trade_id)
            add(
                f"{market_key}\t{seconds[second]}.{at - second * SECOND:06d}+00\t{trade_id}\t{trade.sequence}"
                f"\t{trade.price!s}\t{trade.amount!s}\t{trade.taker_side or NOTHING}\t{rest}"
            )
    return "".join(lines).encode()


def candle_lines(rows: Iterable[tuple[int, StoredCandle]]) -> str:
    """Return the lines of candles that no job holds, each with its market's number, columns as in `row.CANDLE_COLUMNS`."""
    lines: list[str] = []
    for market_key, stored in rows:
        candle = stored.candle
        lines.append(
            f"{market_key}\t{candle.timeframe.value}\t{instant(candle.open_time)}"
            f"\t{candle.open!s}\t{candle.high!s}\t{candle.low!s}\t{candle.close!s}"
            f"\t{candle.volume!s}\t{candle.quote_volume!s}\t{candle.buy_volume!s}\t{candle.buy_quote_volume!s}"
            f"\t{candle.trade_count}"
            f"\t{instant(candle.first_event_time)}\t{candle.first_sequence}\t{escaped(candle.first_trade_id)}"
            f"\t{instant(candle.last_event_time)}\t{candle.last_sequence}\t{escaped(candle.last_trade_id)}"
            f"\t{candle.final}\t{candle.complete}\t{candle.revision}\t{candle.epoch}\t{candle.as_of}"
            f"\t{instant(candle.updated_at)}\t{NOTHING}\t{stored.pending or NOTHING}\n"
        )
    return "".join(lines)
