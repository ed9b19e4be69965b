"""`TrackedMarkets`: which markets are tracked, kept here and refreshed on a schedule, by notification, and on a miss."""

from collections.abc import Iterable

import structlog

from vegamite_collector import metrics
from vegamite_collector.ports import MarketStore, StoreError, TrackedMarket
from vegamite_common.runtime.backoff import Backoff
from vegamite_common.runtime.clock import Clock

log = structlog.get_logger(__name__)


class TrackedMarkets:
    """The cache of the tracked markets; while the database is away it goes on with what it has."""

    def __init__(self, *, store: MarketStore, clock: Clock, refresh_seconds: float) -> None:
        self._store = store
        self._clock = clock
        self._refresh_seconds = refresh_seconds
        self._markets: dict[int, TrackedMarket] = {}
        self.loaded = False
        self.version = 0
        """Rises with each change."""

    def all(self) -> Iterable[TrackedMarket]:
        """Return every tracked market."""
        return tuple(self._markets.values())

    async def get(self, market_key: int) -> TrackedMarket | None:
        """Return a tracked market, from the database where the cache has none; raise `StoreError`."""
        found = self._markets.get(market_key)
        if found is None:
            found = await self._store.tracked_market(market_key)
            if found is not None:
                self._markets[market_key] = found
                self.version += 1
        return found

    async def forget_or_reload(self, market_key: int) -> None:
        """Look at one market again after a notification; raise `StoreError`."""
        # Until the database has answered, the market stays: whoever looks meanwhile must not take it for gone.
        found = await self._store.tracked_market(market_key)
        before = self._markets.get(market_key)
        if found is None:
            self._markets.pop(market_key, None)
        else:
            self._markets[market_key] = found
        if found != before:
            self.version += 1

    async def refresh(self) -> None:
        """Load all tracked markets; raise `StoreError`."""
        markets = {tracked.market_key: tracked for tracked in await self._store.tracked_markets()}
        if markets != self._markets or not self.loaded:
            self._markets = markets
            self.version += 1
        self.loaded = True

    async def run_schedule(self) -> None:
        """Refresh again and again, until cancelled."""
        backoff = Backoff(first_seconds=0.2, limit_seconds=self._refresh_seconds)
        while True:
            try:
                await self.refresh()
            except StoreError as error:
                self._note(error)
                await self._clock.sleep(backoff.next_delay())
            else:
                backoff.reset()
                await self._clock.sleep(self._refresh_seconds)

    async def run_notifications(self) -> None:
        """Follow the database's notifications, until cancelled."""
        backoff = Backoff(first_seconds=0.2, limit_seconds=30.0)
        while True:
            try:
                market_key = await self._store.next_change()
                if market_key is None:
                    await self.refresh()
                else:
                    await self.forget_or_reload(market_key)
            except StoreError as error:
                self._note(error)
                await self._clock.sleep(backoff.next_delay())
            else:
                backoff.reset()

    def _note(self, error: StoreError) -> None:
        metrics.STORE_FAULTS.inc()
        log.debug("database away", error=str(error))
