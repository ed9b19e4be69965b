"""The collector put together: the only place that builds its parts."""

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager

from vegamite_collector import metrics
from vegamite_collector.adapters.ccxt_modules import list_exchanges
from vegamite_collector.adapters.postgres_market_store import PostgresMarketStore
from vegamite_collector.adapters.sim_source import SimSource
from vegamite_collector.config import CollectorSettings
from vegamite_collector.core.demo import DEMO_MARKET
from vegamite_collector.core.profile import profile_for
from vegamite_collector.ports import ExchangeRow, TradeSource, UnsupportedExchangeError
from vegamite_collector.service import CollectorService
from vegamite_common.bus.kafka import KafkaBus
from vegamite_common.runtime.clock import Clock
from vegamite_common.runtime.lifecycle import Resources
from vegamite_common.runtime.postgres import open_pool, wait_for_schema

SCHEMA_VERSION = 1
"""The schema that this code was written for, and the least that it needs."""


@asynccontextmanager
async def open_service(
    settings: CollectorSettings, *, resources: Resources | None = None
) -> AsyncIterator[CollectorService]:
    """Build the collector over `resources`, or over its own from `settings`, which it closes at the end."""
    async with AsyncExitStack() as stack:
        if resources is None:
            resources = await _open_resources(settings, stack)
        store = PostgresMarketStore(resources.pool, settings.postgres)
        stack.push_async_callback(store.close)
        await wait_for_schema(resources.pool, minimum=SCHEMA_VERSION, own=SCHEMA_VERSION)
        yield CollectorService(
            bus=resources.bus,
            store=store,
            sources=_SourceFactory(settings, resources.clock),
            clock=resources.clock,
            section=settings.collector,
            list_exchanges=_exchange_lister(settings),
        )


async def _open_resources(settings: CollectorSettings, stack: AsyncExitStack) -> Resources:
    clock = settings.clock.clock()
    pool = await open_pool(settings.postgres, application_name="vegamite-collector")
    stack.push_async_callback(pool.close)
    bus = KafkaBus(settings.kafka, clock)
    await bus.start()
    stack.push_async_callback(bus.close)
    return Resources(clock=clock, bus=bus, pool=pool)


class _SourceFactory:
    """Opens sources; ccxt is imported when the first exchange that needs it is."""

    def __init__(self, settings: CollectorSettings, clock: Clock) -> None:
        self._settings = settings
        self._clock = clock

    async def __call__(self, exchange: str) -> TradeSource:
        section = self._settings.exchange(exchange)
        settling = section.settling_time_ms / 1000 if section.settling_time_ms is not None else None
        profile = profile_for(exchange, settling_seconds=settling)
        if exchange == DEMO_MARKET.exchange:
            demo = self._settings.collector.demo
            if not demo.enabled:
                raise UnsupportedExchangeError("the demo market is switched off")
            return SimSource(seed=demo.seed, clock=self._clock, profile=profile)
        from vegamite_collector.adapters.ccxt_source import CcxtSource

        return CcxtSource(
            exchange,
            profile=profile,
            section=section,
            clock=self._clock,
            on_bad_frame=lambda kind, _: metrics.BAD_FRAMES.labels(exchange, kind).inc(),
            queue_limit=self._settings.collector.queue_trades,
        )


def _exchange_lister(settings: CollectorSettings) -> Callable[[], list[ExchangeRow]]:
    def listed() -> list[ExchangeRow]:
        rows = list_exchanges()
        if settings.collector.demo.enabled:
            rows.append(
                ExchangeRow(DEMO_MARKET.exchange, "Demo (simulated)", "stream", simulated=True)
            )
        return rows

    return listed
