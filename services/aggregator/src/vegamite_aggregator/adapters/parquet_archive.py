"""Days of trades as Parquet files in a directory: `<exchange>/<symbol>/<day>.parquet`, each with its manifest `<day>.json`.

Prices and amounts are text: they may have 30 digits before and 30 after the point, which no number type of the format holds.
A file is written under another name, read back, compared and given its own; what makes it the day's archive is the manifest,
which comes last and takes the place of an earlier one at once. Whoever is killed on the way leaves what was there.
"""

import asyncio
import hashlib
import heapq
import os
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from itertools import islice, repeat
from pathlib import Path
from typing import Any
from urllib.parse import quote

import msgspec
from arro3.core import Array, DataType, Field, RecordBatch, RecordBatchReader, Schema
from arro3.io import read_parquet, write_parquet

from vegamite_aggregator.core.manifest import ARCHIVE_VERSION, ArchivedTrade, Manifest
from vegamite_aggregator.ports import ArchiveError
from vegamite_common.domain.market import Market
from vegamite_common.domain.time import Micros, to_datetime

BATCH_ROWS = 10_000
ROW_GROUP_ROWS = 100_000

_DAY_LETTERS = len("2025-01-31")
_NAME_BYTES = 200
_INSTANT = DataType.timestamp("us", tz="UTC")
_COLUMNS: Mapping[str, tuple[DataType, bool]] = {
    "event_time": (_INSTANT, False),
    "trade_id": (DataType.string(), False),
    "sequence": (DataType.int64(), False),
    "price": (DataType.string(), False),
    "amount": (DataType.string(), False),
    "taker_side": (DataType.string(), True),
    "received_time": (_INSTANT, False),
    "origin": (DataType.string(), False),
    "job": (DataType.string(), True),
}
_SCHEMA = Schema([Field(name, type_, nullable=null) for name, (type_, null) in _COLUMNS.items()])


class ParquetArchive:
    """`TradeArchive` in a directory, which is made where it isn't there."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    async def store(
        self,
        market: Market,
        day: Micros,
        *,
        trades: AsyncIterator[Sequence[ArchivedTrade]],
        covered: Sequence[tuple[Micros, Micros]],
    ) -> int:
        """Have the day's trades in the archive; see `TradeArchive`."""
        place = self._directory / exchange_and_symbol(market)
        name = f"{to_datetime(day):%Y-%m-%d}"
        stored = _from_loop(trades, asyncio.get_running_loop())
        try:
            return await asyncio.to_thread(_store, place, name, market, stored, covered)
        except OSError as error:
            raise ArchiveError(f"{error.filename or place}: {error.strerror or error}") from error


def exchange_and_symbol(market: Market) -> Path:
    """Return the market's directory inside an archive; a symbol becomes one name, as `BTC%2FUSD`."""
    name = quote(market.symbol, safe="")
    if len(name) > _NAME_BYTES:
        name = f"{name[:_NAME_BYTES]}~{hashlib.sha256(name.encode()).hexdigest()[:16]}"
    return Path(market.exchange, name)


def read_manifest(path: Path) -> Manifest:
    """Return the manifest of a file of the archive, or of itself; raise `ArchiveError` where there is none, or a wrong one."""
    manifest = path.with_name(f"{path.name[:_DAY_LETTERS]}.json")
    try:
        return msgspec.json.decode(manifest.read_bytes(), type=Manifest)
    except FileNotFoundError:
        raise ArchiveError(f"{path}: its manifest {manifest.name} isn't beside it") from None
    except (OSError, ValueError) as error:
        raise ArchiveError(f"{manifest}: not a manifest: {error}") from None


def check_archive(path: Path) -> Manifest:
    """Return the manifest of a file; raise `ArchiveError` unless the file is, byte by byte, the one that it was written for."""
    manifest = read_manifest(path)
    file = path.with_name(manifest.file)
    if path.suffix == ".parquet" and path.name != manifest.file:
        raise ArchiveError(f"{path}: not the day's archive, which is {manifest.file}")
    try:
        measured = _measure(file)
    except OSError as error:
        raise ArchiveError(f"{file}: {error.strerror}") from None
    if measured != (manifest.bytes, manifest.sha256):
        raise ArchiveError(f"{file}: not the file that its manifest was written for")
    return manifest


