"""Trades records as they mostly are, read in one pass over their bytes.

`read_block` takes the very layout that `encode_trades` writes, of decimals with at most 18 digits and of plain ASCII; for
anything else, right or wrong, it returns None, and `decode_trades` has the say. So there is one source of the rules, and
this is a short cut through them: what it takes, `decode_trades` takes as well, to the same trades. `pack` is the same for trades
whose document was read already. Compiled with `trade_block`.
"""

from typing import Final

from librt.strings import BytesWriter, write_i64_le
from mypy_extensions import i64

from vegamite_aggregator.core.trade_block import BUY, SELL, TradeBlock
from vegamite_common.domain.time import EARLIEST, LATEST, LATEST_EVENT
from vegamite_common.domain.trade import MAX_TRADE_ID_BYTES, Origin
from vegamite_common.messages.trades import MAX_TRADES

_HEAD: Final = b'{"kind":"trades","v":1,"exchange":"'
_SYMBOL: Final = b'","symbol":"'
_RECEIVED: Final = b'","received_time":'
_ORIGIN: Final = b',"origin":"'
_TRADES: Final = b'","trades":['
_TRADE: Final = b'{"trade_id":"'
_SEQUENCE: Final = b'","sequence":'
_EVENT: Final = b',"event_time":'
_PRICE: Final = b',"price":"'
_AMOUNT: Final = b',"amount":"'
_TAKER: Final = b',"taker_side":"'
_JOB: Final = b',"job":"'
_ORIGINS: Final = frozenset(origin.value.encode() for origin in Origin)
_COVERED: Final = b',"covered":['


_MAX_DIGITS: Final[i64] = 18
_MAX_DECIMALS: Final[i64] = 16  # so that they can be filled up to fours
_NOTHING: Final[i64] = -1
_TENTH: Final[i64] = (2**63 - 1) // 10
_LAST_CODE: Final[i64] = 48 + (2**63 - 1) % 10


class _Scan:
    """A place in a record's bytes; what was read last."""

    def __init__(self, data: bytes) -> None:
        self.data: Final = data
        self.size: i64 = len(data)
        self.at: i64 = 0
        self.number: i64 = 0
        self.decimals: i64 = 0

    def literal(self, text: bytes) -> bool:
        """Step over `text`; False where something else stands."""
        data = self.data
        at = self.at
        length: i64 = len(text)
        if at + length > self.size:
            return False
        i: i64 = 0
        while i < length:
            if data[at + i] != text[i]:
                return False
            i += 1
        self.at = at + length
        return True

    def next_is(self, code: i64) -> bool:
        """Whether the byte `code` stands here."""
        return self.at < self.size and self.data[self.at] == code

    def integer(self) -> bool:
        """Read a number without sign, as JSON writes it, of 63 bits."""
        data = self.data
        size = self.size
        begin = at = self.at
        number: i64 = 0
        while at < size:
            code: i64 = data[at]
            if code < 48 or code > 57:
                break
            if at - begin >= _MAX_DIGITS and (
                number > _TENTH or (number == _TENTH and code > _LAST_CODE)
            ):
                return False
            number = number * 10 + (code - 48)
            at += 1
        if at == begin or (data[begin] == 48 and at - begin > 1):
            return False
        self.number = number
        self.at = at
        return True

    def decimal(self) -> bool:
        """Read a decimal above 0, of at most 18 digits, and the quotation mark after it."""
        data = self.data
        size = self.size
        begin = at = self.at
        number: i64 = 0
        point: i64 = _NOTHING
        while at < size:
            code: i64 = data[at]
            if code >= 48 and code <= 57:
                if at - begin > _MAX_DIGITS:  # with the point
                    return False
                number = number * 10 + (code - 48)
            elif code == 46 and point == _NOTHING and at > begin:
                point = at
            else:
                break
            at += 1
        digits = at - begin
        decimals: i64 = 0
        if point != _NOTHING:
            digits -= 1
            decimals = at - point - 1
            if decimals == 0 or decimals > _MAX_DECIMALS:
                return False
        if digits == 0 or digits > _MAX_DIGITS or number == 0 or at >= size or data[at] != 34:
            return False
        self.number = number
        self.decimals = decimals
        self.at = at + 1
        return True

    def text(self, longest: i64) -> bool:
        """Step over 1 to `longest` plain characters, up to the quotation mark; `number` is where they begin."""
        data = self.data
        size = self.size
        begin = at = self.at
        while at < size:
            code: i64 = data[at]
            if code == 34:
                break
            if code < 32 or code > 126 or code == 92:
                return False
            at += 1
        if at == begin or at - begin > longest or at >= size:
            return False
        self.number = begin
        self.at = at
        return True


class BlockRecord:
    """A trades record: all that it says, its trades packed."""

    def __init__(
        self, exchange: str, symbol: str, received_time: int, origin: str, trades: TradeBlock
    ) -> None:
        self.exchange: Final = exchange
        self.symbol: Final = symbol
        self.received_time: Final = received_time
        self.origin: Final = origin
        self.trades: Final = trades
        self.job: str | None = None
        self.covered: tuple[int, int] | None = None


