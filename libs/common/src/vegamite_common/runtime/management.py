"""The management server of a service: `/healthz` (liveness), `/readyz` (readiness), `/metrics` (Prometheus text)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Protocol

import structlog
from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, CollectorRegistry, generate_latest

from vegamite_common.runtime.health import State
from vegamite_common.runtime.lifecycle import StartError, Stop

log = structlog.get_logger(__name__)


class Probes(Protocol):
    """What answers the two probes: `Health` or `JointHealth`."""

    def live(self) -> State:
        """Whether the loop moved lately."""
        ...

    def ready(self) -> State:
        """Whether it can serve."""
        ...


def probe_body(state: State) -> tuple[int, str]:
    """The HTTP status and plain text of a probe's answer: 200 `ok`, or 503 and the reason."""
    return (200, "ok\n") if state.ok else (503, f"{state.reason}\n")


def create_management_app(
    probes: Probes, registry: CollectorRegistry = REGISTRY
) -> web.Application:
    """The aiohttp application of the three addresses."""

    async def healthz(_request: web.Request) -> web.Response:
        status, text = probe_body(probes.live())
        return web.Response(status=status, text=text)

    async def readyz(_request: web.Request) -> web.Response:
        status, text = probe_body(probes.ready())
        return web.Response(status=status, text=text)

    async def metrics(_request: web.Request) -> web.Response:
        return web.Response(
            body=generate_latest(registry), headers={"Content-Type": CONTENT_TYPE_LATEST}
        )

    app = web.Application()
    app.router.add_get("/healthz", healthz)
    app.router.add_get("/readyz", readyz)
    app.router.add_get("/metrics", metrics)
    return app


@asynccontextmanager
async def open_management(
    probes: Probes, *, host: str, port: int, registry: CollectorRegistry = REGISTRY
) -> AsyncIterator[int]:
    """Serve inside the block; gives the port that was bound (port 0: the system's choice). Raises `StartError` where it's taken."""
    runner = web.AppRunner(
        create_management_app(probes, registry), access_log=None, shutdown_timeout=1.0
    )
    await runner.setup()
    try:
        site = web.TCPSite(runner, host, port)
        try:
            await site.start()
        except OSError as error:
            raise StartError(
                f"the management address {host}:{port} can't be used: {error.strerror}"
            ) from None
        bound = int(runner.addresses[0][1])
        log.info("management listens", management_host=host, management_port=bound)
        yield bound
    finally:
        await runner.cleanup()


async def serve(
    probes: Probes, *, host: str, port: int, stop: Stop, registry: CollectorRegistry = REGISTRY
) -> None:
    """Serve until `stop` is requested. A process that drains wants `open_management` around its service instead."""
    async with open_management(probes, host=host, port=port, registry=registry):
        await stop.wait()
