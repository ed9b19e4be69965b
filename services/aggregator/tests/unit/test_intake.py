"""What a batch of records is read as: what is taken, what is refused, and what a refusal costs."""

import json
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vegamite_aggregator.core.intake import (
    MAX_REBUILD,
    Claim,
    Intake,
    JobOver,
    JobSeen,
    SpanBroken,
    TradesArrived,
    only_inserted,
    read_batch,
)
from vegamite_aggregator.core.state import MarketState, PartitionState
from vegamite_aggregator.core.timing import Timing
from vegamite_common.domain.market import Market
from vegamite_common.domain.time import HOUR, LATEST, LATEST_EVENT, SECOND, parse_time
from vegamite_common.domain.trade import Origin, Trade
from vegamite_common.messages.trades import (
    Heartbeat,
    JobEnded,
    JobStarted,
    Rebuild,
    SpanClosed,
    SpanOpened,
    TradesRecord,
    TradesTopicRecord,
    Unfillable,
    encode_trades,
)

NOON = parse_time("2024-02-29T12:00:00Z")
MARKET = Market("kraken", "BTC/USD")
KEY = MARKET.key.encode()
ABOUT: dict[str, Any] = {"exchange": MARKET.exchange, "symbol": MARKET.symbol}
TIMING = Timing()

MakeTrade = Callable[..., Trade]


class Record(msgspec.Struct, frozen=True):
    offset: int
    append_time: int
    key: bytes | None
    value: bytes


def state(next_offset: int = 0) -> PartitionState:
    return PartitionState(
        partition=3,
        epoch=0,
        version=0,
        next_offset=next_offset,
        last_append_time=None,
        markets={MARKET: MarketState(contract=None, history_from=NOON)},
    )


def partition_of(key: bytes) -> int:
    return 4 if b"ELSEWHERE" in key else 3


def read(*values: bytes | TradesTopicRecord, key: bytes | None = KEY, first: int = 0) -> Intake:
    records = [
        Record(
            first + at,
            NOON + at,
            None if isinstance(value, Heartbeat) else key,
            value if isinstance(value, bytes) else encode_trades(value),
        )
        for at, value in enumerate(values)
    ]
    return read_batch(state(), records, partition_of=partition_of, timing=TIMING)


def trades_record(*trades: Trade, **more: Any) -> TradesRecord:
    fields: dict[str, Any] = {"received_time": NOON, "origin": Origin.LIVE, **more}
    return TradesRecord(**ABOUT, trades=trades, **fields)


def test_each_kind_of_record_becomes_its_event_in_log_order(trade: MakeTrade) -> None:
    rebuild = Rebuild(**ABOUT, from_time=1, to_time=2)
    opened = SpanOpened(**ABOUT, writer="w", from_time=NOON + HOUR)
    gone = Unfillable(1, 2, "expired")
    intake = read(
        opened,
        JobStarted(**ABOUT, job="j", origin=Origin.IMPORT),
        trades_record(
            trade(1, NOON), origin=Origin.IMPORT, job="j", covered=(NOON - SECOND, NOON - 1)
        ),
        Heartbeat(writer="w", to_time=NOON - 1),
        SpanClosed(**ABOUT, writer="w", to_time=NOON - 1, cause="stop"),
        JobEnded(**ABOUT, job="j", unfillable=gone),
        rebuild,
    )

    assert intake.events == (
        opened,
        JobSeen("j", MARKET, Origin.IMPORT, NOON + 1),
        JobSeen("j", MARKET, Origin.IMPORT, NOON + 2),
        TradesArrived(2),
        Claim(MARKET, NOON - SECOND, NOON - 1),
        Heartbeat(writer="w", to_time=NOON - 1),
        SpanClosed(**ABOUT, writer="w", to_time=NOON - 1, cause="stop"),
        JobOver("j", MARKET, NOON + 5, gone),
        rebuild,
    )
    assert (intake.next_offset, intake.last_append_time) == (7, NOON + 6)
    assert intake.quarantined == ()
    assert intake.markets == {MARKET}


def test_every_end_is_cut_at_its_records_append_time(trade: MakeTrade) -> None:
    late = NOON + HOUR
    intake = read(
        Heartbeat(writer="w", to_time=late),
        SpanClosed(**ABOUT, writer="w", to_time=late, cause="stop"),
        trades_record(trade(1, NOON), covered=(NOON, late)),
        trades_record(trade(2, NOON), covered=(NOON + 30, late)),
    )

    assert intake.events == (
        Heartbeat(writer="w", to_time=NOON),
        SpanClosed(**ABOUT, writer="w", to_time=NOON + 1, cause="stop"),
        TradesArrived(2),
        Claim(MARKET, NOON, NOON + 2),
        TradesArrived(3),
    )


def test_a_trade_of_the_future_is_refused_alone_and_withholds_coverage(trade: MakeTrade) -> None:
    good, edge, bad = (
        trade(n, NOON + at) for n, at in ((1, 0), (2, TIMING.future), (3, TIMING.future + 1))
    )
    intake = read(trades_record(good, edge, bad, covered=(NOON - SECOND, NOON)))

    assert [batch.trades for batch in intake.trades] == [(good, edge)]
    (refused,) = intake.quarantined
    assert (refused.offset, refused.market, refused.reason, refused.trade_id) == (
        0,
        MARKET,
        "future",
        "3",
    )
    assert intake.events == (TradesArrived(0), SpanBroken(MARKET))


