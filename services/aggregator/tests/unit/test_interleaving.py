"""Random histories of writers, repairs, imports, crashes and restarts: what must hold after every step, and at the end."""

import itertools
import random
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vegamite_common.domain.coverage import GapState, Span, SpanSet
from vegamite_common.domain.market import Contract, Market
from vegamite_common.domain.number import parse_decimal
from vegamite_common.domain.time import MINUTE, SECOND, Micros, parse_time
from vegamite_common.domain.trade import Origin, Trade
from vegamite_common.messages.trades import (
    Heartbeat,
    JobEnded,
    JobStarted,
    Rebuild,
    SpanClosed,
    SpanOpened,
    TradesRecord,
    Unfillable,
)

START = parse_time("2024-02-29T23:57:00Z")
MARKETS = (Market("binance", "XRP/ETH"), Market("bitmex", "BTC/USD:BTC"))
SETTLING = SECOND


class Venue:
    """What one market really traded, and one connection to it whose writer keeps the rules of coverage."""

    def __init__(self, world: Any, market: Market, trades: list[Trade], rng: random.Random) -> None:
        self.world = world
        self.market = market
        self.trades = trades
        self.rng = rng
        self.connected = False
        self.gone: SpanSet = SpanSet()

    def between(self, start: Micros, end: Micros) -> list[Trade]:
        return [trade for trade in self.trades if start <= trade.event_time < end]

    def record(self, trades: list[Trade], **more: Any) -> TradesRecord:
        fields = {"origin": Origin.LIVE, **more}
        return TradesRecord(
            exchange=self.market.exchange,
            symbol=self.market.symbol,
            received_time=self.world.clock,
            trades=tuple(trades),
            **fields,
        )

    def send(self, trades: list[Trade], **more: Any) -> None:
        if trades or more.get("covered"):
            self.world.send(self.record(trades, **more))


