from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vegamite_common.testing.fake_exchange import AggregateTrade, Listing, RecordedFeed
from vegamite_common.testing.fake_exchange.rest import RestApi, RestError

NOW = 50_000
TRADES = [
    AggregateTrade(n, "1.0", "2.0", n, n, 100 * (n // 3), buyer_is_maker=bool(n % 2))
    for n in range(3, 3000)
]  # three trades share each 100th millisecond; times go beyond NOW


def api(visible: int = NOW) -> RestApi:
    feed = RecordedFeed(Listing("XRP", "ETH"), TRADES)
    return RestApi({"XRPETH": feed}, now=lambda: NOW, visible=lambda: visible)


def ask(endpoint: str, **query: str) -> Any:
    return msgspec.json.decode(api().answer(endpoint, query))


def ids(**query: str) -> list[int]:
    return [row["a"] for row in ask("aggTrades", symbol="XRPETH", **query)]


def test_ping_and_time() -> None:
    assert ask("ping") == {}
    assert ask("time") == {"serverTime": NOW}


def test_a_row_has_binances_fields() -> None:
    assert ask("aggTrades", symbol="XRPETH", fromId="3", limit="1") == [
        {"a": 3, "p": "1.0", "q": "2.0", "f": 3, "l": 3, "T": 100, "m": True, "M": True}
    ]


def test_no_bound_gives_the_newest_500_in_rising_order() -> None:
    newest = [t.trade_id for t in TRADES if t.time_ms <= NOW]
    assert ids() == newest[-500:]


def test_from_id_goes_up_from_it_inclusive() -> None:
    assert ids(fromId="10", limit="3") == [10, 11, 12]


def test_start_time_alone_goes_up_from_it_inclusive() -> None:
    assert ids(startTime="200", limit="4") == [6, 7, 8, 9]


def test_end_time_alone_gives_the_newest_until_it_inclusive() -> None:
    assert ids(endTime="200", limit="4") == [5, 6, 7, 8]


def test_both_times_are_inclusive() -> None:
    assert ids(startTime="200", endTime="300") == [6, 7, 8, 9, 10, 11]
    assert ids(startTime="201", endTime="299") == []
    assert ids(startTime="300", endTime="200") == []


def test_a_window_may_be_longer_than_an_hour() -> None:
    assert len(ids(startTime="0", endTime="36000000", limit="1000")) == 1000


def test_limit_is_never_above_1000() -> None:
    assert len(ids(startTime="0", limit="5000")) == 1000
    assert len(ids(startTime="0")) == 500


def test_what_has_not_happened_is_not_told() -> None:
    early = api(visible=250)
    query = {"symbol": "XRPETH", "startTime": "0", "endTime": "900"}
    rows = msgspec.json.decode(early.answer("aggTrades", query))
    assert [row["a"] for row in rows] == [3, 4, 5, 6, 7, 8]
    assert early.answer("aggTrades", {"symbol": "XRPETH", "fromId": "9"}) == b"[]"


def test_exchange_info_lists_markets_and_can_be_asked_for_one() -> None:
    whole = ask("exchangeInfo")
    assert [s["symbol"] for s in whole["symbols"]] == ["XRPETH"]
    assert whole["symbols"][0]["baseAsset"] == "XRP"
    assert ask("exchangeInfo", symbol="XRPETH")["symbols"] == whole["symbols"]
    assert ask("exchangeInfo", symbols='["XRPETH"]')["symbols"] == whole["symbols"]


@pytest.mark.parametrize(
    ("endpoint", "query", "code"),
    [
        ("aggTrades", {}, -1102),
        ("aggTrades", {"symbol": ""}, -1102),
        ("aggTrades", {"symbol": "NOSUCH"}, -1121),
        ("aggTrades", {"symbol": "xrpeth"}, -1100),
        ("aggTrades", {"symbol": "XRPETH", "limit": "0"}, -1130),
        ("aggTrades", {"symbol": "XRPETH", "limit": "ten"}, -1100),
        ("aggTrades", {"symbol": "XRPETH", "startTime": "-1"}, -1100),
        ("aggTrades", {"symbol": "XRPETH", "fromId": "1.5"}, -1100),
        ("aggTrades", {"symbol": "XRPETH", "fromId": "1", "startTime": "1"}, -1128),
        ("aggTrades", {"symbol": "XRPETH", "fromId": "1", "endTime": "1"}, -1128),
        ("aggTrades", {"symbol": "XRPETH", "since": "1"}, -1104),
        ("ping", {"symbol": "XRPETH"}, -1104),
        ("exchangeInfo", {"symbol": "NOSUCH"}, -1121),
        ("exchangeInfo", {"symbols": "XRPETH"}, -1100),
    ],
)
def test_what_binance_refuses_is_refused_with_its_code(
    endpoint: str, query: dict[str, str], code: int
) -> None:
    with pytest.raises(RestError) as refused:
        api().answer(endpoint, query)
    assert refused.value.status == 400
    assert refused.value.body["code"] == code


def test_invalid_symbol_says_what_binance_says() -> None:
    with pytest.raises(RestError) as refused:
        api().answer("aggTrades", {"symbol": "NOSUCH"})
    assert refused.value.body == {"code": -1121, "msg": "Invalid symbol."}


@given(
    st.dictionaries(
        st.sampled_from(["symbol", "fromId", "startTime", "endTime", "limit", "symbols", "x"]),
        st.one_of(st.text(max_size=25), st.integers(-1, 10**25).map(str), st.just("XRPETH")),
    ),
    st.sampled_from(["ping", "time", "exchangeInfo", "aggTrades"]),
)
def test_any_query_is_answered_or_refused_by_the_protocol(
    query: dict[str, str], endpoint: str
) -> None:
    try:
        answer = msgspec.json.decode(api().answer(endpoint, query))
    except RestError as refusal:
        answer = refusal.body
    assert len(answer) <= 1000
    assert isinstance(answer, list) or not answer or {"code", "serverTime"} & set(answer)
