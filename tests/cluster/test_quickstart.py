"""The try-out: one `helm install` on an empty cluster, from there to the chart page, and away again."""

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from playwright.async_api import async_playwright, expect

from vegamite_common.testing.cluster import Cluster, Namespace
from vegamite_common.testing.eventually import eventually
from vegamite_common.testing.services.chromium import find_chromium

Tell = Callable[[str], None]

DEMO = "sim:DEMO/USD"
QUICKSTART = ("--set", "global.quickstart=true")
WAIT = ("--wait", "--timeout", "240s")
BROWSER = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking"]
PICTURES = Path(__file__).parents[2] / "test-results"
KINDS = (
    "deployments,statefulsets,services,configmaps,secrets,serviceaccounts,jobs,pods,"
    "networkpolicies,poddisruptionbudgets,horizontalpodautoscalers,ingresses,roles,rolebindings"
)


async def _get(base: str, path: str, **parameters: str) -> dict[str, Any]:
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"{base}{path}", params=parameters) as answer,
    ):
        body: dict[str, Any] = await answer.json()
        assert answer.status == 200, body
        return body


async def _newest_trade(base: str) -> str:
    page = await _get(base, "/v1/trades", market=DEMO, limit="1")
    return str(page["data"][0]["event_time"]) if page["data"] else ""


async def _moving(base: str) -> int:
    """Wait until the newest trade changes; gives the number of one-minute candles, of the last day's 1440."""
    first = await eventually(lambda: _newest_trade(base), timeout_s=90)

    async def changed() -> bool:
        return await _newest_trade(base) != first

    await eventually(changed, timeout_s=30)
    page = await _get(base, "/v1/candles", market=DEMO, timeframe="1m", limit="1000")
    return len(page["data"])


async def _photograph(base: str, picture: Path) -> None:
    picture.parent.mkdir(exist_ok=True)
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=str(find_chromium()), args=BROWSER
        )
        page = await browser.new_page(viewport={"width": 1280, "height": 800})
        await page.goto(f"{base}/")
        await expect(page.locator("body")).to_contain_text("DEMO/USD", timeout=30_000)
        await expect(page.locator("#chart canvas").first).to_be_visible(timeout=30_000)
        await expect(page.locator("#badges")).to_contain_text("live", timeout=30_000)
        await expect(page.locator("#trades tr").first).to_be_visible(timeout=30_000)
        await page.screenshot(path=str(picture))
        await browser.close()


def _ok(done: Any, namespace: Namespace) -> str:
    assert done.returncode == 0, f"{done.stdout}{done.stderr}\n{namespace.describe_troubles()}"
    return str(done.stdout)


def _ready(namespace: Namespace) -> list[str]:
    """The names of the workloads' pods, every one of them ready; AssertionError names those that aren't."""
    pods = [
        pod
        for pod in namespace.objects("pods")
        if not any(o["kind"] == "Job" for o in pod["metadata"].get("ownerReferences", []))
        and pod["metadata"].get("ownerReferences")
    ]
    waiting = [
        pod["metadata"]["name"]
        for pod in pods
        if not all(
            status["ready"] for status in pod["status"].get("containerStatuses", [{"ready": False}])
        )
    ]
    assert waiting == [], namespace.describe_troubles()
    return [pod["metadata"]["name"] for pod in pods]


@pytest.mark.timeout(900)
@pytest.mark.parametrize("helm", [4, 3])
async def test_a_quickstart_runs_is_tested_upgraded_rolled_back_and_leaves_its_volumes_alone(
    cluster: Cluster, charts: Path, tell: Tell, tmp_path: Path, helm: int
) -> None:
    chart = str(charts / "vegamite")
    with cluster.namespace("quickstart") as namespace:

        def run(*arguments: str) -> str:
            return _ok(namespace.helm(*arguments, version=helm), namespace)

        begun = time.monotonic()
        notes = run("install", "vegamite", chart, *QUICKSTART, *WAIT)
        tell(f"helm {helm} install --wait: {time.monotonic() - begun:.1f} s\n{notes}")
        assert "not for production" in notes.lower()
        pods = _ready(namespace)
        assert len(pods) == 5, pods  # the three services, Kafka, PostgreSQL
        tell(f"ready under the restricted level: {', '.join(pods)}")

        with namespace.forwarded("service/vegamite-api", "http", log=tmp_path / "forward") as port:
            base = f"http://127.0.0.1:{port}"
            candles = await _moving(base)
            tell(
                f"moving {time.monotonic() - begun:.1f} s after the install began, {candles} candles"
            )
            await _photograph(base, PICTURES / f"cluster-helm{helm}.png")

        # Helm 3 asks for the logs after it has removed the pods of tests that went well.
        logs = ("--logs",) if helm == 4 else ()
        tell(run("test", "vegamite", "--timeout", "120s", *logs))

        before = await asyncio.to_thread(namespace.pod_uids, "app.kubernetes.io/component=api")
        run("upgrade", "vegamite", chart, *QUICKSTART, "--set", "api.config.log.level=debug", *WAIT)
        after = await asyncio.to_thread(namespace.pod_uids, "app.kubernetes.io/component=api")
        assert before.isdisjoint(after)
        tell("helm upgrade: the api's pods are new, all are ready")
        run("rollback", "vegamite", "1", *WAIT)
        _ready(namespace)
        with namespace.forwarded("service/vegamite-api", "http", log=tmp_path / "forward") as port:
            base = f"http://127.0.0.1:{port}"
            assert await _moving(base) >= candles  # nothing was lost on the way
        tell(f"helm rollback:\n{run('history', 'vegamite')}")

        said = run("uninstall", "vegamite", "--wait", "--timeout", "120s")
        await eventually(lambda: not namespace.objects("pods"), timeout_s=60, interval_s=1)
        left = [
            f"{each['kind']}/{each['metadata']['name']}"
            for each in namespace.objects(KINDS)
            if each["metadata"]["name"] not in ("default", "kube-root-ca.crt")
        ]
        volumes = [each["metadata"]["name"] for each in namespace.objects("persistentvolumeclaims")]
        tell(f"helm uninstall: {said.strip()}; left: {left} and the volumes {volumes}")
        assert left == []
        assert len(volumes) == 2

        run("install", "vegamite", chart, *QUICKSTART, *WAIT)
        with namespace.forwarded("service/vegamite-api", "http", log=tmp_path / "forward") as port:
            assert await _moving(f"http://127.0.0.1:{port}") >= candles
        tell("installed anew over the volumes, it goes on with what was stored")
