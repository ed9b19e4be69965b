"""Which trades of a market a batch has twice: asked in the cheapest way that can tell."""

from collections.abc import Sequence

from vegamite_aggregator.core.candle_cache import NEVER
from vegamite_aggregator.core.packed_trades import (
    PackedTrades,
    latest,
    meet,
    same,
    selected,
    trade_ids,
)
from vegamite_common.domain.time import Micros
from vegamite_common.domain.trade import Trade


class MetTrades:
    """The trades of one market met so far; how many of those that came later were `repeated`, and `contradicting` the first."""

    __slots__ = ("_first", "_ids", "_latest", "_listed", "_records", "contradicting", "repeated")

    def __init__(self) -> None:
        self.repeated = 0
        self.contradicting = 0
        self._latest: Micros = NEVER
        self._records: list[Sequence[Trade]] = []
        self._ids: set[str] = set()
        self._listed = 0  # of the records, how many have their ids in `_ids`
        # From the first id met twice on: by identity the place of the first, as `packed_trades.meet` writes it.
        self._first: dict[bytes, int] | None = None

    def new(self, trades: Sequence[Trade]) -> Sequence[Trade]:
        """Return the trades whose identity wasn't there before; count the others."""
        self._records.append(trades)
        if self._first is None:
            if self._follow(trades) or self._have_new_ids():
                self._latest = max(self._latest, latest(trades))
                return trades
            self._first = {}
            for number, some in enumerate(self._records[:-1]):
                meet(some, number, self._first)
        places, again = meet(trades, len(self._records) - 1, self._first)
        self.repeated += len(again)
        for place, first in again:
            record, first_place = divmod(first, 1024)
            self.contradicting += not same(self._records[record], first_place, trades, place)
        return selected(trades, places) if places else ()

    def _follow(self, trades: Sequence[Trade]) -> bool:
        """Whether none is there twice, since all come after the others and after each other."""
        return (
            isinstance(trades, PackedTrades)
            and trades.block.ordered
            and trades.block.earliest > self._latest
        )

    def _have_new_ids(self) -> bool:
        """Whether no id is there twice, so no identity."""
        count = len(self._ids)
        for record in self._records[self._listed :]:
            self._ids.update(trade_ids(record))
            count += len(record)
        self._listed = len(self._records)
        return len(self._ids) == count
