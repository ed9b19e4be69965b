"""History over HTTP: pages, representations, fills, and what every wrong question is answered."""

import csv
import gzip
import io
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from vegamite_common.domain.market import Market
from vegamite_common.domain.time import SECOND, format_time
from vegamite_common.domain.trade import Trade
from vegamite_common.messages.trades import TradesRecord

BTC = Market("kraken", "BTC/USD")
NOON = 1_760_097_600 * SECOND


@pytest.fixture
async def stored(
    make_world: Any,
    make_trades: Callable[..., list[Trade]],
    trades_record: Callable[..., TradesRecord],
) -> Any:
    """A world whose aggregator folded 700 trades of two covered hours, without one between 10:59 and 11:01."""
    world = await make_world()
    await world.aggregate()
    await world.serve()
    await world.market()
    begin = NOON - 7_200 * SECOND
    trades = [
        trade
        for trade in make_trades(count=700, begin=begin, step=18 * SECOND)
        if not begin + 3_540 * SECOND <= trade.event_time < begin + 3_660 * SECOND
    ]
    trades = [trade for trade in trades if trade.event_time < NOON - 60 * SECOND]
    world.trades = trades
    await world.publish(trades_record(BTC, trades, covered=(begin + SECOND, NOON - 30 * SECOND)))
    await world.settled()
    return world


async def _pages(world: Any, path: str, **parameters: Any) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    cursor: str | None = None
    for _ in range(1000):
        asked = parameters | ({"cursor": cursor} if cursor else {})
        answer = await world.http.get(path, params=asked)
        assert answer.status_code == 200, answer.text
        page = answer.json()
        assert len(page["data"]) <= parameters["limit"]
        rows += page["data"]
        cursor = page["next_cursor"]
        if cursor is None:
            return rows
    raise AssertionError("paging never ends")


@pytest.mark.parametrize("sort", ["asc", "desc"])
async def test_pages_of_trades_together_are_all_trades_in_the_total_order(
    stored: Any, sort: str
) -> None:
    rows = await _pages(
        stored, "/v1/trades", market=BTC.key, sort=sort, limit=7, start="2025-10-10"
    )
    expected = sorted(stored.trades, key=lambda trade: trade.order, reverse=sort == "desc")
    assert [row["trade_id"] for row in rows] == [trade.trade_id for trade in expected]


@pytest.mark.parametrize("sort", ["asc", "desc"])
@pytest.mark.parametrize("extra", [{}, {"fill": "prev"}, {"fill": "null", "partial": "false"}])
async def test_pages_of_candles_together_equal_one_big_answer(
    stored: Any, sort: str, extra: dict[str, str]
) -> None:
    question = {"market": BTC.key, "timeframe": "1m", "sort": sort, "start": "2025-10-10", **extra}
    rows = await _pages(stored, "/v1/candles", limit=3, **question)
    whole = (await stored.http.get("/v1/candles", params=question | {"limit": 10_000})).json()
    assert rows == whole["data"]
    assert len(rows) > 100
    opens = [row["open_time"] for row in rows]
    assert opens == sorted(set(opens), reverse=sort == "desc")


