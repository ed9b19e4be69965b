"""Records in another layout than ours: what is taken of them says the same as by the long way, or isn't taken."""

import json
import random
import re
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vegamite_aggregator.core import block_reader
from vegamite_aggregator.core.text_record import read_text
from vegamite_common.domain.trade import Trade
from vegamite_common.messages.trades import TradesRecord, decode_trades, encode_trades
from vegamite_common.testing.trades_records import (
    NOON,
    any_decimals,
    any_ids,
    plain_decimals,
    plain_ids,
    record_of,
    records,
    said,
    spelt,
)

some_examples = settings(max_examples=40)


def relaid(value: bytes, seed: int) -> bytes:
    """Return the same document as another program would write it: with spaces, and fields in another order."""
    chance = random.Random(seed)
    document = json.loads(value)
    if chance.random() < 0.5:
        document["trades"] = [shuffled(trade, chance) for trade in document["trades"]]
    if chance.random() < 0.5:
        document = shuffled(document, chance)
    indent = chance.choice([None, 1])
    return json.dumps(document, indent=indent, ensure_ascii=chance.random() < 0.5).encode()


TWICE = f'{{"trade_id": "7", "sequence": 7, "event_time": {NOON}, "price": "0", "amount": "0"}}'


def damaged(value: bytes, chance: random.Random) -> bytes:
    """Return a document that lacks a field, or has one twice, whole or with another value."""
    fields = list(re.finditer(rb'"\w+": ?("[^"]*"|-?\d+|null|\[\{.*?\}\]|\[[^\]]*\])(, ?)?', value))
    field = chance.choice(fields)
    text = field.group(0)
    name = text[: text.index(b":")]
    other = chance.choice([b'"xx"', b'"0"', b"7", b"null", b'"7.5"', b'"live"', b"[]"])
    if chance.random() < 0.2:
        name = name[:2] + b"\\u%04x" % name[2] + name[3:]
    becomes = chance.choice(
        [b"", text.rstrip(b", ") + b", " + text, name + b": " + other + b", " + text]
    )
    return value[: field.start()] + becomes + value[field.end() :]


def shuffled(fields: dict[str, Any], chance: random.Random) -> dict[str, Any]:
    return dict(chance.sample(list(fields.items()), len(fields)))


@some_examples
@given(record=records(plain_ids, plain_decimals), seed=st.integers(0, 2**32))
def test_a_plain_record_in_another_layout_is_taken_as_well(record: TradesRecord, seed: int) -> None:
    value = relaid(encode_trades(record), seed)
    assert block_reader.read_block(value) is None
    taken = read_text(value)
    assert taken is not None
    decoded = decode_trades(value)
    assert isinstance(decoded, TradesRecord)
    assert said(taken) == record == decoded
    assert spelt(said(taken)) == spelt(decoded)


@some_examples
@given(
    record=records(any_ids, any_decimals),
    seed=st.integers(0, 2**32),
    changes=st.integers(0, 3),
)
def test_another_layout_says_nothing_else_than_by_the_long_way(
    record: TradesRecord, seed: int, changes: int
) -> None:
    chance = random.Random(seed)
    value = bytearray(relaid(encode_trades(record), seed))
    if chance.random() < 0.5:
        value = bytearray(damaged(bytes(value), chance))
    for _ in range(changes):
        at = chance.randrange(len(value))
        some = bytes(chance.choices(b'0123456789.-eE+"\\{}[],:x \x00\x1f\x7f\xc3', k=1))
        value[at : at + chance.randrange(2)] = chance.choice([some, some, b""])
    taken = read_text(bytes(value))
    if taken is None:
        return
    decoded = decode_trades(bytes(value))
    assert said(taken) == decoded
    assert spelt(said(taken)) == spelt(decoded)


@pytest.mark.parametrize(
    ("was", "becomes"),
    [
        ('"v": 1', '"v": 2'),
        ('"price": "10"', '"price": 10'),
        ('"price": "10"', '"price": "1_0"'),
        ('"price": "10"', '"price": " 10"'),
        ('"price": "10"', '"price": "NaN"'),
        ('"price": "10"', '"price": ""'),
        ('"price": "10"', '"price": "0"'),
        ('"price": "10"', '"price": "10\\"10"'),
        ('"trade_id": "7"', '"trade_id": ""'),
        ('"trade_id": "7"', '"trade_id": "7\\"8"'),
        ('"trade_id": "7"', '"trade_id": "\\u0000"'),
        ('"sequence": 7', f'"sequence": {2**63}'),
        (f'"event_time": {NOON}', '"event_time": 1'),
        (f'"event_time": {NOON}', f'"event_time": {2**70}'),
        ('"taker_side": "buy"', '"taker_side": "buyer"'),
        ('"origin": "live"', '"origin": "alive"'),
        ('"exchange": "kraken"', '"exchange": "KRAKEN!"'),
        ('"kind": "trades"', '"kind": "heartbeat"'),
        ('"kind": "trades", ', ""),
        ('"price": "10"', '"price": "xx", "price": "10"'),
        ('"price": "10"', '"amount": "0", "price": "10"'),
        ('"price": "10"', '"pr\\u0069ce": "xx", "price": "10"'),
        ('"trades": [{', f'"trades": [{TWICE}], "trades": [{{'),
        ('"trades": [{', '"trades": [], "more": [{'),
        ('"job": "a"', f'"job": "{"a" * 201}"'),
    ],
)
def test_what_is_not_plain_in_another_layout_goes_the_long_way(was: str, becomes: str) -> None:
    trade = Trade("7", 7, NOON, Decimal(10), Decimal(2), "buy")
    value = json.dumps(json.loads(encode_trades(record_of([trade], job="a"))))
    assert read_text(value.encode()) is not None
    changed = value.replace(was, becomes, 1)
    assert changed != value
    assert read_text(changed.encode()) is None
