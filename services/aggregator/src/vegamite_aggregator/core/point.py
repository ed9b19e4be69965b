"""Trades and candles as points of InfluxDB: their identity, and their lines.

InfluxDB tells points apart by measurement, tags and time. A trade's time has room for nine digits after the second, of
which ours fill six. Its identity is (market, event_time, trade_id), and no bounded number of digits and tag values can
tell any two ids apart. So a trade has a home, three digits that its id alone decides, and a slot, a small number that
tells those apart that share market, microsecond and home: 0 for the first of them in the log, 1 for the next. Whoever
writes knows, or asks, which ids are there (`core.written`), so an id keeps the slot that it got first.
"""

import zlib
from typing import Literal, TypeAlias

import msgspec

from vegamite_common.domain.candle import Candle
from vegamite_common.domain.market import Market
from vegamite_common.domain.time import Micros
from vegamite_common.domain.trade import Origin, Trade

BucketRole: TypeAlias = Literal["recent", "downsampled"]
"""Which of the two buckets: trades and shorter candles, or longer candles."""

HOMES = 1000
"""Nanoseconds in a microsecond, and so homes for the trades of one."""

LATEST_POINT: Micros = 2**63 // 1000 - 1
"""The last microsecond of which every nanosecond fits 64 bits: in the year 2262."""

_CONTROLS = {code: f"\\x{code:02x}" for code in (*range(0x20), 0x7F)} | {ord("\\"): "\\\\"}
_TAG = str.maketrans({",": "\\,", "=": "\\=", " ": "\\ "})


class Point(msgspec.Struct, frozen=True, gc=False):
    """One line of line protocol, in nanoseconds, without a line's end, and the bucket that it goes to."""

    bucket: BucketRole
    line: bytes


def home_of(trade_id: str) -> int:
    """Return the home, 0 to 999, of an id as points have it: its last three digits where the id is a number, else three drawn from its CRC."""
    if trade_id.isascii() and trade_id.isdigit():
        return int(trade_id[-3:])
    return zlib.crc32(trade_id.encode()) % HOMES


def plain_id(trade_id: str) -> str:
    """Return the id as a point has it, on one line: control characters and backslashes spelled out."""
    return trade_id.translate(_CONTROLS)


def can_be_written(market: Market, time: Micros) -> bool:
    """Say whether line protocol can say such a point: no backslash in a tag, no time that overflows."""
    return "\\" not in market.symbol and time <= LATEST_POINT


def market_tags(market: Market) -> str:
    """Return the tags that every point of a market has, escaped."""
    return f"exchange={market.exchange.translate(_TAG)},symbol={market.symbol.translate(_TAG)}"


def trade_point(
    tags: str, trade: Trade, *, slot: int, received_time: Micros, origin: Origin
) -> Point:
    """Return a trade's point; `tags` are those of `market_tags`."""
    trade_id = plain_id(trade.trade_id)
    quoted = trade_id.replace("\\", "\\\\").replace('"', '\\"')
    line = (
        f"trade,{tags},slot={slot} price={float(trade.price)!r},amount={float(trade.amount)!r}"
        f',trade_id="{quoted}",sequence={trade.sequence}i,taker_side="{trade.taker_side or "unknown"}"'
        f',origin="{origin.value}",received_time={received_time}i'
        f" {trade.event_time * HOMES + home_of(trade_id)}"
    )
    return Point("recent", line.encode())


def candle_point(tags: str, candle: Candle, bucket: BucketRole) -> Point:
    """Return a candle state's point: its time is the open time; `tags` are those of `market_tags`."""
    vwap = candle.vwap
    line = (
        f"candle,{tags},timeframe={candle.timeframe.value}"
        f" open={float(candle.open)!r},high={float(candle.high)!r},low={float(candle.low)!r}"
        f",close={float(candle.close)!r},volume={float(candle.volume)!r}"
        f",quote_volume={float(candle.quote_volume)!r},buy_volume={float(candle.buy_volume)!r}"
        f",buy_quote_volume={float(candle.buy_quote_volume)!r}"
        f",vwap={float(candle.close if vwap is None else vwap)!r},trade_count={candle.trade_count}i"
        f",close_time={candle.close_time}i,final={'true' if candle.final else 'false'}"
        f",complete={'true' if candle.complete else 'false'},epoch={candle.epoch}i"
        f",as_of={candle.as_of}i,revision={candle.revision}i,updated_at={candle.updated_at}i"
        f" {candle.open_time * HOMES}"
    )
    return Point(bucket, line.encode())
