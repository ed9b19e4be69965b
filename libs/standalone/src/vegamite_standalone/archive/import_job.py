"""An import: archives read whole, sent through the log as one bulk job, waited for until all is stored.

The order is what makes it one final state a candle: everything is read first, so that the job's records follow
each other without a pause that would make it look abandoned.
"""

import asyncio
import uuid
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Final, Protocol

import structlog

from vegamite_common.bus.partition import partition_for
from vegamite_common.bus.port import TRADES, BusError, Producer, Record
from vegamite_common.domain.market import Market
from vegamite_common.domain.time import DAY, Micros
from vegamite_common.domain.trade import Origin
from vegamite_common.messages.trades import JobEnded, JobStarted, TradesRecord, encode_trades
from vegamite_common.runtime.backoff import Backoff
from vegamite_common.runtime.lifecycle import Resources, StartError, Stop
from vegamite_common.runtime.postgres import POSTGRES_FAULTS
from vegamite_standalone.adapters.postgres_job import JobProgress, find_job
from vegamite_standalone.adapters.postgres_tracking import ensure_market
from vegamite_standalone.archive.file import ArchiveError
from vegamite_standalone.archive.intake import Findings, IntakeRules, Spool, take_archive
from vegamite_standalone.archive.parquet import ArchivedDay, restored, take_day

BATCH_BYTES: Final = 500_000
POLL_SECONDS: Final = 0.1
PUBLISH_ATTEMPTS: Final = 20

log = structlog.get_logger(__name__)


class Progress(Protocol):
    """Who is told how far an import has come."""

    def reading(self, done: int, total: int) -> None:
        """`done` of `total` bytes of the archives are read."""
        ...

    def sending(self, done: int, total: int) -> None:
        """`done` of `total` records are in the log."""
        ...

    def storing(self, stored: int, total: int) -> None:
        """`stored` of at most `total` trades are stored."""
        ...


@dataclass(frozen=True, kw_only=True)
class ImportRequest:
    """What to import; `covered` (µs) says that the archives hold every trade of that half-open interval.

    `days` are archived days, oldest first, in place of other archives: they know themselves what they cover.
    """

    market: Market
    files: Sequence[Path]
    resolution: Micros
    covered: tuple[Micros, Micros] | None = None
    skip_bad: bool = False
    days: Sequence[ArchivedDay] = ()

    @property
    def restores(self) -> tuple[Micros, Micros] | None:
        """The time of which the archives hold every trade, so that it can be brought back where it has expired."""
        if self.days:
            return self.days[0].begin, self.days[-1].end
        return self.covered


@dataclass
class ImportResult:
    """What came of an import. `refused` are archives that nothing was taken of, each with its file, line and reason."""

    findings: Findings = field(default_factory=Findings)
    refused: list[str] = field(default_factory=list)
    stored: int = 0
    expired: int = 0
    covered: tuple[Micros, Micros] | None = None

    @property
    def duplicates(self) -> int:
        """Trades that were stored already, or came twice."""
        return self.findings.trades - self.stored - self.expired


@dataclass
class ReadArchives:
    """Archives that were read whole: what a job will send, and what was found; nothing is sent or made yet."""

    request: ImportRequest
    rules: IntakeRules
    spool: Spool
    result: ImportResult
    records: int = 0

    @property
    def empty(self) -> bool:
        """Whether there is nothing to send: neither a trade nor a claim."""
        return not self.records and self.result.covered is None


@asynccontextmanager
async def read_archives(
    request: ImportRequest, *, now: Micros, stop: Stop, progress: Progress
) -> AsyncIterator[ReadArchives]:
    """Read all archives, at our clock's instant `now` (microseconds); `StartError` where that was stopped."""
    rules = IntakeRules(
        market=request.market,
        job=f"import-{uuid.uuid4()}",
        resolution=request.resolution,
        received_time=now,
        skip_bad=request.skip_bad,
    )
    with Spool() as spool:
        read = ReadArchives(request=request, rules=rules, spool=spool, result=ImportResult())
        await asyncio.to_thread(_read_all, read, progress, stop)
        _check(stop)
        if read.result.findings.whole and not read.result.refused:
            read.result.covered = request.covered
        yield read


async def store_archives(
    read: ReadArchives, *, resources: Resources, stop: Stop, progress: Progress
) -> None:
    """Send what was read and return once everything is stored; `StartError` where it was stopped or the log refuses."""
    market = read.request.market
    await ensure_market(resources.pool, market)
    restores = read.request.restores if read.request.days else read.result.covered
    claim = [] if read.result.covered is None else claim_records(read.rules, read.result.covered)
    records = _job_records(read.rules, chain(read.spool.read(), claim), restores)
    await _send(records, read.records + len(claim) + 2, market, resources, stop, progress)
    done = await _wait_until_stored(
        read.rules.job, resources, stop, progress, read.result.findings.trades
    )
    read.result.stored, read.result.expired = done.stored, done.expired


