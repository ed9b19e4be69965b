"""`SourceStates`: what each market's source is doing, stored and announced when it changes, logged once an exchange."""

from typing import get_args

import structlog

from vegamite_collector import metrics
from vegamite_collector.ports import MarketState, MarketStore, StoreError, TrackedMarket
from vegamite_common.bus.partition import partition_for
from vegamite_common.bus.port import STATUS, BusError, Producer
from vegamite_common.domain.market import Market
from vegamite_common.messages.status import SourceState, SourceStateName, encode_status
from vegamite_common.runtime.clock import Clock
from vegamite_common.runtime.metrics import replace_values

log = structlog.get_logger(__name__)

_AWAY = frozenset({"reconnecting"})


class SourceStates:
    """The states of the markets that this process collects; `flush` writes what changed."""

    def __init__(
        self, *, store: MarketStore, producer: Producer, status_partitions: int, clock: Clock
    ) -> None:
        self._store = store
        self._producer = producer
        self._status_partitions = status_partitions
        self._clock = clock
        self._current: dict[Market, MarketState] = {}
        self._unsaved: dict[Market, tuple[int, MarketState]] = {}
        self._away: dict[str, set[Market]] = {}

    def state_of(self, market: Market) -> MarketState | None:
        """Return the market's state, None before the first."""
        return self._current.get(market)

    def set(
        self,
        tracked: TrackedMarket,
        state: SourceStateName,
        *,
        reason: str | None = None,
        suggestions: tuple[str, ...] = (),
    ) -> None:
        """Note the state; a repeat of the same state and reason is nothing new."""
        market = tracked.market
        before = self._current.get(market)
        if before is not None and (before.state, before.reason) == (state, reason):
            return
        since = (
            before.since_time if before is not None and before.state == state else self._clock.now()
        )
        now = MarketState(state, since, reason, suggestions)
        self._current[market] = now
        self._unsaved[market] = (tracked.market_key, now)
        self._log(market, before, now)
        self._count()

    def forget(self, market: Market) -> None:
        """The market is no longer collected here; what is stored stays for its next owner."""
        self._current.pop(market, None)
        self._unsaved.pop(market, None)
        for away in self._away.values():
            away.discard(market)
        self._count()

    def _count(self) -> None:
        counts = {
            (exchange, state): 0
            for exchange in {market.exchange for market in self._current}
            for state in get_args(SourceStateName)
        }
        for market, item in self._current.items():
            counts[market.exchange, item.state] += 1
        replace_values(metrics.MARKETS, counts)

    def _log(self, market: Market, before: MarketState | None, now: MarketState) -> None:
        away = self._away.setdefault(market.exchange, set())
        if now.state in _AWAY:
            if not away:
                log.warning(
                    "exchange away", exchange=market.exchange, market=market.key, reason=now.reason
                )
            away.add(market)
        elif now.state == "live":
            if market in away:
                away.discard(market)
                if not away:
                    log.info("exchange back", exchange=market.exchange, market=market.key)
            elif before is None or before.state != "live":
                log.info("market live", market=market.key)
        elif now.state not in ("connecting", "pending"):
            log.warning(
                "market not collected", market=market.key, state=now.state, reason=now.reason
            )

    async def flush(self) -> None:
        """Store and announce what changed since the last call; what fails is tried again at the next."""
        for market, (market_key, state) in list(self._unsaved.items()):
            try:
                await self._store.save_state(market_key, state)
                await self._announce(market, state)
            except StoreError:
                metrics.STORE_FAULTS.inc()
                return
            except BusError:
                # The state is stored; whoever asks the API sees it.
                pass
            if self._unsaved.get(market) == (market_key, state):
                del self._unsaved[market]

    async def _announce(self, market: Market, state: MarketState) -> None:
        record = SourceState(
            exchange=market.exchange,
            symbol=market.symbol,
            event_time=state.since_time,
            state=state.state,
            reason=state.reason,
        )
        key = market.key.encode()
        await self._producer.publish(
            STATUS, partition_for(key, self._status_partitions), [(key, encode_status(record))]
        )
