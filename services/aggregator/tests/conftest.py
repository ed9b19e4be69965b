"""Trades, and the slow and plain fold that candles are compared with; for the tests of every kind."""

import random
from collections.abc import Callable, Iterable
from decimal import ROUND_HALF_EVEN, Decimal, localcontext
from typing import Any

import msgspec
import pytest

from vegamite_aggregator.core.rows import CandleKey
from vegamite_common.domain.candle import Candle
from vegamite_common.domain.market import Contract
from vegamite_common.domain.time import SECOND, Micros
from vegamite_common.domain.timeframe import Timeframe
from vegamite_common.domain.trade import Trade


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
