"""The aggregator as a run of faults starts it: the real one, whose adapters tell by shared memory what they are at.

Arguments: the file of the shared words, the mutation or `-`, then the aggregator's own.
"""

import asyncio
import functools
import sys
from collections.abc import AsyncIterable, AsyncIterator
from pathlib import Path
from typing import Any

import asyncpg

import vegamite_aggregator.adapters.postgres_store as postgres_store
import vegamite_aggregator.service.worker as worker
from tests.chaos.control import Control
from tests.chaos.mutation import MUTATIONS, replace
from vegamite_aggregator.__main__ import main
from vegamite_common.bus.kafka.member import KafkaMember
from vegamite_common.bus.kafka.producer import KafkaProducer

LONGEST_HEADER = 64
"""Of a COPY, in bytes: the binary format begins with one, in a portion of its own."""


def tell_phases(control: Control) -> None:
    """Have every phase told, and orders carried out there; raise `StaleMutationError` where the aggregator has changed."""

    def awaited(name: str) -> Any:
        def wrap(call: Any) -> Any:
            @functools.wraps(call)
            async def run(*args: Any, **keywords: Any) -> Any:
                with control.phase(name):
                    return await call(*args, **keywords)

            return run

        return wrap

    def computed(call: Any) -> Any:
        @functools.wraps(call)
        def run(*args: Any, **keywords: Any) -> Any:
            with control.phase("fold"):
                return call(*args, **keywords)

        return run

    replace(KafkaMember, "poll", awaited("fetch"))
    replace(worker, "decide", computed)
    replace(postgres_store.PostgresStep, "insert_trades", awaited("copy"))
    replace(asyncpg.Connection, "copy_to_table", lambda call: _in_the_middle(control, call))
    replace(postgres_store, "commit", awaited("commit"))
    replace(KafkaProducer, "publish", awaited("publish"))


def _in_the_middle(control: Control, copy: Any) -> Any:
    """An order for the middle of a COPY is carried out when half of its first portion of rows has been sent."""

    async def halved(source: AsyncIterable[bytes]) -> AsyncIterator[bytes]:
        first = True
        async for portion in source:
            if first and len(portion) > LONGEST_HEADER:
                first = False
                yield portion[: len(portion) // 2]
                for _ in range(
                    3
                ):  # what was written leaves the process at the end of a turn of the loop
                    await asyncio.sleep(0)
                control.reach("copy", "midway")
                portion = portion[len(portion) // 2 :]
            yield portion

    @functools.wraps(copy)
    async def run(*args: Any, source: AsyncIterable[bytes], **keywords: Any) -> Any:
        return await copy(*args, source=halved(source), **keywords)

    return run


if __name__ == "__main__":
    words = Control(Path(sys.argv[1]))
    tell_phases(words)
    if sys.argv[2] != "-":
        MUTATIONS[sys.argv[2]](words)
    sys.exit(main(sys.argv[3:]))
