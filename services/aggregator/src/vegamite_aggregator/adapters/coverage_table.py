"""The tables `coverage_span`, `open_span`, `gap` and `job`: what is known to be complete, and what is being repaired."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from vegamite_aggregator.adapters.row import Connection, optional_datetime
from vegamite_aggregator.core.changes import Changes, MarketChanges
from vegamite_aggregator.core.rows import Job, OpenSpan
from vegamite_aggregator.ports import StoreError
from vegamite_common.domain.market import Market
from vegamite_common.domain.time import to_datetime

_SPANS = "SELECT * FROM coverage_span WHERE market_key = ANY($1::int[]) ORDER BY from_time"
_OPEN_SPANS = "SELECT * FROM open_span WHERE partition = $1"
_OPEN_JOBS = "SELECT * FROM job WHERE partition = $1 AND state = 'open'"
_JOBS = "SELECT * FROM job WHERE job = ANY($1::text[])"

# A filled gap stays interesting while it touches one that is still open: they may be parts of one hole. Rows never overlap, so
# only the next one and the one before can touch; the many other filled ones aren't looked at.
_GAPS = """
    SELECT * FROM gap WHERE market_key = ANY($1::int[]) AND state <> 'filled'
    UNION
    SELECT n.* FROM gap o JOIN gap n ON n.market_key = o.market_key AND n.from_time = o.to_time
    WHERE o.market_key = ANY($1::int[]) AND o.state = 'open' AND n.state = 'filled'
    UNION
    SELECT b.* FROM gap o, LATERAL (
        SELECT * FROM gap p WHERE p.market_key = o.market_key AND p.from_time < o.from_time
        ORDER BY p.from_time DESC LIMIT 1
    ) b
    WHERE o.market_key = ANY($1::int[]) AND o.state = 'open' AND b.state = 'filled' AND b.to_time = o.from_time
    ORDER BY from_time
"""

_DELETE_SPANS = """
    DELETE FROM coverage_span s USING unnest($1::int[], $2::timestamptz[]) AS gone (market_key, from_time)
    WHERE s.market_key = gone.market_key AND s.from_time = gone.from_time
"""
_WRITE_SPANS = """
    INSERT INTO coverage_span (market_key, from_time, to_time, end_cause)
    SELECT * FROM unnest($1::int[], $2::timestamptz[], $3::timestamptz[], $4::text[])
    ON CONFLICT (market_key, from_time) DO UPDATE SET to_time = excluded.to_time, end_cause = excluded.end_cause
"""
_DELETE_OPEN_SPANS = """
    DELETE FROM open_span s USING unnest($1::text[], $2::int[]) AS gone (writer, market_key)
    WHERE s.writer = gone.writer AND s.market_key = gone.market_key
"""
_WRITE_OPEN_SPANS = """
    INSERT INTO open_span (writer, market_key, partition, from_time, to_time)
    SELECT writer, market_key, $5, from_time, to_time
    FROM unnest($1::text[], $2::int[], $3::timestamptz[], $4::timestamptz[])
        AS given (writer, market_key, from_time, to_time)
    ON CONFLICT (writer, market_key) DO UPDATE
        SET from_time = excluded.from_time, to_time = excluded.to_time, partition = excluded.partition
"""
_DELETE_GAPS = """
    DELETE FROM gap g USING unnest($1::int[], $2::timestamptz[]) AS gone (market_key, from_time)
    WHERE g.market_key = gone.market_key AND g.from_time = gone.from_time
"""
_WRITE_GAPS = """
    INSERT INTO gap (market_key, from_time, to_time, cause, state, reason, recovered, opened_time, closed_time)
    SELECT * FROM unnest($1::int[], $2::timestamptz[], $3::timestamptz[], $4::text[], $5::text[], $6::text[],
        $7::bigint[], $8::timestamptz[], $9::timestamptz[])
    ON CONFLICT (market_key, from_time) DO UPDATE SET
        (to_time, cause, state, reason, recovered, opened_time, closed_time)
        = (excluded.to_time, excluded.cause, excluded.state, excluded.reason, excluded.recovered,
           excluded.opened_time, excluded.closed_time)
"""
_JOB_OWNERS = """
    SELECT job, exchange || ':' || symbol AS market FROM job JOIN market USING (market_key) WHERE job = ANY($1::text[])
"""
# A name that another market's job has meanwhile taken stays its own.
_WRITE_JOBS = """
    INSERT INTO job (job, market_key, partition, origin, state, opened_time, last_append_time, ended_time, trades,
        expired, restores_from, restores_to)
    SELECT job, market_key, $12, origin, state, opened_time, last_append_time, ended_time, trades,
        expired, restores_from, restores_to
    FROM unnest($1::text[], $2::int[], $3::text[], $4::text[], $5::timestamptz[], $6::timestamptz[],
        $7::timestamptz[], $8::bigint[], $9::bigint[], $10::timestamptz[], $11::timestamptz[])
        AS given (job, market_key, origin, state, opened_time, last_append_time, ended_time, trades,
            expired, restores_from, restores_to)
    ON CONFLICT (job) DO UPDATE SET
        (partition, origin, state, opened_time, last_append_time, ended_time, trades,
         expired, restores_from, restores_to)
        = (excluded.partition, excluded.origin, excluded.state, excluded.opened_time,
           excluded.last_append_time, excluded.ended_time, excluded.trades,
           excluded.expired, excluded.restores_from, excluded.restores_to)
        WHERE job.market_key = excluded.market_key
    RETURNING job
