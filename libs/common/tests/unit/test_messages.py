"""Every record of the three topics: it comes back as it went, and no bytes make a reader fail otherwise than by MessageError."""

from collections.abc import Callable
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from vegamite_common.domain.candle import Candle
from vegamite_common.domain.number import MAX_DIGITS, format_decimal, parse_decimal
from vegamite_common.domain.time import EARLIEST, LATEST, LATEST_EVENT
from vegamite_common.domain.timeframe import Timeframe
from vegamite_common.domain.trade import Origin, Trade
from vegamite_common.messages.candles import (
    MAX_CANDLES,
    CandlesRecord,
    decode_candles,
    encode_candles,
)
from vegamite_common.messages.codec import MAX_RECORD_BYTES, MessageError
from vegamite_common.messages.status import (
    GapFilled,
    GapOpened,
    GapUnfillable,
    Revised,
    SourceState,
    decode_status,
    encode_status,
)
from vegamite_common.messages.trades import (
    MAX_TRADES,
    Heartbeat,
    JobEnded,
    JobStarted,
    Rebuild,
    SpanClosed,
    SpanOpened,
    TradesRecord,
    Unfillable,
    decode_trades,
    encode_trades,
)

T0 = 1_570_752_000_000_000
MARKET: dict[str, Any] = {"exchange": "kraken", "symbol": "BTC/USD"}

positive = (
    st.decimals(
        min_value=Decimal("1e-30"), max_value=Decimal("9e29"), allow_nan=False, places=MAX_DIGITS
    )
    | st.decimals(min_value=Decimal("0.01"), max_value=100_000, places=2)
    | st.sampled_from([Decimal("1E-7"), Decimal("1E+5"), Decimal("1.10"), Decimal("2.0")])
).map(lambda value: parse_decimal(format(value, "f")))
instants = st.integers(0, LATEST - 1)
intervals = (
    st.tuples(instants, instants).filter(lambda p: p[0] != p[1]).map(lambda p: (min(p), max(p)))
)
words = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=20)
ids = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), min_size=1, max_size=30
)
trades = st.builds(
    Trade,
    trade_id=ids,
    sequence=st.integers(-(2**63), 2**63 - 1),
    event_time=st.integers(EARLIEST, LATEST_EVENT - 1),
    price=positive,
    amount=positive,
    taker_side=st.sampled_from(["buy", "sell", None]),
)


