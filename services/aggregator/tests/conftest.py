"""Trades, and the slow and plain fold that candles are compared with; for the tests of every kind."""

import random
from collections.abc import Awaitable, Callable, Iterable, Sequence
from decimal import ROUND_HALF_EVEN, Decimal, localcontext
from pathlib import Path
from random import Random
from typing import Any

import asyncpg
import msgspec
import pytest

from vegamite_aggregator.adapters.maintenance_store import PostgresMaintenanceStore
from vegamite_aggregator.adapters.parquet_archive import ParquetArchive
from vegamite_aggregator.core.manifest import ArchivedTrade
from vegamite_aggregator.core.retention import Retention
from vegamite_aggregator.core.rows import CandleKey
from vegamite_aggregator.service.maintenance import Maintenance, MaintenanceReport
from vegamite_common.domain.candle import Candle
from vegamite_common.domain.market import Contract, Market
from vegamite_common.domain.number import canonical
from vegamite_common.domain.time import DAY, HOUR, SECOND, Micros
from vegamite_common.domain.timeframe import Timeframe
from vegamite_common.domain.trade import Origin, Trade
from vegamite_common.messages.trades import Heartbeat, JobEnded, JobStarted, Rebuild, TradesRecord
from vegamite_common.runtime.lifecycle import Stop


def text(value: Decimal) -> str:
    """Write a decimal digit by digit, without trailing zeros."""
    plain = format(value, "f")
    return (plain.rstrip("0").rstrip(".") if "." in plain else plain) or "0"


def candle_numbers(candle: Candle) -> tuple[Any, ...]:
    """Return what the trades decide of a candle, its decimals digit by digit as they are."""
    return (
        *(
            format(value, "f")
            for value in (
                candle.open,
                candle.high,
                candle.low,
                candle.close,
                candle.volume,
                candle.quote_volume,
                candle.buy_volume,
                candle.buy_quote_volume,
            )
        ),
        candle.trade_count,
        (candle.first_event_time, candle.first_sequence, candle.first_trade_id),
        (candle.last_event_time, candle.last_sequence, candle.last_trade_id),
    )


def naive_fold(
    trades: Iterable[Trade], contract: Contract | None = None
) -> dict[CandleKey, tuple[Any, ...]]:
    """Fold each trade into each timeframe, one by one, the slow and plain way."""
    groups: dict[CandleKey, list[Trade]] = {}
    for trade in trades:
        for timeframe in Timeframe:
            groups.setdefault((timeframe, timeframe.open_time(trade.event_time)), []).append(trade)
    with localcontext(prec=300):
        return {key: _naive_numbers(group, contract) for key, group in groups.items()}


def _naive_numbers(trades: list[Trade], contract: Contract | None) -> tuple[Any, ...]:
    ordered = sorted(trades, key=lambda t: (t.event_time, t.sequence, t.trade_id.encode()))
    sums = [Decimal(0)] * 4
    for trade in ordered:
        volume, cost = trade.amount, trade.price * trade.amount
        if contract is not None:
            volume, cost = volume * contract.size, cost * contract.size
        if contract is not None and contract.inverse:
            cost = trade.amount * contract.size
            volume = (cost / trade.price).quantize(Decimal("1e-18"), ROUND_HALF_EVEN)
        bought = trade.taker_side == "buy"
        parts = (volume, cost, volume if bought else 0, cost if bought else 0)
        sums = [total + part for total, part in zip(sums, parts, strict=True)]
    first, last = ordered[0], ordered[-1]
    return (
        text(first.price),
        text(max(trade.price for trade in ordered)),
        text(min(trade.price for trade in ordered)),
        text(last.price),
        *(text(total) for total in sums),
        len(ordered),
        (first.event_time, first.sequence, first.trade_id),
        (last.event_time, last.sequence, last.trade_id),
    )


def make_trade(
    number: int,
    at: Micros,
    *,
    price: str = "100",
    amount: str = "1",
    side: str | None = "buy",
) -> Trade:
    """Return a trade with the id and sequence `number`."""
    return msgspec.convert(
        {
            "trade_id": str(number),
            "sequence": number,
            "event_time": at,
            "price": price,
            "amount": amount,
            "taker_side": side,
        },
        Trade,
        strict=False,
    )


