"""Letters of refused records: whole up to a limit, never too large for the topic, and whatever the record was made of."""

import base64
import hashlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vegamite_common.messages.codec import MAX_RECORD_BYTES, MessageError
from vegamite_common.messages.dead_letters import (
    MAX_KEY_BYTES,
    MAX_TRADE_IDS,
    MAX_VALUE_BYTES,
    DeadLetter,
    dead_letter,
    decode_dead_letter,
    encode_dead_letter,
)


def letter(**changes: Any) -> DeadLetter:
    fields: dict[str, Any] = {
        "epoch": 1,
        "partition": 2,
        "offset": 3,
        "append_time": 1_700_000_000_000_000,
        "key": b"kraken:BTC/USD",
        "value": b"{",
        "reason": "undecodable",
        "detail": "Input data was truncated",
    }
    return dead_letter(**{**fields, **changes})


def test_a_letter_is_json_that_any_tool_reads() -> None:
    document = json.loads(encode_dead_letter(letter()))

    assert document == {
        "v": 1,
        "epoch": 1,
        "partition": 2,
        "offset": 3,
        "append_time": 1_700_000_000_000_000,
        "reason": "undecodable",
        "detail": "Input data was truncated",
        "key": base64.b64encode(b"kraken:BTC/USD").decode(),
        "value": "ew==",
        "value_bytes": 1,
        "value_sha256": hashlib.sha256(b"{").hexdigest(),
    }


@given(
    key=st.none() | st.binary(max_size=40),
    value=st.binary(max_size=200),
    detail=st.text(st.characters(), max_size=50),
    trade_ids=st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=10)),
)
def test_every_letter_comes_back_as_it_went(
    key: bytes | None, value: bytes, detail: str, trade_ids: list[str]
) -> None:
    sent = letter(key=key, value=value, detail=detail, trade_ids=trade_ids)
    back = decode_dead_letter(encode_dead_letter(sent))

    assert back == sent
    assert (back.key, back.value, back.whole) == (key, value, True)


def test_the_largest_record_makes_a_letter_that_fits_and_says_what_was_cut() -> None:
    value = b"y" * 10_000_000
    sent = letter(
        key=b"k" * 100_000, value=value, detail="\x01" * 10_000, trade_ids=["\x01" * 128] * 1000
    )
    encoded = encode_dead_letter(sent)

    assert len(encoded) < MAX_RECORD_BYTES / 2
    assert not sent.whole
    assert (len(sent.value), sent.value_bytes) == (MAX_VALUE_BYTES, len(value))
    assert sent.value_sha256 == hashlib.sha256(value).hexdigest()
    assert sent.key is not None
    assert len(sent.key) == MAX_KEY_BYTES
    assert (len(sent.trade_ids), sent.refused_trades) == (MAX_TRADE_IDS, 1000)


@pytest.mark.parametrize("changes", [{"v": 2}, {"value": "no base64!"}, {"append_time": -1}])
def test_what_is_no_letter_is_refused(changes: dict[str, Any]) -> None:
    document = json.loads(encode_dead_letter(letter()))

    with pytest.raises(MessageError):
        decode_dead_letter(json.dumps(document | changes).encode())
