"""From trades to tallies of every timeframe: one pass over the trades for `1s`, then each timeframe from its source."""

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from decimal import Decimal
from itertools import compress, islice
from operator import attrgetter, lt, mul
from typing import TypeAlias

from msgspec.structs import replace

from vegamite_aggregator.core.block_fold import tallies_of
from vegamite_aggregator.core.packed_trades import PackedTrades
from vegamite_aggregator.core.tally import Tally, exactly, join, merge
from vegamite_aggregator.core.trade_block import TradeBlock
from vegamite_common.domain.market import Contract
from vegamite_common.domain.number import ZERO
from vegamite_common.domain.time import SECOND, Micros
from vegamite_common.domain.timeframe import SOURCES, Timeframe
from vegamite_common.domain.trade import Trade

Series: TypeAlias = dict[Micros, Tally]
"""One timeframe's tallies by open time, in order of time."""

_place = attrgetter("event_time", "sequence", "trade_id")
_beginning = attrgetter("earliest", "first_sequence")

_CHAINS = 8
"""So many are looked at for a record's place: streams that overlap are few."""


def fold_records(
    records: Iterable[Sequence[Trade]], contract: Contract | None
) -> dict[Timeframe, Series]:
    """Return what the trades of one market, each given once, in any order, add up to in each interval of each timeframe.

    They come record by record, and are added up quicker where they are packed and follow each other. `contract` is the
    market's, None for spot, whose amounts are of the base currency itself.
    """
    blocks: list[TradeBlock] = []
    others: list[Trade] = []
    inverse = contract is not None and contract.inverse
    for record in records:
        if isinstance(record, PackedTrades) and not inverse:
            blocks.append(record.block.in_order())
        else:
            others.extend(record)
    with exactly():
        parts = [tallies_of(chain) for chain in _chains(blocks)]
        if contract is not None:
            # What is multiplied by the same number may as well be added up before.
            parts = [
                {at: _times(tally, contract.size) for at, tally in part.items()} for part in parts
            ]
        if others or not parts:
            parts.append(fold_seconds(others, contract))
        return roll_up(_together(parts))


def _chains(blocks: list[TradeBlock]) -> list[list[TradeBlock]]:
    """Return the blocks, ordered in themselves, as chains in each of which one follows the other; mostly that is one."""
    chains: list[list[TradeBlock]] = []
    blocks.sort(key=_beginning)
    for block in blocks:
        for chain in chains[-_CHAINS:]:
            last = chain[-1]
            if (last.latest, last.last_sequence) < (block.earliest, block.first_sequence):
                chain.append(block)
                break
        else:
            chains.append([block])
    return chains


def _together(parts: Sequence[Series]) -> Series:
    """Return one series of several, in order of time; within `exactly()`."""
    if len(parts) == 1:
        return parts[0]
    series: Series = {}
    for part in parts:
        for open_time, tally in part.items():
            before = series.get(open_time)
            series[open_time] = tally if before is None else merge(before, tally)
    return dict(sorted(series.items()))


def _times(tally: Tally, size: Decimal) -> Tally:
    """Return what `size` times the amounts add up to."""
    return replace(
        tally,
        volume=tally.volume * size,
        quote_volume=tally.quote_volume * size,
        buy_volume=tally.buy_volume * size,
        buy_quote_volume=tally.buy_quote_volume * size,
    )


