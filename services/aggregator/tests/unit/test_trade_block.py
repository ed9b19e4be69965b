"""The short cut through trades records, compiled and not: what it takes says the same as by the long way, or it doesn't take it."""

import importlib.util
import itertools
import json
import random
import sys
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from struct import unpack_from
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from vegamite_aggregator.core import block_fold, block_reader, trade_block
from vegamite_aggregator.core import intake as intake_module
from vegamite_aggregator.core.facts import Intake, TradeBatch, without_stored
from vegamite_aggregator.core.fold import fold_records, fold_seconds
from vegamite_aggregator.core.intake import read_batch
from vegamite_aggregator.core.packed_trades import PackedTrades
from vegamite_aggregator.core.state import PartitionState
from vegamite_aggregator.core.tally import exactly
from vegamite_aggregator.core.timing import Timing
from vegamite_common.domain.market import Contract, Market
from vegamite_common.domain.time import SECOND, parse_time
from vegamite_common.domain.trade import Trade
from vegamite_common.messages.codec import MessageError
from vegamite_common.messages.trades import TradesRecord, decode_trades, encode_trades
from vegamite_common.testing.trades_records import (
    MARKET,
    NOON,
    any_decimals,
    any_ids,
    plain_decimals,
    plain_ids,
    record_of,
    records,
    said,
    spelt,
    trades,
)


def interpreted() -> SimpleNamespace:
    """Return what the three modules offer, their sources run as they are."""
    names = [
        f"vegamite_aggregator.core.{name}" for name in ("trade_block", "block_reader", "block_fold")
    ]
    compiled = {name: sys.modules[name] for name in names}
    offered: dict[str, Any] = {}
    try:
        for name in names:
            source = Path(trade_block.__file__).parent / f"{name.rpartition('.')[2]}.py"
            spec = importlib.util.spec_from_file_location(name, source)
            assert spec is not None
            assert spec.loader is not None
            sys.modules[name] = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(sys.modules[name])
            offered |= vars(sys.modules[name])
    finally:
        sys.modules.update(compiled)
    return SimpleNamespace(**offered)


COMPILED = SimpleNamespace(**vars(trade_block) | vars(block_reader) | vars(block_fold))
INTERPRETED = interpreted()
some_examples = settings(max_examples=40)
both = pytest.mark.parametrize("module", [COMPILED, INTERPRETED], ids=["compiled", "interpreted"])


def short(value: TradesRecord) -> PackedTrades:
    record = block_reader.read_block(encode_trades(value))
    assert record is not None
    return PackedTrades(record.trades)


def test_what_runs_here_is_compiled() -> None:
    assert trade_block.COMPILED, "`make install` compiles it, given a C compiler"
    assert not INTERPRETED.COMPILED
    for module in (trade_block, block_reader, block_fold):
        library = Path(str(module.__file__))
        source = library.with_name(f"{library.name.partition('.')[0]}.py")
        assert source.stat().st_mtime <= library.stat().st_mtime, "`make install` compiles it anew"


@both
@some_examples
@given(record=records(plain_ids, plain_decimals))
def test_a_plain_record_is_taken_as_it_is(module: Any, record: TradesRecord) -> None:
    if any(trade.sequence == -(2**63) for trade in record.trades):
        return
    value = encode_trades(record)
    taken = module.read_block(value)
    assert taken is not None
    decoded = decode_trades(value)
    assert said(taken) == record == decoded
    assert spelt(said(taken)) == spelt(decoded)
    times = [trade.event_time for trade in record.trades]
    block = taken.trades
    assert (block.earliest, block.latest) == (min(times), max(times))
    assert block.event_times() == times
    assert block.trade_ids() == [trade.trade_id for trade in record.trades]


@both
@some_examples
@given(
    record=records(any_ids, any_decimals),
    seed=st.integers(0, 2**32),
    changes=st.integers(0, 3),
)
def test_what_is_taken_is_what_the_long_way_reads(
    module: Any, record: TradesRecord, seed: int, changes: int
) -> None:
    value = bytearray(encode_trades(record))
    chance = random.Random(seed)
    for _ in range(changes):
        at = chance.randrange(len(value))
        some = bytes(chance.choices(b'0123456789.-eE+"\\{}[],:x \x00\x1f\x7f\xc3', k=1))
        value[at : at + chance.randrange(2)] = chance.choice([some, some, b""])
    taken = module.read_block(bytes(value))
    if taken is None:
        return
    decoded = decode_trades(bytes(value))  # which raises where it can't be
    assert said(taken) == decoded
    assert spelt(said(taken)) == spelt(decoded)


