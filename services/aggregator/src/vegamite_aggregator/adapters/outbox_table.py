"""The table `outbox`: records that were committed and wait for the log's acknowledgement."""

from collections.abc import Sequence

import asyncpg

from vegamite_aggregator.adapters.fence import store_faults
from vegamite_aggregator.adapters.row import Connection
from vegamite_aggregator.core.changes import OutboxRecord
from vegamite_aggregator.ports import OutboxRow
from vegamite_common.bus.port import TOPICS

# The rows' numbers follow the list's order, since a serial is taken row by row from an ordered source.
_WRITE = """
    INSERT INTO outbox (partition, topic, key, value)
    SELECT $1, topic, key, value FROM unnest($2::text[], $3::bytea[], $4::bytea[]) WITH ORDINALITY
        AS given (topic, key, value, place) ORDER BY place
"""
# A value's length is known without the value, so that those left out aren't read.
_WAITING = """
    SELECT id, topic, key, value FROM (
        SELECT *, sum(octet_length(value)) OVER (ORDER BY id) - octet_length(value) AS bytes_before FROM (
            SELECT id, topic, key, value FROM outbox WHERE partition = $1 AND topic = $2 ORDER BY id LIMIT $3
        ) AS oldest
    ) AS counted WHERE bytes_before < $4 ORDER BY id
"""
# The first of each partition and topic by their index, however many wait behind it.
_AGE = """
    SELECT extract(epoch FROM clock_timestamp() - min(created_time))::float8
    FROM unnest($1::int[]) AS owned (partition) CROSS JOIN unnest($2::text[]) AS known (topic) CROSS JOIN LATERAL (
        SELECT created_time FROM outbox
        WHERE outbox.partition = owned.partition AND outbox.topic = known.topic ORDER BY id LIMIT 1
    ) AS oldest
"""
_DELETE = "DELETE FROM outbox WHERE id = ANY($1::bigint[])"


async def write_outbox(
    connection: Connection, partition: int, records: Sequence[OutboxRecord]
) -> None:
    """Add records to the partition's outbox, in order, inside the connection's transaction."""
    if records:
        await connection.execute(
            _WRITE,
            partition,
            [record.topic for record in records],
            [record.key for record in records],
            [record.value for record in records],
        )


class PostgresOutbox:
    """`Outbox` over a pool of asyncpg."""

    def __init__(self, pool: "asyncpg.Pool[asyncpg.Record]") -> None:
        self._pool = pool

    async def waiting(
        self, partition: int, topic: str, *, limit: int, max_bytes: int
    ) -> Sequence[OutboxRow]:
        """Return the oldest rows of partition and topic, in order; see `Outbox`."""
        async with store_faults():
            rows = await self._pool.fetch(_WAITING, partition, topic, limit, max_bytes)
        return [OutboxRow(*row) for row in rows]

    async def age(self, partitions: Sequence[int]) -> float:
        """Return for how many real seconds the oldest row of these partitions has waited; 0 where none does."""
        async with store_faults():
            age = await self._pool.fetchval(_AGE, list(partitions), list(TOPICS))
        return max(0.0, age or 0.0)

    async def delete(self, row_ids: Sequence[int]) -> None:
        """Forget rows that the log has."""
        async with store_faults():
            await self._pool.execute(_DELETE, list(row_ids))
