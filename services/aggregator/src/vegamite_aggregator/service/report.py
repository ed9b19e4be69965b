"""What the aggregator counts and says about the records it reads; a repeated fault is counted, not repeated in the log."""

import structlog

from vegamite_aggregator.core.changes import Statistics
from vegamite_aggregator.core.facts import Intake
from vegamite_aggregator.metrics import CANDLES, DEAD_LETTERS, LATE_TRADES, QUARANTINED, TRADES
from vegamite_common.domain.market import Market
from vegamite_common.domain.time import MINUTE, Micros
from vegamite_common.runtime.clock import Clock

log = structlog.get_logger(__name__)


class Reporter:
    """Counts steps, and logs what was refused once per market and minute."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._minute: Micros = 0
        self._told: set[Market | None] = set()

    def intake(self, intake: Intake) -> None:
        """Count what a committed batch had that can't be stored."""
        if intake.contradicting:
            TRADES.labels("contradicting").inc(intake.contradicting)
        for letter in intake.refused:
            DEAD_LETTERS.labels(letter.reason).inc()
        for refused in intake.quarantined:
            QUARANTINED.labels(refused.reason).inc()
            if refused.trade_id is not None:
                TRADES.labels("quarantined").inc()
            if self._first_in_minute(refused.market):
                log.warning(
                    "refused what the log has",
                    market=refused.market.key if refused.market else None,
                    offset=refused.offset,
                    trade_id=refused.trade_id,
                    reason=refused.reason,
                    detail=refused.detail,
                )

        for market, count in intake.expired.items():
            if self._first_in_minute(market):
                log.warning(
                    "trades came after their time had expired: they are not stored",
                    market=market.key,
                    trades=count,
                )

    def step(self, statistics: Statistics, *, contradicting: int) -> None:
        """Count what a committed step did."""
        for outcome, count in (
            ("inserted", statistics.inserted),
            ("duplicate", statistics.duplicate),
            ("contradicting", contradicting),
        ):
            if count:
                TRADES.labels(outcome).inc(count)
        for event, count in (("final", statistics.finals), ("revision", statistics.revisions)):
            if count:
                CANDLES.labels(event).inc(count)
        if statistics.expired:
            LATE_TRADES.labels("expired").inc(statistics.expired)
        if statistics.late:
            LATE_TRADES.labels("final").inc(statistics.late)
        for market, count in statistics.late_in_coverage.items():
            LATE_TRADES.labels("covered").inc(count)
            if self._first_in_minute(market):
                log.warning(
                    "trades came after their time was covered: the settling time is too short",
                    market=market.key,
                    trades=count,
                )

    def _first_in_minute(self, market: Market | None) -> bool:
        minute = self._clock.now() // MINUTE
        if minute != self._minute:
            self._minute = minute
            self._told.clear()
        if market in self._told:
            return False
        self._told.add(market)
        return True
