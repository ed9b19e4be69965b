"""`MarketSession`: one market's subscription, for as long as this process holds it: events in, records out, reconnecting for ever."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable

import structlog

from vegamite_collector import metrics
from vegamite_collector.core.normalise import ClockSkewCounter, Continuity, Normalised
from vegamite_collector.core.profile import ExchangeProfile
from vegamite_collector.core.suggestion import suggest_symbols
from vegamite_collector.ports import (
    Lost,
    Proved,
    SourceError,
    SourceEvent,
    Subscribed,
    TrackedMarket,
    TradesArrived,
    UnknownSymbolError,
    UnsupportedExchangeError,
)
from vegamite_collector.service.sources import Sources
from vegamite_collector.service.states import SourceStates
from vegamite_collector.service.writer import Batch, PartitionWriter
from vegamite_common.domain.coverage import Span
from vegamite_common.domain.trade import Origin
from vegamite_common.runtime.backoff import Backoff
from vegamite_common.runtime.clock import Clock

log = structlog.get_logger(__name__)

HEALTHY_SECONDS = 60.0
UNKNOWN_SYMBOL_SECONDS = 600.0
UNSUPPORTED_SECONDS = 3600.0
_LOG_EVERY_SECONDS = 60.0


class MarketSession:
    """Collects one market into its partition's writer; `on_hole` is told of spans whose trades were skipped."""

    def __init__(
        self,
        tracked: TrackedMarket,
        *,
        sources: Sources,
        writer: PartitionWriter,
        states: SourceStates,
        clock: Clock,
        on_hole: Callable[[TrackedMarket, Span], None],
    ) -> None:
        self.tracked = tracked
        self._sources = sources
        self._writer = writer
        self._states = states
        self._clock = clock
        self._on_hole = on_hole
        self._backoff = Backoff(first_seconds=0.5, limit_seconds=30.0)
        self._quarantine_logged = float("-inf")
        self._skew = ClockSkewCounter()
        self.cause_of_end = "stopped"

    async def run(self) -> None:
        """Collect until cancelled."""
        self._states.set(self.tracked, "connecting")
        while True:
            await self._clock.sleep(await self._collect_once())

    async def _collect_once(self) -> float:
        """Collect over one connection; returns the real seconds to wait before the next."""
        market = self.tracked.market
        began = time.monotonic()
        cause = self.cause_of_end
        try:
            source = await self._sources.get(market.exchange)
            async with source.stream(market.symbol) as events:
                await self._take_all(source.profile, events)
            raise SourceError("the stream ended")
        except UnknownSymbolError as error:
            cause = "unknown_symbol"
            self._states.set(
                self.tracked,
                "unknown_symbol",
                reason=str(error),
                suggestions=suggest_symbols(market.symbol, error.known),
            )
            return UNKNOWN_SYMBOL_SECONDS
        except UnsupportedExchangeError as error:
            cause = "unsupported"
            self._states.set(self.tracked, "unsupported", reason=str(error))
            return UNSUPPORTED_SECONDS
        except SourceError as error:
            cause = error.cause
            metrics.CONNECTIONS_LOST.labels(market.exchange, cause).inc()
            self._states.set(self.tracked, "reconnecting", reason=str(error))
            if time.monotonic() - began >= HEALTHY_SECONDS:
                self._backoff.reset()
            return max(self._backoff.next_delay(), error.retry_after or 0.0)
        except asyncio.CancelledError:
            cause = self.cause_of_end
            raise
        finally:
            self._writer.close_span(market, cause=cause)

    async def _take_all(self, profile: ExchangeProfile, events: AsyncIterator[SourceEvent]) -> None:
        market = self.tracked.market
        settling = self._clock.span(profile.settling_seconds)
        continuity = Continuity(profile.time_resolution) if profile.ids_contiguous else None
        async for event in events:
            match event:
                case TradesArrived():
                    await self._take_trades(event, profile, continuity)
                case Proved(sent_time=sent_time):
                    self._writer.prove(market, sent_time)
                    self._say_live()
                case Subscribed(at=at):
                    self._writer.open_span(market, from_time=at + settling, settling=settling)
                case Lost(cause=cause):
                    self._writer.break_span(market, cause=cause)

    def _say_live(self) -> None:
        if self._writer.skew.since is not None:
            self._states.set(self.tracked, "clock_skew", reason="the log's clock differs from ours")
        elif not self._skew.active:
            self._states.set(self.tracked, "live")

    async def _take_trades(
        self, event: TradesArrived, profile: ExchangeProfile, continuity: Continuity | None
    ) -> None:
        market = self.tracked.market
        if event.trades:
            origin = Origin.SIMULATED if profile.simulated else Origin.LIVE
            await self._writer.put_trades(Batch(market, event.trades, event.received_time, origin))
        hole = continuity.first_hole(event.trades) if continuity is not None else None
        if hole is not None:
            self._writer.break_span(market, cause="missing_trades", limit=hole.from_time)
            self._on_hole(self.tracked, hole)
        skewed = self._skew.skewed(Normalised(event.trades, event.quarantined))
        if event.quarantined:
            self._quarantine(event)
        if skewed:
            self._states.set(
                self.tracked,
                "clock_skew",
                reason="the exchange's event times are ahead of our clock",
            )

    def _quarantine(self, event: TradesArrived) -> None:
        market = self.tracked.market
        for item in event.quarantined:
            metrics.QUARANTINED.labels(market.exchange, item.reason).inc()
        self._writer.break_span(market, cause="quarantine")
        if time.monotonic() - self._quarantine_logged >= _LOG_EVERY_SECONDS:
            self._quarantine_logged = time.monotonic()
            first = event.quarantined[0]
            log.warning(
                "trade quarantined", market=market.key, reason=first.reason, said=first.text
            )
