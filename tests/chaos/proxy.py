"""The network between the aggregators and their servers: it can be cut, made to stand still, and lose answers."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeAlias

Streams: TypeAlias = tuple[asyncio.StreamReader, asyncio.StreamWriter]

_CHUNK = 65_536


class Link:
    """One connection through the proxy: both ends."""

    def __init__(self, client: asyncio.StreamWriter, server: asyncio.StreamWriter) -> None:
        self.client = client
        self.server = server
        self.deaf = False

    def cut(self) -> None:
        """End both sides at once, whatever is on its way."""
        for writer in (self.client, self.server):
            writer.transport.abort()


class Proxy:
    """Passes bytes between clients and one server; `open_server` makes the connection to it."""

    def __init__(self, open_server: Callable[[], Awaitable[Streams]]) -> None:
        self._open_server = open_server
        self._links: set[Link] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._moving = asyncio.Event()
        self._moving.set()
        self._listener: asyncio.Server | None = None

    async def listen(self, port: int) -> None:
        """Take clients on a loopback port."""
        self._listener = await asyncio.start_server(self._serve, "127.0.0.1", port)

    async def listen_at(self, path: Path) -> None:
        """Take clients on a Unix socket."""
        self._listener = await asyncio.start_unix_server(self._serve, path)

    async def close(self) -> None:
        """Take no more clients and end those there are."""
        if self._listener is not None:
            self._listener.close()
        self.cut_all()
        self._moving.set()
        if self._tasks:
            await asyncio.wait(self._tasks)

    @property
    def links(self) -> "list[Link]":
        """The connections there are, in no order that means anything."""
        return list(self._links)

    def cut_all(self) -> None:
        """End every connection."""
        for link in self.links:
            link.cut()

    def stand_still(self) -> None:
        """Pass nothing on any more, in neither direction; connections stay, new ones too."""
        self._moving.clear()

    def go_on(self) -> None:
        """Pass on again, what waited first."""
        self._moving.set()

    def lose_answers(self) -> None:
        """Pass on what the present clients say, and nothing of what they are answered."""
        for link in self._links:
            link.deaf = True

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        try:
            server_reader, server = await self._open_server()
        except OSError:
            writer.transport.abort()
            return
        link = Link(writer, server)
        self._links.add(link)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._pass(reader, server, link, answers=False))
                group.create_task(self._pass(server_reader, writer, link, answers=True))
        except* OSError:
            pass
        finally:
            self._links.discard(link)
            link.cut()

    async def _pass(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        link: Link,
        *,
        answers: bool,
    ) -> None:
        while data := await reader.read(_CHUNK):
            await self._moving.wait()
            if answers and link.deaf:
                continue
            writer.write(data)
            await writer.drain()
        with contextlib.suppress(OSError):
            writer.write_eof()
        if not answers:
            return
        raise ConnectionResetError("the server hung up")  # ends the other direction too
