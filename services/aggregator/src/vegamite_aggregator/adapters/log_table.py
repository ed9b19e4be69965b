"""The tables `log_epoch` and `partition_fence` as a whole: which log this is, and the change to another one."""

from typing import Any

from vegamite_aggregator.adapters.row import Connection
from vegamite_aggregator.ports import LogMismatchError
from vegamite_common.bus.partition import partition_for

_NEWEST = "SELECT epoch, partitions FROM log_epoch ORDER BY epoch DESC LIMIT 1"
_ADD = "INSERT INTO log_epoch (epoch, partitions) VALUES ($1, $2)"

# An offset of one log means nothing in the next: what was open there stays as it is stored, and everybody is fenced out.
_END_EPOCH = (
    "DELETE FROM open_span",
    "UPDATE partition_fence SET version = version + 1, next_offset = 0, epoch = (SELECT max(epoch) FROM log_epoch)",
)
_OPEN_JOBS = "SELECT job, exchange || ':' || symbol AS key FROM job JOIN market USING (market_key) WHERE job.state = 'open'"
_WAITING = "SELECT id, key FROM outbox WHERE key IS NOT NULL"
_MOVE_KEYLESS = "UPDATE outbox SET partition = partition % $1 WHERE key IS NULL"


async def ensure_epoch(connection: Connection, *, partitions: int, new_epoch: bool) -> int:
    """Return the log's epoch; inside a transaction. Raise `LogMismatchError` for another number of partitions.

    With `new_epoch` an epoch is added: fences start over, open spans end, open jobs and waiting records move along.
    """
    await connection.execute("LOCK TABLE log_epoch IN EXCLUSIVE MODE")
    newest = await connection.fetchrow(_NEWEST)
    if newest is not None and not new_epoch:
        if newest["partitions"] != partitions:
            raise LogMismatchError(
                f"the log has {partitions} partitions, the stored state is of one with {newest['partitions']}; "
                "start once with --new-log-epoch if the log was replaced on purpose"
            )
        return int(newest["epoch"])
    epoch = newest["epoch"] + 1 if newest is not None else 1
    await connection.execute(_ADD, epoch, partitions)
    for statement in _END_EPOCH:
        await connection.execute(statement)
    await _move(connection, _OPEN_JOBS, "UPDATE job SET partition = $2 WHERE job = $1", partitions)
    await _move(connection, _WAITING, "UPDATE outbox SET partition = $2 WHERE id = $1", partitions)
    await connection.execute(_MOVE_KEYLESS, partitions)
    return epoch


async def _move(connection: Connection, select: str, update: str, partitions: int) -> None:
    moved: list[tuple[Any, int]] = []
    for identity, key in await connection.fetch(select):
        name = key if isinstance(key, bytes) else key.encode()
        moved.append((identity, partition_for(name, partitions)))
    if moved:
        await connection.executemany(update, moved)
