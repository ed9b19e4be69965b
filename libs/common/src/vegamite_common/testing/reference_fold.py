"""The answer to compare with: candles from raw trades, folded one by one with `decimal` and `datetime` alone.

Nothing of the product is used here on purpose, neither its types nor its arithmetic: what the whole path gives must equal
what these few plain lines give.
"""

from __future__ import annotations

import csv
import gzip
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal, localcontext
from pathlib import Path

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_FIXED_SECONDS = {
    "1s": 1,
    "1m": 60,
    "3m": 180,
    "5m": 300,
    "15m": 900,
    "30m": 1800,
    "1h": 3600,
    "2h": 7200,
    "4h": 14400,
    "6h": 21600,
    "8h": 28800,
    "12h": 43200,
    "1d": 86400,
    "3d": 259200,
}
TIMEFRAME_NAMES = (*_FIXED_SECONDS, "1w", "1M")
"""All sixteen timeframes, shortest first."""


@dataclass(frozen=True)
class RawTrade:
    """One trade as the exchange tells it; `event_time` in milliseconds, `trade_id` numeric."""

    trade_id: int
    event_time: int
    price: Decimal
    amount: Decimal
    taker_buys: bool


@dataclass
class RawCandle:
    """The plain fold of one interval's trades."""

    trades: list[RawTrade] = field(default_factory=list)

    def values(self) -> dict[str, str]:
        """Return the candle's fields by the API's names, decimals as text without trailing zeros."""
        trades = sorted(self.trades, key=lambda trade: (trade.event_time, trade.trade_id))
        with localcontext() as context:
            context.prec = 200
            bought = [trade for trade in trades if trade.taker_buys]
            return {
                "open": plain(trades[0].price),
                "high": plain(max(trade.price for trade in trades)),
                "low": plain(min(trade.price for trade in trades)),
                "close": plain(trades[-1].price),
                "volume": plain(sum((trade.amount for trade in trades), Decimal(0))),
                "quote_volume": plain(sum((t.price * t.amount for t in trades), Decimal(0))),
                "buy_volume": plain(sum((trade.amount for trade in bought), Decimal(0))),
                "buy_quote_volume": plain(sum((t.price * t.amount for t in bought), Decimal(0))),
                "trade_count": str(len(trades)),
                "first_trade_id": str(trades[0].trade_id),
                "last_trade_id": str(trades[-1].trade_id),
            }


def plain(value: Decimal) -> str:
    """Return a number's digits without exponent and without trailing zeros."""
    text = f"{value:f}"
    return (text.rstrip("0").rstrip(".") if "." in text else text) or "0"


def interval(timeframe: str, milliseconds: int) -> tuple[datetime, datetime]:
    """Return the open and close time of the interval that an instant falls into."""
    instant = _EPOCH + timedelta(milliseconds=milliseconds)
    midnight = instant.replace(hour=0, minute=0, second=0, microsecond=0)
    if timeframe == "1w":
        monday = midnight - timedelta(days=instant.weekday())
        return monday, monday + timedelta(days=7)
    if timeframe == "1M":
        first = midnight.replace(day=1)
        return first, (first + timedelta(days=32)).replace(day=1)
    seconds = _FIXED_SECONDS[timeframe]
    opened = _EPOCH + timedelta(seconds=(milliseconds // 1000) // seconds * seconds)
    return opened, opened + timedelta(seconds=seconds)


def rfc3339(instant: datetime) -> str:
    """Return an instant of whole seconds as the API writes it."""
    return instant.strftime("%Y-%m-%dT%H:%M:%SZ")


def fold(trades: Iterable[RawTrade], timeframe: str) -> dict[str, dict[str, str]]:
    """Return the candles of one timeframe by open time (RFC 3339), each as `RawCandle.values`."""
    candles: dict[datetime, RawCandle] = {}
    for trade in trades:
        opened, _ = interval(timeframe, trade.event_time)
        candles.setdefault(opened, RawCandle()).trades.append(trade)
    return {rfc3339(opened): candles[opened].values() for opened in sorted(candles)}


def differences(
    expected: Mapping[str, Mapping[str, str]], got: Iterable[Mapping[str, object]]
) -> list[str]:
    """Return a line for each candle that differs, is missing, or is there although it has no trades; best empty."""
    found = {str(candle["open_time"]): candle for candle in got}
    lines = [f"{opened}: missing" for opened in expected if opened not in found]
    lines += [f"{opened}: has no trades" for opened in found if opened not in expected]
    for opened, values in expected.items():
        for name, value in values.items():
            if opened in found and str(found[opened].get(name)) != value:
                lines.append(f"{opened}: {name} is {found[opened].get(name)}, expected {value}")
    return lines


def read_recorded_day(folder: Path) -> list[RawTrade]:
    """Return the recorded day's trades from `aggtrades.ndjson.gz` (Binance's aggregate-trade objects)."""
    with gzip.open(folder / "aggtrades.ndjson.gz", "rt", encoding="utf-8") as lines:
        return [raw_trade(json.loads(line, parse_float=str)) for line in lines if line.strip()]


def raw_trade(row: Mapping[str, object]) -> RawTrade:
    """Return the trade that one of Binance's aggregate-trade objects (`a p q T m`) tells of."""
    return RawTrade(
        trade_id=int(str(row["a"])),
        event_time=int(str(row["T"])),
        price=Decimal(str(row["p"])),
        amount=Decimal(str(row["q"])),
        taker_buys=not row["m"],
    )


def read_peer_candles(file: Path) -> dict[str, dict[str, str]]:
    """Return a peer's candles (csv: open_time in ms, open, high, low, close, volume) by open time, as `fold` does."""
    with file.open(encoding="utf-8", newline="") as rows:
        return {
            rfc3339(_EPOCH + timedelta(milliseconds=int(row["open_time"]))): {
                name: plain(Decimal(row[name]))
                for name in ("open", "high", "low", "close", "volume")
            }
            for row in csv.DictReader(rows)
        }
