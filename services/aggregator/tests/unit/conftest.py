"""A small world around the engine: a log, a store in memory that does what the real one must, and a reader of candles."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import msgspec
import pytest

from vegamite_aggregator.core.candle_cache import FOREVER, NEVER
from vegamite_aggregator.core.changes import Changes
from vegamite_aggregator.core.decision import decide
from vegamite_aggregator.core.demand import Loaded, OpenCandles, Wants
from vegamite_aggregator.core.facts import TradeBatch, TradeKey, without_stored
from vegamite_aggregator.core.fold import TradeFold
from vegamite_aggregator.core.horizon import Horizon
from vegamite_aggregator.core.intake import read_batch
from vegamite_aggregator.core.plan import prepare
from vegamite_aggregator.core.rows import (
    CandleKey,
    GapRow,
    Job,
    OpenSpan,
    SpanRow,
    StoredCandle,
)
from vegamite_aggregator.core.state import MarketState, PartitionState
from vegamite_aggregator.core.timing import Timing, log_time
from vegamite_common.domain.candle import Candle
from vegamite_common.domain.coverage import GapState
from vegamite_common.domain.market import Contract, Market
from vegamite_common.domain.time import Micros
from vegamite_common.domain.timeframe import Timeframe
from vegamite_common.domain.trade import Origin, Trade
from vegamite_common.messages.candles import decode_candles
from vegamite_common.messages.dead_letters import decode_dead_letter
from vegamite_common.messages.status import Revised, decode_status
from vegamite_common.messages.trades import (
    Heartbeat,
    TradesRecord,
    TradesTopicRecord,
    encode_trades,
)


class Record(msgspec.Struct, frozen=True):
    """A record of the log."""

    offset: int
    append_time: Micros
    key: bytes | None
    value: bytes


def _open(rows: Mapping[CandleKey, StoredCandle]) -> list[StoredCandle]:
    """Return the candles that are neither final nor held."""
    return [stored for stored in rows.values() if not stored.candle.final and not stored.held_by]


class Store:
    """What the database holds of one partition, and how it answers what the engine asks of it."""

    def __init__(self) -> None:
        self.trades: dict[Market, dict[tuple[Micros, str], Trade]] = {}
        self.candles: dict[Market, dict[CandleKey, StoredCandle]] = {}
        self.coverage: dict[Market, dict[Micros, SpanRow]] = {}
        self.gaps: dict[Market, dict[Micros, GapRow]] = {}
        self.jobs: dict[str, Job] = {}
        self.open_spans: dict[tuple[str, Market], OpenSpan] = {}
        self.history_from: dict[Market, Micros] = {}
        self.contracts: dict[Market, Contract] = {}
        self.horizons: dict[Market, Horizon] = {}
        self.fence: tuple[int, int, int, Micros | None] = (0, 0, 0, None)
        self.outbox: list[Any] = []
        self.release_limit: int | None = None

    def market_state(self, market: Market) -> MarketState:
        rows = self.candles.get(market, {})
        gaps = self.gaps.get(market, {}).values()
        open_edges = {
            edge
            for gap in gaps
            if gap.state is GapState.OPEN
            for edge in (gap.from_time, gap.to_time)
        }
        return MarketState(
            contract=self.contracts.get(market),
            history_from=self.history_from.get(market),
            coverage=self.coverage.get(market, {}).values(),
            gaps=[
                gap
                for gap in gaps
                if gap.state is not GapState.FILLED or {gap.from_time, gap.to_time} & open_edges
            ],
            newest_event_time=max((c.candle.last_event_time for c in rows.values()), default=NEVER),
            open_close_time=min((c.candle.close_time for c in _open(rows)), default=FOREVER),
        )

    def state(self) -> PartitionState:
        version, epoch, next_offset, last_append_time = self.fence
        known = {*self.candles, *self.coverage, *self.gaps, *self.history_from}
        known |= {market for _, market in self.open_spans}
        return PartitionState(
            partition=0,
            epoch=epoch,
            version=version,
            next_offset=next_offset,
            last_append_time=last_append_time,
            open_spans=self.open_spans.values(),
            jobs=[job for job in self.jobs.values() if job.state == "open"],
            markets={market: self.market_state(market) for market in known},
            horizons=self.horizons,
        )

    def insert(self, batches: Sequence[TradeBatch]) -> set[TradeKey]:
        """Insert what isn't there; return the keys of what is."""
        keys: set[TradeKey] = set()
        for batch in batches:
            stored = self.trades.setdefault(batch.market, {})
            for trade in batch.trades:
                identity = (trade.event_time, trade.trade_id)
                if identity in stored:
                    keys.add((batch.market, *identity))
                else:
                    stored[identity] = trade
        return keys

    def load(self, wants: Wants) -> Loaded:
        found: dict[Market, dict[CandleKey, StoredCandle]] = {}

        def give(market: Market, candles: Iterable[StoredCandle]) -> None:
            found.setdefault(market, {}).update({stored.key: stored for stored in candles})

        for market, keys in wants.keys.items():
            rows = self.candles.get(market, {})
            give(market, [rows[key] for key in keys if key in rows])
        for asked in wants.incomplete:
            give(
                asked.market,
                [
                    stored
                    for (timeframe, at), stored in self.candles.get(asked.market, {}).items()
                    if timeframe is asked.timeframe
                    and asked.from_time <= at < asked.to_time
                    and stored.candle.final
                    and not stored.candle.complete
                    and not stored.held_by
                ],
            )
        limit = self.release_limit or wants.release_limit
        held = [
            (market, stored)
            for market, rows in self.candles.items()
            for stored in rows.values()
            if wants.released.intersection(stored.held_by)
        ]
        for market, stored in held[:limit]:
            give(market, [stored])
        folds: list[TradeFold] = []
        for rebuild in wants.rebuilds:
            rows = self.candles.get(rebuild.market, {})
            give(
                rebuild.market,
                [
                    stored
                    for (timeframe, at), stored in rows.items()
                    if rebuild.from_time <= at < rebuild.to_time
                    or (
                        timeframe in (Timeframe.D1, Timeframe.D3, Timeframe.W1, Timeframe.MO1)
                        and rebuild.days_from <= at < rebuild.days_to
                    )
                ],
            )
            fold = TradeFold(self.contracts.get(rebuild.market))
            inside = [
                trade
                for trade in self.trades.get(rebuild.market, {}).values()
                if rebuild.from_time <= trade.event_time < rebuild.to_time
            ]
            fold.add(inside[::2])
            fold.add(inside[1::2])
            folds.append(fold)
        return Loaded(
            candles={market: list(rows.values()) for market, rows in found.items()},
            open_candles={asked.market: self._open_candles(asked) for asked in wants.open_candles},
            release_rest=len(held) > limit,
            rebuilt=folds,
            jobs=[self.jobs[name] for name in wants.jobs if name in self.jobs],
        )

    def _open_candles(self, asked: OpenCandles) -> list[StoredCandle]:
        """Return the market's open candles inside the bounds: whoever asks has the others."""
        return [
            stored
            for stored in _open(self.candles.get(asked.market, {}))
            if stored.candle.close_time >= asked.from_close
            and stored.candle.open_time <= asked.until_open
        ]

    def write(self, changes: Changes) -> None:
        version = self.fence[0]
        self.fence = (
            version + 1,
            changes.epoch,
            changes.next_offset,
            changes.last_append_time,
        )
        for market, rows in changes.markets.items():
            candles = self.candles.setdefault(market, {})
            for key in rows.candles_deleted:
                del candles[key]
            written = {stored.key for stored in rows.candles}
            assert rows.candles_new == written - candles.keys(), "what is new is what isn't there"
            for stored in rows.candles:
                before = candles.get(stored.key)
                if before is not None:
                    order, earlier = stored.candle.state_order, before.candle.state_order
                    assert order >= earlier, f"{stored.key}: {earlier} went back to {order}"
                    if order == earlier:
                        assert stored.candle == before.candle, f"{stored.key}: two states {order}"
                candles[stored.key] = stored
            coverage = self.coverage.setdefault(market, {})
            for start in rows.coverage_deleted:
                del coverage[start]
            coverage.update({row.from_time: row for row in rows.coverage})
            gaps = self.gaps.setdefault(market, {})
            for start in rows.gaps_deleted:
                del gaps[start]
            gaps.update({row.from_time: row for row in rows.gaps})
        for span_key in changes.open_spans_deleted:
            del self.open_spans[span_key]
        self.open_spans.update({(span.writer, span.market): span for span in changes.open_spans})
        self.jobs.update({job.job: job for job in changes.jobs})
        self.outbox.extend(changes.outbox)


