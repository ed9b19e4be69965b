"""The API's life: serve, and when it is time to stop, tell the clients, close their streams, let answers end."""

import asyncio
from typing import Protocol

import structlog

from vegamite_api.service.hub import Hub
from vegamite_api.service.tail import Tail
from vegamite_common.runtime.health import Health
from vegamite_common.runtime.lifecycle import Stop
from vegamite_common.runtime.metrics import tell_build

log = structlog.get_logger(__name__)

_LEAVE_SECONDS = 6.0


class Server(Protocol):
    """What serves the application."""

    @property
    def port(self) -> int:
        """The port that is listened on."""
        ...

    async def run(self) -> None:
        """Serve until `stop`."""
        ...

    def stop(self) -> None:
        """Take no new connection, and end `run` soon."""
        ...


class ApiService:
    """The API, built and ready to run."""

    name = "api"

    def __init__(
        self, *, server: Server, tail: Tail, hub: Hub, health: Health, drain_ms: int
    ) -> None:
        self._server = server
        self._tail = tail
        self._hub = hub
        self._drain_ms = drain_ms
        self.health = health

    @property
    def port(self) -> int:
        """The port that HTTP and WebSocket are served on."""
        return self._server.port

    async def run(self, stop: Stop) -> None:
        """Serve until `stop` is requested, then drain; raises only on a bug."""
        tell_build(self.name)
        async with asyncio.TaskGroup() as group:
            serving = group.create_task(self._server.run(), name="http")
            following = group.create_task(self._tail.run(), name="tail")
            log.info("serving", port=self.port)
            await stop.wait()
            await self._drain()
            self._server.stop()
            await serving
            following.cancel()

    async def _drain(self) -> None:
        self.health.set_ready(ready=False, reason="draining")
        self._hub.announce_drain(self._drain_ms)
        await self._empty(self._drain_ms / 1000)
        self._hub.close_all()
        await self._empty(_LEAVE_SECONDS)

    async def _empty(self, seconds: float) -> None:
        """Wait until every connection has left, but no longer than `seconds`."""
        try:
            async with asyncio.timeout(seconds):
                await self._hub.wait_empty()
        except TimeoutError:
            return
