"""Lines of Binance's archives of aggregate trades, as CSV or as the exchange's own JSON objects.

A line is one of three things: a trade; a trade that can't be (`InvalidTradeError`: it is quarantined, as it
would be from the stream); or no trade at all (`LineError`: the file isn't what it is said to be).
"""

from collections.abc import Callable
from decimal import Decimal
from functools import lru_cache
from typing import Final, TypeAlias

import msgspec

from vegamite_common.domain.number import parse_decimal
from vegamite_common.domain.time import Micros
from vegamite_common.domain.trade import InvalidTradeError, TakerSide, Trade

MAX_LINE_BYTES: Final = 4096

_MICROSECONDS_FROM: Final = 10**15
"""Since 2025 Binance writes microseconds: no millisecond of ours is so large, no microsecond so small."""

_COLUMNS: Final = ("agg_trade_id", "price", "quantity", "first_trade_id", "last_trade_id")
_CSV_FIELDS: Final = (7, 8)
_FLAGS: Final = {"true": True, "false": False}
_BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"

LineParser: TypeAlias = Callable[[bytes], Trade]


class LineError(ValueError):
    """A line that is no trade of the format; the text says what is wrong with it."""


class _AggregateTrade(msgspec.Struct, rename={"event_time": "T"}):
    a: int
    p: str
    q: str
    event_time: int
    m: bool


def choose_parser(first_line: bytes, *, resolution: Micros) -> tuple[LineParser, bool]:
    """Return how a file that begins with this line is read, and whether the line is a header to be left out.

    `resolution` (microseconds) is what event times are floored to.
    """
    text = first_line.removeprefix(_BYTE_ORDER_MARK).strip()
    if text.startswith(b"{"):
        return json_parser(resolution=resolution), False
    fields = [field.strip().lower() for field in text.split(b",")]
    is_header = (
        tuple(field.decode("utf-8", "replace") for field in fields[: len(_COLUMNS)]) == _COLUMNS
    )
    return csv_parser(resolution=resolution), is_header


def json_parser(*, resolution: Micros) -> LineParser:
    """Return a parser of the exchange's aggregate-trade objects (`a p q T m`; other keys are left alone)."""
    decoder = msgspec.json.Decoder(_AggregateTrade)

    def parse(line: bytes) -> Trade:
        _check_length(line)
        try:
            raw = decoder.decode(line.removeprefix(_BYTE_ORDER_MARK))
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise LineError(str(error)) from None
        return _trade(
            number=raw.a,
            price=raw.p,
            amount=raw.q,
            time=raw.event_time,
            buyer_is_maker=raw.m,
            resolution=resolution,
        )

    return parse


def csv_parser(*, resolution: Micros) -> LineParser:
    """Return a parser of CSV lines: id, price, quantity, first id, last id, time in ms or µs, buyer-is-maker[, best match]."""

    def parse(line: bytes) -> Trade:
        _check_length(line)
        try:
            fields = line.removeprefix(_BYTE_ORDER_MARK).decode("ascii").split(",")
        except UnicodeDecodeError:
            raise LineError("the line has characters that no number has") from None
        if len(fields) not in _CSV_FIELDS:
            raise LineError(f"{len(fields)} fields; 7 or 8 are expected")
        flag = _FLAGS.get(fields[6].strip().lower())
        if flag is None:
            raise LineError(
                f"field 7 (buyer is maker) is {fields[6].strip()[:20]!r}; True or False is expected"
            )
        return _trade(
            number=_whole(fields[0], "field 1 (id)"),
            price=fields[1].strip(),
            amount=fields[2].strip(),
            time=_whole(fields[5], "field 6 (time)"),
            buyer_is_maker=flag,
            resolution=resolution,
        )

    return parse


def _check_length(line: bytes) -> None:
    if len(line) > MAX_LINE_BYTES:
        raise LineError(f"{len(line)} bytes; a line has at most {MAX_LINE_BYTES}")


def _whole(text: str, name: str) -> int:
    digits = text.strip()
    if not digits.isdigit() or len(digits) > 19:
        raise LineError(f"{name} is {digits[:30]!r}; a whole number is expected")
    return int(digits)


def _trade(
    *, number: int, price: str, amount: str, time: int, buyer_is_maker: bool, resolution: Micros
) -> Trade:
    if number < 0:
        raise LineError("the id is below zero")
    event_time = time if time >= _MICROSECONDS_FROM else time * 1000
    side: TakerSide = "sell" if buyer_is_maker else "buy"
    return Trade(
        trade_id=str(number),
        sequence=number,
        event_time=event_time - event_time % resolution,
        price=_decimal(price),
        amount=_decimal(amount),
        taker_side=side,
    )


@lru_cache(maxsize=65_536)
def _decimal(text: str) -> Decimal:
    """Prices and amounts repeat: most lines find theirs parsed."""
    try:
        return parse_decimal(text)
    except ValueError as error:
        raise LineError(str(error)) from None


__all__ = [
    "MAX_LINE_BYTES",
    "InvalidTradeError",
    "LineError",
    "LineParser",
    "choose_parser",
    "csv_parser",
    "json_parser",
]