def of_market(kind: type, **fields: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.builds(
        kind, exchange=st.just("kraken"), symbol=st.sampled_from(["BTC/USD", "A/B:B"]), **fields
    )


def with_interval(kind: type, **fields: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return intervals.flatmap(
        lambda pair: of_market(kind, from_time=st.just(pair[0]), to_time=st.just(pair[1]), **fields)
    )


trades_topic_records = st.one_of(
    of_market(
        TradesRecord,
        received_time=instants,
        origin=st.sampled_from(Origin),
        trades=st.lists(trades, min_size=1, max_size=5).map(tuple),
        job=st.none() | words,
        covered=st.none() | intervals,
    ),
    of_market(SpanOpened, writer=words, from_time=instants),
    st.builds(Heartbeat, writer=words, to_time=instants),
    of_market(SpanClosed, writer=words, to_time=instants, cause=words),
    of_market(JobStarted, job=words, origin=st.sampled_from(Origin)),
    of_market(
        JobEnded,
        job=words,
        unfillable=st.none()
        | st.builds(lambda span, why: Unfillable(span[0], span[1], why), intervals, words),
    ),
    with_interval(Rebuild),
    of_market(
        Rebuild,
        from_time=st.just(10),
        to_time=st.just(20),
        restored_since=st.integers(0, 10),
        covered=st.lists(st.tuples(st.integers(0, 9), st.integers(10, 99)), max_size=3).map(tuple),
    ),
)
status_records = st.one_of(
    of_market(
        SourceState,
        event_time=instants,
        state=st.sampled_from(["live", "clock_skew"]),
        reason=st.none() | words,
    ),
    with_interval(GapOpened, event_time=instants, cause=words),
    with_interval(GapFilled, event_time=instants, recovered=st.integers(0, 2**40)),
    with_interval(GapUnfillable, event_time=instants, reason=words),
    with_interval(Revised, event_time=instants, timeframe=st.sampled_from(Timeframe), reason=words),
)


@st.composite
def candles(draw: st.DrawFn) -> Candle:
    timeframe = draw(st.sampled_from(Timeframe))
    opened = timeframe.open_time(draw(st.integers(EARLIEST, LATEST_EVENT - 1)))
    times = sorted(draw(st.tuples(*[st.integers(opened, timeframe.close_time(opened) - 1)] * 2)))
    low, one, other, high = sorted(draw(st.tuples(positive, positive, positive, positive)))
    volumes = [sorted(draw(st.tuples(positive | st.just(Decimal(0)), positive))) for _ in range(2)]
    final = draw(st.booleans())
    return Candle(
        timeframe=timeframe,
        open_time=opened,
        open=one,
        high=high,
        low=low,
        close=other,
        volume=volumes[0][1],
        quote_volume=volumes[1][1],
        buy_volume=volumes[0][0],
        buy_quote_volume=volumes[1][0],
        trade_count=draw(st.integers(1, 2**40)),
        first_event_time=times[0],
        first_sequence=1,
        first_trade_id=draw(ids),
        last_event_time=times[1],
        last_sequence=2,
        last_trade_id=draw(ids),
        epoch=draw(st.integers(0, 9)),
        as_of=draw(st.integers(0, 2**60)),
        updated_at=draw(instants),
        final=final,
        complete=draw(st.booleans()),
        revision=draw(st.integers(0, 5)) if final else 0,
    )


candles_records = st.builds(
    lambda kind, parts: CandlesRecord(
        **MARKET, type=kind, candles=tuple(parts), reason="backfill" if kind == "revision" else None
    ),
    st.sampled_from(["update", "final", "revision"]),
    st.lists(candles(), min_size=1, max_size=3),
)


def numbers_in(told: Any) -> list[str]:
    """Every text in a decoded document that stands under a decimal's name."""
    names = {
        "price",
        "amount",
        "open",
        "high",
        "low",
        "close",
        "volume",
        "quote_volume",
        "buy_volume",
        "buy_quote_volume",
    }
    if isinstance(told, list):
        return [text for item in told for text in numbers_in(item)]
    if isinstance(told, dict):
        found = [value for name, value in told.items() if name in names]
        return [*found, *(text for value in told.values() for text in numbers_in(value))]
    return []


@given(trades_topic_records)
def test_every_record_of_the_trades_topic_comes_back_as_it_went(record: Any) -> None:
    value = encode_trades(record)
    assert decode_trades(value) == record
    told = msgspec.json.decode(value)
    assert told["v"] == 1
    assert told["kind"] in {
        "trades", "span_opened", "heartbeat", "span_closed", "job_started", "job_ended", "rebuild",
    }  # fmt: skip
    assert all(text == format_decimal(Decimal(text)) for text in numbers_in(told))


@given(status_records)
def test_every_record_of_the_status_topic_comes_back_as_it_went(record: Any) -> None:
    assert decode_status(encode_status(record)) == record
    assert msgspec.json.decode(encode_status(record))["v"] == 1


@given(candles_records)
def test_every_record_of_the_candles_topic_comes_back_as_it_went(record: CandlesRecord) -> None:
    value = encode_candles(record)
    assert decode_candles(value) == record
    texts = numbers_in(msgspec.json.decode(value))
    assert len(texts) == 8 * len(record.candles)
    assert all(text == format_decimal(Decimal(text)) for text in texts)


@pytest.mark.parametrize(
    ("number", "written"),
    [
        ("1.10", "1.1"),
        ("2.0", "2"),
        ("1E-7", "0.0000001"),
        ("1E+5", "100000"),
        ("100", "100"),
        ("0.000001", "0.000001"),
    ],
)
def test_numbers_are_written_canonically_whatever_form_they_have(number: str, written: str) -> None:
    trade = Trade("1", 1, T0, Decimal(number), Decimal(1))
    record = TradesRecord(**MARKET, received_time=T0, origin=Origin.LIVE, trades=(trade,))
    assert msgspec.json.decode(encode_trades(record))["trades"][0]["price"] == written


def trades_document(**changes: Any) -> dict[str, Any]:
    trade = {
        "trade_id": "1",
        "sequence": 1,
        "event_time": T0,
        "price": "1.5",
        "amount": "2",
        "taker_side": "buy",
    }
    return {
        "v": 1,
        "kind": "trades",
        **MARKET,
        "received_time": T0,
        "origin": "live",
        "trades": [trade],
        **changes,
    }


def changed_trade(**changes: Any) -> dict[str, Any]:
    document = trades_document()
    document["trades"][0].update(changes)
    return document


def heartbeat(**changes: Any) -> dict[str, Any]:
    return {"v": 1, "kind": "heartbeat", "writer": "w", "to": T0, **changes}


@pytest.mark.parametrize(
    "document",
    [
        {},
        [],
        None,
        1,
        trades_document(v=2),
        trades_document(v="1"),
        trades_document(kind="trade"),
        trades_document(kind=None),
        trades_document(exchange="Kraken"),
        trades_document(symbol="BTCUSD"),
        trades_document(origin="dream"),
        trades_document(received_time=-1),
        trades_document(received_time=LATEST),
        trades_document(received_time=2**70),
        trades_document(trades=[]),
        trades_document(trades=None),
        trades_document(trades=[{}]),
        trades_document(trades=trades_document()["trades"] * (MAX_TRADES + 1)),
        trades_document(covered=[2, 1]),
        trades_document(covered=[1, 1]),
        trades_document(covered=[1]),
        trades_document(covered=[0, LATEST]),
        changed_trade(price="0"),
        changed_trade(price="-1"),
        changed_trade(price="NaN"),
        changed_trade(price="sNaN"),
        changed_trade(price="Infinity"),
        changed_trade(price="1e999999"),
        changed_trade(amount="1e-31"),
        changed_trade(amount=""),
        changed_trade(amount=None),
        changed_trade(trade_id=""),
        changed_trade(trade_id=1),
        changed_trade(trade_id="\x00"),
        changed_trade(sequence=2**63),
        changed_trade(event_time=0),
        changed_trade(event_time=LATEST_EVENT),
        changed_trade(taker_side="maker"),
        heartbeat(to=-1),
        heartbeat(to=2**62),
        heartbeat(to="soon"),
        heartbeat(writer=None),
        heartbeat(writer="a\x00b"),
        trades_document(job="\x00"),
        {"v": 1, "kind": "rebuild", **MARKET, "from": 2, "to": 2},
        {"v": 1, "kind": "job_ended", **MARKET, "job": "j", "unfillable": [2, 1, "gone"]},
        {"v": 1, "kind": "span_opened", **MARKET, "from": 1},
    ],
)
def test_what_is_no_record_of_the_trades_topic_is_refused(document: Any) -> None:
    with pytest.raises(MessageError):
        decode_trades(msgspec.json.encode(document))


def test_a_record_without_trades_may_prove_that_there_were_none() -> None:
    record = decode_trades(msgspec.json.encode(trades_document(trades=[], covered=[T0, T0 + 1])))
    assert isinstance(record, TradesRecord)
    assert record.covered == (T0, T0 + 1)


def test_an_unknown_field_is_left_to_later_versions() -> None:
    assert decode_trades(msgspec.json.encode(trades_document(later=1))) == decode_trades(
        msgspec.json.encode(trades_document())
    )


@pytest.mark.parametrize(
    "changes",
    [
        {"from": 2, "to": 2},
        {"from": -1},
        {"recovered": -1},
        {"event_time": LATEST},
        {"kind": "gap_closed"},
        {"symbol": ""},
    ],
)
def test_what_is_no_record_of_the_status_topic_is_refused(changes: dict[str, Any]) -> None:
    filled = {
        "v": 1,
        "kind": "gap_filled",
        **MARKET,
        "event_time": T0,
        "from": 1,
        "to": 2,
        "recovered": 0,
    }
    assert decode_status(msgspec.json.encode(filled)).market.key == "kraken:BTC/USD"
    with pytest.raises(MessageError):
        decode_status(msgspec.json.encode({**filled, **changes}))


SOME_CANDLE = Candle(
    timeframe=Timeframe.S1,
    open_time=T0,
    open=Decimal(1),
    high=Decimal(1),
    low=Decimal(1),
    close=Decimal(1),
    volume=Decimal(1),
    quote_volume=Decimal(1),
    buy_volume=Decimal(1),
    buy_quote_volume=Decimal(1),
    trade_count=1,
    first_event_time=T0,
    first_sequence=1,
    first_trade_id="1",
    last_event_time=T0,
    last_sequence=1,
    last_trade_id="1",
    epoch=0,
    as_of=0,
    updated_at=T0,
)


@pytest.mark.parametrize(
    "changes",
    [
        {"candles": ()},
        {"candles": (SOME_CANDLE,) * (MAX_CANDLES + 1)},
        {"type": "revision"},
        {"type": "final", "reason": "import"},
        {"symbol": "BTC"},
        {"v": 2},
    ],
)
def test_an_impossible_candles_record_is_refused(changes: dict[str, Any]) -> None:
    possible: dict[str, Any] = {**MARKET, "type": "final", "candles": (SOME_CANDLE,)}
    assert CandlesRecord(**possible).market.key == "kraken:BTC/USD"
    with pytest.raises(ValueError, match=r"record|revision|symbol"):
        CandlesRecord(**{**possible, **changes})


def test_a_record_too_large_for_the_log_is_not_written() -> None:
    trade = Trade("1", 1, T0, Decimal(1), Decimal(1))
    record = TradesRecord(
        **MARKET, received_time=T0, origin=Origin.LIVE, trades=(trade,), job="j" * MAX_RECORD_BYTES
    )
    with pytest.raises(MessageError, match="TradesRecord record of"):
        encode_trades(record)


def test_the_largest_records_of_ordinary_trades_and_candles_fit() -> None:
    trade = Trade(
        "i" * 40, 2**62, T0, Decimal("1234567.12345678"), Decimal("1234567.12345678"), "sell"
    )
    record = TradesRecord(
        **MARKET, received_time=T0, origin=Origin.LIVE, trades=(trade,) * MAX_TRADES
    )
    assert len(encode_trades(record)) < MAX_RECORD_BYTES
    full = CandlesRecord(**MARKET, type="final", candles=(SOME_CANDLE,) * MAX_CANDLES)
    assert len(encode_candles(full)) < MAX_RECORD_BYTES


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4)
    ),
    max_leaves=10,
)
fields = st.sampled_from(
    [
        "v",
        "kind",
        "exchange",
        "symbol",
        "received_time",
        "origin",
        "trades",
        "job",
        "covered",
        "to",
        "from",
    ]
)
near_misses = st.dictionaries(fields, json_values, max_size=3).map(
    lambda changes: msgspec.json.encode({**trades_document(), **changes})
)
broken_bytes = st.builds(
    lambda value, at, byte: value[: at % len(value)] + bytes([byte]) + value[at % len(value) + 1 :],
    st.sampled_from(
        [
            msgspec.json.encode(trades_document()),
            encode_candles(CandlesRecord(**MARKET, type="final", candles=(SOME_CANDLE,))),
        ]
    ),
    st.integers(0, 10_000),
    st.integers(0, 255),
)


@pytest.mark.parametrize("decode", [decode_trades, decode_status, decode_candles])
@given(
    st.one_of(
        st.binary(max_size=200), near_misses, broken_bytes, json_values.map(msgspec.json.encode)
    )
)
@example(b"")
@example(b"\xff\xfe")
@example(b"[" * 100_000)
@example(b'{"kind":"trades","v":1e400}')
@example(b'{"kind":"heartbeat","writer":"\\ud800","to":1}')
@example(b'{"v":1,"kind":"span_opened","exchange":"k","symbol":"\\ud800/B","writer":"w","from":1}')
def test_any_bytes_are_a_record_or_a_message_error(
    decode: Callable[[bytes], Any], value: bytes
) -> None:
    try:
        record = decode(value)
    except MessageError as error:
        assert str(error)  # noqa: PT017 - any of many texts
    else:
        assert record.v == 1
