"""Which trades of a market a batch has twice: asked in the cheapest way that can tell."""

from collections.abc import Sequence

from vegamite_aggregator.core.candle_cache import NEVER
from vegamite_aggregator.core.packed_trades import (
    PackedTrades,
    identities,
    latest,
    same,
    selected,
    trade_ids,
)
from vegamite_common.domain.time import Micros
from vegamite_common.domain.trade import Trade


class MetTrades:
    """The trades of one market met so far; how many of those that came later were `repeated`, and `contradicting` the first."""

    __slots__ = ("_first", "_ids", "_latest", "_listed", "_offered", "contradicting", "repeated")

    def __init__(self) -> None:
        self.repeated = 0
        self.contradicting = 0
        self._latest: Micros = NEVER
        self._offered: list[Sequence[Trade]] = []
        self._ids: set[str] = set()
        self._listed = 0  # of `_offered`, how many have their ids in `_ids`
        # From the first id met twice on: by identity, which trade of which record was the first.
        self._first: dict[tuple[Micros, str], tuple[Sequence[Trade], int]] | None = None

    def new(self, trades: Sequence[Trade]) -> Sequence[Trade]:
        """Return the trades whose identity wasn't there before; count the others."""
        if self._first is None:
            if self._follows(trades) or self._have_new_ids(trades):
                self._offered.append(trades)
                self._latest = max(self._latest, latest(trades))
                return trades
            self._first = {}
            for some in self._offered:
                for place, identity in enumerate(identities(some)):
                    self._first[identity] = (some, place)
        places: list[int] = []
        for place, identity in enumerate(identities(trades)):
            first = self._first.setdefault(identity, (trades, place))
            if first[0] is trades and first[1] == place:
                places.append(place)
            else:
                self.repeated += 1
                self.contradicting += not same(*first, trades, place)
        return selected(trades, places) if places else ()

    def _follows(self, trades: Sequence[Trade]) -> bool:
        """Whether none is there twice, since all come after the others and after each other."""
        return (
            isinstance(trades, PackedTrades)
            and trades.block.ordered
            and trades.block.earliest > self._latest
        )

    def _have_new_ids(self, trades: Sequence[Trade]) -> bool:
        """Whether no id is there twice, so no identity."""
        for some in self._offered[self._listed :]:
            self._ids.update(trade_ids(some))
        self._listed = len(self._offered)
        count = len(self._ids)
        self._ids.update(trade_ids(trades))
        self._listed += 1  # if so, they are the next
        return len(self._ids) == count + len(trades)