@both
@pytest.mark.parametrize(
    ("was", "becomes"),
    [
        ('"v":1', '"v":2'),
        ('"v":1', '"v":01'),
        ('"price":"10"', '"price":"0"'),
        ('"price":"10"', '"price":"0.000"'),
        ('"price":"10"', '"price":"-1"'),
        ('"price":"10"', '"price":10'),
        ('"price":"10"', '"price":"1e1"'),
        ('"price":"10"', '"price":"."'),
        ('"price":"10"', f'"price":"{"9" * 19}"'),
        ('"price":"10"', f'"price":"0.{"0" * 17}1"'),
        ('"taker_side":"buy"', '"taker_side":"buyer"'),
        ('"origin":"live"', '"origin":"alive"'),
        ('"trade_id":"7"', '"trade_id":""'),
        ('"trade_id":"7"', f'"trade_id":"{"7" * 129}"'),
        ('"trade_id":"7"', '"trade_id":"\\u0037"'),
        ('"sequence":7', '"sequence":07'),
        ('"sequence":7', f'"sequence":{2**63}'),
        (f'"event_time":{NOON}', '"event_time":1'),
        (f'"event_time":{NOON}', f'"event_time":{3 * 10**17}'),
        (f"[{NOON},{NOON + 1}]", f"[{NOON + 1},{NOON}]"),
        ("]}", "]} "),
        ("]}", '],"more":1}'),
    ],
)
def test_what_is_no_plain_record_goes_the_long_way(module: Any, was: str, becomes: str) -> None:
    trade = Trade("7", 7, NOON, Decimal(10), Decimal(2), "buy")
    value = encode_trades(record_of([trade], covered=(NOON, NOON + 1)))
    assert module.read_block(value) is not None
    changed = value.decode().replace(was, becomes, 1).encode()
    assert changed != value
    assert module.read_block(changed) is None


@both
@some_examples
@given(some=trades(plain_ids | any_ids, plain_decimals | any_decimals))
def test_packed_field_by_field_they_are_the_trades(module: Any, some: tuple[Trade, ...]) -> None:
    block = module.pack(
        [trade.trade_id for trade in some],
        [trade.sequence for trade in some],
        [trade.event_time for trade in some],
        [str(trade.price) for trade in some],
        [str(trade.amount) for trade in some],
        [trade.taker_side for trade in some],
    )
    if block is not None:
        taken = tuple(block.trade(place) for place in range(block.count))
        assert taken == some
        assert [(str(t.price), str(t.amount)) for t in taken] == [
            (str(t.price), str(t.amount)) for t in some
        ]


def test_a_thousand_trades_are_a_record_and_one_more_is_none() -> None:
    many = [Trade(str(n), n, NOON + n, Decimal(1), Decimal(1)) for n in range(1001)]
    value = encode_trades(record_of(many[:1000]))
    packed = block_reader.read_block(value)
    assert packed is not None
    assert packed.trades.count == 1000
    one = value[value.index(b"[") + 1 : value.index(b"}") + 1]
    too_many = value.replace(b"[", b"[" + one + b",", 1)
    assert block_reader.read_block(too_many) is None
    with pytest.raises(MessageError):
        decode_trades(too_many)


@both
@some_examples
@given(record=records(plain_ids, plain_decimals))
def test_order_is_told_only_where_it_is_so(module: Any, record: TradesRecord) -> None:
    taken = module.read_block(encode_trades(record))
    if taken is None:
        return
    some = record.trades
    places = [(trade.event_time, trade.sequence, trade.trade_id) for trade in some]
    ascending = all(one < other for one, other in itertools.pairwise(places))
    distinct = len({(trade.event_time, trade.trade_id) for trade in some}) == len(some)
    assert taken.trades.ordered == (ascending and distinct)


def numeric(number: bytes) -> tuple[Decimal, int]:
    """Return a number in the binary format, and how many decimals it shows."""
    count, weight, sign, decimals = unpack_from(">hhHH", number)
    assert sign == 0
    assert len(number) == 8 + 2 * count
    digits = unpack_from(f">{count}h", number, 8)
    assert all(0 <= digit < 10_000 for digit in digits)
    total = sum(
        (Decimal(digit) * Decimal(10_000) ** (weight - at) for at, digit in enumerate(digits)),
        Decimal(0),
    )
    return total, decimals


@both
@some_examples
@given(record=records(plain_ids, plain_decimals))
def test_rows_say_what_the_trades_say(module: Any, record: TradesRecord) -> None:
    taken = module.read_block(encode_trades(record))
    if taken is None:
        return
    rows = taken.trades.copy_rows(7, b"REST")
    at = 0
    for trade in said(taken).trades:
        (count,) = unpack_from(">h", rows, at)
        at += 2
        values: list[bytes | None] = []
        for _ in range(7):
            (length,) = unpack_from(">i", rows, at)
            at += 4
            values.append(None if length < 0 else rows[at : at + length])
            at += max(length, 0)
        assert count == 10
        assert rows[at : at + 4] == b"REST"
        at += 4
        key, event_time, trade_id, sequence, price, amount, side = values
        assert key == (7).to_bytes(4, "big")
        since_2000 = trade.event_time - parse_time("2000-01-01T00:00:00Z")
        assert event_time == since_2000.to_bytes(8, "big", signed=True)
        assert trade_id == trade.trade_id.encode()
        assert sequence == trade.sequence.to_bytes(8, "big", signed=True)
        for said_number, number in ((price, trade.price), (amount, trade.amount)):
            assert said_number is not None
            assert numeric(said_number) == (number, -int(number.as_tuple().exponent))
        assert side == (trade.taker_side.encode() if trade.taker_side else None)
    assert at == len(rows)


