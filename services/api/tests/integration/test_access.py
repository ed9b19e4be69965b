"""Who may do what: keys, hosts, origins, and changing what is tracked."""

import asyncio
from typing import Any

import asyncpg
import httpx
import pytest
import websockets.asyncio.client as ws_client
from websockets.exceptions import InvalidStatus
from websockets.typing import Origin

from vegamite_api.adapters.postgres_key_store import PostgresKeyStore
from vegamite_api.core.access import Scope
from vegamite_api.service.key_ring import create_key
from vegamite_common.domain.market import Market
from vegamite_common.domain.time import SECOND
from vegamite_common.testing.eventually import eventually

BTC = Market("kraken", "BTC/USD")
NOON = 1_760_097_600 * SECOND
TRACKED = "/v1/tracked-markets"


@pytest.fixture
async def closed_world(make_world: Any) -> Any:
    """A served world in which reading needs a key."""
    made = await make_world()
    await made.begin_log()
    await made.serve(anonymous_read=False)
    return made


async def test_tracking_needs_an_admin_key_even_where_reading_needs_none(world: Any) -> None:
    body = {"markets": [BTC.key]}
    reader = await world.admin_key(Scope.READ)
    for headers, status in (
        ({}, 401),
        ({"Authorization": "Bearer rubbish"}, 401),
        ({"Authorization": "Basic dTpw"}, 401),
        ({"X-API-Key": reader}, 403),
    ):
        answer = await world.http.put(TRACKED, json=body, headers=headers)
        assert answer.status_code == status, (headers, answer.text)
        assert answer.headers["content-type"] == "application/problem+json"
        answer = await world.http.delete(TRACKED, params={"market": BTC.key}, headers=headers)
        assert answer.status_code == status
    assert await world.pool.fetchval("SELECT count(*) FROM tracked_market") == 0


async def test_tracking_a_market_tells_collectors_and_shows_it_pending(world: Any) -> None:
    key = await world.admin_key()
    heard: list[str] = []
    listener = await asyncpg.connect(world.url)
    await listener.add_listener("tracked_market", lambda *args: heard.append(args[3]))
    body = {"markets": [BTC.key, "sim:DEMO/USD"], "history_from": "2025-10-10T00:00:00Z"}
    answer = await world.http.put(TRACKED, json=body, headers={"Authorization": f"Bearer {key}"})
    assert answer.status_code == 202
    assert answer.json() == {
        "data": [
            {"market": market, "state": "pending", "history_from": "2025-10-10T00:00:00Z"}
            for market in body["markets"]
        ],
        "next_cursor": None,
    }
    await eventually(lambda: len(heard) == 2)
    await listener.close()
    rows = (await world.http.get("/v1/markets", params={"tracked": "true"})).json()["data"]
    assert [(row["market"], row["state"], row["simulated"]) for row in rows] == [
        (BTC.key, "pending", False),
        ("sim:DEMO/USD", "pending", True),
    ]
    # Again, without a beginning: what was said before stays.
    again = await world.http.put(TRACKED, json={"markets": [BTC.key]}, headers={"X-API-Key": key})
    assert again.json()["data"][0]["history_from"] == "2025-10-10T00:00:00Z"
    removed = await world.http.delete(
        TRACKED, params={"market": BTC.key}, headers={"X-API-Key": key}
    )
    assert removed.status_code == 204
    twice = await world.http.delete(TRACKED, params={"market": BTC.key}, headers={"X-API-Key": key})
    assert (twice.status_code, twice.json()["code"]) == (404, "not_tracked")


