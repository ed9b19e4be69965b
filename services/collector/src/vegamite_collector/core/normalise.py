"""From a ccxt trade to a domain `Trade`: exact numbers, the identity both sides share, and what is refused.

A trade that can't be believed is quarantined: it is counted, stays out of every candle, and withholds coverage, since what
it stood for is unknown.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any

import msgspec

from vegamite_collector.core.profile import ExchangeProfile
from vegamite_common.domain.coverage import Span
from vegamite_common.domain.number import format_decimal, parse_decimal
from vegamite_common.domain.time import MINUTE, SECOND, Micros, from_datetime
from vegamite_common.domain.trade import InvalidTradeError, TakerSide, Trade

_INT64 = 2**63


class Quarantined(msgspec.Struct, frozen=True):
    """A trade that was refused: a short `reason` for counters (`price`, `amount`, `event_time`, …) and what it said."""

    reason: str
    text: str


class Normalised(msgspec.Struct, frozen=True):
    """What came of one message's trades: the good ones in total order, and the refused."""

    trades: tuple[Trade, ...]
    quarantined: tuple[Quarantined, ...] = ()


class SyntheticIds:
    """Ids for an exchange that gives none: a hash of what the trade says, and how often it was said before.

    One instance lives as long as one connection, or one REST fetch. Counts of times long past are dropped.
    """

    def __init__(self) -> None:
        self._counts: dict[tuple[Micros, str, str, str], int] = {}
        self._latest = 0

    def next_id(
        self, *, event_time: Micros, price: Decimal, amount: Decimal, taker_side: str | None
    ) -> str:
        """Return the id of one more trade with this content."""
        content = (event_time, format_decimal(price), format_decimal(amount), taker_side or "")
        ordinal = self._counts.get(content, 0)
        self._counts[content] = ordinal + 1
        if event_time > self._latest + MINUTE:
            self._latest = event_time
            self._counts = {
                key: n for key, n in self._counts.items() if key[0] >= event_time - 10 * MINUTE
            }
        text = "|".join((*map(str, content), str(ordinal)))
        return "x" + hashlib.blake2b(text.encode(), digest_size=12).hexdigest()


def normalise(
    raw_trades: Iterable[Mapping[str, Any]],
    *,
    profile: ExchangeProfile,
    received_time: Micros,
    ahead_limit: Micros,
    synthetic_ids: SyntheticIds,
) -> Normalised:
    """Return the domain trades of ccxt's `raw_trades`; `ahead_limit` (µs) is how far event time may be ahead of `received_time`."""
    good: list[Trade] = []
    bad: list[Quarantined] = []
    ranks: dict[Micros, int] = {}
    for raw in raw_trades:
        try:
            trade = _normalise_one(raw, profile=profile, synthetic_ids=synthetic_ids, ranks=ranks)
            if trade.event_time > received_time + ahead_limit:
                raise InvalidTradeError(
                    "event_time",
                    f"event time {trade.event_time - received_time} us ahead of our clock",
                )
        except InvalidTradeError as error:
            bad.append(Quarantined(error.reason, str(error)[:200]))
        else:
            good.append(trade)
    good.sort(key=lambda trade: trade.order)
    return Normalised(tuple(good), tuple(bad))


def _normalise_one(
    raw: Mapping[str, Any],
    *,
    profile: ExchangeProfile,
    synthetic_ids: SyntheticIds,
    ranks: dict[Micros, int],
) -> Trade:
    event_time = _event_time(raw, profile)
    event_time -= event_time % profile.time_resolution
    price = _decimal(raw, "price")
    amount = _decimal(raw, "amount")
    side = raw.get("side")
    taker_side: TakerSide | None = side if side in ("buy", "sell") else None
    given = raw.get("id")
    trade_id = (
        str(given)
        if given not in (None, "")
        else synthetic_ids.next_id(
            event_time=event_time, price=price, amount=amount, taker_side=taker_side
        )
    )
    sequence = _own_sequence(trade_id) if profile.ids_numeric and given is not None else None
    if sequence is None:
        sequence = ranks.get(event_time, 0)
        ranks[event_time] = sequence + 1
    return Trade(
        trade_id=trade_id,
        sequence=sequence,
        event_time=event_time,
        price=price,
        amount=amount,
        taker_side=taker_side,
    )