def read_block(data: bytes) -> BlockRecord | None:
    """Return the trades record that `data` encodes in the plainest way, None for all else."""
    scan = _Scan(data)
    if not (scan.literal(_HEAD) and scan.text(100)):
        return None
    exchange = data[scan.number : scan.at]
    if not (scan.literal(_SYMBOL) and scan.text(100)):
        return None
    symbol = data[scan.number : scan.at]
    if not (scan.literal(_RECEIVED) and scan.integer()) or scan.number >= LATEST:
        return None
    received_time = scan.number
    if not (scan.literal(_ORIGIN) and scan.text(16)):
        return None
    origin = data[scan.number : scan.at]
    if origin not in _ORIGINS:
        return None
    if not scan.literal(_TRADES):
        return None
    entries = _read_trades(scan)
    if entries is None:
        return None
    job: str | None = None
    covered: tuple[int, int] | None = None
    if scan.literal(_JOB):
        if not scan.text(200):
            return None
        job = data[scan.number : scan.at].decode()
        scan.at += 1
    if scan.literal(_COVERED):
        if not scan.integer():
            return None
        from_time = scan.number
        if not scan.next_is(44):
            return None
        scan.at += 1
        if not scan.integer():
            return None
        to_time = scan.number
        if not scan.next_is(93) or from_time >= to_time or to_time >= LATEST:
            return None
        scan.at += 1
        covered = (from_time, to_time)
    if not (scan.next_is(125) and scan.at + 1 == scan.size):
        return None
    record = BlockRecord(
        exchange.decode(),
        symbol.decode(),
        received_time,
        origin.decode(),
        TradeBlock(data, entries),
    )
    record.job = job
    record.covered = covered
    return record


def pack(
    trade_ids: list[str],
    sequences: list[int],
    event_times: list[int],
    prices: list[str],
    amounts: list[str],
    taker_sides: list[str | None],
) -> TradeBlock | None:
    """Return trades given field by field, numbers as text, as many of each and at least one; None for what isn't plain.

    A sequence fits 64 bits, and a taker side is one.
    """
    ids = _Scan(('"'.join(trade_ids) + '"').encode())
    price = _Scan(('"'.join(prices) + '"').encode())
    amount = _Scan(('"'.join(amounts) + '"').encode())
    entries = BytesWriter()
    for sequence, event_time, side in zip(sequences, event_times, taker_sides, strict=True):
        if not (ids.text(MAX_TRADE_ID_BYTES) and price.decimal() and amount.decimal()):
            return None
        if event_time < EARLIEST or event_time >= LATEST_EVENT:
            return None
        small = price.decimals + amount.decimals * 32
        if side is not None:
            small += 1024 * (BUY if side == "buy" else SELL)
        write_i64_le(entries, event_time)
        write_i64_le(entries, sequence)
        write_i64_le(entries, price.number)
        write_i64_le(entries, amount.number)
        write_i64_le(entries, small)
        write_i64_le(entries, ids.number * 256 + (ids.at - ids.number))
        ids.at += 1
    # A quotation mark inside a text would have been taken for its end.
    if ids.at < ids.size or price.at < price.size or amount.at < amount.size:
        return None
    return TradeBlock(ids.data, entries.getvalue())


def _read_trades(scan: _Scan) -> bytes | None:
    """Read the trades up to the bracket after them; return their entries."""
    entries = BytesWriter()
    count: i64 = 0
    while True:
        if not (scan.literal(_TRADE) and scan.text(MAX_TRADE_ID_BYTES)):
            return None
        identity = scan.number * 256 + (scan.at - scan.number)
        if not scan.literal(_SEQUENCE):
            return None
        negative = scan.next_is(45)
        if negative:
            scan.at += 1
        if not scan.integer():
            return None
        sequence = -scan.number if negative else scan.number
        if not (scan.literal(_EVENT) and scan.integer()):
            return None
        event_time = scan.number
        if event_time < EARLIEST or event_time >= LATEST_EVENT:
            return None
        if not (scan.literal(_PRICE) and scan.decimal()):
            return None
        price = scan.number
        small = scan.decimals
        if not (scan.literal(_AMOUNT) and scan.decimal()):
            return None
        small += scan.decimals * 32
        if scan.literal(_TAKER):
            if scan.literal(b'buy"'):
                small += 1024 * BUY
            elif scan.literal(b'sell"'):
                small += 1024 * SELL
            else:
                return None
        write_i64_le(entries, event_time)
        write_i64_le(entries, sequence)
        write_i64_le(entries, price)
        write_i64_le(entries, scan.number)
        write_i64_le(entries, small)
        write_i64_le(entries, identity)
        count += 1
        if count > MAX_TRADES:
            return None
        if scan.literal(b"},"):
            continue
        return entries.getvalue() if scan.literal(b"}]") else None
