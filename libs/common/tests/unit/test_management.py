import asyncio
import socket

import aiohttp
import pytest
from prometheus_client import CollectorRegistry, Counter

from vegamite_common.runtime.health import Health
from vegamite_common.runtime.lifecycle import StartError, Stop
from vegamite_common.runtime.management import open_management, serve
from vegamite_common.testing.eventually import eventually


async def get(port: int, path: str) -> tuple[int, str, str]:
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"http://127.0.0.1:{port}{path}") as response,
    ):
        return response.status, await response.text(), response.headers["Content-Type"]


async def test_the_probes_answer_200_or_503_with_the_reason() -> None:
    now = [0.0]
    health = Health("collector", live_seconds=10, monotonic=lambda: now[0])
    async with open_management(health, host="127.0.0.1", port=0) as port:
        assert (await get(port, "/healthz"))[:2] == (200, "ok\n")
        assert (await get(port, "/readyz"))[:2] == (503, "collector: starting\n")
        health.set_ready(True)
        now[0] = 11.0
        assert (await get(port, "/healthz"))[:2] == (
            503,
            "collector: the loop has not moved for 11 s\n",
        )
        assert (await get(port, "/readyz"))[:2] == (200, "ok\n")
        assert (await get(port, "/else"))[0] == 404


async def test_metrics_are_those_of_the_registry_in_prometheus_text() -> None:
    registry = CollectorRegistry()
    Counter("vegamite_test_things_total", "Things", registry=registry).inc(3)
    async with open_management(Health(), host="127.0.0.1", port=0, registry=registry) as port:
        status, text, content_type = await get(port, "/metrics")
    assert status == 200
    assert "vegamite_test_things_total 3.0" in text
    assert content_type.startswith("text/plain; version=")


async def test_a_taken_port_is_one_plain_sentence() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(
            StartError, match=f"^the management address 127.0.0.1:{port} can't be used: "
        ):
            async with open_management(Health(), host="127.0.0.1", port=port):
                pass


async def test_it_serves_until_the_stop() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    stop = Stop()
    serving = asyncio.create_task(serve(Health(), host="127.0.0.1", port=port, stop=stop))

    async def answers() -> bool:
        try:
            return (await get(port, "/healthz"))[0] == 200
        except aiohttp.ClientError:
            return False

    await eventually(answers)
    stop.request()
    await serving
    assert not await answers()