def test_a_refused_trade_of_a_job_voids_its_claim_and_no_live_span(trade: MakeTrade) -> None:
    bad = trade(3, NOON + HOUR)
    intake = read(
        trades_record(bad, origin=Origin.BACKFILL, job="j", covered=(NOON - SECOND, NOON))
    )

    assert intake.trades == ()
    assert intake.events == (JobSeen("j", MARKET, Origin.BACKFILL, NOON),)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("price", "0"),
        ("price", "-1"),
        ("price", "NaN"),
        ("price", "1e400"),
        ("amount", "0"),
        ("amount", "1e-31"),
        ("event_time", parse_time("2008-12-31T23:59:59Z")),
        ("event_time", -(2**70)),
        ("sequence", 2**63),
        ("trade_id", ""),
        ("trade_id", "\x00"),
        ("trade_id", "x" * 129),
        ("taker_side", "maker"),
    ],
)
def test_an_impossible_trade_is_refused_with_its_record_and_ends_the_markets_spans(
    field: str, value: object, trade: MakeTrade
) -> None:
    document = json.loads(encode_trades(trades_record(trade(1, NOON), covered=(NOON - 1, NOON))))
    document["trades"][0][field] = value
    intake = read(json.dumps(document).encode())

    assert intake.trades == ()
    assert [(one.market, one.reason) for one in intake.quarantined] == [(MARKET, "undecodable")]
    assert intake.events == (SpanBroken(MARKET),)
    assert intake.next_offset == 1


@pytest.mark.parametrize(
    "record",
    [
        SpanOpened(**ABOUT, writer="w", from_time=LATEST),
        SpanOpened(**ABOUT, writer="w", from_time=-1),
        SpanOpened(**ABOUT, writer="", from_time=NOON),
        SpanOpened(**ABOUT, writer="w\n", from_time=NOON),
        SpanClosed(**ABOUT, writer="w", to_time=NOON, cause="x" * 201),
        JobStarted(**ABOUT, job="a\x1fb", origin=Origin.IMPORT),
        JobEnded(**ABOUT, job="j", unfillable=Unfillable(0, 1, "")),
        Rebuild(**ABOUT, from_time=LATEST_EVENT - 1, to_time=LATEST_EVENT + 1),
        Rebuild(**ABOUT, from_time=NOON, to_time=NOON + MAX_REBUILD + 1),
        Heartbeat(writer="w", to_time=LATEST),
    ],
)
def test_what_the_store_could_not_keep_is_refused(record: TradesTopicRecord) -> None:
    intake = read(record)

    assert [one.reason for one in intake.quarantined] == ["undecodable"]
    assert intake.events == (() if isinstance(record, Heartbeat) else (SpanBroken(MARKET),))


@pytest.mark.parametrize("key", [None, b"kraken:ETH/USD", b"\xff", b"kraken:BTC/USD "])
def test_a_record_under_another_key_is_refused(key: bytes | None, trade: MakeTrade) -> None:
    intake = read(trades_record(trade(1, NOON)), key=key)

    assert intake.trades == ()
    assert [one.reason for one in intake.quarantined] == ["key"]
    assert intake.markets == frozenset()


def test_a_record_in_another_partition_than_its_markets_is_refused(trade: MakeTrade) -> None:
    stray = TradesRecord(
        exchange="kraken",
        symbol="ELSEWHERE/USD",
        received_time=NOON,
        origin=Origin.LIVE,
        trades=(trade(1, NOON),),
    )
    intake = read(stray, key=b"kraken:ELSEWHERE/USD")

    assert intake.trades == ()
    assert [one.reason for one in intake.quarantined] == ["partition"]


def test_garbage_under_a_strangers_key_makes_no_market() -> None:
    intake = read(b"{", key=b"kraken:NEW/USD")

    assert intake.markets == frozenset()
    assert intake.events == ()
    assert [one.market for one in intake.quarantined] == [Market("kraken", "NEW/USD")]


def test_the_first_of_equal_identities_counts_and_contradictions_are_told(
    trade: MakeTrade,
) -> None:
    first = trade(1, NOON, price="10")
    intake = read(
        trades_record(first, trade(1, NOON, price="10")),
        trades_record(trade(1, NOON, price="11"), trade(1, NOON + 1, price="11")),
    )

    assert [batch.trades for batch in intake.trades] == [
        (first,),
        (trade(1, NOON + 1, price="11"),),
    ]
    assert (intake.repeated, intake.contradicting) == (2, 1)


def test_records_read_before_are_skipped_and_a_hole_stops_the_reading(trade: MakeTrade) -> None:
    records = [
        Record(offset, NOON + offset, KEY, encode_trades(trades_record(trade(offset, NOON))))
        for offset in (3, 4, 5, 6, 8)
    ]
    intake = read_batch(state(5), records, partition_of=partition_of, timing=TIMING)

    assert [batch.offset for batch in intake.trades] == [5, 6]
    assert (intake.skipped, intake.hole, intake.next_offset) == (2, 8, 7)
    assert intake.last_append_time == NOON + 6


def test_only_what_the_store_inserted_is_kept(trade: MakeTrade) -> None:
    intake = read(trades_record(trade(1, NOON), trade(2, NOON)), trades_record(trade(3, NOON)))
    kept = only_inserted(intake.trades, {(MARKET, NOON, "2")})

    assert [(batch.offset, batch.trades) for batch in kept] == [(0, (trade(2, NOON),))]


@given(
    values=st.lists(
        st.binary(max_size=60)
        | st.builds(
            lambda start, noise: (
                encode_trades(SpanOpened(**ABOUT, writer="w", from_time=NOON))[:start] + noise
            ),
            st.integers(0, 120),
            st.binary(max_size=10),
        )
    ),
    key=st.none() | st.binary(max_size=20) | st.just(KEY),
)
def test_no_bytes_stop_the_partition(values: list[bytes], key: bytes | None) -> None:
    intake = read(*values, key=key)

    assert intake.next_offset == len(values)
