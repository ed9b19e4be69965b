import asyncio
import socket
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from decimal import Decimal
from urllib.parse import parse_qs, urlsplit, urlunsplit

import asyncpg
import pytest
import structlog
from pydantic import SecretStr

from vegamite_common.domain.time import from_datetime, to_datetime
from vegamite_common.runtime.lifecycle import StartError
from vegamite_common.runtime.postgres import (
    POSTGRES_FAULTS,
    connect_arguments,
    open_pool,
    wait_for_schema,
)
from vegamite_common.runtime.section import PostgresSection
from vegamite_common.testing.eventually import eventually


def section(url: str, **settings: object) -> PostgresSection:
    return PostgresSection.model_validate({"url": url, "pool_size": 3, **settings})


@pytest.fixture
async def pool(database: str) -> AsyncIterator[asyncpg.Pool]:
    pool = await open_pool(section(database), application_name="vegamite-test")
    yield pool
    await pool.close()


class TestPool:
    async def test_values_are_exact_and_instants_utc(self, pool: asyncpg.Pool) -> None:
        micros = 1_570_752_000_123_457
        row = await pool.fetchrow(
            "SELECT $1::timestamptz AS at, '0.000000000000000001'::numeric AS tiny,"
            " '123456789012345678.12'::numeric AS large, current_setting('TimeZone') AS zone,"
            " current_setting('application_name') AS name",
            to_datetime(micros),
        )
        assert row is not None
        assert from_datetime(row["at"]) == micros
        assert row["at"] == datetime(2019, 10, 11, 0, 0, 0, 123457, tzinfo=UTC)
        assert row["tiny"] == Decimal("0.000000000000000001")
        assert row["large"] == Decimal("123456789012345678.12")
        assert (row["zone"], row["name"]) == ("UTC", "vegamite-test")

    async def test_no_more_connections_are_opened_than_configured(self, pool: asyncpg.Pool) -> None:
        held = [await pool.acquire() for _ in range(3)]
        with pytest.raises(TimeoutError):
            await pool.acquire(timeout=0.1)
        for connection in held:
            await pool.release(connection)

    async def test_a_statement_that_takes_too_long_is_a_fault(self, database: str) -> None:
        pool = await open_pool(section(database, command_timeout_ms=200))
        with pytest.raises(POSTGRES_FAULTS):
            await pool.execute("SELECT pg_sleep(30)")
        await pool.close()

    async def test_a_connection_that_was_ended_is_a_fault_and_the_next_one_works(
        self, pool: asyncpg.Pool
    ) -> None:
        async with pool.acquire() as connection:
            pid = connection.get_server_pid()
            await pool.execute("SELECT pg_terminate_backend($1)", pid)
            with pytest.raises(POSTGRES_FAULTS):
                await connection.fetchval("SELECT 1")
        assert await pool.fetchval("SELECT 1") == 1

    async def test_the_password_replaces_the_one_of_the_url(self, database: str) -> None:
        parts = urlsplit(database)
        user, password = parts.username or "postgres", parts.password
        wrong = parts._replace(netloc=f"{user}:wrong@{parts.hostname or ''}:{parts.port or ''}")
        arguments = connect_arguments(
            section(urlunsplit(wrong), password=SecretStr(password or "any")),
            application_name="vegamite",
        )
        assert arguments["password"] == (password or "any")


class TestStart:
    async def test_a_database_that_comes_late_is_waited_for_and_told_once(
        self, database: str
    ) -> None:
        parts = urlsplit(database)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        late = parts._replace(
            netloc=f"{parts.netloc.rpartition('@')[0]}@127.0.0.1:{port}", query=""
        )
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        target = (
            query.get("host") or parts.hostname or "127.0.0.1",
            parts.port or int(query.get("port", "5432")),
        )
        with structlog.testing.capture_logs() as told:
            opening = asyncio.create_task(open_pool(section(urlunsplit(late))))
            await eventually(lambda: told)
            proxy = await asyncio.start_server(lambda r, w: relay(r, w, target), "127.0.0.1", port)
            pool = await opening
            assert await pool.fetchval("SELECT 1") == 1
            await pool.close()
            proxy.close()
        assert [line["event"] for line in told] == ["waiting for PostgreSQL"]

    async def test_a_database_that_never_comes_is_one_sentence(self) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        with pytest.raises(StartError, match=r"^PostgreSQL can't be reached: .*Connect"):
            await open_pool(
                section(f"postgresql://u:hush@127.0.0.1:{port}/d", start_timeout_ms=300)
            )

    async def test_a_refusal_is_told_at_once_and_without_the_password(self, database: str) -> None:
        nowhere = urlunsplit(urlsplit(database)._replace(path="/nowhere"))
        async with asyncio.timeout(20):
            with pytest.raises(
                StartError, match=r'^PostgreSQL refused the connection: database "nowhere"'
            ) as caught:
                await open_pool(section(nowhere, start_timeout_ms=600_000))
        password = urlsplit(database).password
        assert not password or password not in str(caught.value)


async def relay(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, target: tuple[str, int]
) -> None:
    """Carry one connection to the real server."""
    host, port = target
    if host.startswith("/"):
        inner, outer = await asyncio.open_unix_connection(f"{host}/.s.PGSQL.{port}")
    else:
        inner, outer = await asyncio.open_connection(host, port)

    async def carry(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        while data := await source.read(65536):
            sink.write(data)
            await sink.drain()
        sink.close()

    await asyncio.gather(carry(reader, outer), carry(inner, writer))


class TestSchema:
    async def set_version(self, pool: asyncpg.Pool, version: int, compatible_from: int) -> None:
        await pool.execute(
            "CREATE TABLE IF NOT EXISTS schema_version (version int, compatible_from int)"
        )
        await pool.execute("DELETE FROM schema_version")
        await pool.execute("INSERT INTO schema_version VALUES ($1, $2)", version, compatible_from)

    async def test_the_version_is_given_when_it_is_there(self, pool: asyncpg.Pool) -> None:
        await self.set_version(pool, 4, 2)
        assert await wait_for_schema(pool, minimum=3, own=3) == 4

    async def test_a_migration_that_comes_late_is_waited_for(self, pool: asyncpg.Pool) -> None:
        with structlog.testing.capture_logs() as told:
            waiting = asyncio.create_task(wait_for_schema(pool, minimum=2, own=2))
            await eventually(lambda: told)
            await self.set_version(pool, 1, 1)
            await self.set_version(pool, 2, 1)
            assert await waiting == 2
        assert [line["event"] for line in told] == ["waiting for the database schema"]

    @pytest.mark.parametrize("version", [None, 1])
    async def test_a_schema_that_stays_too_old_is_one_sentence(
        self, pool: asyncpg.Pool, version: int | None
    ) -> None:
        if version is not None:
            await self.set_version(pool, version, 1)
        with pytest.raises(
            StartError, match=f"is version {version or 0}, version 2 or later is needed"
        ):
            await wait_for_schema(pool, minimum=2, own=2, timeout_seconds=0.3)

    async def test_a_schema_that_is_too_new_is_refused_at_once(self, pool: asyncpg.Pool) -> None:
        await self.set_version(pool, 9, 7)
        with pytest.raises(
            StartError, match="needs a vegamite that knows version 7; this one knows 6"
        ):
            await wait_for_schema(pool, minimum=3, own=6, timeout_seconds=600)
        assert await wait_for_schema(pool, minimum=3, own=7) == 9
