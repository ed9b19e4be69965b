"""Rows in PostgreSQL's binary format of COPY, as the manual's page on COPY describes it: for trades that are still packed."""

from collections.abc import AsyncIterator, Mapping, Sequence
from struct import pack

from vegamite_aggregator.core.facts import TradeBatch
from vegamite_aggregator.core.packed_trades import PackedTrades
from vegamite_common.domain.market import Market
from vegamite_common.domain.time import SECOND, Micros

_HEADER = b"PGCOPY\n\xff\r\n\0" + pack(">ii", 0, 0)
_TRAILER = pack(">h", -1)
_NULL = pack(">i", -1)
_EPOCH: Micros = 946_684_800 * SECOND  # 2000-01-01, from which PostgreSQL counts


async def file_of(rows: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Yield the whole file: its header, the rows, its trailer."""
    yield _HEADER
    async for some in rows:
        yield some
    yield _TRAILER


def trade_rows(batches: Sequence[TradeBatch], keys: Mapping[Market, int]) -> bytes:
    """Return the rows of batches of packed trades, columns as in `trade_table.COLUMNS`."""
    rows: list[bytes] = []
    for batch in batches:
        assert isinstance(batch.trades, PackedTrades)
        rest = (
            pack(">iq", 8, batch.received_time - _EPOCH)
            + _text(batch.origin.value)
            + (_NULL if batch.job is None else _text(batch.job))
        )
        rows.append(batch.trades.block.copy_rows(keys[batch.market], rest))
    return b"".join(rows)


def _text(text: str) -> bytes:
    encoded = text.encode()
    return pack(">i", len(encoded)) + encoded
