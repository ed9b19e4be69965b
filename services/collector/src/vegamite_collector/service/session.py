"""`MarketSession`: one market's subscription, for as long as this process holds it: events in, records out, reconnecting for ever."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence

import structlog

from vegamite_collector import metrics
from vegamite_collector.core.coverage import raised_settling
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
from vegamite_common.domain.time import Micros
from vegamite_common.domain.trade import Origin, Trade
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
        self._settling = 0
        self._continuity: Continuity | None = None
        self._first_frame = True
        self._claimed = 0
        self.newest_event_time: Micros | None = None
        """Of the trades that were streamed."""
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
            claimed = self._writer.close_span(market, cause=cause)
            self._claimed = max(self._claimed, claimed)

    async def _take_all(self, profile: ExchangeProfile, events: AsyncIterator[SourceEvent]) -> None:
        market = self.tracked.market
        self._settling = max(self._settling, self._clock.span(profile.settling_seconds))
        if profile.ids_contiguous and self._continuity is None:
            self._continuity = Continuity(profile.time_resolution)
        self._first_frame = True
        async for event in events:
            match event:
                case TradesArrived():
                    await self._take_trades(event, profile)
                case Proved(sent_time=sent_time):
                    self._writer.prove(market, sent_time)
                    self._say_live()
                case Subscribed(at=at):
                    self._writer.open_span(
                        market, from_time=at + self._settling, settling=self._settling
                    )
                case Lost(cause=cause):
                    self._writer.break_span(market, cause=cause)

    def _say_live(self) -> None:
        if self._writer.skew.since is not None:
            self._states.set(self.tracked, "clock_skew", reason="the log's clock differs from ours")
        elif not self._skew.active:
            self._states.set(self.tracked, "live")

    async def _take_trades(self, event: TradesArrived, profile: ExchangeProfile) -> None:
        market = self.tracked.market
        if event.trades:
            self._mind_late_trades(event, profile)
            self.newest_event_time = max(event.trades[-1].event_time, self.newest_event_time or 0)
            origin = Origin.SIMULATED if profile.simulated else Origin.LIVE
            await self._writer.put_trades(Batch(market, event.trades, event.received_time, origin))
            self._mind_holes(event.trades)
        skewed = self._skew.skewed(Normalised(event.trades, event.quarantined))
        if event.quarantined:
            self._quarantine(event)
        if skewed:
            self._states.set(
                self.tracked,
                "clock_skew",
                reason="the exchange's event times are ahead of our clock",
            )

    def _mind_holes(self, trades: Sequence[Trade]) -> None:
        """Trades whose ids were skipped have to be fetched, also where their time was claimed."""
        hole = self._continuity.first_hole(trades) if self._continuity is not None else None
        first, self._first_frame = self._first_frame, False
        if hole is None:
            return
        if not first:
            self._writer.break_span(
                self.tracked.market, cause="missing_trades", limit=hole.from_time
            )
            self._on_hole(self.tracked, hole)
        elif hole.from_time < self._claimed:
            # What was skipped between two connections is a gap, but for what the last one had claimed wrongly.
            self._on_hole(self.tracked, Span(hole.from_time, min(hole.to_time, self._claimed)))

    def _mind_late_trades(self, event: TradesArrived, profile: ExchangeProfile) -> None:
        """A claim was as good as the settling time: where that was too short, claim later from now on."""
        market = self.tracked.market
        late = self._writer.late_trades(market, event.trades)
        if not late:
            return
        metrics.LATE_TRADES.labels(market.exchange).inc(late)
        own = self._clock.span(profile.settling_seconds)
        raised = raised_settling(self._settling, own=own)
        if raised > self._settling:
            self._settling = raised
            self._writer.set_settling(market, raised)
            log.warning(
                "trades came late; settling time raised", market=market.key, factor=raised // own
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
