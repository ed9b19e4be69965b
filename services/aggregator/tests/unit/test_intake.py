"""What a batch of records is read as: what is taken, what is refused, and what a refusal costs."""

import json
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vegamite_aggregator.core.facts import (
    Claim,
    Intake,
    JobOver,
    JobSeen,
    RefusedRecord,
    SpanBroken,
    TradesArrived,
    without_stored,
)
from vegamite_aggregator.core.intake import read_batch
from vegamite_aggregator.core.publication import (
    CANDLES_TOPIC,
    DEAD_LETTERS_TOPIC,
    STATUS_TOPIC,
    publish_dead_letters,
)
from vegamite_aggregator.core.state import MarketState, PartitionState
from vegamite_aggregator.core.storable import MAX_REBUILD
from vegamite_aggregator.core.timing import Timing
from vegamite_common.bus.port import CANDLES, DEAD_LETTERS, STATUS
from vegamite_common.domain.market import Market
from vegamite_common.domain.time import HOUR, LATEST, LATEST_EVENT, SECOND, parse_time
from vegamite_common.domain.trade import Origin, Trade
from vegamite_common.messages.dead_letters import decode_dead_letter
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

    assert [tuple(batch.trades) for batch in intake.trades] == [(good, edge)]
    (refused,) = intake.quarantined
    assert (refused.offset, refused.market, refused.reason, refused.trade_id) == (
        0,
        MARKET,
        "future",
        "3",
    )
    assert intake.events == (TradesArrived(0), SpanBroken(MARKET))
    (letter,) = intake.refused
    assert (letter.record.offset, letter.reason, letter.trade_ids) == (0, "future", ("3",))
    assert "trade_id='3'" in letter.detail


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
    assert intake.events == (SpanBroken(MARKET),)
    assert intake.markets == {MARKET}


def test_a_record_under_another_key_breaks_the_spans_of_both_markets(trade: MakeTrade) -> None:
    other = Market("kraken", "ETH/USD")
    opened = SpanOpened(exchange="kraken", symbol="ETH/USD", writer="w", from_time=NOON)
    records = [
        Record(0, NOON, other.key.encode(), encode_trades(opened)),
        Record(1, NOON, other.key.encode(), encode_trades(trades_record(trade(1, NOON)))),
    ]
    intake = read_batch(state(), records, partition_of=partition_of, timing=TIMING)

    assert intake.events == (opened, SpanBroken(other), SpanBroken(MARKET))
    assert intake.markets == {MARKET, other}


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


