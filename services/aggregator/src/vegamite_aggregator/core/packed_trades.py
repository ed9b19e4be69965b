"""Trades of one record that stay packed until somebody asks for one: `PackedTrades`, and what can be asked of any trades."""

from collections.abc import Iterator, Sequence
from typing import overload

from vegamite_aggregator.core.trade_block import TradeBlock
from vegamite_common.domain.time import Micros
from vegamite_common.domain.trade import Trade


class PackedTrades(Sequence[Trade]):
    """The trades of `block`, each made when it is asked for."""

    __slots__ = ("block",)

    def __init__(self, block: TradeBlock) -> None:
        self.block = block

    def __len__(self) -> int:
        return self.block.count

    def __iter__(self) -> Iterator[Trade]:
        return map(self.block.trade, range(self.block.count))

    @overload
    def __getitem__(self, place: int) -> Trade: ...
    @overload
    def __getitem__(self, place: slice) -> Sequence[Trade]: ...
    def __getitem__(self, place: int | slice) -> Trade | Sequence[Trade]:
        places = range(self.block.count)[place]
        if isinstance(places, int):
            return self.block.trade(places)
        return [self.block.trade(each) for each in places]


def unpacked(trades: Sequence[Trade]) -> int:
    """Return how many of the trades are objects of their own."""
    return 0 if isinstance(trades, PackedTrades) else len(trades)


def earliest(trades: Sequence[Trade]) -> Micros:
    """Return the least event time of one or more trades."""
    if isinstance(trades, PackedTrades):
        return trades.block.earliest
    return min([trade.event_time for trade in trades])


def latest(trades: Sequence[Trade]) -> Micros:
    """Return the greatest event time of one or more trades."""
    if isinstance(trades, PackedTrades):
        return trades.block.latest
    return max([trade.event_time for trade in trades])


def event_times(trades: Sequence[Trade]) -> list[Micros]:
    """Return the trades' event times, in their order."""
    if isinstance(trades, PackedTrades):
        return trades.block.event_times()
    return [trade.event_time for trade in trades]


def trade_ids(trades: Sequence[Trade]) -> list[str]:
    """Return the trades' ids, in their order."""
    if isinstance(trades, PackedTrades):
        return trades.block.trade_ids()
    return [trade.trade_id for trade in trades]


def identities(trades: Sequence[Trade]) -> list[tuple[Micros, str]]:
    """Return each trade's (event_time, trade_id), in their order."""
    if isinstance(trades, PackedTrades):
        return trades.block.identities()
    return [(trade.event_time, trade.trade_id) for trade in trades]


def meet(
    trades: Sequence[Trade], number: int, first: dict[bytes, int]
) -> tuple[list[int], list[tuple[int, int]]]:
    """Return the places of trades whose identity `first` didn't have, and of the others, each with what `first` said of it.

    `first` has by identity where the first was: its place, plus 1,024 times its record's number. What it didn't have is
    added, of the record `number`.
    """
    if isinstance(trades, PackedTrades):
        return trades.block.meet(number, first)
    new: list[int] = []
    again: list[tuple[int, int]] = []
    for place, trade in enumerate(trades):
        key = trade.event_time.to_bytes(8, "little", signed=True) + trade.trade_id.encode()
        here = number * 1024 + place
        known = first.setdefault(key, here)
        if known == here:
            new.append(place)
        else:
            again.append((place, known))
    return new, again


def selected(trades: Sequence[Trade], places: list[int]) -> Sequence[Trade]:
    """Return the trades at `places`, ascending and at least one."""
    if len(places) == len(trades):
        return trades
    if isinstance(trades, PackedTrades):
        return PackedTrades(trades.block.selected(places))
    return tuple(trades[place] for place in places)


def same(one: Sequence[Trade], place: int, other: Sequence[Trade], other_place: int) -> bool:
    """Whether two trades say the same."""
    if (
        isinstance(one, PackedTrades)
        and isinstance(other, PackedTrades)
        and one.block.content(place) == other.block.content(other_place)
        and one.block.identity(place) == other.block.identity(other_place)
    ):
        return True
    return one[place] == other[other_place]