def read_trades(file: Path) -> Iterator[ArchivedTrade]:
    """Yield the trades of a Parquet file in its order; raise `ArchiveError` where it is none of ours."""
    try:
        for batch in read_parquet(file):
            columns = [_values(batch.column(name), type_) for name, (type_, _) in _COLUMNS.items()]
            yield from map(ArchivedTrade._make, zip(*columns, strict=True))
    except (GeneratorExit, KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # a panic of the library is no `Exception`
        raise ArchiveError(f"{file}: can't be read: {error}") from error


class _Union:
    """Trades of both sides in order, each identity once, the earlier side's; counts what it gave, and what was new."""

    def __init__(self, earlier: Iterable[ArchivedTrade], later: Iterable[ArchivedTrade]) -> None:
        self.rows = 0
        self.added = 0
        self.first = ""
        self.last = ""
        self.digest = hashlib.sha256()
        self.fault: BaseException | None = None
        self._sides = (
            zip(earlier, repeat(0), strict=False),
            zip(later, repeat(1), strict=False),
        )

    def __iter__(self) -> Iterator[ArchivedTrade]:
        """Yield them; what a side raises is remembered, since the writer makes something else of it."""
        try:
            yield from self._merged()
        except (Exception, KeyboardInterrupt) as error:
            self.fault = error
            raise

    def _merged(self) -> Iterator[ArchivedTrade]:
        before: tuple[Micros, str] | None = None
        for trade, side in heapq.merge(
            *self._sides, key=lambda entry: (entry[0][0], entry[0][1].encode(), entry[1])
        ):
            identity = trade[:2]
            if identity == before:
                continue
            before = identity
            if not self.rows:
                self.first = trade.trade_id
            self.rows += 1
            self.added += side
            self.last = trade.trade_id
            self.digest.update(_line(trade))
            yield trade


def _store(
    place: Path,
    day: str,
    market: Market,
    trades: Iterable[ArchivedTrade],
    covered: Sequence[tuple[Micros, Micros]],
) -> int:
    """Write the day, unless all of its trades are there; return how many it holds, 0 where nothing was written."""
    place.mkdir(parents=True, exist_ok=True)
    for leftover in place.glob(f".{day}.*.tmp"):
        leftover.unlink(missing_ok=True)
    number = 1
    earlier: Iterator[ArchivedTrade] = iter(())
    known: Manifest | None = None
    if (place / f"{day}.json").exists():
        known = check_archive(place / f"{day}.json")
        earlier = read_trades(place / known.file)
        number = _number(known.file) + 1
    union = _Union(earlier, trades)
    unfinished = place / f".{day}.{os.getpid()}.tmp"
    try:
        _write(unfinished, union, market)
        if not union.added:
            return 0
        _compare(unfinished, union)
        name = f"{day}.parquet" if number == 1 else f"{day}.{number}.parquet"
        size, sha256 = _measure(unfinished)
        manifest = Manifest(
            schema_version=ARCHIVE_VERSION,
            exchange=market.exchange,
            symbol=market.symbol,
            day=day,
            file=name,
            rows=union.rows,
            bytes=size,
            sha256=sha256,
            first_trade_id=union.first,
            last_trade_id=union.last,
            covered=tuple(covered),
        )
        _settle(unfinished, place / name)
        unfinished.write_bytes(msgspec.json.format(msgspec.json.encode(manifest), indent=2))
        _settle(unfinished, place / f"{day}.json")
    finally:
        unfinished.unlink(missing_ok=True)
    if known is not None:
        (place / known.file).unlink(missing_ok=True)
    return union.rows


def _number(file: str) -> int:
    """Return which writing of its day a file is: `2025-01-31.parquet` the first, `2025-01-31.2.parquet` the second."""
    middle = file[_DAY_LETTERS:].removesuffix("parquet").strip(".")
    return int(middle) if middle.isdigit() else 1


def _write(file: Path, trades: _Union, market: Market) -> None:
    metadata = {
        "vegamite.schema_version": str(ARCHIVE_VERSION),
        "vegamite.exchange": market.exchange,
        "vegamite.symbol": market.symbol,
    }
    try:
        with file.open("wb") as target:
            write_parquet(
                RecordBatchReader.from_batches(_SCHEMA, _batches(trades)),
                target,
                compression="zstd(3)",
                key_value_metadata=metadata,
                max_row_group_size=ROW_GROUP_ROWS,
            )
    except Exception as error:
        if trades.fault is not None:
            raise trades.fault from None
        raise ArchiveError(f"{file}: can't be written: {error}") from error


def _compare(file: Path, written: _Union) -> None:
    digest = hashlib.sha256()
    for trade in read_trades(file):
        digest.update(_line(trade))
    if digest.digest() != written.digest.digest():
        raise ArchiveError(f"{file}: reads back as something else than was written")


def _settle(unfinished: Path, final: Path) -> None:
    """Give a whole file its name, once it is on the disk; then the name is, too."""
    descriptor = os.open(unfinished, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    unfinished.replace(final)
    directory = os.open(final.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def _measure(file: Path) -> tuple[int, str]:
    """Return a file's size in bytes and its SHA-256."""
    with file.open("rb") as source:
        digest = hashlib.file_digest(source, "sha256")
        return source.tell(), digest.hexdigest()


def _batches(trades: Iterable[ArchivedTrade]) -> Iterator[RecordBatch]:
    rows = iter(trades)
    while page := list(islice(rows, BATCH_ROWS)):
        columns = zip(zip(*page, strict=True), _COLUMNS.values(), strict=True)
        arrays = [_array(values, type_) for values, (type_, _) in columns]
        yield RecordBatch.from_arrays(arrays, schema=_SCHEMA)


def _array(values: tuple[Any, ...], type_: DataType) -> Array:
    if type_ == _INSTANT:
        return Array(values, DataType.int64()).cast(type_)
    return Array(values, type_)


def _values(column: Any, type_: DataType) -> list[Any]:
    values: list[Any] = (
        column.cast(DataType.int64()).to_pylist() if type_ == _INSTANT else column.to_pylist()
    )
    return values


def _line(trade: ArchivedTrade) -> bytes:
    return repr(tuple(trade)).encode()


def _from_loop(
    pages: AsyncIterator[Sequence[ArchivedTrade]], loop: asyncio.AbstractEventLoop
) -> Iterator[ArchivedTrade]:
    """Yield, in a thread, what the loop gives page by page: no more than one page is in memory."""

    async def following() -> Sequence[ArchivedTrade] | None:
        return await anext(pages, None)

    while (page := asyncio.run_coroutine_threadsafe(following(), loop).result()) is not None:
        yield from page
