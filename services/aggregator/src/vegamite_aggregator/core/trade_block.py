"""Trades packed without an object a trade, for the way of nearly all of them: from the log into the store, and into sums.

`block_reader` makes blocks, `block_fold` adds them up. These three are meant to be compiled, by mypyc, together; interpreted
they do the same, slowly, so nobody uses them then: see `COMPILED`. Numbers that can't grow beyond 64 bits are `i64`.
"""

from decimal import Decimal
from typing import Final

from librt.strings import (
    BytesWriter,
    read_i64_le,
    write_i16_be,
    write_i32_be,
    write_i64_be,
)
from mypy_extensions import i16, i32, i64

from vegamite_common.domain.trade import Trade

COMPILED: Final = not __file__.endswith(".py")
"""Whether this module is machine code."""

# An entry has eight bytes each of: event time, sequence, price and amount without their points, what is small (below),
# and where the id is. The four in the middle are the trade's content.
ENTRY: Final[i64] = 48
SMALL: Final[i64] = (
    32  # decimals of the price, those of the amount * 32, taker side * 1024 (1 buy, 2 sell)
)
ID: Final[i64] = 40  # where the id begins * 256 + its length

BUY: Final[i64] = 1
SELL: Final[i64] = 2


class TradeBlock:
    """Trades of one record, packed, in the record's order; times in microseconds.

    `ordered`: each comes after the one before it in the market's total order, and no identity is there twice.
    """

    def __init__(self, data: bytes, entries: bytes) -> None:
        """`data` is the record, `entries` what `_read_trades` made of it, or some of that."""
        self.data: Final = data
        self.entries: Final = entries
        self.count: i64 = len(entries) // ENTRY
        self.earliest: i64 = 0
        self.latest: i64 = 0
        self.first_sequence: i64 = 0
        self.last_sequence: i64 = 0
        self.ordered = True
        self.price_decimals: i64 = 0
        self.amount_decimals: i64 = 0
        self._look()

    def _look(self) -> None:
        entries = self.entries
        end = self.count * ENTRY
        earliest = latest = read_i64_le(entries, 0)
        price_decimals: i64 = 0
        amount_decimals: i64 = 0
        ordered = True
        last_time: i64 = 0
        last_sequence: i64 = 0
        ids: set[bytes] | None = None  # of a run of trades of one instant
        at: i64 = 0
        while at < end:
            event_time = read_i64_le(entries, at)
            sequence = read_i64_le(entries, at + 8)
            small = read_i64_le(entries, at + SMALL)
            if small & 31 > price_decimals:
                price_decimals = small & 31
            if (small >> 5) & 31 > amount_decimals:
                amount_decimals = (small >> 5) & 31
            if event_time > last_time:
                ids = None
                latest = max(latest, event_time)
            elif event_time == last_time:
                trade_id = self._id(at)
                before = self._id(at - ENTRY)
                if ids is None:
                    ids = {before}
                if (
                    sequence < last_sequence
                    or (sequence == last_sequence and trade_id < before)
                    or trade_id in ids
                ):
                    ordered = False
                ids.add(trade_id)
            else:
                ids = None
                ordered = False
                earliest = min(earliest, event_time)
            last_time = event_time
            last_sequence = sequence
            at += ENTRY
        self.earliest = earliest
        self.latest = latest
        self.first_sequence = read_i64_le(entries, 8)
        self.last_sequence = last_sequence
        self.ordered = ordered
        self.price_decimals = price_decimals
        self.amount_decimals = amount_decimals

    def _id(self, at: i64) -> bytes:
        place = read_i64_le(self.entries, at + ID)
        begin = place >> 8
        return self.data[begin : begin + (place & 255)]

    def id_at(self, at: i64) -> str:
        """Return the id of the entry at byte `at`."""
        return self._id(at).decode()

    def event_times(self) -> list[int]:
        """Return the trades' event times."""
        entries = self.entries
        times: list[int] = []
        at: i64 = 0
        while at < self.count * ENTRY:
            times.append(read_i64_le(entries, at))
            at += ENTRY
        return times

    def trade_ids(self) -> list[str]:
        """Return the trades' ids."""
        ids: list[str] = []
        at: i64 = 0
        while at < self.count * ENTRY:
            ids.append(self.id_at(at))
            at += ENTRY
        return ids

    def identities(self) -> list[tuple[int, str]]:
        """Return each trade's (event_time, trade_id)."""
        entries = self.entries
        found: list[tuple[int, str]] = []
        at: i64 = 0
        while at < self.count * ENTRY:
            found.append((read_i64_le(entries, at), self.id_at(at)))
            at += ENTRY
        return found

    def meet(self, number: int, first: dict[bytes, int]) -> tuple[list[int], list[tuple[int, int]]]:
        """Return the places of trades that `first` didn't have, and of the others, each with what `first` said of it.

        `first` has by identity (`identity_key`) the place of a trade, plus 1,024 times the number of its record; here
        `number`. What it didn't have is added.
        """
        entries = self.entries
        new: list[int] = []
        again: list[tuple[int, int]] = []
        place = 0
        at: i64 = 0
        while place < self.count:
            key = entries[at : at + 8] + self._id(at)
            known = first.get(key)
            if known is None:
                first[key] = number * 1024 + place
                new.append(place)
            else:
                again.append((place, known))
            place += 1
            at += ENTRY
        return new, again

    def in_order(self) -> "TradeBlock":
        """Return the same trades in the market's total order."""
        if self.ordered:
            return self
        places: list[tuple[int, int, bytes, int]] = []
        at: i64 = 0
        for place in range(self.count):
            sequence: int = read_i64_le(self.entries, at + 8)
            places.append((read_i64_le(self.entries, at), sequence, self._id(at), place))
            at += ENTRY
        places.sort()
        return self.selected([place for _, _, _, place in places])

    def identity(self, place: int) -> tuple[int, str]:
        """Return the (event_time, trade_id) of the trade at `place`."""
        at: i64 = place
        at *= ENTRY
        return (read_i64_le(self.entries, at), self.id_at(at))

    def content(self, place: int) -> bytes:
        """Return what else the trade at `place` says; trades with the same bytes say the same, others may."""
        at: i64 = place
        at *= ENTRY
        return self.entries[at + 8 : at + ID]

    def trade(self, place: int) -> Trade:
        """Return the trade at `place`."""
        entries = self.entries
        at: i64 = place
        at *= ENTRY
        small = read_i64_le(entries, at + SMALL)
        side = small >> 10
        price: int = read_i64_le(entries, at + 16)
        amount: int = read_i64_le(entries, at + 24)
        price_decimals: int = small & 31
        amount_decimals: int = (small >> 5) & 31
        return Trade(
            trade_id=self.id_at(at),
            sequence=read_i64_le(entries, at + 8),
            event_time=read_i64_le(entries, at),
            price=Decimal(price).scaleb(-price_decimals),
            amount=Decimal(amount).scaleb(-amount_decimals),
            taker_side="buy" if side == BUY else "sell" if side == SELL else None,
        )

    def selected(self, places: list[int]) -> "TradeBlock":
        """Return the trades at these places, in order, at least one."""
        entries = BytesWriter()
        for place in places:
            at: i64 = place
            at *= ENTRY
            entries.write(self.entries[at : at + ENTRY])
        return TradeBlock(self.data, entries.getvalue())

    def copy_rows(self, market_key: i32, rest: bytes) -> bytes:
        """Return the rows of the table `trade` in PostgreSQL's binary format of COPY, given how each begins and ends.

        `rest` are the last three columns, encoded. The format is that of the manual's page on COPY; a number's is
        `numeric_recv`'s: count of digits to the base 10,000, weight of the first, sign, decimals, digits.
        """
        data = self.data
        entries = self.entries
        rows = BytesWriter()
        at: i64 = 0
        while at < self.count * ENTRY:
            write_i16_be(rows, _COLUMNS)
            write_i32_be(rows, 4)
            write_i32_be(rows, market_key)
            write_i32_be(rows, 8)
            write_i64_be(rows, read_i64_le(entries, at) - _POSTGRES_EPOCH)
            place = read_i64_le(entries, at + ID)
            begin = place >> 8
            length = place & 255
            write_i32_be(rows, i32(length))
            rows.write(data[begin : begin + length])
            write_i32_be(rows, 8)
            write_i64_be(rows, read_i64_le(entries, at + 8))
            small = read_i64_le(entries, at + SMALL)
            _write_numeric(rows, read_i64_le(entries, at + 16), small & 31)
            _write_numeric(rows, read_i64_le(entries, at + 24), (small >> 5) & 31)
            side = small >> 10
            if side == BUY:
                rows.write(_BUY_COLUMN)
            elif side == SELL:
                rows.write(_SELL_COLUMN)
            else:
                write_i32_be(rows, -1)
            rows.write(rest)
            at += ENTRY
        return rows.getvalue()


