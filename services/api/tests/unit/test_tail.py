"""The replica's memory: what a record concerns, how streams chain, what leaves first."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vegamite_api.core.refusal import RefusedError
from vegamite_api.core.seq import Seq, parse_seq
from vegamite_api.core.stream import Stream
from vegamite_api.core.tail import Memory, concerned
from vegamite_common.messages.codec import MessageError

A, B = Stream("trades", "x:A/B"), Stream("trades", "x:C/D")


def _trades(stream: Stream, trades: int = 1) -> bytes:
    exchange, _, symbol = stream.market.partition(":")
    head = f'{{"kind":"trades","v":1,"exchange":"{exchange}","symbol":"{symbol}","trades":['
    return (head + ",".join(["{}"] * trades) + "]}").encode()


def test_only_trades_concern_a_stream_of_the_trades_topic() -> None:
    assert concerned("trades", _trades(A)) == ((A,), False)
    assert concerned("trades", _trades(A, 0)) == ((), False)
    assert concerned("trades", b'{"kind":"heartbeat","v":1,"writer":"w","to":5}') == ((), False)
    assert concerned("trades", b'{"kind":"job_ended","exchange":"x","symbol":"A/B"}') == ((), False)


def test_a_candles_record_concerns_each_of_its_timeframes_once() -> None:
    head = b'{"kind":"candles","exchange":"x","symbol":"A/B","type":"%s","candles":[{"timeframe":"1m"},{"timeframe":"5m"},{"timeframe":"1m"}]}'
    streams = (Stream("candles", "x:A/B", "1m"), Stream("candles", "x:A/B", "5m"))
    assert concerned("candles", head % b"update") == (streams, True)
    assert concerned("candles", head % b"final") == (streams, False)


@given(st.binary(max_size=80))
def test_broken_records_are_told_apart(value: bytes) -> None:
    for topic in ("trades", "candles", "status"):
        with pytest.raises(MessageError):
            concerned(topic, value)


def test_messages_of_a_stream_name_the_one_before() -> None:
    memory = Memory(5, max_bytes=10**6)
    entries = [memory.append("trades", 5 + n, _trades(s)) for n, s in enumerate((A, B, A, A))]
    links = [entry.links[0].prev for entry in entries if entry is not None]
    assert links == [None, None, 5, 7]
    assert memory.append("trades", 9, b'{"kind":"heartbeat"}') is None
    assert (memory.next_offset, memory.last(A), memory.last(B)) == (10, 8, 6)


@given(sizes=st.lists(st.integers(1, 50), min_size=1, max_size=60), limit=st.integers(0, 20_000))
def test_memory_is_bounded_and_gives_all_from_its_first_offset_on(
    sizes: list[int], limit: int
) -> None:
    memory = Memory(100, max_bytes=limit)
    kept = 0
    for number, size in enumerate(sizes):
        memory.append("trades", 100 + number, _trades(A, size))
    held = list(memory.since(0))
    kept = sum(len(entry.value) for entry in held)
    assert kept <= limit
    assert [entry.offset for entry in held] == list(range(memory.first_offset, 100 + len(sizes)))
    middle = memory.first_offset + len(held) // 2
    assert [entry.offset for entry in memory.since(middle)] == list(range(middle, 100 + len(sizes)))


@given(st.integers(0, 10**8), st.integers(0, 1000), st.integers(-1, 10**17))
def test_a_seq_survives(epoch: int, partition: int, offset: int) -> None:
    seq = Seq(epoch, partition, offset)
    assert parse_seq(str(seq), parameter="p") == seq


@given(st.text().filter(lambda text: text.count("-") < 2))
def test_no_other_text_is_a_seq(text: str) -> None:
    with pytest.raises(RefusedError) as refused:
        parse_seq(text, parameter="p")
    assert refused.value.parameter == "p"