def random_trades(
    rng: random.Random, *, count: int, start: Micros, longest: Micros = 3 * SECOND
) -> list[Trade]:
    """Return trades in order, some at one instant, with numbers of up to 9 decimals."""
    trades: list[Trade] = []
    at = start
    for number in range(count):
        at += rng.choice((0, rng.randint(1, SECOND), rng.randint(1, longest)))
        trades.append(
            make_trade(
                number,
                at,
                price=str(
                    Decimal(rng.randint(1, 10 ** rng.randint(1, 12))).scaleb(-rng.randint(0, 9))
                ),
                amount=str(
                    Decimal(rng.randint(1, 10 ** rng.randint(1, 12))).scaleb(-rng.randint(0, 9))
                ),
                side=rng.choice(("buy", "sell", None)),
            )
        )
    return trades


@pytest.fixture(scope="session")
def trade() -> Callable[..., Trade]:
    """Return the maker of trades."""
    return make_trade


@pytest.fixture(scope="session")
def fold_plainly() -> Callable[..., dict[CandleKey, tuple[Any, ...]]]:
    """Return the slow fold to compare with, and next to it `numbers_of` reads a candle the same way."""
    return naive_fold


@pytest.fixture(scope="session")
def numbers_of() -> Callable[[Candle], tuple[Any, ...]]:
    """Return what reads a candle's numbers for comparison."""
    return candle_numbers


@pytest.fixture(scope="session")
def some_trades() -> Callable[..., list[Trade]]:
    """Return the maker of random trades."""
    return random_trades


SHORT = (Timeframe.S1, Timeframe.M1, Timeframe.M3, Timeframe.M5)
KEEP = Retention(trades=3, candles={each: 5 if each is Timeframe.S1 else 8 for each in SHORT})
KEPT_MARKETS = (Market("sim", "DEMO/USD"), Market("kraken", "BTC/USD"))


def trades_record(market: Market, trades: Sequence[Trade], **more: Any) -> TradesRecord:
    """Return a live record of the trades, received when its last one happened."""
    return TradesRecord(
        exchange=market.exchange,
        symbol=market.symbol,
        received_time=more.pop("received_time", max(trade.event_time for trade in trades)),
        origin=more.pop("origin", Origin.LIVE),
        trades=tuple(trades),
        **more,
    )


