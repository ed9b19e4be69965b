"""Hashes of API keys in PostgreSQL."""

import asyncpg

from vegamite_api.adapters.postgres_store import Pool, at, connection, micros
from vegamite_api.core.access import ApiKey, Scope, key_id
from vegamite_common.domain.time import Micros

_COLUMNS = "key_id, scope, name, created_time, expires_time"


def _key(row: asyncpg.Record) -> ApiKey:
    expires = row["expires_time"]
    return ApiKey(
        key_id=row["key_id"],
        scope=Scope(row["scope"]),
        name=row["name"],
        created_time=micros(row["created_time"]),
        expires_time=None if expires is None else micros(expires),
    )


class PostgresKeyStore:
    """`KeyStore` over a pool, which stays its owner's to close."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def find(self, digest: bytes) -> ApiKey | None:
        """Return the key with this hash."""
        async with connection(self._pool) as lent:
            row = await lent.fetchrow(f"SELECT {_COLUMNS} FROM api_key WHERE hash = $1", digest)
        return None if row is None else _key(row)

    async def add(
        self, digest: bytes, *, scope: Scope, name: str, expires_time: Micros | None
    ) -> ApiKey:
        """Store a new key's hash; storing the same one again changes nothing."""
        async with connection(self._pool) as lent, lent.transaction():
            await lent.execute(
                """
                INSERT INTO api_key (key_id, hash, scope, name, expires_time) VALUES ($1, $2, $3, $4, $5)
                ON CONFLICT (hash) DO NOTHING
                """,
                key_id(digest),
                digest,
                scope.value,
                name,
                None if expires_time is None else at(expires_time),
            )
            row = await lent.fetchrow(f"SELECT {_COLUMNS} FROM api_key WHERE hash = $1", digest)
        assert row is not None
        return _key(row)

    async def keys(self) -> list[ApiKey]:
        """Return every key, oldest first."""
        async with connection(self._pool) as lent:
            rows = await lent.fetch(f"SELECT {_COLUMNS} FROM api_key ORDER BY created_time, key_id")
        return [_key(row) for row in rows]

    async def revoke(self, key_id: str) -> bool:
        """Delete a key; False where there is none of that id."""
        async with connection(self._pool) as lent:
            status = await lent.execute("DELETE FROM api_key WHERE key_id = $1", key_id)
        return not status.endswith(" 0")