"""


async def read_spans(connection: Connection, market_keys: Sequence[int]) -> Sequence[Any]:
    """Return the rows of `coverage_span` of these markets, oldest first."""
    return await connection.fetch(_SPANS, market_keys)


async def read_open_spans(connection: Connection, partition: int) -> Sequence[Any]:
    """Return the rows of `open_span` of the partition."""
    return await connection.fetch(_OPEN_SPANS, partition)


async def read_gaps(connection: Connection, market_keys: Sequence[int]) -> Sequence[Any]:
    """Return the rows of `gap` that are open or unfillable, and the filled ones that touch an open one."""
    return await connection.fetch(_GAPS, market_keys)


async def read_open_jobs(connection: Connection, partition: int) -> Sequence[Any]:
    """Return the open jobs of the partition."""
    return await connection.fetch(_OPEN_JOBS, partition)


async def read_jobs(connection: Connection, names: Iterable[str]) -> Sequence[Any]:
    """Return the rows of the jobs that have one, whatever their state."""
    return await connection.fetch(_JOBS, list(names))


async def read_job_owners(connection: Connection, names: Iterable[str]) -> dict[str, str]:
    """Return the key of each job's market, by the names of those that have a row."""
    rows = await connection.fetch(_JOB_OWNERS, list(names))
    return {row["job"]: row["market"] for row in rows}


async def write_coverage(
    connection: Connection, changes: Changes, *, partition: int, keys: Mapping[Market, int]
) -> None:
    """Write a step's coverage, open spans, gaps and jobs; raise `StoreError` where a job's name is another market's by now."""
    await _write_spans(connection, changes.markets, keys)
    await _write_open_spans(connection, changes, partition, keys)
    await write_gaps(connection, changes.markets, keys)
    if changes.jobs:
        rows = [_job_values(job, keys) for job in changes.jobs]
        written = await connection.fetch(_WRITE_JOBS, *zip(*rows, strict=True), partition)
        taken = {job.job for job in changes.jobs} - {row["job"] for row in written}
        if taken:
            raise StoreError(f"jobs of another market have these names now: {sorted(taken)}")


async def _write_spans(
    connection: Connection, changes: Mapping[Market, MarketChanges], keys: Mapping[Market, int]
) -> None:
    rows, gone = [], []
    for market, change in changes.items():
        market_key = keys[market]
        kept = {span.from_time for span in change.coverage}
        gone += [
            (market_key, to_datetime(begin))
            for begin in change.coverage_deleted
            if begin not in kept  # extended: its row is updated in place
        ]
        rows += [
            (market_key, to_datetime(span.from_time), to_datetime(span.to_time), span.end_cause)
            for span in change.coverage
        ]
    if gone:
        await connection.execute(_DELETE_SPANS, *zip(*gone, strict=True))
    if rows:
        await connection.execute(_WRITE_SPANS, *zip(*rows, strict=True))


async def _write_open_spans(
    connection: Connection, changes: Changes, partition: int, keys: Mapping[Market, int]
) -> None:
    if changes.open_spans_deleted:
        gone = [(writer, keys[market]) for writer, market in changes.open_spans_deleted]
        await connection.execute(_DELETE_OPEN_SPANS, *zip(*gone, strict=True))
    if changes.open_spans:
        rows = [_open_span_values(span, keys) for span in changes.open_spans]
        await connection.execute(_WRITE_OPEN_SPANS, *zip(*rows, strict=True), partition)


async def write_gaps(
    connection: Connection, changes: Mapping[Market, MarketChanges], keys: Mapping[Market, int]
) -> None:
    """Delete, then upsert gaps, each as a whole row."""
    gone = [
        (keys[market], to_datetime(begin))
        for market, change in changes.items()
        for begin in change.gaps_deleted
    ]
    rows = [
        (
            keys[market],
            to_datetime(gap.from_time),
            to_datetime(gap.to_time),
            gap.cause,
            gap.state.value,
            gap.reason,
            gap.recovered,
            to_datetime(gap.opened_time),
            optional_datetime(gap.closed_time),
        )
        for market, change in changes.items()
        for gap in change.gaps
    ]
    if gone:
        await connection.execute(_DELETE_GAPS, *zip(*gone, strict=True))
    if rows:
        await connection.execute(_WRITE_GAPS, *zip(*rows, strict=True))


def _open_span_values(span: OpenSpan, keys: Mapping[Market, int]) -> tuple[Any, ...]:
    return (
        span.writer,
        keys[span.market],
        to_datetime(span.from_time),
        to_datetime(span.to_time),
    )


def _job_values(job: Job, keys: Mapping[Market, int]) -> tuple[Any, ...]:
    return (
        job.job,
        keys[job.market],
        job.origin.value,
        job.state,
        to_datetime(job.opened_time),
        to_datetime(job.last_append_time),
        optional_datetime(job.ended_time),
        job.trades,
        job.expired,
        *map(optional_datetime, job.restores or (None, None)),
    )
