"""Cursors survive a round trip, and nothing else is taken for one."""

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vegamite_api.core.cursor import (
    decode_instant_cursor,
    decode_name_cursor,
    decode_trade_cursor,
    encode_instant_cursor,
    encode_name_cursor,
    encode_trade_cursor,
)
from vegamite_api.core.refusal import RefusedError
from vegamite_common.domain.time import LATEST

INSTANTS = st.integers(0, LATEST - 1)
NAMES = st.text(st.characters(exclude_characters="\x00", codec="utf-8"), min_size=1)
PLACES = st.tuples(INSTANTS, st.integers(-(2**63), 2**63 - 1), NAMES.map(str.encode))
DECODERS = (decode_instant_cursor, decode_trade_cursor, decode_name_cursor)


@given(place=PLACES, question=st.text())
def test_a_trade_s_place_survives(place: tuple[int, int, bytes], question: str) -> None:
    cursor = encode_trade_cursor(question, place)
    assert cursor.isascii()
    assert not set(cursor) & set("+/=&?#% ")
    assert len(cursor) > 400 or decode_trade_cursor(cursor, question) == place


@given(instant=INSTANTS, name=NAMES.filter(lambda name: len(name.encode()) < 200))
def test_instants_and_names_survive(instant: int, name: str) -> None:
    assert decode_instant_cursor(encode_instant_cursor("q", instant), "q") == instant
    assert decode_name_cursor(encode_name_cursor("q", name), "q") == name


@given(text=st.text(max_size=500))
def test_no_text_is_an_accident_of_the_decoder(text: str) -> None:
    for decode in DECODERS:
        with pytest.raises(RefusedError) as refused:
            decode(text, "q")
        assert refused.value.parameter == "cursor"


@given(noise=st.binary(max_size=60))
def test_no_bytes_are_an_accident_of_the_decoder(noise: bytes) -> None:
    text = base64.urlsafe_b64encode(noise).decode().rstrip("=")
    for decode in DECODERS:
        with pytest.raises(RefusedError):
            decode(text, "q")


@given(place=PLACES, at=st.integers(0, 10_000), change=st.integers(1, 63))
def test_one_changed_character_is_noticed(
    place: tuple[int, int, bytes], at: int, change: int
) -> None:
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    cursor = encode_trade_cursor("q", place)
    at %= len(cursor) - 1  # the last character may have unused bits
    other = alphabet[(alphabet.index(cursor[at]) + change) % 64]
    with pytest.raises(RefusedError):
        decode_trade_cursor(cursor[:at] + other + cursor[at + 1 :], "q")


def test_a_cursor_belongs_to_its_question_and_kind() -> None:
    cursor = encode_instant_cursor("candles|a:B/C|1m|asc", 5)
    with pytest.raises(RefusedError, match="another question"):
        decode_instant_cursor(cursor, "candles|a:B/C|5m|asc")
    with pytest.raises(RefusedError, match="this endpoint"):
        decode_trade_cursor(cursor, "candles|a:B/C|1m|asc")