class Reader:
    """A client that keeps the greatest state of each candle, and reads again what a `revised` record names."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.candles: dict[tuple[Market, CandleKey], Candle] = {}
        self.finals: dict[tuple[Market, CandleKey], int] = {}
        self.statuses: list[Any] = []
        self.letters: list[Any] = []
        self.records: list[Any] = []

    def take(self, market: Market, candle: Candle) -> None:
        key = (market, (candle.timeframe, candle.open_time))
        before = self.candles.get(key)
        if before is None or candle.state_order > before.state_order:
            self.candles[key] = candle

    def read(self) -> None:
        """Take everything from the outbox, as a reader after the commit does."""
        for entry in self._store.outbox:
            if entry.topic == "market.candles.v1":
                record = decode_candles(entry.value)
                self.records.append(record)
                for candle in record.candles:
                    if record.type == "final":
                        key = (record.market, (candle.timeframe, candle.open_time))
                        self.finals[key] = self.finals.get(key, 0) + 1
                    self.take(record.market, candle)
            elif entry.topic == "market.trades.dead-letter.v1":
                self.letters.append(decode_dead_letter(entry.value))
            else:
                status = decode_status(entry.value)
                self.statuses.append(status)
                if isinstance(status, Revised):
                    self._read_again(status)
        self._store.outbox.clear()

    def _read_again(self, revised: Revised) -> None:
        rows = self._store.candles.get(revised.market, {})
        for (timeframe, at), stored in rows.items():
            if timeframe is revised.timeframe and revised.from_time <= at < revised.to_time:
                self.take(revised.market, stored.candle)


class World:
    """Log, store, engine and reader; `clock` in microseconds moves only by hand."""

    def __init__(
        self,
        *,
        start: Micros,
        fold_plainly: Callable[..., Any],
        numbers_of: Callable[..., Any],
        timing: Timing | None = None,
        resident_candles: int = 1_000_000,
    ) -> None:
        self.resident_candles = resident_candles
        self._fold_plainly = fold_plainly
        self._numbers_of = numbers_of
        self.clock = start
        self.timing = timing or Timing()
        self.log: list[Record] = []
        self.store = Store()
        self.reader = Reader(self.store)
        self.state = self.store.state()
        self.statistics: list[Any] = []
        self.intakes: list[Any] = []

    def send(self, record: TradesTopicRecord) -> int:
        """Append a record now; return its offset."""
        key = None if isinstance(record, Heartbeat) else record.market.key.encode()
        return self.send_bytes(key, encode_trades(record))

    def send_bytes(self, key: bytes | None, value: bytes) -> int:
        """Append any bytes now; return their offset."""
        self.log.append(Record(len(self.log), self.clock, key, value))
        return len(self.log) - 1

    def send_trades(
        self,
        market: Market,
        trades: Sequence[Trade],
        *,
        origin: Origin = Origin.LIVE,
        job: str | None = None,
        covered: tuple[Micros, Micros] | None = None,
    ) -> int:
        """Append a record of trades, received now."""
        return self.send(
            TradesRecord(
                exchange=market.exchange,
                symbol=market.symbol,
                received_time=self.clock,
                origin=origin,
                trades=tuple(trades),
                job=job,
                covered=covered,
            )
        )

    def restart(self) -> None:
        """Forget everything in memory and load it from the store."""
        self.state = self.store.state()

    def step(self, limit: int | None = None, *, commit: bool = True, fresh: bool = True) -> Changes:
        """Take one step over at most `limit` records; with `commit=False` the transaction is lost.

        `fresh`: the fetch is younger than a second, so it proves what the log's end is.
        """
        state = self.state
        records = self.log[state.next_offset :][:limit]
        intake = read_batch(
            state, records, partition_of=lambda key: len(key) * 0, timing=self.timing
        )
        past = log_time(
            next_offset=intake.next_offset,
            last_append_time=intake.last_append_time,
            end_offset=len(self.log),
            fetched_time=self.clock if fresh else self.clock - 2 * self.timing.fetch_age,
            now=self.clock,
            timing=self.timing,
        )
        trades_before = {market: dict(rows) for market, rows in self.store.trades.items()}
        for market in intake.markets - state.markets.keys():
            state.markets[market] = self.store.market_state(market)
        inserted = without_stored(intake.trades, self.store.insert(intake.trades))
        plan = prepare(state, intake, inserted, log_time=past, timing=self.timing)
        loaded = self.store.load(plan.wants)
        state.admit(plan.wants, loaded)
        changes = decide(state, plan, loaded, now=self.clock)
        if not commit:
            self.store.trades = trades_before
            self.restart()
            return changes
        self.statistics.append(changes.statistics)
        self.intakes.append(intake)
        if changes.changed:
            self.store.write(changes)
            state.apply(changes)
            for market, rows in changes.markets.items():
                for candle in rows.streamed:
                    self.reader.take(market, candle)
        state.evict(self.resident_candles)
        self.reader.read()
        return changes

    def settle(self) -> None:
        """Step until nothing more happens."""
        for _ in range(1000):
            if not self.step().changed:
                return
        raise AssertionError("the engine never comes to rest")

    def candle(self, market: Market, timeframe: Timeframe, at: Micros) -> Candle:
        """Return the stored candle that holds the instant `at`."""
        return self.store.candles[market][(timeframe, timeframe.open_time(at))].candle

    def check_contents(self) -> None:
        """Compare every stored candle with a fold of the stored trades written here, with `decimal` alone."""
        for market, trades in self.store.trades.items():
            wanted = self._fold_plainly(trades.values(), self.store.contracts.get(market))
            stored = self.store.candles[market]
            assert stored.keys() == wanted.keys()
            for key, numbers in wanted.items():
                assert self._numbers_of(stored[key].candle) == numbers, f"{market.key} {key}"

    def check_memory(self) -> None:
        """Compare what is in memory with the store, and that what must be there is."""
        for market, state in self.state.markets.items():
            stored = self.store.candles.get(market, {})
            assert all(stored[key] == kept for key, kept in state.candles.items())
            for key, row in stored.items():
                if key in state.candles:
                    assert (key in state.unsettled) == (row in _open({key: row}))
                    continue
                text = f"{market.key} {key} isn't in memory"
                assert key[1] < state.resident_from(key[0]), text
                assert row.candle.last_event_time <= state.newest_event_time, text
                if not row.candle.final and not row.held_by:
                    assert state.open_close_time <= row.candle.close_time, text
                if row.candle.final and not row.candle.complete and not row.held_by:
                    assert key[1] < state.incomplete_before, text
            fresh = self.store.market_state(market)
            assert state.coverage == fresh.coverage
            assert state.end_causes == fresh.end_causes
            assert state.gaps == fresh.gaps
            assert state.next_close() <= fresh.next_close()
        kept = [len(state.candles) for state in self.state.markets.values()]
        assert self.state.resident_candles == sum(kept) <= self.resident_candles
        assert self.state.resident_markets == sum(map(bool, kept))
        fresh_state = self.store.state()
        assert self.state.open_spans.keys() == fresh_state.open_spans.keys()
        for span_key, span in self.state.open_spans.items():
            reload = fresh_state.open_spans[span_key]
            assert reload.from_time == span.from_time
            # A claim may have covered what comes next, and the stored coverage doesn't say whose it is.
            assert reload.to_time >= span.to_time
        assert self.state.jobs == fresh_state.jobs
        assert self.state.version == fresh_state.version

    def check_reader(self) -> None:
        """Compare what a reader of the candle topic holds with every final candle of the store that no job holds back."""
        for market, rows in self.store.candles.items():
            for key, stored in rows.items():
                if stored.candle.final and stored.pending is None:
                    assert self.reader.candles.get((market, key)) == stored.candle


@pytest.fixture(scope="session")
def make_world(
    fold_plainly: Callable[..., Any], numbers_of: Callable[..., Any]
) -> Callable[..., World]:
    """Return the maker of worlds."""
    return partial(World, fold_plainly=fold_plainly, numbers_of=numbers_of)
