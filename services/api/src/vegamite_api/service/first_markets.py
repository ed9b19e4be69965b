"""The markets that a new instance is told to track where nobody has a key of the API yet."""

from collections.abc import Sequence

from vegamite_api.ports import MarketStore
from vegamite_common.domain.market import Market
from vegamite_common.domain.time import Micros, format_time


class UnknownExchangeError(Exception):
    """A market's exchange is none that collectors know; the text is one sentence."""


async def track_first(
    store: MarketStore, markets: Sequence[Market], history_from: Micros
) -> list[Market]:
    """Track those that aren't tracked yet, their histories from `history_from` (microseconds), and return them.

    What is tracked already keeps its history, so this may be run any number of times. Raise `UnknownExchangeError`
    where the collectors have said which exchanges there are, and one isn't among them.
    """
    new = []
    exchanges = sorted({market.exchange for market in markets})
    for exchange in exchanges:
        tracked = set(await store.tracked_markets(exchange))
        new += [m for m in dict.fromkeys(markets) if m.exchange == exchange and m not in tracked]
    known = {row.exchange for row in await store.exchanges()}
    unknown = {market.exchange for market in new} - known
    # Before the first collector has started, no exchange is known: then nothing can be said against one.
    if known and unknown:
        raise UnknownExchangeError(f"no collector knows the exchange {sorted(unknown)[0]}")
    if new:
        await store.track(new, history_from, format_time)
    return new