def day_of_trades(day: Micros, *, seed: int, count: int = 60) -> list[Trade]:
    """Return a day's trades, numbered in order of time."""
    random = Random(seed * 100_003 + day // DAY)
    times = sorted(random.randrange(DAY) for _ in range(count))
    return [
        Trade(
            trade_id=str(day // DAY * 1000 + number),
            sequence=day // DAY * 1000 + number,
            event_time=day + time,
            price=canonical(Decimal(random.randrange(90_000, 110_000)) / 1000),
            amount=canonical(Decimal(random.randrange(1, 10**9)) / 10**8),
            taker_side=random.choice(("buy", "sell", None)),
        )
        for number, time in enumerate(times)
    ]


class Kept:
    """A month of two markets in a rig, and a maintenance for it."""

    def __init__(self, rig: Any, directory: Path | None, retention: Retention = KEEP) -> None:
        self.rig = rig
        self.directory = directory
        self.retention = retention
        self.made: dict[Market, list[Trade]] = {market: [] for market in KEPT_MARKETS}

    async def live(
        self, *, first: Micros, days: int, each: Callable[[], Awaitable[Any]] | None = None
    ) -> None:
        """Let days go by, each with its trades; every third night, and in the last, do what is to be done then."""
        for passed, day in enumerate(range(first, first + days * DAY, DAY), start=1):
            for number, market in enumerate(self.made):
                trades = day_of_trades(day, seed=number)
                self.made[market] += trades
                self.rig.clock.set(day + DAY - 1)
                await self.rig.publish(trades_record(market, trades))
            self.rig.clock.set(day + DAY + HOUR)
            if passed % 3 and passed < days:
                continue
            for partition in range(self.rig.partitions):
                await self.rig.publish(
                    Heartbeat(writer="w", to_time=day + DAY), partition=partition
                )
            await self.rig.settled()
            await self.rig.becomes(
                "SELECT NOT EXISTS (SELECT FROM candle WHERE NOT final AND timeframe IN ('1s', '1h', '1d'))"
            )
            if each is not None:
                await each()

    def maintenance(
        self, around: Callable[[Any], Any] = lambda store: store, pool: Any = None
    ) -> Maintenance:
        """Return a maintenance at the rig's clock; `around` may put something before its ports."""
        store = PostgresMaintenanceStore(pool or self.rig.pool)
        return Maintenance(
            store=around(store),
            archive=None if self.directory is None else around(ParquetArchive(self.directory)),
            clock=self.rig.clock,
            retention=self.retention,
            days_ahead=2,
        )

    async def maintain(self) -> MaintenanceReport:
        """Do all that is due, with the aggregator's rights and no more."""
        async with asyncpg.create_pool(
            self.rig.url, min_size=1, max_size=3, server_settings={"role": "vegamite_aggregator"}
        ) as pool:
            report = await self.maintenance(pool=pool).run(Stop())
        assert not report.problems
        assert not report.busy
        return report

    async def tables(self, parent: str) -> list[str]:
        """Return the names of a table's partitions."""
        rows = await self.rig.pool.fetch(
            "SELECT relname FROM pg_inherits JOIN pg_class ON oid = inhrelid WHERE inhparent = $1::text::regclass",
            parent,
        )
        return sorted(row["relname"] for row in rows)

    async def state(self) -> dict[str, Any]:
        """Everything that maintenance has a say in."""
        return {
            "trade": await self.rig.rows("trade"),
            "candle": await self.rig.rows("candle"),
            "horizon": [
                tuple(row)[:3]
                for row in await self.rig.pool.fetch("SELECT * FROM horizon ORDER BY 1, 2")
            ],
            "tables": await self.tables("trade"),
            "archive": {
                str(path.relative_to(self.directory)): path.read_bytes()
                for path in sorted(self.directory.rglob("*"))
                if path.is_file()
            }
            if self.directory
            else {},
        }

    async def restore(self, market: Market, trades: Sequence[ArchivedTrade], *, job: str) -> None:
        """Send what `vegamite import --format vegamite-parquet` sends."""
        about: dict[str, Any] = {"exchange": market.exchange, "symbol": market.symbol}
        days = sorted({trade.event_time // DAY * DAY for trade in trades})
        span = (days[0], days[-1] + DAY)
        await self.rig.publish(JobStarted(**about, job=job, origin=Origin.IMPORT, restores=span))
        for day in days:
            some = [
                Trade(
                    trade_id=kept.trade_id,
                    sequence=kept.sequence,
                    event_time=kept.event_time,
                    price=Decimal(kept.price),
                    amount=Decimal(kept.amount),
                    taker_side=kept.taker_side,  # type: ignore[arg-type]
                )
                for kept in trades
                if day <= kept.event_time < day + DAY
            ]
            await self.rig.publish(
                trades_record(
                    market, some, origin=Origin.IMPORT, job=job, received_time=self.rig.clock.now()
                ),
                Rebuild(**about, from_time=day, to_time=day + DAY, restored_since=days[0]),
            )
        await self.rig.publish(JobEnded(**about, job=job))
        await self.rig.settled()
        await self.rig.becomes("SELECT NOT EXISTS (SELECT FROM job WHERE state = 'open')")

    async def candles_of(self, market: Market) -> list[dict[str, Any]]:
        """Return the market's rows of `candle`."""
        key = await self.rig.pool.fetchval(
            "SELECT market_key FROM market WHERE exchange = $1 AND symbol = $2",
            market.exchange,
            market.symbol,
        )
        return [row for row in await self.rig.rows("candle") if row["market_key"] == key]


@pytest.fixture(scope="session")
def keep() -> type[Kept]:
    """Return the maker of a rig's history and its maintenance."""
    return Kept