def fold_seconds(trades: Iterable[Trade], contract: Contract | None) -> Series:
    """Return the tallies of the one-second intervals that have trades, in order; within `exactly()`."""
    ordered = list(trades)
    times = [trade.event_time for trade in ordered]
    if not all(map(lt, times, islice(times, 1, None))):
        # As they mostly come they are in order, each with a time of its own: then there is nothing to sort.
        ordered.sort(key=_place)
        times = [trade.event_time for trade in ordered]
    prices = [trade.price for trade in ordered]
    buys = [trade.taker_side == "buy" for trade in ordered]
    amounts = [trade.amount for trade in ordered]
    if contract is None:
        costs = list(map(mul, prices, amounts))
    else:
        amounts, costs = _contract_volumes(contract, prices, amounts)
    series: Series = {}
    start, count = 0, len(ordered)
    while start < count:
        open_time = times[start] - times[start] % SECOND
        close_time = open_time + SECOND
        end = start + 1
        if end < count and times[end] < close_time:
            end = bisect_left(times, close_time, end + 1)
        first = ordered[start]
        if end - start == 1:
            series[open_time] = _single(first, amounts[start], costs[start])
        else:
            last = ordered[end - 1]
            some_prices = prices[start:end]
            some_amounts = amounts[start:end]
            some_costs = costs[start:end]
            some_buys = buys[start:end]
            series[open_time] = Tally(
                first.price,
                max(some_prices),
                min(some_prices),
                last.price,
                sum(some_amounts, ZERO),
                sum(some_costs, ZERO),
                sum(compress(some_amounts, some_buys), ZERO),
                sum(compress(some_costs, some_buys), ZERO),
                end - start,
                first.event_time,
                first.sequence,
                first.trade_id,
                last.event_time,
                last.sequence,
                last.trade_id,
            )
        start = end
    return series


def _single(trade: Trade, volume: Decimal, cost: Decimal) -> Tally:
    price, event_time, sequence, trade_id = (
        trade.price,
        trade.event_time,
        trade.sequence,
        trade.trade_id,
    )
    bought = trade.taker_side == "buy"
    return Tally(
        price,
        price,
        price,
        price,
        volume,
        cost,
        volume if bought else ZERO,
        cost if bought else ZERO,
        1,
        event_time,
        sequence,
        trade_id,
        event_time,
        sequence,
        trade_id,
    )


def _contract_volumes(
    contract: Contract, prices: Sequence[Decimal], contracts: Sequence[Decimal]
) -> tuple[list[Decimal], list[Decimal]]:
    """Return base and quote volumes of each trade; an inverse contract's base volume is rounded trade by trade."""
    volumes = [
        contract.volumes(price, amount) for price, amount in zip(prices, contracts, strict=True)
    ]
    return [base for base, _ in volumes], [quote for _, quote in volumes]


def roll_up(seconds: Series) -> dict[Timeframe, Series]:
    """Return every timeframe's tallies, each timeframe from its source, given those of `1s` in order; within `exactly()`."""
    result = {Timeframe.S1: seconds}
    for timeframe, source in SOURCES.items():
        if source is not None:
            result[timeframe] = roll_series(result[source], timeframe)
    return result


def roll_series(source: Series, timeframe: Timeframe) -> Series:
    """Return the tallies of `timeframe`, given in order those of a timeframe that divides it; within `exactly()`."""
    series: Series = {}
    parts: list[Tally] = []
    open_time = close_time = 0
    for part_open, part in source.items():
        if part_open >= close_time:
            if parts:
                series[open_time] = join(parts)
            open_time = timeframe.open_time(part_open)
            close_time = timeframe.close_time(open_time)
            parts = []
        parts.append(part)
    if parts:
        series[open_time] = join(parts)
    return series


class TradeFold:
    """Adds up any number of trades of one market, a portion at a time, keeping one tally a second and no trade."""

    __slots__ = ("_contract", "_seconds")

    def __init__(self, contract: Contract | None) -> None:
        self._contract = contract
        self._seconds: Series = {}

    def add(self, trades: Iterable[Trade]) -> None:
        """Take trades that were not added before, in any order."""
        with exactly():
            for open_time, tally in fold_seconds(trades, self._contract).items():
                before = self._seconds.get(open_time)
                self._seconds[open_time] = tally if before is None else merge(before, tally)

    def total(self) -> dict[Timeframe, Series]:
        """Return what was added, in every timeframe."""
        with exactly():
            return roll_up(dict(sorted(self._seconds.items())))

    def release(self, end: Micros) -> Series:
        """Return the `1s` tallies that open before `end`, in order, and forget them."""
        released = {at: self._seconds[at] for at in sorted(self._seconds) if at < end}
        for open_time in released:
            del self._seconds[open_time]
        return released
