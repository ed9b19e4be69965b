"""What a set of trades adds up to: the monoid that every candle is.

`merge` is associative and commutative, and exact, so no order of arrival and no batching shows in a candle. Sums stay as
the context `EXACT` gives them; `candle_of` makes them canonical. Callers set that context (`exactly()`), once a batch.
"""

from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from decimal import Context, Decimal, localcontext

import msgspec
from msgspec.structs import replace

from vegamite_common.domain.candle import Candle
from vegamite_common.domain.number import EXACT, ZERO
from vegamite_common.domain.time import Micros
from vegamite_common.domain.timeframe import Timeframe


class Tally(msgspec.Struct, frozen=True, gc=False):
    """The sums and extremes of one or more trades of one market, as in `Candle`, whatever interval they came from."""

    open: Decimal
    high: Decimal
    low: Decimal
    close: Decimal
    volume: Decimal
    quote_volume: Decimal
    buy_volume: Decimal
    buy_quote_volume: Decimal
    trade_count: int
    first_event_time: Micros
    first_sequence: int
    first_trade_id: str
    last_event_time: Micros
    last_sequence: int
    last_trade_id: str


def exactly() -> AbstractContextManager[Context]:
    """Compute with 200 digits, and raise `decimal.Inexact` rather than round, inside the `with` block."""
    return localcontext(EXACT)


def merge(one: Tally, other: Tally) -> Tally:
    """Return the tally of the trades of both, which have no trade in common; within `exactly()`."""
    # Code points order as their UTF-8 bytes do, so the ids compare as they are.
    first = one
    if (other.first_event_time, other.first_sequence, other.first_trade_id) < (
        one.first_event_time,
        one.first_sequence,
        one.first_trade_id,
    ):
        first = other
    last = one
    if (other.last_event_time, other.last_sequence, other.last_trade_id) > (
        one.last_event_time,
        one.last_sequence,
        one.last_trade_id,
    ):
        last = other
    return _joined(first, last, (one, other))


def join(parts: Sequence[Tally]) -> Tally:
    """Return the merge of tallies of successive intervals, earliest first, at least one; within `exactly()`."""
    if len(parts) == 1:
        return parts[0]
    return _joined(parts[0], parts[-1], parts)


def _joined(first: Tally, last: Tally, parts: Sequence[Tally]) -> Tally:
    return Tally(
        first.open,
        max([part.high for part in parts]),
        min([part.low for part in parts]),
        last.close,
        sum([part.volume for part in parts], ZERO),
        sum([part.quote_volume for part in parts], ZERO),
        sum([part.buy_volume for part in parts], ZERO),
        sum([part.buy_quote_volume for part in parts], ZERO),
        sum([part.trade_count for part in parts]),
        first.first_event_time,
        first.first_sequence,
        first.first_trade_id,
        last.last_event_time,
        last.last_sequence,
        last.last_trade_id,
    )


def merge_all(tallies: Iterable[Tally]) -> Tally:
    """Return the merge of one or more tallies in any order; within `exactly()`."""
    rest = iter(tallies)
    total = next(rest)
    for tally in rest:
        total = merge(total, tally)
    return total


def tally_of(candle: Candle) -> Tally:
    """Return what the candle's trades add up to."""
    return Tally(
        candle.open,
        candle.high,
        candle.low,
        candle.close,
        candle.volume,
        candle.quote_volume,
        candle.buy_volume,
        candle.buy_quote_volume,
        candle.trade_count,
        candle.first_event_time,
        candle.first_sequence,
        candle.first_trade_id,
        candle.last_event_time,
        candle.last_sequence,
        candle.last_trade_id,
    )


class Standing(msgspec.Struct, frozen=True):
    """What a candle's state says beyond its trades; see `Candle`."""

    epoch: int
    as_of: int
    updated_at: Micros
    final: bool = False
    complete: bool = False
    revision: int = 0


def candle_of(timeframe: Timeframe, open_time: Micros, tally: Tally, standing: Standing) -> Candle:
    """Return the candle, its numbers canonical; raise `ValueError` where the trades can't be its; within `exactly()`."""
    return Candle(
        timeframe,
        open_time,
        # Normalised, a round number has an exponent above zero (1E+2): adding 0 gives it back its digits.
        tally.open.normalize() + ZERO,
        tally.high.normalize() + ZERO,
        tally.low.normalize() + ZERO,
        tally.close.normalize() + ZERO,
        tally.volume.normalize() + ZERO,
        tally.quote_volume.normalize() + ZERO,
        tally.buy_volume.normalize() + ZERO,
        tally.buy_quote_volume.normalize() + ZERO,
        tally.trade_count,
        tally.first_event_time,
        tally.first_sequence,
        tally.first_trade_id,
        tally.last_event_time,
        tally.last_sequence,
        tally.last_trade_id,
        standing.epoch,
        standing.as_of,
        standing.updated_at,
        standing.final,
        standing.complete,
        standing.revision,
    )


def restated(candle: Candle, standing: Standing) -> Candle:
    """Return the same candle with another standing."""
    return replace(
        candle,
        epoch=standing.epoch,
        as_of=standing.as_of,
        updated_at=standing.updated_at,
        final=standing.final,
        complete=standing.complete,
        revision=standing.revision,
    )
