"""What the API needs from outside: history, reference data, keys, and the log; each is a Protocol with one real adapter."""

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Protocol

import msgspec

from vegamite_api.core.access import ApiKey, Scope
from vegamite_api.core.query import MarketQuery, Range
from vegamite_api.core.row import ExchangeRow, KnownMarket, StoredGap, StoredTrade
from vegamite_api.core.tail import Topic
from vegamite_api.core.view import MarketView, TimeWriter, TrackedView
from vegamite_common.bus.port import Message, Reader
from vegamite_common.domain.candle import Candle
from vegamite_common.domain.coverage import SpanSet
from vegamite_common.domain.market import Market
from vegamite_common.domain.time import Micros
from vegamite_common.domain.timeframe import Timeframe
from vegamite_common.domain.trade import TradeOrder


class StoreError(Exception):
    """The store can't answer now (away, restarting, too slow); the same question may succeed later."""


class CandleSnapshot(msgspec.Struct, frozen=True):
    """Candles, ascending, and the trades-log place up to which the store's state was committed when they were read."""

    candles: list[Candle]
    epoch: int
    next_offset: int


class TradeSnapshot(msgspec.Struct, frozen=True):
    """Trades, ascending, and the trades-log place up to which they are all that was committed when they were read."""

    trades: list[StoredTrade]
    epoch: int
    next_offset: int


class HistoryStore(Protocol):
    """Stored trades, candles, coverage and gaps; every method raises `StoreError` while the store can't answer."""

    async def find_markets(self, markets: Sequence[Market]) -> dict[Market, KnownMarket]:
        """Return those of the markets that have a row."""
        ...

    async def candles(
        self,
        market_key: int,
        timeframe: Timeframe,
        range_: Range,
        *,
        limit: int,
        descending: bool,
        final_only: bool = False,
    ) -> list[Candle]:
        """Return the first `limit` candles that open in the range, in the asked order; all, or the final ones."""
        ...

    async def latest_candles(self, market_key: int, timeframe: Timeframe) -> list[Candle]:
        """Return the newest final candle and those after it that are not final, ascending."""
        ...

    async def trades(
        self,
        market_key: int,
        range_: Range,
        *,
        after: TradeOrder | None,
        limit: int,
        descending: bool,
    ) -> list[StoredTrade]:
        """Return the first `limit` trades of the range beyond the place `after`, in the asked direction of the total order."""
        ...

    async def coverage(self, market_key: int) -> SpanSet:
        """Return all that is covered, open spans included."""
        ...

    async def gaps(
        self, market_key: int, range_: Range, *, after: Micros | None, limit: int
    ) -> list[StoredGap]:
        """Return the first `limit` gaps that overlap the range and begin after `after`, by their beginning."""
        ...

    async def candle_snapshots(
        self, markets: Mapping[int, int], timeframe: Timeframe, limit: int
    ) -> dict[int, CandleSnapshot]:
        """Return the newest `limit` candles of each market key, read with the fence of its partition in one snapshot.

        `markets` maps market keys to partitions.
        """
        ...

    async def trade_snapshots(
        self, markets: Mapping[int, int], limit: int
    ) -> dict[int, TradeSnapshot]:
        """Return the newest `limit` trades of each market key, read with the fence of its partition in one snapshot."""
        ...

    async def log_epoch(self) -> int | None:
        """Return the current epoch of the log; None before there is one."""
        ...


class MarketStore(Protocol):
    """Reference data, and which markets are tracked; every method raises `StoreError` while the store can't answer."""

    async def exchanges(self) -> list[ExchangeRow]:
        """Return every exchange, by id."""
        ...

    async def markets(
        self, query: MarketQuery, write: TimeWriter, *, limit: int
    ) -> list[MarketView]:
        """Return the first `limit` markets that the query asks for, by exchange and symbol."""
        ...

    async def tracked_markets(self, exchange: str) -> list[Market]:
        """Return the tracked markets of an exchange."""
        ...

    async def unknown_exchanges(self, exchanges: Sequence[str]) -> set[str]:
        """Return those of the ids that no exchange has."""
        ...

    async def track(
        self, markets: Sequence[Market], history_from: Micros | None, write: TimeWriter
    ) -> list[TrackedView]:
        """Track the markets, in one transaction; their histories from `history_from`, where given, else as before or from now."""
        ...

    async def untrack(self, market: Market) -> bool:
        """Stop tracking a market; False where it was not tracked."""
        ...


class KeyStore(Protocol):
    """The hashes of API keys; every method raises `StoreError` while the store can't answer."""

    async def find(self, digest: bytes) -> ApiKey | None:
        """Return the key with this hash."""
        ...

    async def add(
        self, digest: bytes, *, scope: Scope, name: str, expires_time: Micros | None
    ) -> ApiKey:
        """Store a new key's hash; storing the same one again changes nothing."""
        ...

    async def keys(self) -> list[ApiKey]:
        """Return every key, oldest first."""
        ...

    async def revoke(self, key_id: str) -> bool:
        """Delete a key; False where there is none of that id."""
        ...


class Bounds(msgspec.Struct, frozen=True):
    """The log's offsets of one partition: the oldest record still there, and what the next will get."""

    begin: int
    end: int


class Log(Protocol):
    """The three topics, read by partition, without a group; methods raise `BusError` while the log can't be reached."""

    async def partitions(self) -> int:
        """Return how many partitions each topic has."""
        ...

    def partition_of(self, market_key: str, partitions: int) -> int:
        """Return the partition of a market."""
        ...

    async def bounds(self, topic: Topic, partitions: Sequence[int]) -> dict[int, Bounds]:
        """Return the bounds of these partitions, asked of the log."""
        ...

    async def reader(self, topic: Topic) -> Reader:
        """Return a new reader of the topic."""
        ...

    def between(
        self, topic: Topic, partition: int, start: int, stop: int
    ) -> AsyncIterator[Message]:
        """Read the records in [start, stop) once; raises `OffsetOutOfRangeError` where `start` is gone."""
        ...