class History:
    """One seeded history; `healthy` ones have no fault, and then nothing is ever revised."""

    def __init__(
        self, seed: int, make_world: Any, some_trades: Any, *, healthy: bool, **world: Any
    ) -> None:
        self.rng = rng = random.Random(seed)
        self.world = make_world(start=START, **world)
        self.world.store.contracts[MARKETS[1]] = Contract(parse_decimal("100"), inverse=True)
        self.healthy = healthy
        self.jobs = 0
        self.writer_number = 0
        self.world.store.release_limit = rng.choice((None, 3, 40))
        self.venues = [
            Venue(
                self.world, market, some_trades(rng, count=rng.randint(50, 250), start=START), rng
            )
            for market in MARKETS
        ]
        for venue in self.venues:
            if rng.random() < 0.8:
                self.world.store.history_from[venue.market] = START - rng.choice((0, 20 * SECOND))
        self.world.restart()
        self.pending_jobs: list[list[Callable[[], None]]] = []

    def new_writer(self) -> None:
        self.writer_number += 1
        self.writer = f"writer-{self.writer_number}"

    def connect(self, venue: Venue) -> None:
        """Subscribe; some exchanges then tell the last trades once more, those of the time without connection too."""
        self.open(venue, self.world.clock + SETTLING)
        venue.connected = True
        if not self.healthy and self.rng.random() < 0.5:
            venue.send(venue.between(START, self.world.clock)[-self.rng.randint(1, 60) :])

    def open(self, venue: Venue, start: Micros) -> None:
        self.world.send(
            SpanOpened(
                exchange=venue.market.exchange,
                symbol=venue.market.symbol,
                writer=self.writer,
                from_time=start,
            )
        )

    def run(self, seconds: int) -> None:
        self.new_writer()
        delivered = self.world.clock
        for venue in self.venues:
            self.connect(venue)
        for second in range(seconds):
            self.world.clock += SECOND
            for venue in self.venues:
                if venue.connected:
                    self.deliver(venue, delivered)
            delivered = self.world.clock
            self.world.send(Heartbeat(writer=self.writer, to_time=self.world.clock - SETTLING))
            if not self.healthy:
                self.misfortune()
            if second % 20 == 19:
                for venue in self.venues:
                    if venue.connected:
                        self.open(venue, self.world.clock + SETTLING)
            self.engine()

    def deliver(self, venue: Venue, since: Micros) -> None:
        """Send the trades of the last second, with a part of those before them once more, in random frames."""
        trades = venue.between(since, self.world.clock)
        if self.rng.random() < 0.3:
            trades = venue.between(since - 5 * SECOND, since)[-3:] + trades
        if not self.healthy:
            self.rng.shuffle(trades)
        while trades:
            size = self.rng.randint(1, 5)
            venue.send(trades[:size])
            trades = trades[size:]

    def misfortune(self) -> None:
        rng = self.rng
        venue = rng.choice(self.venues)
        dice = rng.random()
        if dice < 0.04 and venue.connected:
            venue.connected = False
            if rng.random() < 0.7:
                self.world.send(
                    SpanClosed(
                        exchange=venue.market.exchange,
                        symbol=venue.market.symbol,
                        writer=self.writer,
                        to_time=self.world.clock - 2 * SETTLING,
                        cause="socket_closed",
                    )
                )
            else:
                self.writer_dies()
        elif dice < 0.12 and not venue.connected:
            self.connect(venue)
        elif dice < 0.14:
            self.writer_dies()
        elif dice < 0.22:
            self.begin_job(venue)
        elif dice < 0.5 and self.pending_jobs:
            steps = rng.choice(self.pending_jobs)
            steps.pop(0)()
            self.pending_jobs = [steps for steps in self.pending_jobs if steps]
        elif dice < 0.51:
            self.world.send(
                Rebuild(
                    exchange=venue.market.exchange,
                    symbol=venue.market.symbol,
                    from_time=START,
                    to_time=START + rng.randint(1, 10) * MINUTE,
                )
            )
        elif dice < 0.53:
            self.world.send_bytes(venue.market.key.encode(), b"{broken")

    def writer_dies(self) -> None:
        self.new_writer()
        for venue in self.venues:
            venue.connected = False

    def begin_job(self, venue: Venue) -> None:
        """Repair everything that isn't covered, in pages; some jobs fall silent, some bring no claims."""
        rng = self.rng
        self.jobs += 1
        job = f"job-{self.jobs}"
        origin = rng.choice((Origin.BACKFILL, Origin.IMPORT))
        state = self.world.store.coverage.get(venue.market, {}).values()
        covered = SpanSet(Span(row.from_time, row.to_time) for row in state)
        holes = covered.missing(START - 20 * SECOND, self.world.clock - 3 * SETTLING)
        about: dict[str, Any] = {"exchange": venue.market.exchange, "symbol": venue.market.symbol}
        steps: list[Callable[[], None]] = [
            lambda: self.world.send(JobStarted(**about, job=job, origin=origin))
        ]

        def page(start: Micros, end: Micros, claim: bool) -> Callable[[], None]:
            covered = (start, end) if claim else None
            return lambda: venue.send(
                venue.between(start, end), origin=origin, job=job, covered=covered
            )

        for hole in holes:
            at = hole.from_time
            while at < hole.to_time:
                end = min(hole.to_time, at + rng.randint(1, 15 * SECOND))
                steps.append(page(at, end, rng.random() < 0.8))
                at = end
        if rng.random() < 0.8:
            lost = None
            if rng.random() < 0.5 and len(holes):
                hole = rng.choice(list(holes))
                middle = (hole.from_time + hole.to_time) // 2
                if hole.from_time < middle:
                    lost = Unfillable(hole.from_time, middle, "last trades only")
            steps.append(lambda: self.world.send(JobEnded(**about, job=job, unfillable=lost)))
        self.pending_jobs.append(steps)

    def engine(self) -> None:
        rng, world = self.rng, self.world
        for _ in range(rng.choice((0, 1, 1, 2))):
            if not self.healthy and rng.random() < 0.1:
                world.step(rng.randint(1, 20), commit=False)
            if not self.healthy and rng.random() < 0.1:
                world.restart()
            world.step(rng.choice((None, 1, 3, 20)), fresh=rng.random() < 0.8)
            self.check()

    def finish(self) -> None:
        """Repair what is left, wait until everything is decided."""
        world = self.world
        if not self.healthy:
            for steps in self.pending_jobs:
                for step in steps:
                    step()
            world.settle()
            self.sent_until = world.clock
            for venue in self.venues:
                venue.send(
                    venue.between(START, world.clock),
                    origin=Origin.BACKFILL,
                    job="last",
                    covered=(START - 20 * SECOND, world.clock - SETTLING),
                )
                self.world.send(
                    JobEnded(exchange=venue.market.exchange, symbol=venue.market.symbol, job="last")
                )
        world.settle()
        world.clock += world.timing.job_silence + world.timing.grace + SECOND
        world.settle()
        self.check()
        world.check_contents()

    def check(self) -> None:
        world = self.world
        world.check_memory()
        world.check_reader()
        for venue in self.venues:
            self.check_complete(venue)
            self.check_gaps(venue)

    def check_complete(self, venue: Venue) -> None:
        """No complete candle lacks a trade; none that is final, free and covered is not called complete."""
        stored = self.world.store
        rows = stored.coverage.get(venue.market, {}).values()
        covered = SpanSet(Span(row.from_time, row.to_time) for row in rows)
        for row in stored.candles.get(venue.market, {}).values():
            candle = row.candle
            inside = covered.covers(candle.open_time, candle.close_time)
            if candle.complete:
                assert inside
                real = venue.between(candle.open_time, candle.close_time)
                assert candle.trade_count == len(real), f"{row.key} lacks trades"
            elif inside:
                open_jobs = [job for job in row.held_by if stored.jobs[job].state == "open"]
                assert open_jobs, f"{row.key} is covered, free, and not complete"

    def check_gaps(self, venue: Venue) -> None:
        """Open and unfillable rows together are what lies between spans; all rows are disjoint."""
        stored = self.world.store
        start = stored.history_from.get(venue.market)
        gaps = stored.gaps.get(venue.market, {}).values()
        if start is None:
            assert not gaps
            return
        rows = stored.coverage.get(venue.market, {}).values()
        covered = SpanSet(Span(row.from_time, row.to_time) for row in rows)
        end = covered.end
        holes = SpanSet() if end is None else covered.missing(start, end)
        missing = [gap for gap in gaps if gap.state is not GapState.FILLED]
        assert SpanSet(Span(gap.from_time, gap.to_time) for gap in missing) == holes
        ordered = sorted(gaps, key=lambda gap: gap.from_time)
        for one, two in itertools.pairwise(ordered):
            assert one.to_time <= two.from_time, f"{one} and {two} overlap"
        for gap in gaps:
            if gap.state is GapState.FILLED:
                assert covered.covers(gap.from_time, gap.to_time)