def test_a_record_is_one_refused_record_however_many_of_its_trades_are_refused(
    trade: MakeTrade,
) -> None:
    bad = [trade(n, NOON + HOUR + n) for n in range(3)]
    intake = read(trades_record(*bad), b"{", trades_record(trade(9, NOON)), key=KEY)

    assert [(one.record.offset, one.reason, one.trade_ids) for one in intake.refused] == [
        (0, "future", ("0", "1", "2")),
        (1, "undecodable", ()),
    ]
    assert [(one.offset, one.trade_id) for one in intake.quarantined] == [
        (0, "0"),
        (0, "1"),
        (0, "2"),
        (1, None),
    ]


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

    assert [tuple(batch.trades) for batch in intake.trades] == [
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


def test_reading_ends_after_a_rebuild_and_goes_on_behind_it(trade: MakeTrade) -> None:
    rebuild = Rebuild(**ABOUT, from_time=1, to_time=2)
    one, other = (trades_record(trade(number, NOON)) for number in (1, 2))
    values: list[TradesTopicRecord] = [one, rebuild, rebuild, other]
    records = [Record(at, NOON + at, KEY, encode_trades(value)) for at, value in enumerate(values)]
    read_so_far = [
        read_batch(state(at), records, partition_of=partition_of, timing=TIMING) for at in (0, 2, 3)
    ]

    assert [intake.next_offset for intake in read_so_far] == [2, 3, 4]
    assert [intake.events for intake in read_so_far] == [
        (TradesArrived(0), rebuild),
        (rebuild,),
        (TradesArrived(3),),
    ]
    assert [intake.hole for intake in read_so_far] == [None, None, None]


def test_what_the_store_had_already_is_left_out(trade: MakeTrade) -> None:
    intake = read(trades_record(trade(1, NOON), trade(2, NOON)), trades_record(trade(3, NOON)))
    kept = without_stored(intake.trades, {(MARKET, NOON, "1"), (MARKET, NOON, "3")})

    assert [(batch.offset, tuple(batch.trades)) for batch in kept] == [(0, (trade(2, NOON),))]


@pytest.mark.parametrize(
    "beyond", [b"{", trades_record(Trade("9", 9, NOON + HOUR, Decimal(1), Decimal(1)))]
)
def test_reading_stops_before_the_record_that_would_be_one_too_many(
    beyond: bytes | TradesRecord, trade: MakeTrade
) -> None:
    values = (b"[", trades_record(trade(1, NOON)), beyond, trades_record(trade(2, NOON)))
    records = [
        Record(at, NOON + at, KEY, value if isinstance(value, bytes) else encode_trades(value))
        for at, value in enumerate(values)
    ]

    def taken(letters_left: int | None) -> Intake:
        return read_batch(
            state(),
            records,
            partition_of=partition_of,
            timing=TIMING,
            letters_left=letters_left,
        )

    for many in (None, 2, 7):
        intake = taken(many)
        assert (intake.next_offset, intake.held, len(intake.refused)) == (4, None, 2)
    one = taken(1)
    assert (one.next_offset, one.last_append_time) == (2, NOON + 1)
    assert one.held is not None
    assert one.held.record is records[2]
    assert [letter.record.offset for letter in one.refused] == [0]
    assert [refused.offset for refused in one.quarantined] == [0]
    assert [batch.offset for batch in one.trades] == [1]
    assert one.events == (SpanBroken(MARKET), TradesArrived(1))
    none = taken(0)
    assert (none.next_offset, none.events, none.trades, none.refused) == (0, (), (), ())
    assert none.held is not None
    assert none.held.reason == "undecodable"


def test_a_letter_goes_under_the_records_key_unless_that_is_too_long_to_be_one() -> None:
    records = [Record(5, NOON, key, b"?") for key in (KEY, None, b"\xff", b"k" * 5000)]
    refused = [RefusedRecord(record, "undecodable", "no JSON") for record in records]
    letters = publish_dead_letters(refused, epoch=7, partition=3)

    assert [letter.key for letter in letters] == [KEY, None, b"\xff", None]
    told = decode_dead_letter(letters[0].value)
    assert (told.epoch, told.partition, told.offset, told.append_time) == (7, 3, 5, NOON)
    assert (told.reason, told.detail, told.key, told.value) == ("undecodable", "no JSON", KEY, b"?")


def test_the_core_names_the_topics_as_the_bus_does() -> None:
    assert (CANDLES_TOPIC, STATUS_TOPIC, DEAD_LETTERS_TOPIC) == (CANDLES, STATUS, DEAD_LETTERS)


def damaged(value: bytes, at: int, byte: int, *, cut: bool) -> bytes:
    """One byte of a record replaced, or all from it on."""
    at %= len(value)
    return value[:at] + bytes([byte]) + (b"" if cut else value[at + 1 :])


def good(number: int) -> TradesRecord:
    trade = Trade(
        trade_id=str(number),
        sequence=number,
        event_time=NOON + number,
        price=Decimal("1.5"),
        amount=Decimal(2),
    )
    return trades_record(trade, covered=(NOON, NOON + HOUR))


SAMPLES = [
    encode_trades(record)
    for record in (
        good(1_000_000),
        SpanOpened(**ABOUT, writer="w", from_time=NOON),
        Heartbeat(writer="w", to_time=NOON),
        SpanClosed(**ABOUT, writer="w", to_time=NOON, cause="stop"),
        JobStarted(**ABOUT, job="j", origin=Origin.IMPORT),
        JobEnded(**ABOUT, job="j", unfillable=Unfillable(1, 2, "gone")),
        Rebuild(**ABOUT, from_time=1, to_time=2),
    )
]

foreign_bytes = (
    st.binary(max_size=60)
    | st.builds(
        damaged,
        st.sampled_from(SAMPLES),
        st.integers(0, 500),
        st.integers(0, 255),
        cut=st.booleans(),
    )
    | st.sampled_from(SAMPLES)
)
foreign_keys = st.none() | st.binary(max_size=20) | st.sampled_from([KEY, b"kraken:ELSEWHERE/USD"])


@given(foreign=st.lists(st.tuples(foreign_keys, foreign_bytes), max_size=8))
def test_no_bytes_stop_the_partition_and_none_cost_a_good_neighbour(
    foreign: list[tuple[bytes | None, bytes]],
) -> None:
    records: list[Record] = []
    for number, (key, value) in enumerate(foreign):
        records.append(Record(2 * number, NOON + number, key, value))
        records.append(Record(2 * number + 1, NOON + number, KEY, encode_trades(good(number))))
    intakes: list[Intake] = []
    at = 0
    while at < len(records):  # reading ends after a rebuild, and after nothing else
        intakes.append(read_batch(state(at), records, partition_of=partition_of, timing=TIMING))
        assert at < intakes[-1].next_offset
        at = intakes[-1].next_offset
        assert at == len(records) or isinstance(intakes[-1].events[-1], Rebuild)
    stored = {batch.offset: tuple(batch.trades) for intake in intakes for batch in intake.trades}
    all_refused = [one for intake in intakes for one in intake.refused]
    for number in range(len(foreign)):
        assert stored[2 * number + 1] == good(number).trades
    refused = {one.record.offset: one for one in all_refused}
    assert len(refused) == len(all_refused), "one letter a record"
    assert refused.keys() == {one.offset for intake in intakes for one in intake.quarantined}
    for letter in publish_dead_letters(all_refused, epoch=1, partition=3):
        told = decode_dead_letter(letter.value)
        key, value = foreign[told.offset // 2]
        assert told.offset % 2 == 0, "a good record was set apart"
        assert (told.key, told.value, letter.key) == (key, value, key)