SIZES = [None, Contract(Decimal("0.001")), Contract(Decimal(100), inverse=True)]


@pytest.mark.parametrize("contract", SIZES)
@some_examples
@given(some=trades(plain_ids, plain_decimals), cut=st.integers(0, 6), seed=st.integers(0, 99))
def test_packed_records_fold_as_their_trades_do(
    contract: Contract | None, some: tuple[Trade, ...], cut: int, seed: int
) -> None:
    distinct = {
        (trade.event_time, trade.trade_id): replace(trade, sequence=trade.sequence % 10**17)
        for trade in some
    }
    mine = list(distinct.values())
    random.Random(seed).shuffle(mine)
    if seed % 2:
        mine.sort(key=lambda trade: (trade.event_time, trade.sequence, trade.trade_id))
    packed = [short(record_of(part)) for part in (mine[:cut], mine[cut:]) if part]
    assert fold_records(packed, contract) == fold_records([mine], contract)


@both
@some_examples
@given(some=trades(plain_ids, plain_decimals))
def test_seconds_are_added_up_from_the_packed_numbers(module: Any, some: tuple[Trade, ...]) -> None:
    mine = sorted(
        {(t.event_time, 0): replace(t, sequence=t.sequence % 10**17) for t in some}.values(),
        key=lambda trade: trade.event_time,
    )
    blocks = [module.read_block(encode_trades(record_of([trade]))).trades for trade in mine]
    blocks.append(
        module.read_block(
            encode_trades(
                record_of([replace(t, event_time=t.event_time + 60 * SECOND) for t in mine])
            )
        ).trades
    )
    later = [replace(trade, event_time=trade.event_time + 60 * SECOND) for trade in mine]
    with exactly():
        assert module.tallies_of(blocks) == fold_seconds([*mine, *later], None)


class Row:
    def __init__(self, offset: int, value: bytes) -> None:
        self.offset = offset
        self.append_time = NOON + 20 * SECOND
        self.key = MARKET.key.encode()
        self.value = value


def read(values: Sequence[bytes]) -> Intake:
    state = PartitionState(
        partition=0, epoch=0, version=0, next_offset=0, last_append_time=None, markets={}
    )
    rows = [Row(offset, value) for offset, value in enumerate(values)]
    return read_batch(state, rows, partition_of=lambda _: 0, timing=Timing())


def loose(batches: Sequence[TradeBatch]) -> list[TradeBatch]:
    return [replace(batch, trades=tuple(batch.trades)) for batch in batches]


@some_examples
@given(
    several=st.lists(
        records(st.sampled_from("abc"), st.sampled_from([Decimal(1), Decimal("1.0"), Decimal(2)])),
        max_size=5,
    ),
    odd=st.sets(st.integers(0, 4)),
    stored=st.sets(st.tuples(st.just(MARKET), st.integers(NOON, NOON + 3), st.sampled_from("abc"))),
)
def test_a_batch_says_the_same_whichever_way_it_is_read(
    several: list[TradesRecord], odd: set[int], stored: set[tuple[Market, int, str]]
) -> None:
    # A blank after a record is no layout of ours, and a number of many digits goes the long way.
    values = [encode_trades(each) + b" " * (at in odd) for at, each in enumerate(several)]
    values = [
        value.replace(b'"amount":"1"', b'"amount":"1.%s"' % (b"0" * 20)) if at % 2 else value
        for at, value in enumerate(values)
    ]
    quick = read(values)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(intake_module, "COMPILED", False)
        slow = read(values)
    assert loose(quick.trades) == loose(slow.trades)
    kept = (loose(without_stored(each.trades, stored)) for each in (quick, slow))
    assert next(kept) == next(kept)
    assert replace(quick, trades=()) == replace(slow, trades=())


def test_trades_stay_packed_in_whichever_layout_they_come() -> None:
    trade = Trade("7", 2**63 - 1, NOON, Decimal(10), Decimal(2), "buy")
    for value in (
        encode_trades(record_of([trade])),
        json.dumps(json.loads(encode_trades(record_of([trade])))).encode(),
    ):
        (batch,) = read([value]).trades
        assert isinstance(batch.trades, PackedTrades)
        assert list(batch.trades) == [trade]