def _read_all(read: ReadArchives, progress: Progress, stop: Stop) -> None:
    """Read every archive into the spool; one that is refused leaves nothing there."""
    files = read.request.files
    days = {day.path: day for day in read.request.days}
    since = end = 0
    sizes = [path.stat().st_size if path.is_file() else 0 for path in files]
    total, done = sum(sizes), 0
    for path, size in zip(files, sizes, strict=True):
        mark = read.spool.mark()
        begun = done

        def consumed(position: int, begun: int = begun) -> None:
            _check(stop)
            progress.reading(begun + position, total)

        try:
            if path in days:
                findings = take_day(
                    days[path],
                    since=since if days[path].begin == end else days[path].begin,
                    rules=read.rules,
                    spool=read.spool,
                    consumed=consumed,
                )
                since = since if days[path].begin == end else days[path].begin
                end = days[path].end
            else:
                findings = take_archive(path, rules=read.rules, spool=read.spool, consumed=consumed)
        except ArchiveError as error:
            read.spool.roll_back(mark)
            read.result.refused.append(str(error))
        else:
            read.result.findings.add(findings)
        done += size
        progress.reading(done, total)
    read.records = sum(1 for _ in read.spool.read())


def _job_records(
    rules: IntakeRules, trades: Iterable[bytes], restores: tuple[Micros, Micros] | None
) -> Iterator[bytes]:
    """Give the job's records in order: its start, the trades and what is known of them, its end."""
    exchange, symbol = rules.market.exchange, rules.market.symbol
    yield encode_trades(
        JobStarted(
            exchange=exchange,
            symbol=symbol,
            job=rules.job,
            origin=Origin.IMPORT,
            restores=restores,
        )
    )
    yield from trades
    yield encode_trades(JobEnded(exchange=exchange, symbol=symbol, job=rules.job))


def claim_records(rules: IntakeRules, covered: tuple[Micros, Micros]) -> list[bytes]:
    """Return the claim that all trades of a time [from, to) in µs are there, and of its whole days that they can be brought back."""
    records = [
        encode_trades(
            TradesRecord(
                exchange=rules.market.exchange,
                symbol=rules.market.symbol,
                received_time=rules.received_time,
                origin=Origin.IMPORT,
                job=rules.job,
                trades=(),
                covered=covered,
            )
        )
    ]
    since = covered[0] + -covered[0] % DAY
    days = range(since, covered[1] - covered[1] % DAY, DAY)
    return records + [
        restored(rules.market, day, day + DAY, since=since, covered=[(day, day + DAY)])
        for day in days
    ]


async def _send(
    records: Iterable[bytes],
    total: int,
    market: Market,
    resources: Resources,
    stop: Stop,
    progress: Progress,
) -> None:
    key = market.key.encode()
    partition = partition_for(key, await resources.bus.partition_count(TRADES))
    producer = resources.bus.producer()
    sent = 0
    for batch in _batches((key, record) for record in records):
        _check(stop)
        await _publish(producer, partition, batch, stop)
        sent += len(batch)
        progress.sending(sent, total)
    progress.sending(total, total)


def _batches(records: Iterable[Record]) -> Iterator[list[Record]]:
    batch: list[Record] = []
    size = 0
    for record in records:
        if batch and size + len(record[1]) > BATCH_BYTES:
            yield batch
            batch, size = [], 0
        batch.append(record)
        size += len(record[1])
    if batch:
        yield batch


async def _publish(producer: Producer, partition: int, batch: Sequence[Record], stop: Stop) -> None:
    """Publish, again where the outcome is unknown: a trade that comes twice counts once."""
    backoff = Backoff(first_seconds=0.1, limit_seconds=5.0)
    for _ in range(PUBLISH_ATTEMPTS):
        try:
            await producer.publish(TRADES, partition, batch)
            return
        except BusError as error:
            log.warning("a batch was not taken", error=str(error))
            last = error
        await stop.wait_for(backoff.next_delay())
        _check(stop)
    raise StartError(f"the log doesn't take the trades: {last}; import again, nothing counts twice")


async def _wait_until_stored(
    job: str, resources: Resources, stop: Stop, progress: Progress, total: int
) -> JobProgress:
    while True:
        _check(stop)
        try:
            found: JobProgress | None = await find_job(resources.pool, job)
        except POSTGRES_FAULTS as error:
            log.warning("the database doesn't answer", error=str(error))
            found = None
        if found is not None:
            progress.storing(found.stored, total)
            if found.state == "ended":
                return found
        await stop.wait_for(POLL_SECONDS)


def _check(stop: Stop) -> None:
    if stop.requested:
        raise StartError(
            "the import was stopped before its end; import again, nothing counts twice"
        )