@pytest.mark.parametrize("seed", range(40))
def test_a_history_of_faults_ends_in_the_truth(
    seed: int, make_world: Any, some_trades: Any
) -> None:
    history = History(seed, make_world, some_trades, healthy=False)
    history.run(history.rng.randint(60, 240))
    history.finish()

    stored = history.world.store
    for venue in history.venues:
        traded = venue.between(START, history.sent_until)
        assert set(stored.trades[venue.market]) == {(t.event_time, t.trade_id) for t in traded}
        for row in stored.candles.get(venue.market, {}).values():
            assert row.candle.final or row.candle.close_time > (
                history.world.clock - history.world.timing.grace
            )
            assert not row.held_by
    assert all(job.state != "open" for job in stored.jobs.values())


@pytest.mark.parametrize("seed", range(10))
def test_in_health_a_candle_is_final_once_complete_and_never_revised(
    seed: int, make_world: Any, some_trades: Any
) -> None:
    history = History(seed, make_world, some_trades, healthy=True)
    history.run(history.rng.randint(60, 200))
    history.finish()

    last = history.world.clock
    for market, rows in history.world.store.candles.items():
        for (timeframe, at), row in rows.items():
            candle = row.candle
            assert candle.revision == 0
            if at >= START + 2 * SETTLING and candle.close_time < last - 2 * MINUTE:
                assert candle.final
                assert candle.complete
                assert history.world.reader.finals[(market, (timeframe, at))] == 1
    assert sum(step.revisions + step.late for step in history.world.statistics) == 0


@settings(max_examples=12, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    limit=st.sampled_from((0, 1, 20, 100)),
    healthy=st.booleans(),
    seconds=st.integers(20, 100),
)
def test_a_memory_too_small_for_anything_changes_no_row_and_no_record(
    make_world: Any, some_trades: Any, seed: int, limit: int, healthy: bool, seconds: int
) -> None:
    outcomes = []
    for resident_candles in (limit, 1_000_000):
        history = History(
            seed, make_world, some_trades, healthy=healthy, resident_candles=resident_candles
        )
        history.run(seconds)
        history.finish()
        world = history.world
        outcomes.append(
            {
                "store": vars(world.store),
                "published": [*world.reader.records, *world.reader.statuses],
                "seen": world.reader.candles,
                "statistics": world.statistics,
            }
        )

    for name, small in outcomes[0].items():
        assert small == outcomes[1][name], f"{name} differs with {limit} candles in memory"


@pytest.mark.parametrize("seed", range(15))
def test_the_same_trades_shuffled_doubled_and_in_any_batches_give_the_same_rows(
    seed: int, make_world: Any, some_trades: Any
) -> None:
    rng = random.Random(seed)
    market = MARKETS[0]
    trades = some_trades(
        rng, count=rng.randint(1, 120), start=START, longest=rng.choice((1, 90)) * SECOND
    )
    end = trades[-1].event_time + SECOND
    tables = []
    for disturbed in (False, True):
        world = make_world(start=end + MINUTE)
        delivered = list(trades)
        if disturbed:
            delivered += rng.choices(trades, k=len(trades))
            rng.shuffle(delivered)
        while delivered:
            size = rng.randint(1, 20) if disturbed else len(delivered)
            world.send_trades(market, delivered[:size])
            del delivered[:size]
            world.clock += rng.randint(0, 2 * SECOND) if disturbed else 0
            if disturbed and rng.random() < 0.3:
                world.restart()
            if disturbed and rng.random() < 0.5:
                world.step(rng.randint(1, 3), commit=rng.random() < 0.8)
        world.send_trades(
            market, [], origin=Origin.IMPORT, job="claim", covered=(START, end - end % SECOND)
        )
        world.clock = end + 100 * MINUTE  # the same instant for both: what is final follows from it
        world.settle()
        world.check_contents()
        tables.append((world.store.trades, _without_history(world, market)))

    assert tables[0] == tables[1]


def _without_history(world: Any, market: Market) -> dict[Any, Any]:
    """Return the rows without `revision`, `updated_at` and `as_of`, the columns that tell how they came about."""
    return {
        key: msgspec.structs.replace(row.candle, revision=0, updated_at=0, as_of=0)
        for key, row in world.store.candles[market].items()
    }
