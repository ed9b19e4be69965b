"""`SimSource`: the demo market as an exchange of its own, live and with all its history."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from decimal import Decimal

from vegamite_collector.core.demo import DEMO_MARKET, next_trade_time, page_from, trades_between
from vegamite_collector.core.profile import ExchangeProfile, profile_for
from vegamite_collector.core.repair import Page, PageRequest
from vegamite_collector.ports import (
    Proved,
    ReferenceMarket,
    SourceEvent,
    Subscribed,
    TradesArrived,
    UnknownSymbolError,
)
from vegamite_common.domain.time import SECOND
from vegamite_common.runtime.clock import Clock

LONGEST_WAIT_SECONDS = 0.5
SHORTEST_WAIT_SECONDS = 0.1


class SimSource:
    """The exchange `sim`, which has one market and never fails."""

    def __init__(self, *, seed: int, clock: Clock, profile: ExchangeProfile | None = None) -> None:
        self.profile = profile or profile_for("sim")
        self._seed = seed
        self._clock = clock

    def _require(self, symbol: str) -> None:
        if symbol != DEMO_MARKET.symbol:
            raise UnknownSymbolError(
                f"the demo has no market {symbol}", known=(DEMO_MARKET.symbol,)
            )

    @asynccontextmanager
    async def stream(self, symbol: str) -> AsyncIterator[AsyncIterator[SourceEvent]]:
        """Give the trades as the clock passes them; see `TradeSource`."""
        self._require(symbol)
        yield self._events()

    async def _events(self) -> AsyncIterator[SourceEvent]:
        clock = self._clock
        at = clock.now()
        yield Subscribed(at)
        while True:
            await clock.sleep(self._wait_seconds(at))
            now = clock.now()
            trades = trades_between(self._seed, at, now)
            if trades:
                yield TradesArrived(now, tuple(trades))
            at = max(at, now)
            yield Proved(at)

    def _wait_seconds(self, at: int) -> float:
        """Until the next trade, in real seconds, but often enough to prove that there is none."""
        until = (
            (next_trade_time(self._seed, at) + 1 - self._clock.now()) / SECOND / self._clock.speed
        )
        return min(LONGEST_WAIT_SECONDS, max(SHORTEST_WAIT_SECONDS, until))

    async def fetch(self, symbol: str, request: PageRequest) -> Page:
        """Return one page of history, by time; see `TradeSource`."""
        self._require(symbol)
        asked_time = self._clock.now()
        since = request.since if request.since is not None else asked_time - 60 * SECOND
        until = asked_time if request.until is None else min(request.until, asked_time)
        trades = page_from(
            self._seed, since, to_time=until, limit=request.limit or self.profile.page_limit
        )
        # Making a page is work: others have their turn between two.
        await self._clock.sleep(0)
        return Page(tuple(trades), len(trades), asked_time)

    async def markets(self, *, reload: bool = False) -> Sequence[ReferenceMarket]:  # noqa: ARG002 -- there is nothing to reload
        """Return the demo market."""
        parts = DEMO_MARKET.parts
        return [
            ReferenceMarket(
                market=DEMO_MARKET,
                type=parts.type,
                base=parts.base,
                quote=parts.quote,
                price_increment=Decimal("0.01"),
                amount_increment=Decimal("0.00001"),
            )
        ]

    async def close(self) -> None:
        """Nothing is open."""
