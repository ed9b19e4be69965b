"""What of the database's faults is a `StoreError`, and what stays the bug that it is."""

import asyncio

import asyncpg
import pytest
import uvloop

from vegamite_aggregator.adapters.fence import store_faults
from vegamite_aggregator.ports import StoreError


@pytest.mark.parametrize(
    "fault",
    [
        TimeoutError(),
        ConnectionResetError("reset by peer"),
        asyncpg.ConnectionDoesNotExistError("connection was closed in the middle of operation"),
        RuntimeError(
            "unable to perform operation on <UnixTransport closed=True>; the handler is closed"
        ),
    ],
)
async def test_what_a_database_does_to_a_correct_program_is_a_store_error(fault: Exception) -> None:
    with pytest.raises(StoreError):
        async with store_faults():
            raise fault


@pytest.mark.parametrize("bug", [RuntimeError("dictionary changed size"), KeyError("price")])
async def test_a_bug_stays_what_it_is(bug: Exception) -> None:
    with pytest.raises(type(bug)):
        async with store_faults():
            raise bug


class _Connection(asyncio.Protocol):
    def __init__(self) -> None:
        self.lost = asyncio.Event()

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost.set()


def test_the_loop_in_use_still_says_so_of_a_connection_that_has_ended() -> None:
    async def write_to_closed() -> None:
        server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
        async with server:
            transport, connection = await asyncio.get_running_loop().create_connection(
                _Connection, *server.sockets[0].getsockname()
            )
            transport.abort()
            await connection.lost.wait()
            async with store_faults():
                transport.write(b"late")

    with pytest.raises(StoreError), asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(write_to_closed())
