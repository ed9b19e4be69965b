"""`ReferenceData`: the exchanges' lists of markets, stored when an exchange is first used here and once a day."""

import time

import structlog

from vegamite_collector import metrics
from vegamite_collector.ports import ExchangeRow, MarketStore, SourceError, StoreError
from vegamite_collector.service.sources import Sources
from vegamite_common.runtime.backoff import Backoff
from vegamite_common.runtime.clock import Clock

log = structlog.get_logger(__name__)

_LOOK_EVERY_SECONDS = 1.0


class ReferenceData:
    """Keeps `exchange` and `market` rows fresh for the exchanges whose markets are held here."""

    def __init__(
        self, *, store: MarketStore, sources: Sources, clock: Clock, refresh_seconds: float
    ) -> None:
        self._store = store
        self._sources = sources
        self._clock = clock
        self._refresh_seconds = refresh_seconds
        self._due: dict[str, float] = {}
        self._backoffs: dict[str, Backoff] = {}
        self._loaded: set[str] = set()
        self.exchanges: set[str] = set()
        """The exchanges in use; set by the owner."""

    async def save_exchanges(self, rows: list[ExchangeRow]) -> None:
        """Store the list of exchanges, trying until the database takes it."""
        backoff = Backoff(first_seconds=0.2, limit_seconds=30.0)
        while True:
            try:
                await self._store.save_exchanges(rows)
            except StoreError:
                metrics.STORE_FAULTS.inc()
                await self._clock.sleep(backoff.next_delay())
            else:
                return

    async def run(self) -> None:
        """Refresh what is due, until cancelled."""
        while True:
            for exchange in sorted(self.exchanges):
                if time.monotonic() >= self._due.get(exchange, 0.0):
                    await self._refresh(exchange)
            await self._clock.sleep(_LOOK_EVERY_SECONDS)

    async def _refresh(self, exchange: str) -> None:
        backoff = self._backoffs.setdefault(
            exchange, Backoff(first_seconds=5.0, limit_seconds=300.0)
        )
        try:
            source = await self._sources.get(exchange)
            markets = await source.markets(reload=exchange in self._loaded)
            self._loaded.add(exchange)
            await self._store.save_markets(exchange, markets)
        except StoreError:
            metrics.STORE_FAULTS.inc()
            delay = backoff.next_delay()
        except SourceError as error:
            log.debug("markets not listed", exchange=exchange, error=str(error))
            delay = backoff.next_delay()
        else:
            backoff.reset()
            delay = self._refresh_seconds
        self._due[exchange] = time.monotonic() + delay
