"""A recorded market: aggregate trades read from a file of newline-delimited JSON."""

import gzip
from bisect import bisect_left, bisect_right
from collections.abc import Iterable
from pathlib import Path

import msgspec

from vegamite_common.testing.fake_exchange.feed import AggregateTrade, Listing, split_symbol


class RecordedFeed:
    """Trades of one market as an exchange once told them; raises `ValueError` where ids or times run backwards."""

    def __init__(self, listing: Listing, trades: Iterable[AggregateTrade]) -> None:
        self.listing = listing
        self.trades = list(trades)
        self._ids = [trade.trade_id for trade in self.trades]
        self._times = [trade.time_ms for trade in self.trades]
        if not self.trades:
            raise ValueError("a recording without trades")
        if any(after <= before for before, after in zip(self._ids, self._ids[1:], strict=False)):
            raise ValueError("trade ids in a recording must rise")
        if any(after < before for before, after in zip(self._times, self._times[1:], strict=False)):
            raise ValueError("trade times in a recording must not fall")

    @classmethod
    def read(cls, path: Path, symbol: str) -> "RecordedFeed":
        """Read a file of Binance's aggregate-trade objects, one a line, gzipped if its name ends in `.gz`.

        Raise `ValueError` for a line that is none, with its number.
        """
        base, quote = split_symbol(symbol)
        content = path.read_bytes()
        if path.suffix == ".gz":
            content = gzip.decompress(content)
        decoder = msgspec.json.Decoder(AggregateTrade)
        trades = []
        for number, line in enumerate(content.splitlines(), start=1):
            try:
                trades.append(decoder.decode(line))
            except msgspec.DecodeError as error:
                raise ValueError(f"{path}:{number}: {error}") from None
        listing = Listing(
            base,
            quote,
            price_increment=_increment(trade.price for trade in trades),
            amount_increment=_increment(trade.amount for trade in trades),
        )
        return cls(listing, trades)

    def from_id(self, trade_id: int, *, until: int, limit: int) -> list[AggregateTrade]:
        """Return the first `limit` trades with at least this id that happened by `until`."""
        start = bisect_left(self._ids, trade_id)
        return self.trades[start : min(start + limit, bisect_right(self._times, until))]

    def from_time(self, start: int, *, until: int, limit: int) -> list[AggregateTrade]:
        """Return the first `limit` trades at or after `start` that happened by `until`."""
        first = bisect_left(self._times, start)
        return self.trades[first : min(first + limit, bisect_right(self._times, until))]

    def latest(self, *, until: int, limit: int) -> list[AggregateTrade]:
        """Return the last `limit` trades that happened by `until`."""
        end = bisect_right(self._times, until)
        return self.trades[max(0, end - limit) : end]


def _increment(texts: Iterable[str]) -> str:
    """Return the power of ten, written with 8 decimals, that every text is a multiple of."""
    decimals = max((len(text.partition(".")[2].rstrip("0")) for text in texts), default=0)
    return f"{10 ** (8 - decimals) / 10**8:.8f}"