_COLUMNS: Final[i16] = 10
_POSTGRES_EPOCH: Final[i64] = 946_684_800_000_000  # 2000-01-01
_BUY_COLUMN: Final = b"\x00\x00\x00\x03buy"
_SELL_COLUMN: Final = b"\x00\x00\x00\x04sell"


def _write_numeric(rows: BytesWriter, number: i64, decimals: i64) -> None:
    """Write `number` / 10 ** `decimals`, above 0."""
    unit: i64 = 1
    i: i64 = 0
    while i < decimals:
        unit *= 10
        i += 1
    whole = number // unit
    fraction = number - whole * unit
    fours = (decimals + 3) // 4
    i = fours * 4 - decimals
    while i > 0:
        fraction *= 10
        i -= 1
    while fours > 0 and fraction % 10_000 == 0:
        fraction //= 10_000
        fours -= 1
    weight: i64 = -1
    whole_unit: i64 = 1
    rest = whole
    while rest > 0:
        weight += 1
        rest //= 10_000
        if rest > 0:
            whole_unit *= 10_000
    fraction_unit: i64 = 1
    i = fours - 1
    while i > 0:
        fraction_unit *= 10_000
        i -= 1
    if weight < 0:
        while fours > 0 and fraction < fraction_unit:
            fraction_unit //= 10_000
            fours -= 1
            weight -= 1
    digits = fours
    if whole > 0:
        digits += weight + 1
    write_i32_be(rows, i32(8 + 2 * digits))
    write_i16_be(rows, i16(digits))
    write_i16_be(rows, i16(weight))
    write_i16_be(rows, 0)
    write_i16_be(rows, i16(decimals))
    if whole > 0:
        while whole_unit > 0:
            write_i16_be(rows, i16(whole // whole_unit % 10_000))
            whole_unit //= 10_000
    while fours > 0:
        write_i16_be(rows, i16(fraction // fraction_unit % 10_000))
        fraction_unit //= 10_000
        fours -= 1