async def test_markets_show_state_newest_trade_and_open_gaps(world: Any) -> None:
    key = await world.market(BTC, tracked=True)
    await world.market(Market("kraken", "ETH/USD"))
    await world.pool.execute(
        "SELECT ensure_time_partition('trade', 'trade_20251010', '2025-10-10Z', '2025-10-11Z')"
    )
    await world.pool.execute(
        """
        INSERT INTO trade VALUES
            ($1, '2025-10-10T12:00Z', '9', 9, 100.50, 1, 'buy', now(), 'live'),
            ($1, '2025-10-10T12:00Z', '10', 10, 101, 0.0000001, NULL, now(), 'live')
        """,
        key,
    )
    await world.pool.execute(
        "INSERT INTO market_state VALUES ($1, 'unknown_symbol', '2025-10-10T12:00Z', 'gone', '{XBT/USD}')",
        key,
    )
    await world.pool.execute(
        "INSERT INTO gap VALUES ($1, '2025-10-10T11:00Z', '2025-10-10T11:01Z', 'start', 'open', NULL, 0, now(), NULL)",
        key,
    )
    asked = {"exchange": "kraken", "base": "BTC", "quote": "USD", "type": "spot"}
    (row,) = (await world.http.get("/v1/markets", params=asked)).json()["data"]
    assert row["last_trade"] == {
        "trade_id": "10",
        "event_time": "2025-10-10T12:00:00Z",
        "price": "101",
        "amount": "0.0000001",
        "taker_side": None,
    }
    assert (row["state"], row["state_reason"], row["suggestions"]) == (
        "unknown_symbol",
        "gone",
        ["XBT/USD"],
    )
    assert row["open_gaps"] == 1
    assert row["listing"] == "unverified"
    pages = []
    cursor = None
    while True:
        page = (
            await world.http.get(
                "/v1/markets", params={"limit": 1} | ({"cursor": cursor} if cursor else {})
            )
        ).json()
        pages += [row["market"] for row in page["data"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert pages == ["kraken:BTC/USD", "kraken:ETH/USD"]
    untracked = (await world.http.get("/v1/markets", params={"tracked": "false"})).json()["data"]
    assert [row["state"] for row in untracked] == [None]
    exchanges = (await world.http.get("/v1/exchanges")).json()["data"]
    assert [(row["exchange"], row["simulated"], row["tracked_markets"]) for row in exchanges] == [
        ("kraken", False, 1),
        ("sim", True, 0),
    ]


@pytest.mark.parametrize(
    ("body", "kind", "parameter", "status"),
    [
        (b"{", "application/json", "body", 400),
        (b"[]", "application/json", "body", 400),
        (b"\xff", "application/json", "body", 400),
        (b"[" * 50_000, "application/json", "body", 400),
        (b"{}", "text/plain", "Content-Type", 415),
        (b"{}", "application/json", "markets", 400),
        (b'{"markets": []}', "application/json", "markets", 400),
        (b'{"markets": "kraken:BTC/USD"}', "application/json", "markets", 400),
        (b'{"markets": [1]}', "application/json", "markets[0]", 400),
        (b'{"markets": ["kraken:BTC/USD", "BTC"]}', "application/json", "markets[1]", 400),
        (b'{"markets": ["nobody:BTC/USD"]}', "application/json", "markets[0]", 400),
        (b'{"markets": ["kraken:BTC/USD"], "since": 1}', "application/json", "since", 400),
        (
            b'{"markets": ["kraken:BTC/USD"], "history_from": "x"}',
            "application/json",
            "history_from",
            400,
        ),
        (
            b'{"markets": ["kraken:BTC/USD"], "history_from": true}',
            "application/json",
            "history_from",
            400,
        ),
        (
            b'{"markets": ["kraken:BTC/USD"], "history_from": 9999999999999}',
            "application/json",
            "history_from",
            400,
        ),
        (b'{"markets": ["kraken:BTC\\u0000/USD"]}', "application/json", "markets[0]", 400),
        (b'{"markets": ["kraken:\\ud800/USD"]}', "application/json", None, 400),
        (b" " * 70_000, "application/json", None, 413),
    ],
)
async def test_a_wrong_body_is_a_4xx_that_names_what_is_wrong(
    world: Any, body: bytes, kind: str, parameter: str | None, status: int
) -> None:
    key = await world.admin_key()
    headers = {"Authorization": f"Bearer {key}", "Content-Type": kind}
    answer = await world.http.put(TRACKED, content=body, headers=headers)
    assert answer.status_code == status, answer.text
    if parameter is not None:
        assert answer.json()["parameter"] == parameter
    assert answer.json()["allowed"]


async def test_without_anonymous_reading_only_keys_read(closed_world: Any) -> None:
    world = closed_world
    key = await world.admin_key(Scope.READ)
    refused = await world.http.get("/v1/exchanges")
    assert refused.status_code == 401
    assert refused.headers["www-authenticate"].startswith("Bearer")
    answer = await world.http.get("/v1/exchanges", headers={"X-API-Key": key})
    assert answer.status_code == 200
    assert answer.headers["cache-control"] == "private, no-cache"
    twice = {"X-API-Key": key, "Authorization": "Bearer other"}
    assert (await world.http.get("/v1/exchanges", headers=twice)).status_code == 401
    # The page and the documents tell nothing of the data.
    for path in ("/docs", "/openapi.json", "/asyncapi.json"):
        assert (await world.http.get(path)).status_code == 200


async def test_revoked_and_expired_keys_are_worth_nothing(closed_world: Any) -> None:
    world = closed_world
    store = PostgresKeyStore(world.pool)
    expired, _ = await create_key(store, scope=Scope.ADMIN, name="old", expires_time=1)
    assert (
        await world.http.get("/v1/exchanges", headers={"X-API-Key": expired})
    ).status_code == 401
    key, stored = await create_key(store, scope=Scope.READ, name="new")
    assert await store.revoke(stored.key_id)
    assert not await store.revoke(stored.key_id)
    assert (await world.http.get("/v1/exchanges", headers={"X-API-Key": key})).status_code == 401
    hashes = await world.pool.fetch("SELECT * FROM api_key")
    assert expired not in str(hashes)


async def test_only_names_of_this_server_are_answered(world: Any) -> None:
    for host, status in (
        ("localhost", 200),
        (f"127.0.0.1:{world.service.port}", 200),
        ("[::1]:80", 200),
        ("LOCALHOST:8000", 200),
        ("evil.example", 400),
        ("127.0.0.1.evil.example", 400),
        ("localhost:80:80", 400),
        ("", 400),
    ):
        answer = await world.http.get("/v1/exchanges", headers={"Host": host})
        assert answer.status_code == status, (host, answer.text)
    assert (await world.http.get("/healthz", headers={"Host": "evil.example"})).status_code == 400


async def test_only_own_and_listed_pages_may_connect(make_world: Any) -> None:
    world = await make_world()
    await world.begin_log()
    await world.serve(allowed_origins=("https://charts.example.org",))
    await world.ready()
    port = world.service.port
    address = f"ws://127.0.0.1:{port}/v1/ws"
    for origin in (None, f"http://127.0.0.1:{port}", "https://charts.example.org"):
        allowed = None if origin is None else Origin(origin)
        async with ws_client.connect(address, origin=allowed, proxy=None):
            pass
    for origin in (
        "https://evil.example",
        "null",
        "http://127.0.0.1:1",
        f"http://localhost:{port}",
    ):
        with pytest.raises(InvalidStatus) as refused:
            await ws_client.connect(address, origin=Origin(origin), proxy=None)
        assert refused.value.response.status_code == 403
    with pytest.raises(InvalidStatus) as refused:
        await ws_client.connect(address, additional_headers={"Host": "evil.example"}, proxy=None)
    assert refused.value.response.status_code == 400
    with pytest.raises(InvalidStatus) as refused:
        await ws_client.connect(address + "?api_key=secret", proxy=None)
    assert refused.value.response.status_code == 400
    preflight = {"Origin": "https://charts.example.org", "Access-Control-Request-Method": "GET"}
    answer: httpx.Response = await world.http.options("/v1/exchanges", headers=preflight)
    assert answer.headers["access-control-allow-origin"] == "https://charts.example.org"
    answer = await world.http.get("/v1/exchanges", headers={"Origin": "https://evil.example"})
    assert "access-control-allow-origin" not in answer.headers


async def test_a_stream_without_a_key_is_refused_until_one_is_presented(closed_world: Any) -> None:
    world = closed_world
    key = await world.admin_key(Scope.READ)
    await world.market()
    async with world.stream() as stream:
        refused = await stream.ask("subscribe", channel="trades", markets=[BTC.key])
        assert refused["error"]["code"] == "AUTH_REQUIRED"
        accepted = await stream.ask("auth", key=key)
        assert accepted["success"]
        assert key not in str(accepted)
        assert (await stream.ask("subscribe", channel="trades", markets=[BTC.key]))["success"]
    async with world.stream(additional_headers={"Authorization": f"Bearer {key}"}) as stream:
        assert (await stream.ask("list"))["success"]
    async with world.stream() as stream:
        await stream.send(method="auth", params={"key": "rubbish"})
        assert await stream.closed() == 1008
        assert stream.messages[-1]["error"]["code"] == "UNAUTHORIZED"
    with pytest.raises(InvalidStatus) as refusal:
        async with world.stream(additional_headers={"X-API-Key": "rubbish"}):
            pass
    assert refusal.value.response.status_code == 401


async def test_a_client_that_never_presents_a_key_is_sent_away(closed_world: Any) -> None:
    async with closed_world.stream() as stream, asyncio.timeout(15):
        assert await stream.closed() == 1008
        assert stream.messages[-1]["code"] == "AUTH_REQUIRED"


async def test_probes_and_metrics_are_served_where_there_is_no_other_place(world: Any) -> None:
    await world.ready()
    assert (await world.http.get("/healthz")).text == "ok\n"
    assert (
        await world.http.get("/readyz")
    ).status_code == 503  # the probes given here never become ready
    await world.http.get("/v1/exchanges")
    text = (await world.http.get("/metrics")).text
    assert 'vegamite_api_requests_total{method="GET",route="/v1/exchanges",status="200"}' in text
    # A failure is seen as a rise, since its counter was there before.
    assert 'vegamite_api_requests_total{method="GET",route="/v1/candles",status="500"} 0.0' in text
