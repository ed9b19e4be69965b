"""Any message is a request or a refusal that names what is wrong; nothing else comes out of the parser."""

import json
from collections.abc import Callable
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vegamite_api.core.query import (
    parse_candle_query,
    parse_market_query,
    parse_span_query,
    parse_trade_query,
)
from vegamite_api.core.refusal import RefusedError, shown
from vegamite_api.core.request import (
    MalformedError,
    decode_message,
    parse_auth,
    parse_nothing,
    parse_request,
    parse_subscribe,
    parse_unsubscribe,
)

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=10,
)
SUBSCRIBE = st.fixed_dictionaries(
    {},
    optional={
        "channel": st.sampled_from(["candles", "trades", "status"]) | JSON,
        "markets": st.lists(st.sampled_from(["kraken:BTC/USD", "kraken:*", "kraken:"]) | JSON)
        | JSON,
        "timeframe": st.sampled_from(["1m", "1M"]) | JSON,
        "snapshot": st.integers(-1, 1001) | JSON,
        "resume": st.dictionaries(st.just("kraken:BTC/USD"), st.just("1-0-1") | JSON) | JSON,
        "other": JSON,
    },
)


def _refusal(ask: Callable[[], object]) -> RefusedError | None:
    try:
        ask()
    except RefusedError as error:
        return error
    return None


@given(message=st.text() | st.binary() | JSON.map(json.dumps))
def test_any_message_is_an_object_or_malformed(message: str | bytes) -> None:
    malformed = _refusal(lambda: decode_message(message))
    if malformed is not None:
        assert isinstance(malformed, MalformedError)
        assert malformed.code == "invalid_message"
        return
    refused = _refusal(lambda: parse_request(decode_message(message)))
    assert refused is None or (refused.parameter is not None and refused.allowed)


@given(params=SUBSCRIBE | st.dictionaries(st.text(max_size=8), JSON, max_size=4))
def test_any_parameters_are_taken_or_refused_by_name(params: dict[str, object]) -> None:
    parsers: tuple[Callable[[dict[str, object]], object], ...]
    parsers = (parse_subscribe, parse_unsubscribe, parse_auth, parse_nothing)
    for parse in parsers:
        refused = _refusal(partial(parse, params))
        if refused is not None:
            assert (refused.parameter or "").startswith("params.")
            assert refused.allowed


def test_a_request_of_the_documentation_is_read() -> None:
    asked = parse_subscribe(
        {
            "channel": "candles",
            "markets": ["kraken:BTC/USD", "kraken:BTC/USD", "sim:*"],
            "timeframe": "1m",
            "snapshot": 100,
            "resume": {"kraken:BTC/USD": "3-7-88120"},
        }
    )
    assert [market.key for market in asked.selection.markets] == ["kraken:BTC/USD"]
    assert asked.selection.exchanges == ("sim",)
    assert str(asked.resume["kraken:BTC/USD"]) == "3-7-88120"


NAMES = st.sampled_from(
    [
        "market",
        "timeframe",
        "start",
        "end",
        "limit",
        "cursor",
        "sort",
        "fill",
        "partial",
        "exchange",
    ]
)
VALUES = st.text() | st.sampled_from(
    [
        "kraken:BTC/USD",
        "1m",
        "0",
        "10",
        "2025-10-10T00:00:00Z",
        "9999-12-31T23:59:59.999999Z",
        "asc",
    ]
)


@given(parameters=st.dictionaries(NAMES, VALUES))
def test_any_query_is_read_or_refused_by_name(parameters: dict[str, str]) -> None:
    parsers: tuple[Callable[[dict[str, str]], object], ...] = (
        parse_candle_query,
        parse_trade_query,
        parse_market_query,
        partial(parse_span_query, "gaps"),
    )
    for parse in parsers:
        refused = _refusal(partial(parse, parameters))
        if refused is not None:
            assert refused.parameter in (*parameters, "market", "timeframe")
            assert refused.allowed
            assert refused.detail.isprintable()


@pytest.mark.parametrize(
    ("text", "safe"),
    [("a\nb", r"a\nb"), ("\x1b[31m", r"\x1b[31m"), ("\u202ex", r"\u202ex"), ("é", "é")],
)
def test_foreign_text_is_shown_with_its_control_characters_escaped(text: str, safe: str) -> None:
    assert shown(text) == safe


def test_long_foreign_text_is_cut() -> None:
    assert len(shown("x" * 1000)) == 61


def test_what_is_missing_is_called_missing() -> None:
    with pytest.raises(RefusedError, match="method is missing"):
        parse_request({"req_id": 1})
    with pytest.raises(RefusedError, match="channel is missing"):
        parse_subscribe({"markets": ["sim:DEMO/USD"]})
    with pytest.raises(RefusedError, match="timeframe is missing"):
        parse_subscribe({"channel": "candles", "markets": ["sim:DEMO/USD"]})