def _own_sequence(trade_id: str) -> int | None:
    if not (trade_id.isascii() and trade_id.isdigit() and len(trade_id) <= 19):
        return None
    number = int(trade_id)
    return number if number < _INT64 else None


def _decimal(raw: Mapping[str, Any], name: str) -> Decimal:
    value = raw.get(name)
    if isinstance(value, float) or value is None:
        raise InvalidTradeError(name, f"{name} is not an exact number: {value!r}")
    try:
        return parse_decimal(str(value))
    except ValueError as error:
        raise InvalidTradeError(name, str(error)) from None


def _event_time(raw: Mapping[str, Any], profile: ExchangeProfile) -> Micros:
    for value in _own_times(raw.get("info"), profile.info_time_keys):
        exact = parse_exchange_time(value)
        if exact is not None:
            return exact
    millis = raw.get("timestamp")
    if isinstance(millis, str) and millis.isdigit():
        millis = int(millis)
    if not isinstance(millis, int) or isinstance(millis, bool):
        raise InvalidTradeError("event_time", f"no event time: {millis!r}")
    return millis * 1000


def _own_times(info: object, keys: Sequence[str | int]) -> Iterable[object]:
    for key in keys:
        if isinstance(key, str) and isinstance(info, Mapping):
            yield info.get(key)
        elif (
            isinstance(key, int)
            and isinstance(info, Sequence)
            and not isinstance(info, str)
            and len(info) > key
        ):
            yield info[key]


def parse_exchange_time(value: object) -> Micros | None:
    """Return the microseconds of an exchange's own RFC 3339 text or decimal seconds, cut below the microsecond; None where it is neither."""
    if not isinstance(value, str):
        return None
    if "T" in value:
        try:
            # Digits below the microsecond are refused by `fromisoformat` in Python 3.11's older forms.
            whole, point, rest = value.partition(".")
            digits = rest.rstrip("Zz") if point else ""
            if digits and not digits.isdigit():
                return None
            base = datetime.fromisoformat(whole.rstrip("Zz") + "+00:00")
        except ValueError:
            return None
        return from_datetime(base) + int(digits[:6].ljust(6, "0"))
    seconds, _, digits = value.partition(".")
    if not (seconds.isascii() and seconds.isdigit()) or (digits and not digits.isdigit()):
        return None
    return int(seconds) * SECOND + int((digits or "0")[:6].ljust(6, "0"))


class ClockSkewCounter:
    """Says when a source's clock (or ours) must be off: ten refusals for the event time, with no good trade between."""

    LIMIT = 10

    def __init__(self) -> None:
        self._in_row = 0

    @property
    def active(self) -> bool:
        """Whether the last trades said so."""
        return self._in_row >= self.LIMIT

    def skewed(self, normalised: Normalised) -> bool:
        """Take note of one message's trades; True from the tenth refusal in a row until a good trade comes."""
        if normalised.trades:
            self._in_row = 0
        self._in_row += sum(item.reason == "event_time" for item in normalised.quarantined)
        return self.active


class Continuity:
    """Watches contiguous ids: a number that was skipped is a trade that didn't come; `resolution` is that of event times (µs)."""

    def __init__(self, resolution: Micros) -> None:
        self._resolution = resolution
        self._last: Trade | None = None

    def first_hole(self, trades: Sequence[Trade]) -> Span | None:
        """Return the time in which the skipped trades were made, the ends included, where `trades` skip any; else None."""
        begin: Micros | None = None
        end = 0
        for trade in sorted(trades, key=lambda item: item.sequence):
            last = self._last
            if last is not None and trade.sequence <= last.sequence:
                continue
            if last is not None and trade.sequence != last.sequence + 1:
                begin = last.event_time if begin is None else min(begin, last.event_time)
                end = max(end, trade.event_time, last.event_time)
            self._last = trade
        return None if begin is None else Span(begin, end + self._resolution)
