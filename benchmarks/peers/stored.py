"""From Kafka into PostgreSQL: the real aggregator, and Quix Streams' sink, into databases of one server.

The log is that of benchmarks/aggregator_pipeline.py, clean: records as a collector writes them, 50 trades each, in 12
partitions. Ours stores each trade under its key, and candles of 16 timeframes, exactly once. The sink reads the topic with a
record a trade, and in a run of its own the same log as ours.
"""

import asyncio
import sys
import tempfile
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import asyncpg
from aggregator_pipeline import CONFIG, POSTGRES, SHAPES
from measuring import (
    SILENCE_SECONDS,
    ProgramError,
    Run,
    Sample,
    processor_seconds,
    run_program,
)
from pipeline_load import Load, create_topics, fill
from programs import HERE, peers_python
from workload import TRADES_TOPIC

from vegamite_aggregator.migrate import migrate_database
from vegamite_common.bus.port import TRADES
from vegamite_common.runtime.clock import wall_now
from vegamite_common.testing.service_process import ServiceProcess
from vegamite_common.testing.services.postgres import PostgresServer

_POSITION = "SELECT count(*), coalesce(sum(next_offset), 0)::bigint FROM partition_fence"


class Stored:
    """The log in the broker and the database server, for any number of runs of both programs."""

    def __init__(
        self, bootstrap: str, postgres: PostgresServer, load: Load, records: int, folder: Path
    ) -> None:
        self._bootstrap = bootstrap
        self._postgres = postgres
        self._load = load
        self._records = records
        self._folder = folder

    async def run(self, name: str) -> Run:
        """Run the program of that name in `programs.STORED`."""
        if name == "vegamite-postgres":
            return await self.ours()
        return await self.quix("burst" if name == "quix-postgres-wire" else "line")

    async def ours(self) -> Run:
        """Run the aggregator from an empty database to the end of the log, and look at what it stored."""
        async with self._database() as url:
            await migrate_database(url)
            name = uuid.uuid4().hex
            config = self._folder / f"{name}.toml"
            config.write_text(
                CONFIG.format(bootstrap=self._bootstrap, url=url, group=f"peers-{name}", more="")
            )
            command = [sys.executable, "-m", "vegamite_aggregator", "--config", str(config)]
            connection = await asyncpg.connect(url)
            try:
                with ServiceProcess(command, log=config.with_suffix(".log")) as process:
                    run = await self._follow(connection, process)
                    await asyncio.to_thread(process.stop)
                rows = await connection.fetchval("SELECT count(*) FROM trade")
                if rows != self._load.distinct:
                    raise ProgramError(f"vegamite stored {rows} of {self._load.distinct} trades")
            finally:
                await connection.close()
        return run

    async def _follow(
        self, connection: "asyncpg.Connection[asyncpg.Record]", process: ServiceProcess
    ) -> Run:
        """Watch the committed offsets; the first sample is the moment before the first fetch."""
        run = Run(time.monotonic())
        began = 0.0
        while not run.samples or run.samples[-1].trades < self._load.delivered:
            partitions, offset = await connection.fetchrow(_POSITION) or (0, 0)
            trades = round(offset * self._load.delivered / self._records)
            if partitions and (not run.samples or trades > run.samples[-1].trades):
                run.samples.append(Sample(time.monotonic(), trades))
                began = began or processor_seconds(process.process.pid)
            since = run.samples[-1].at if run.samples else run.started
            if process.process.poll() is not None or time.monotonic() - since > SILENCE_SECONDS:
                said = process.log.read_text(errors="replace")[-2_000:]
                raise ProgramError(f"the aggregator did not come to the end of the log:\n{said}")
            await asyncio.sleep(0.02)
        run.processor = (began, processor_seconds(process.process.pid))
        return run

    async def quix(self, form: str) -> Run:
        """Run the sink from an empty database, over as many trades of a topic of that format, and count its rows."""
        async with self._database() as url:
            state = self._folder / f"quix-{uuid.uuid4().hex}"
            state.mkdir()
            topic, records = TRADES, self._records
            if form == "line":
                topic, records = TRADES_TOPIC, self._load.delivered
            script = (str(peers_python()), str(HERE / "quix_postgres.py"))
            counts = (str(records), str(self._load.delivered))
            run = await asyncio.to_thread(
                run_program,
                [*script, self._bootstrap, topic, form, *counts, str(state), url],
                trades=self._load.delivered,
                log=state.with_suffix(".log"),
                folder=HERE,
            )
            connection = await asyncpg.connect(url)
            try:
                rows = await connection.fetchval("SELECT count(*) FROM quix_trade")
            finally:
                await connection.close()
        if rows != self._load.delivered:
            raise ProgramError(f"quix stored {rows} of {self._load.delivered} trades")
        return run

    @asynccontextmanager
    async def _database(self) -> AsyncIterator[str]:
        """The URL of a new database, which goes with the block."""
        name = f"peers_{uuid.uuid4().hex[:12]}"
        admin = await asyncpg.connect(self._postgres.url)
        try:
            await admin.execute(f'CREATE DATABASE "{name}"')
            await admin.execute("CHECKPOINT")
            try:
                yield urlunsplit(urlsplit(self._postgres.url)._replace(path=f"/{name}"))
            finally:
                await admin.execute(f'DROP DATABASE "{name}" WITH (FORCE)')
        finally:
            await admin.close()


@asynccontextmanager
async def stored(bootstrap: str, trades: int) -> AsyncIterator[Stored]:
    """The log of about so many trades, and a server to store them in."""
    load = Load(SHAPES["clean"], trades=trades, now=wall_now())
    await create_topics(bootstrap, append_times="CreateTime")
    records = await fill(bootstrap, load)
    with (
        tempfile.TemporaryDirectory(prefix="vegamite-peers-") as folder,
        PostgresServer(settings=POSTGRES) as postgres,
    ):
        yield Stored(bootstrap, postgres, load, records, Path(folder))
