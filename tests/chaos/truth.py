"""What the log has, read by plain code of the run's own: which trades, from which offset on, and what is covered since when.

It knows nothing of the aggregator. Candles are computed by `reference_fold`; coverage by the few lines below.
"""

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime

from vegamite_common.bus.port import Message
from vegamite_common.domain.time import Micros, from_datetime
from vegamite_common.messages.codec import MessageError
from vegamite_common.messages.trades import (
    Heartbeat,
    JobEnded,
    JobStarted,
    SpanClosed,
    SpanOpened,
    TradesRecord,
    decode_trades,
)
from vegamite_common.testing.reference_fold import (
    TIMEFRAME_NAMES,
    RawCandle,
    RawTrade,
    interval,
)

Spans = tuple[tuple[Micros, Micros], ...]
Key = tuple[str, str, datetime]
"""(market, timeframe, open time) of a candle."""


@dataclass(frozen=True)
class Logged:
    """A trade and the offset of the first record that has it."""

    offset: int
    trade: RawTrade


@dataclass
class MarketTruth:
    """One market as the log has it."""

    partition: int
    trades: dict[tuple[int, int], Logged] = field(default_factory=dict)
    candles: dict[tuple[str, datetime], list[Logged]] = field(
        default_factory=lambda: defaultdict(list)
    )
    offsets: list[int] = field(default_factory=list)
    coverage: list[Spans] = field(default_factory=list)

    def cover(self, offset: int, start: Micros, end: Micros) -> None:
        """Add [start, end) to what is covered from `offset` on."""
        before = self.coverage[-1] if self.coverage else ()
        after = joined(before, start, end)
        if after != before:
            self.offsets.append(offset)
            self.coverage.append(after)

    def covered(self, as_of: int, start: Micros, end: Micros) -> bool:
        """Whether the log up to and with `as_of` covers all of [start, end)."""
        at = bisect_right(self.offsets, as_of) - 1
        return at >= 0 and any(a <= start and end <= b for a, b in self.coverage[at])


def joined(spans: Spans, start: Micros, end: Micros) -> Spans:
    """Return the union of disjoint spans and [start, end), sorted."""
    if start >= end:
        return spans
    apart = []
    for a, b in spans:
        if b < start or a > end:
            apart.append((a, b))
        else:
            start, end = min(a, start), max(b, end)
    return tuple(sorted([*apart, (start, end)]))


class Truth:
    """All of `market.trades.v1`, taken in the order of each partition."""

    def __init__(self, *, future: Micros) -> None:
        self.refused: dict[tuple[int, int], bytes] = {}
        self._future = future
        self.markets: dict[str, MarketTruth] = {}
        self.jobs: dict[str, bool] = {}
        self.touched: set[Key] = set()
        self.fresh: dict[tuple[str, int, int], Logged] = {}
        self.repeated = 0
        self._open: dict[tuple[str, str], tuple[Micros, Micros]] = {}

    def take(self, message: Message) -> None:
        """Add what one record says."""
        try:
            record = decode_trades(message.value)
        except MessageError:
            self._refuse(message)
            return
        if isinstance(record, Heartbeat):
            self._beat(message, record)
            return
        market = f"{record.exchange}:{record.symbol}"
        if message.key != market.encode():
            self._refuse(message)
            return
        truth = self.markets.setdefault(market, MarketTruth(message.partition))
        match record:
            case TradesRecord():
                self._take_trades(message, market, truth, record)
            case SpanOpened(writer=writer, from_time=start):
                self._open.setdefault((writer, market), (start, start))
            case SpanClosed(writer=writer, to_time=end):
                start, reached = self._open.pop((writer, market), (0, -1))
                end = min(end, message.append_time)
                if end > reached >= 0:
                    truth.cover(message.offset, start, end)
            case JobStarted(job=job):
                self.jobs[job] = True
            case JobEnded(job=job):
                self.jobs[job] = False

    def _refuse(self, message: Message) -> None:
        """Who sent what can't be taken claims nothing more of that market until he opens a span anew."""
        self.refused[(message.partition, message.offset)] = message.value
        market = (message.key or b"").decode()
        for key in [key for key in self._open if key[1] == market]:
            del self._open[key]

    def _beat(self, message: Message, record: Heartbeat) -> None:
        end = min(record.to_time, message.append_time)
        for (writer, market), (start, reached) in self._open.items():
            # A writer's name is used in one partition only.
            if writer == record.writer and end > reached:
                self._open[(writer, market)] = (start, end)
                self.markets[market].cover(message.offset, start, end)

    def _take_trades(
        self, message: Message, market: str, truth: MarketTruth, record: TradesRecord
    ) -> None:
        possible = [
            one for one in record.trades if one.event_time <= record.received_time + self._future
        ]
        if len(possible) < len(record.trades):
            self._refuse(message)
        for trade in possible:
            raw = RawTrade(
                trade_id=int(trade.trade_id),
                event_time=trade.event_time // 1000,
                price=trade.price,
                amount=trade.amount,
                taker_buys=trade.taker_side == "buy",
            )
            identity = (raw.event_time, raw.trade_id)
            if identity in truth.trades:
                self.repeated += 1
                continue
            logged = truth.trades[identity] = Logged(message.offset, raw)
            self.fresh[(market, *identity)] = logged
            for timeframe in TIMEFRAME_NAMES:
                opened, _ = interval(timeframe, raw.event_time)
                truth.candles[(timeframe, opened)].append(logged)
                self.touched.add((market, timeframe, opened))
        if record.job is not None:
            self.jobs[record.job] = True
        if record.covered is not None and len(possible) == len(record.trades):
            start, end = record.covered
            truth.cover(message.offset, start, min(end, message.append_time))

    def candle(self, key: Key, *, as_of: int | None = None) -> dict[str, str] | None:
        """Return the candle's values by all its trades, or by those the log had up to `as_of`; None without any."""
        market, timeframe, opened = key
        logged = self.markets[market].candles.get((timeframe, opened), [])
        trades = [one.trade for one in logged if as_of is None or one.offset <= as_of]
        return RawCandle(trades).values() if trades else None

    def covered(self, key: Key, as_of: int) -> bool:
        """Whether the log up to and with `as_of` covers the whole candle."""
        market, timeframe, opened = key
        start, end = interval(timeframe, from_datetime(opened) // 1000)
        return self.markets[market].covered(as_of, from_datetime(start), from_datetime(end))

    def keys(self) -> Iterator[Key]:
        """Yield every candle that has a trade."""
        for market, truth in self.markets.items():
            for timeframe, opened in truth.candles:
                yield market, timeframe, opened