async def test_paging_while_rows_are_added_gives_each_row_that_was_there_once(
    stored: Any, make_trades: Callable[..., list[Trade]], trades_record: Callable[..., TradesRecord]
) -> None:
    late = make_trades(seed=9, count=40, begin=NOON - 5_000 * SECOND)
    late = [
        Trade(
            trade_id=f"late-{trade.trade_id}",
            sequence=trade.sequence,
            event_time=trade.event_time,
            price=trade.price,
            amount=trade.amount,
        )
        for trade in late
    ]
    seen: list[str] = []
    cursor = None
    while True:
        asked: dict[str, Any] = {"market": BTC.key, "start": 0, "limit": 50}
        page = (
            await stored.http.get(
                "/v1/trades", params=asked | ({"cursor": cursor} if cursor else {})
            )
        ).json()
        seen += [row["trade_id"] for row in page["data"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
        if late:
            await stored.publish(trades_record(BTC, [late.pop(), late.pop(0)]))
            await stored.settled()
    assert len(seen) == len(set(seen))
    assert {trade.trade_id for trade in stored.trades} <= set(seen)


async def test_without_start_the_newest_rows_come_in_ascending_order(stored: Any) -> None:
    newest = sorted(stored.trades, key=lambda trade: trade.order)[-5:]
    page = (await stored.http.get("/v1/trades", params={"market": BTC.key, "limit": 5})).json()
    assert [row["trade_id"] for row in page["data"]] == [trade.trade_id for trade in newest]
    assert page["next_cursor"] is None
    end = newest[2].event_time
    asked = {"market": BTC.key, "limit": 2, "end": end // 1000 + 1}
    page = (await stored.http.get("/v1/trades", params=asked)).json()
    assert [row["trade_id"] for row in page["data"]] == [
        trade.trade_id
        for trade in sorted(stored.trades, key=lambda trade: trade.order)
        if trade.event_time < (end // 1000 + 1) * 1000
    ][-2:]


async def test_filled_rows_lie_inside_coverage_only_and_carry_the_last_price(stored: Any) -> None:
    question = {"market": BTC.key, "timeframe": "1m", "start": "2025-10-10T09:50:00Z"}
    plain = (await stored.http.get("/v1/candles", params=question)).json()["data"]
    filled = (await stored.http.get("/v1/candles", params=question | {"fill": "prev"})).json()[
        "data"
    ]
    assert [row["synthetic"] for row in filled if row["trade_count"]] == [False] * len(plain)
    synthetic = [row for row in filled if row["synthetic"]]
    times = [row["open_time"] for row in synthetic]
    assert "2025-10-10T10:59:00Z" in times
    assert "2025-10-10T11:00:00Z" in times
    # 10:00 is covered but for its first second, 11:59 but for its last half: neither is known to be empty.
    opens = [row["open_time"] for row in filled]
    assert opens[0] == "2025-10-10T10:00:00Z"
    assert filled[0]["synthetic"] is False
    assert max(times, default="") < "2025-10-10T11:59:00Z"
    at = opens.index("2025-10-10T11:00:00Z")
    assert filled[at]["open"] == filled[at - 2]["close"] == filled[at]["close"]
    assert filled[at]["volume"] == "0"
    empty = (await stored.http.get("/v1/candles", params=question | {"fill": "null"})).json()[
        "data"
    ]
    assert empty[at]["open"] is None
    assert empty[at]["complete"] is True


async def test_csv_arrays_and_objects_say_the_same(stored: Any) -> None:
    question = {"market": BTC.key, "timeframe": "5m", "start": 0, "limit": 9, "time": "ms"}
    objects = (await stored.http.get("/v1/candles", params=question)).json()
    arrays = (await stored.http.get("/v1/candles", params=question | {"shape": "array"})).json()
    assert [dict(zip(arrays["columns"], row, strict=True)) for row in arrays["data"]] == objects[
        "data"
    ]
    answer = await stored.http.get("/v1/candles", params=question, headers={"Accept": "text/csv"})
    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    rows = list(csv.DictReader(io.StringIO(answer.text)))
    assert [row["open"] for row in rows] == [row["open"] for row in objects["data"]]
    assert [int(row["open_time"]) for row in rows] == [row["open_time"] for row in objects["data"]]
    link = answer.headers["link"]
    assert link.endswith('; rel="next"')
    following = await stored.http.get(link[1 : link.index(">")], headers={"Accept": "text/csv"})
    assert following.status_code == 200
    first = next(csv.DictReader(io.StringIO(following.text)))
    assert int(first["open_time"]) == int(rows[-1]["open_time"]) + 300_000


async def test_a_candle_that_changes_changes_the_etag(
    stored: Any, make_trades: Callable[..., list[Trade]], trades_record: Callable[..., TradesRecord]
) -> None:
    question = {"market": BTC.key, "timeframe": "1h", "start": 0}
    first = await stored.http.get("/v1/candles", params=question)
    assert first.headers["cache-control"] == "no-cache"
    assert "Authorization" in first.headers["vary"]
    held = {"If-None-Match": first.headers["etag"]}
    again = await stored.http.get("/v1/candles", params=question, headers=held)
    assert again.status_code == 304
    assert again.headers["etag"] == first.headers["etag"]
    late = make_trades(seed=3, count=1, begin=NOON - 4_000 * SECOND)[0]
    other = Trade(
        trade_id="late",
        sequence=1,
        event_time=late.event_time,
        price=late.price,
        amount=late.amount,
    )
    await stored.publish(trades_record(BTC, [other]))
    await stored.settled()
    changed = await stored.http.get("/v1/candles", params=question, headers=held)
    assert changed.status_code == 200
    assert changed.json()["data"][0]["revision"] == 1


async def test_what_is_compressed_is_the_same(stored: Any) -> None:
    question = {"market": BTC.key, "start": 0}
    plain = await stored.http.get(
        "/v1/trades", params=question, headers={"Accept-Encoding": "identity"}
    )
    async with stored.http.stream(
        "GET", "/v1/trades", params=question, headers={"Accept-Encoding": "gzip"}
    ) as answer:
        raw = b"".join([chunk async for chunk in answer.aiter_raw()])
    assert answer.headers["content-encoding"] == "gzip"
    assert gzip.decompress(raw) == plain.content
    assert answer.headers["etag"] != plain.headers["etag"]
    refused = await stored.http.get(
        "/v1/trades", params=question, headers={"Accept-Encoding": "gzip;q=0"}
    )
    assert "content-encoding" not in refused.headers


async def test_latest_candles_have_the_one_in_progress_too(
    stored: Any, make_trades: Callable[..., list[Trade]], trades_record: Callable[..., TradesRecord]
) -> None:
    await stored.publish(trades_record(BTC, [_trade("now", NOON + SECOND)]))
    await stored.settled()
    asked = {"market": BTC.key, "timeframe": "1m"}
    rows = (await stored.http.get("/v1/candles/latest", params=asked)).json()["data"]
    assert rows[0]["final"] is True
    assert [row["final"] for row in rows[1:]] == [False] * (len(rows) - 1)
    assert rows[-1]["open_time"] == format_time(NOON)
    last = (await stored.http.get("/v1/trades/latest", params={"market": BTC.key})).json()["data"]
    assert [row["trade_id"] for row in last] == ["now"]


def _trade(trade_id: str, event_time: int) -> Trade:
    from decimal import Decimal

    return Trade(
        trade_id=trade_id, sequence=1, event_time=event_time, price=Decimal(100), amount=Decimal(1)
    )


async def test_coverage_and_gaps_tell_what_is_known(stored: Any) -> None:
    key = await stored.market()
    await stored.pool.execute(
        """
        INSERT INTO gap (market_key, from_time, to_time, cause, state, reason, recovered, opened_time, closed_time)
        VALUES ($1, '2025-10-10T09:00Z', '2025-10-10T09:30Z', 'start', 'open', NULL, 0, now(), NULL),
               ($1, '2025-10-10T08:00Z', '2025-10-10T08:30Z', 'start', 'unfillable', 'expired', 3, now(), now())
        """,
        key,
    )
    spans = (await stored.http.get("/v1/coverage", params={"market": BTC.key})).json()["data"]
    assert spans == [
        {"market": BTC.key, "from_time": "2025-10-10T10:00:01Z", "to_time": "2025-10-10T11:59:30Z"}
    ]
    rows = await _pages(stored, "/v1/gaps", market=BTC.key, limit=1)
    assert [(row["state"], row["reason"], row["recovered"]) for row in rows][:2] == [
        ("unfillable", "expired", 3),
        ("open", None, 0),
    ]
    cut = {"market": BTC.key, "start": "2025-10-10T08:40:00Z", "end": "2025-10-10T09:10:00Z"}
    rows = (await stored.http.get("/v1/gaps", params=cut)).json()["data"]
    assert [row["from_time"] for row in rows] == ["2025-10-10T09:00:00Z"]


CANDLES = f"/v1/candles?market={BTC.key}&timeframe=1m"
TRADES = f"/v1/trades?market={BTC.key}"


WRONG = [
    ("/v1/candles", "market", 400),
    ("/v1/candles?market=kraken:BTC/USD", "timeframe", 400),
    ("/v1/candles?market=kraken&timeframe=1m", "market", 400),
    ("/v1/candles?market=kraken:BTC/XYZ&timeframe=1m", "market", 404),
    ("/v1/candles?market=kraken:BTC%00/USD&timeframe=1m", "market", 400),
    ("/v1/candles?market=kraken:%ED%A0%80/USD&timeframe=1m", "market", 404),
    ("/v1/candles?market=kraken:BTC/USD&timeframe=7m", "timeframe", 400),
    ("/v1/candles?market=kraken:BTC/USD&timeframe=1D", "timeframe", 400),
    (CANDLES + "&start=yesterday", "start", 400),
    (CANDLES + "&start=-1", "start", 400),
    (CANDLES + "&start=99999999999999999999", "start", 400),
    (CANDLES + "&end=2025-13-01T00:00:00Z", "end", 400),
    (CANDLES + "&end=2025-01-01T00:00:00+01:00", "end", 400),
    (CANDLES + "&start=2025-01-02T00:00:00Z&end=2025-01-01T00:00:00Z", "end", 400),
    (CANDLES + "&limit=0", "limit", 400),
    (CANDLES + "&limit=10001", "limit", 400),
    (CANDLES + "&limit=1.5", "limit", 400),
    (CANDLES + "&limit=%D9%A1", "limit", 400),
    (CANDLES + "&limit=", "limit", 400),
    (CANDLES + "&cursor=rubbish", "cursor", 400),
    (CANDLES + "&cursor=", "cursor", 400),
    (CANDLES + "&cursor=%FF", "cursor", 400),
    (CANDLES + "&sort=up", "sort", 400),
    (CANDLES + "&fill=zero", "fill", 400),
    (CANDLES + "&partial=maybe", "partial", 400),
    (CANDLES + "&time=s", "time", 400),
    (CANDLES + "&format=xml", "format", 400),
    (CANDLES + "&shape=round", "shape", 400),
    (CANDLES + "&api_key=secret", "api_key", 400),
    (CANDLES + "&timeframe=1m", "timeframe", 400),
    (TRADES + "&fill=prev", "fill", 400),
    (TRADES + "&limit=99999", "limit", 400),
    ("/v1/trades/latest", "market", 400),
    ("/v1/trades/latest?market=x:y", "market", 400),
    ("/v1/candles/latest?market=kraken:BTC/USD", "timeframe", 400),
    ("/v1/gaps?market=nobody:A/B", "market", 404),
    ("/v1/coverage", "market", 400),
    ("/v1/markets?tracked=1", "tracked", 400),
    ("/v1/markets?type=stock", "type", 400),
    ("/v1/markets?exchange=", "exchange", 400),
    ("/v1/markets?cursor=AAAA", "cursor", 400),
    ("/v1/exchanges?name=kraken", "name", 400),
    ("/v1/exchanges?format=csv", "format", 400),
]


async def test_a_wrong_question_is_a_4xx_that_names_the_parameter(world: Any) -> None:
    await world.market()
    for path, parameter, status in WRONG:
        answer = await world.http.get(path)
        assert answer.status_code == status, (path, answer.text)
        assert answer.headers["content-type"] == "application/problem+json"
        problem = answer.json()
        assert problem["parameter"] == parameter, (path, problem)
        assert problem["status"] == status
        assert problem["allowed"], path
        assert problem["code"], path
        assert "secret" not in answer.text


async def test_a_cursor_of_another_question_is_refused(stored: Any) -> None:
    question = {"market": BTC.key, "timeframe": "1m", "start": 0, "limit": 2}
    cursor = (await stored.http.get("/v1/candles", params=question)).json()["next_cursor"]
    for changed in ({"timeframe": "5m"}, {"sort": "desc"}):
        answer = await stored.http.get(
            "/v1/candles", params=question | changed | {"cursor": cursor}
        )
        assert answer.status_code == 400
        assert answer.json()["parameter"] == "cursor"
    answer = await stored.http.get("/v1/trades", params={"market": BTC.key, "cursor": cursor})
    assert answer.json()["parameter"] == "cursor"


async def test_paths_and_methods_that_are_not_there_are_problems(world: Any) -> None:
    for method, path, status, code in (
        ("GET", "/v1/nothing", 404, "not_found"),
        ("GET", "/v1/candles/", 404, "not_found"),
        ("GET", "/assets/none.js", 404, "not_found"),
        ("POST", "/v1/candles", 405, "method_not_allowed"),
        ("GET", "/v1/tracked-markets", 405, "method_not_allowed"),
    ):
        answer = await world.http.request(method, path)
        assert (answer.status_code, answer.json()["code"]) == (status, code)
        assert answer.headers["content-type"] == "application/problem+json"
    answer = await world.http.get("/v1/tracked-markets")
    assert answer.headers["allow"] == answer.json()["allowed"] == "DELETE, PUT"
    answer = await world.http.get(CANDLES, headers={"Accept": "image/png"})
    assert answer.status_code == 406
    assert answer.json()["parameter"] == "Accept"


async def test_head_is_the_head_of_get(stored: Any) -> None:
    query = {"market": BTC.key, "timeframe": "1m"}
    got = await stored.http.get("/v1/candles", params=query)
    head = await stored.http.head("/v1/candles", params=query)
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["etag"] == got.headers["etag"]
    assert (await stored.http.head("/v1/nothing")).status_code == 404


async def test_a_refused_time_is_told_whole(stored: Any) -> None:
    query = {"market": BTC.key, "timeframe": "1m", "start": "a\x00" * 20}
    problem = (await stored.http.get("/v1/candles", params=query)).json()
    assert problem["detail"].endswith("milliseconds since the epoch")
    assert "\x00" not in problem["detail"]
    assert "\\\\" not in problem["detail"]


async def test_a_database_that_is_away_is_a_503_that_says_try_again(world: Any) -> None:
    world.pool.terminate()
    answer: httpx.Response = await world.http.get(CANDLES)
    assert answer.status_code == 503
    assert answer.json()["code"] == "store_unavailable"
    assert answer.headers["retry-after"] == "1"
