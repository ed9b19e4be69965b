"""The aggregator made wrong on purpose: each mutation takes away one thing that exactly-once rests on.

A run with a mutation has to fail; one that passes says that the run, not the aggregator, is wrong.
"""

import re
from collections.abc import Callable, Sequence
from typing import Any

import asyncpg

import vegamite_aggregator.adapters.postgres_store as postgres_store
from tests.chaos.control import Control
from vegamite_aggregator.adapters.outbox_table import PostgresOutbox
from vegamite_aggregator.ports import OutboxRow
from vegamite_aggregator.service.worker import Worker

_SAVEPOINTS = re.compile(r"\s*(SAVEPOINT|ROLLBACK TO|RELEASE)\b", re.IGNORECASE)


class StaleMutationError(Exception):
    """What a mutation or a phase is tied to isn't there any more: the aggregator changed, and this has to follow."""


def replace(owner: Any, name: str, make: Callable[[Any], Any]) -> None:
    """Replace an attribute by what `make` makes of it; raise `StaleMutationError` where it isn't there."""
    found = getattr(owner, name, None)
    if found is None:
        raise StaleMutationError(f"{getattr(owner, '__name__', owner)} has no {name} any more")
    setattr(owner, name, make(found))


def remove_fence(control: Control) -> None:
    """Begin without locking the fence's row and without looking at its version."""

    def unfenced(_: Any) -> Any:
        async def begin(connection: Any, *, partition: int, version: int) -> None:
            await connection.execute("BEGIN")
            found = await connection.fetchval(
                "SELECT version FROM partition_fence WHERE partition = $1", partition
            )
            if found != version:
                control.note_mutated()

        return begin

    replace(postgres_store, "begin_locked", unfenced)


def remove_savepoint(control: Control) -> None:
    """Take no savepoint before COPY, and so roll back to none."""

    def without(execute: Any) -> Any:
        async def run(self: Any, query: str, *args: Any, **keywords: Any) -> Any:
            if _SAVEPOINTS.match(query):
                control.note_mutated()
                return query
            return await execute(self, query, *args, **keywords)

        return run

    replace(asyncpg.Connection, "execute", without)


def remove_outbox(control: Control) -> None:
    """Keep what is to be published in the process alone."""
    kept: dict[int, list[OutboxRow]] = {}
    numbers = iter(range(1, 1 << 60))

    async def keep(_: Any, partition: int, records: Sequence[Any]) -> None:
        for record in records:
            control.note_mutated()
            row = OutboxRow(next(numbers), record.topic, record.key, record.value)
            kept.setdefault(partition, []).append(row)

    async def waiting(
        _: Any, partition: int, topic: str, *, limit: int, max_bytes: int
    ) -> Sequence[OutboxRow]:
        return [row for row in kept.get(partition, ()) if row.topic == topic][:limit]

    async def delete(_: Any, row_ids: Sequence[int]) -> None:
        for rows in kept.values():
            rows[:] = [row for row in rows if row.row_id not in set(row_ids)]

    replace(postgres_store, "write_outbox", lambda _: keep)
    replace(PostgresOutbox, "waiting", lambda _: waiting)
    replace(PostgresOutbox, "delete", lambda _: delete)


def change_state_first(control: Control) -> None:
    """Let memory and whoever listens follow a step before its commit."""
    current: dict[int, Any] = {}
    applied: list[Any] = []

    def remembering(own: Any) -> Any:
        async def run(self: Any, *args: Any, **keywords: Any) -> Any:
            current[self._partition] = self
            return await own(self, *args, **keywords)

        return run

    def once(apply: Any) -> Any:
        def run(self: Any, state: Any, changes: Any) -> None:
            if any(changes is one for one in applied):
                applied[:] = [one for one in applied if one is not changes]
                return
            apply(self, state, changes)

        return run

    def eager(write: Any) -> Any:
        async def run(self: Any, changes: Any) -> None:
            await write(self, changes)
            current[self._state.partition]._applied(self._state, changes)
            applied.append(changes)
            del applied[:-64]
            control.note_mutated()

        return run

    replace(Worker, "run", remembering)
    replace(Worker, "_applied", once)
    replace(postgres_store.PostgresStep, "write", eager)


MUTATIONS: dict[str, Callable[[Control], None]] = {
    "fence": remove_fence,
    "savepoint": remove_savepoint,
    "outbox": remove_outbox,
    "order": change_state_first,
}
"""What can be taken away, by the names that `make chaos MUTATION=…` takes."""
