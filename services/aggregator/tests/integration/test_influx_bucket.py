"""Buckets on a server that has an API for them (played here, by its rules), and as databases on the real 1.8."""

import asyncio
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from pydantic import SecretStr

from vegamite_aggregator.adapters.influx_store import InfluxPointStore
from vegamite_aggregator.config import InfluxSection
from vegamite_aggregator.core.point import Point
from vegamite_aggregator.ports import SinkError
from vegamite_common.domain.market import Market
from vegamite_common.domain.time import MINUTE, parse_time
from vegamite_common.domain.timeframe import Timeframe
from vegamite_common.testing.eventually import eventually
from vegamite_common.testing.services.influxdb import InfluxAddress

DAY_SECONDS = 86_400


class Buckets(ThreadingHTTPServer):
    """`/api/v2/buckets`, `/api/v2/orgs` and `/api/v2/write` as InfluxDB 2 has them, with one token."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.buckets: dict[str, int] = {}
        self.changes: list[str] = []
        self.lines: list[str] = []
        self.answers: list[int] = []
        self.deletes = True
        self.deleted: list[dict[str, str]] = []


class _Handler(BaseHTTPRequestHandler):
    server: Buckets

    def _answer(self, status: int, body: Any = None) -> None:
        text = json.dumps(body).encode() if body is not None else b""
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def _allowed(self) -> bool:
        if self.headers["Authorization"] == "Token good":
            return True
        self._answer(401, {"code": "unauthorized", "message": "unauthorized access"})
        return False

    def _body(self) -> Any:
        return self.rfile.read(int(self.headers["Content-Length"]))

    def _bucket(self, name: str) -> dict[str, Any]:
        rules = [{"type": "expire", "everySeconds": self.server.buckets[name]}]
        return {"id": f"id-{name}", "name": name, "orgID": "0a", "retentionRules": rules}

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        query = parse_qs(parts.query)
        if not self._allowed():
            return
        if parts.path == "/api/v2/orgs":
            self._answer(200, {"orgs": [{"id": "0a", "name": query["org"][0]}]})
        elif "name" in query and query["name"][0] not in self.server.buckets:
            self._answer(404, {"code": "not found", "message": "bucket not found"})
        else:
            names = query.get("name", sorted(self.server.buckets))
            self._answer(200, {"buckets": [self._bucket(name) for name in names]})

    def do_POST(self) -> None:
        if not self._allowed():
            return
        if self.path.startswith("/api/v2/write"):
            lines = self._body().decode().splitlines()
            status = self.server.answers.pop(0) if self.server.answers else 204
            if status == 204 and any("poison" in line for line in lines):
                self._answer(422, {"code": "unprocessable entity", "message": "no such type"})
                return
            if status == 204:
                self.server.lines += lines
            self._answer(status, {"message": "as the test wants it"} if status != 204 else None)
            return
        if self.path.startswith("/api/v2/delete") and self.server.deletes:
            query = parse_qs(urlsplit(self.path).query)
            self.server.deleted.append(json.loads(self._body()) | {"bucket": query["bucket"][0]})
            self._answer(204)
            return
        if not self.path.startswith("/api/v2/buckets"):
            self._answer(404, {"code": "not found", "message": "path not found"})
            return
        told = json.loads(self._body())
        self.server.buckets[told["name"]] = told["retentionRules"][0]["everySeconds"]
        self.server.changes.append(f"made {told['name']} in {told['orgID']}")
        self._answer(201, self._bucket(told["name"]))

    def do_PATCH(self) -> None:
        told = json.loads(self._body())
        self.server.buckets[told["name"]] = told["retentionRules"][0]["everySeconds"]
        self.server.changes.append(f"changed {told['name']}")
        self._answer(200, self._bucket(told["name"]))

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def server() -> Iterator[Buckets]:
    with Buckets() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def store_of(address: InfluxAddress, **keys: Any) -> InfluxPointStore:
    section = InfluxSection(
        url=address.url, token=SecretStr(address.token), org=address.org, batch_size=100,
        flush_interval_ms=10, retry_interval_ms=10, max_retry_interval_ms=100, **keys,
    )  # fmt: skip
    return InfluxPointStore(section, url=address.url, token=address.token, on_retry=lambda: None)


def address_of(server: Buckets, token: str = "good") -> InfluxAddress:
    return InfluxAddress(f"http://127.0.0.1:{server.server_port}", token)


def points(*names: str) -> list[Point]:
    return [Point("recent", f"{name} value=1 {at}".encode()) for at, name in enumerate(names)]


async def test_missing_buckets_are_made_and_retention_follows_the_configuration(
    server: Buckets,
) -> None:
    store = store_of(address_of(server), retention_days=7)
    await store.prepare()
    assert server.buckets == {"vegamite": 7 * DAY_SECONDS, "vegamite_downsampled": 0}
    assert server.changes == ["made vegamite in 0a", "made vegamite_downsampled in 0a"]
    await store.prepare()
    assert len(server.changes) == 2
    await store.close()
    store = store_of(address_of(server), retention_days=30)
    await store.prepare()
    assert server.buckets["vegamite"] == 30 * DAY_SECONDS
    assert server.changes[2:] == ["changed vegamite"]
    await store.close()


async def test_with_buckets_of_somebody_elses_nothing_is_asked(server: Buckets) -> None:
    store = store_of(address_of(server, "wrong"), manage_buckets=False)
    await store.prepare()
    assert server.buckets == {}
    with pytest.raises(SinkError) as caught:
        await store.write(points("a"))
    assert caught.value.state == "refused"
    assert "unauthorized access" in str(caught.value)
    await store.close()


@pytest.mark.parametrize(
    ("answers", "state"),
    [([503] * 4, "away"), ([429] * 4, "away"), ([403], "refused"), ([404], "missing")],
)
async def test_trouble_is_told_apart_and_over_when_the_server_takes_points_again(
    server: Buckets, answers: list[int], state: str
) -> None:
    store = store_of(address_of(server))
    server.answers = answers
    with pytest.raises(SinkError) as caught:
        await store.write(points("a", "b"))
    assert caught.value.state == state
    assert await store.write(points("a", "b")) == []
    assert len(server.lines) == 2
    await store.close()


async def test_what_passes_by_itself_the_client_tries_again(server: Buckets) -> None:
    store = store_of(address_of(server))
    server.answers = [503, 429]
    assert await store.write(points("a", "b")) == []
    assert len(server.lines) == 2
    await store.close()


async def test_wrong_points_are_found_and_all_others_written(server: Buckets) -> None:
    store = store_of(address_of(server))
    names = [f"n{at}" for at in range(250)]
    names[17] = names[211] = "poison"
    rejected = await store.write(points(*names))
    assert sorted(one.line for one in rejected) == [b"poison value=1 17", b"poison value=1 211"]
    assert {one.reason for one in rejected} == {"no such type"}
    assert len(set(server.lines)) == 248
    await store.close()


async def test_where_every_point_is_wrong_it_is_not_the_points(server: Buckets) -> None:
    store = store_of(address_of(server))
    with pytest.raises(SinkError) as caught:
        await store.write(points(*["poison"] * 150))
    assert caught.value.state == "rejecting"
    assert await store.write(points("good")) == []
    assert len(await store.write(points("good", "poison"))) == 1
    await store.close()


async def test_a_flight_that_was_given_up_is_not_mistaken_for_the_next(server: Buckets) -> None:
    store = store_of(address_of(server))
    server.answers = [503, 503]
    writing = asyncio.create_task(store.write(points(*[f"first{at}" for at in range(50)])))
    await eventually(lambda: len(server.answers) < 2)
    writing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await writing
    await store.write(points(*[f"second{at}" for at in range(50)]))
    assert sum(line.startswith("second") for line in server.lines) == 50
    await store.close()


async def test_candles_are_deleted_by_the_api_of_version_2_where_there_is_one(
    server: Buckets,
) -> None:
    store = store_of(address_of(server))
    market, noon = Market("sim", 'A"B/USD'), parse_time("2026-01-15T12:00:00Z")
    assert await store.delete_candles(market, Timeframe.M1, first=noon, last=noon + MINUTE)
    assert server.deleted == [
        {
            "bucket": "vegamite",
            "start": "2026-01-15T12:00:00Z",
            "stop": "2026-01-15T12:01:00.000001Z",
            "predicate": '_measurement="candle" AND exchange="sim" AND symbol="A\\"B/USD" AND timeframe="1m"',
        }
    ]
    server.deletes = False
    assert not await store.delete_candles(market, Timeframe.M1, first=noon, last=noon)
    await store.close()


async def test_databases_and_policies_of_1_8_do_as_buckets(influxdb: InfluxAddress) -> None:
    names = {"bucket": "buckets_of_1_8/week", "downsampled_bucket": "buckets_of_1_8_long"}
    if influxdb.token.count(":") != 1:  # a container of InfluxDB 2
        names["bucket"] = "buckets_of_2"
    for days in (7, 14):
        store = store_of(influxdb, **names, retention_days=days)
        await store.prepare()
        await store.prepare()
        await store.close()
    now = 1_700_000_000_000_000_000
    store = store_of(influxdb, **names)
    old = [Point("recent", f"old value=1 {now}".encode())]
    rejected = await store.write(old)
    assert [one.expired for one in rejected] == [True]
    assert await store.write([Point("downsampled", old[0].line)]) == []
    await store.close()
