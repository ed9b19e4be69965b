"""The demo market: trades as a pure function of (seed, time), the same on every machine, with nothing remembered.

Each hour has `TRADES_PER_HOUR` trades, spread over its minutes by a hash, so that some minutes are busy and some are
quiet; a trade's id is therefore known from its time alone, and ids are contiguous. The price is a sum of noises of
different lengths, from a week to seconds, in whole cents. All arithmetic is on integers.
"""

from decimal import Decimal
from functools import lru_cache

from vegamite_common.domain.market import Market
from vegamite_common.domain.number import canonical
from vegamite_common.domain.time import DAY, HOUR, MINUTE, SECOND, Micros
from vegamite_common.domain.trade import Trade

DEMO_MARKET = Market("sim", "DEMO/USD")
TRADES_PER_HOUR = 3_600

_MILLISECOND = 1_000
_MASK = (1 << 64) - 1
_BASE_CENTS = 100_000
_SPREAD_CENTS = 2
# (length of the noise, largest swing in cents): longer swings are larger, as in a random walk.
_SLOW_NOISES = (
    (7 * DAY, 6_000),
    (2 * DAY, 3_600),
    (11 * HOUR, 1_900),
    (3 * HOUR, 1_000),
    (47 * MINUTE, 560),
    (13 * MINUTE, 300),
    (4 * MINUTE, 160),
)
_FAST_NOISES = ((61 * SECOND, 70), (17 * SECOND, 34), (5 * SECOND, 16))


def _mix(value: int) -> int:
    """Return 64 well-mixed bits of `value` (the finaliser of splitmix64)."""
    value = (value + 0x9E3779B97F4A7C15) & _MASK
    value = (value ^ value >> 30) * 0xBF58476D1CE4E5B9 & _MASK
    value = (value ^ value >> 27) * 0x94D049BB133111EB & _MASK
    return value ^ value >> 31


def _bits(seed: int, stream: int, index: int) -> int:
    return _mix(_mix(seed & _MASK ^ stream * 0xD1342543DE82EF95 & _MASK) ^ index & _MASK)


def _noise(seed: int, instant: Micros, length: Micros, swing: int) -> int:
    """Return a value in [-swing, swing] that moves evenly between random points, one each `length`."""
    step, into = divmod(instant, length)
    low = _point(seed, length, step, swing)
    return low + (_point(seed, length, step + 1, swing) - low) * into // length


@lru_cache(maxsize=4096)
def _point(seed: int, length: Micros, step: int, swing: int) -> int:
    return _bits(seed, length, step) % (2 * swing + 1) - swing


@lru_cache(maxsize=64)
def _minute_counts(seed: int, hour: int) -> tuple[int, ...]:
    """Return how many trades each minute of the hour has; they add up to `TRADES_PER_HOUR`."""
    weights = []
    for minute in range(60):
        bits = _bits(seed, 1, hour * 60 + minute)
        # The product of three even draws: many quiet minutes, few busy ones.
        busy = (bits & 0xFF) * (bits >> 8 & 0xFF) * (bits >> 16 & 0xFF) // (0xFF * 0xFF)
        weights.append(24 + busy)
    total = sum(weights)
    counts = []
    given = above = 0
    for weight in weights:
        above += weight
        upto = TRADES_PER_HOUR * above // total
        counts.append(upto - given)
        given = upto
    return tuple(counts)


@lru_cache(maxsize=8)
def _minute_trades(seed: int, minute: int) -> tuple[Trade, ...]:
    """Return the trades of one minute since the epoch, in order."""
    hour, of_hour = divmod(minute, 60)
    counts = _minute_counts(seed, hour)
    count = counts[of_hour]
    first_id = hour * TRADES_PER_HOUR + sum(counts[:of_hour])
    begin = minute * MINUTE
    slow = sum(_noise(seed, begin, *noise) for noise in _SLOW_NOISES)
    slope = sum(_noise(seed, begin + MINUTE, *noise) for noise in _SLOW_NOISES) - slow
    offsets = sorted(_bits(seed, 2, first_id + n) % 60_000 for n in range(count))
    trades = []
    for n, offset in enumerate(offsets):
        number = first_id + n
        instant = begin + offset * _MILLISECOND
        bits = _bits(seed, 3, number)
        buys = bits & 1
        cents = _BASE_CENTS + slow + slope * offset // 60_000
        cents += sum(_noise(seed, instant, *noise) for noise in _FAST_NOISES)
        cents += (_SPREAD_CENTS if buys else -_SPREAD_CENTS) + (bits >> 1) % 5 - 2
        # A cube: mostly small trades, now and then a large one; five decimals.
        draw = (bits >> 8) % 1000 + 1
        units = 100 + draw * draw * draw // 2_000 + (bits >> 24) % 97
        trades.append(
            Trade(
                trade_id=str(number),
                sequence=number,
                event_time=instant,
                price=canonical(Decimal(cents).scaleb(-2)),
                amount=canonical(Decimal(units).scaleb(-5)),
                taker_side="buy" if buys else "sell",
            )
        )
    return tuple(trades)


def trades_between(seed: int, from_time: Micros, to_time: Micros) -> list[Trade]:
    """Return the demo market's trades with event times in [from_time, to_time), in total order."""
    found: list[Trade] = []
    for minute in range(from_time // MINUTE, -(-to_time // MINUTE)):
        trades = _minute_trades(seed, minute)
        begin = minute * MINUTE
        if from_time <= begin and begin + MINUTE <= to_time:
            found += trades
        else:
            found += [trade for trade in trades if from_time <= trade.event_time < to_time]
    return found


def page_from(seed: int, from_time: Micros, *, to_time: Micros, limit: int) -> list[Trade]:
    """Return the first `limit` trades of [from_time, to_time), as a REST page would bring them."""
    found: list[Trade] = []
    at = from_time
    while at < to_time and len(found) < limit:
        until = min(to_time, (at // MINUTE + 1) * MINUTE)
        found += trades_between(seed, at, until)
        at = until
    return found[:limit]


def next_trade_time(seed: int, after: Micros) -> Micros:
    """Return the event time of the first trade later than `after`."""
    at = after + 1
    while True:
        until = (at // MINUTE + 1) * MINUTE
        found = trades_between(seed, at, until)
        if found:
            return found[0].event_time
        at = until
