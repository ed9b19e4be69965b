from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vegamite_common.testing.fake_exchange import AggregateTrade
from vegamite_common.testing.fake_exchange.protocol import MAX_STREAMS, Subscriptions, trade_frame

TRADE = AggregateTrade(
    12, "0.00141342", "23.00000000", 5, 7, 1_570_752_011_620, buyer_is_maker=True
)


def ask(subscriptions: Subscriptions, **request: Any) -> tuple[dict[str, Any], list[str]]:
    answer, added = subscriptions.handle(msgspec.json.encode(request).decode())
    return msgspec.json.decode(answer), added


def test_subscribe_is_acknowledged_with_null_and_its_id() -> None:
    subscriptions = Subscriptions(combined=False)
    answer, added = ask(
        subscriptions, method="SUBSCRIBE", params=["xrpeth@aggTrade", "x@depth"], id=3
    )
    assert answer == {"result": None, "id": 3}
    assert added == ["xrpeth@aggTrade", "x@depth"]


def test_a_second_subscribe_adds_only_what_is_new() -> None:
    subscriptions = Subscriptions(combined=False)
    ask(subscriptions, method="SUBSCRIBE", params=["a@aggTrade"], id=1)
    assert ask(
        subscriptions, method="SUBSCRIBE", params=["b@aggTrade", "a@aggTrade", "b@aggTrade"], id=2
    )[1] == ["b@aggTrade"]
    assert ask(subscriptions, method="LIST_SUBSCRIPTIONS", id=3)[0]["result"] == [
        "a@aggTrade",
        "b@aggTrade",
    ]


def test_unsubscribe_ends_a_stream_and_is_acknowledged_even_when_there_is_none() -> None:
    subscriptions = Subscriptions(combined=False)
    ask(subscriptions, method="SUBSCRIBE", params=["a@aggTrade", "b@aggTrade"], id=1)
    assert ask(subscriptions, method="UNSUBSCRIBE", params=["a@aggTrade", "c@aggTrade"], id=2)[
        0
    ] == {
        "result": None,
        "id": 2,
    }
    assert list(subscriptions.streams) == ["b@aggTrade"]


def test_combined_can_be_read_and_set() -> None:
    subscriptions = Subscriptions(combined=False)
    assert (
        ask(subscriptions, method="GET_PROPERTY", params=["combined"], id=1)[0]["result"] is False
    )
    assert (
        ask(subscriptions, method="SET_PROPERTY", params=["combined", True], id=2)[0]["result"]
        is None
    )
    assert subscriptions.combined is True


def test_1024_streams_are_the_most() -> None:
    subscriptions = Subscriptions(combined=False)
    names = [f"{n}@aggTrade" for n in range(MAX_STREAMS)]
    assert ask(subscriptions, method="SUBSCRIBE", params=names, id=1)[0]["result"] is None
    answer, added = ask(subscriptions, method="SUBSCRIBE", params=["more@aggTrade"], id=2)
    assert answer["error"]["code"] == 2
    assert added == []
    assert len(subscriptions.streams) == MAX_STREAMS


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("", 3),
        ("{", 3),
        ("[]", 2),
        ("1", 2),
        ("{}", 2),
        ('{"method":"SUBSCRIB","params":["a@aggTrade"],"id":1}', 2),
        ('{"method":["SUBSCRIBE"],"params":["a@aggTrade"],"id":1}', 2),
        ('{"method":"SUBSCRIBE","params":"a@aggTrade","id":1}', 2),
        ('{"method":"SUBSCRIBE","params":[1],"id":1}', 2),
        ('{"method":"SUBSCRIBE","params":["a"],"id":1}', 2),
        ('{"method":"SUBSCRIBE","params":["a@aggTrade"],"id":{}}', 2),
        ('{"method":"SUBSCRIBE","params":["a@aggTrade"],"id":"no spaces"}', 2),
        ('{"method":"SET_PROPERTY","params":["combined",1],"id":1}', 1),
        ('{"method":"SET_PROPERTY","params":["other",true],"id":1}', 0),
        ('{"method":"SET_PROPERTY","params":["combined",true,1],"id":1}', 2),
        ('{"method":"GET_PROPERTY","params":[],"id":1}', 2),
    ],
)
def test_a_broken_message_is_refused_and_changes_nothing(text: str, code: int) -> None:
    subscriptions = Subscriptions(combined=False)
    answer, added = subscriptions.handle(text)
    assert msgspec.json.decode(answer)["error"]["code"] == code
    assert (added, subscriptions.streams, subscriptions.combined) == ([], {}, False)


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(["method", "params", "id", "x"]), inner)
    ),
    max_leaves=8,
)


@given(
    st.one_of(
        st.text(max_size=60), json_values.map(lambda value: msgspec.json.encode(value).decode())
    )
)
def test_any_text_gets_one_answer(text: str) -> None:
    answer = msgspec.json.decode(Subscriptions(combined=False).handle(text)[0])
    assert "id" in answer
    assert ("result" in answer) != ("error" in answer)


def test_a_raw_frame_is_the_event_alone() -> None:
    assert msgspec.json.decode(trade_frame("XRPETH", TRADE, sent_ms=99, combined=False)) == {
        "e": "aggTrade",
        "E": 99,
        "s": "XRPETH",
        "a": 12,
        "p": "0.00141342",
        "q": "23.00000000",
        "f": 5,
        "l": 7,
        "T": 1_570_752_011_620,
        "m": True,
        "M": True,
    }


def test_a_combined_frame_names_its_stream() -> None:
    raw = msgspec.json.decode(trade_frame("XRPETH", TRADE, sent_ms=99, combined=False))
    combined = msgspec.json.decode(trade_frame("XRPETH", TRADE, sent_ms=99, combined=True))
    assert combined == {"stream": "xrpeth@aggTrade", "data": raw}
