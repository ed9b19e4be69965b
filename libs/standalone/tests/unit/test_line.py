import contextlib
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vegamite_common.domain.trade import InvalidTradeError, Trade
from vegamite_standalone.archive.line import (
    MAX_LINE_BYTES,
    LineError,
    choose_parser,
    csv_parser,
    json_parser,
)

MILLISECOND = 1000
CSV = b"13519807,0.00141342,23.00000000,15373518,15373518,1570752011620,True,True"
JSON = b'{"a":13519807,"p":"0.00141342","q":"23.00000000","f":1,"l":1,"T":1570752011620,"m":true,"M":true}'
TRADE = Trade(
    trade_id="13519807",
    sequence=13519807,
    event_time=1_570_752_011_620_000,
    price=Decimal("0.00141342"),
    amount=Decimal("23"),
    taker_side="sell",
)
HEADER = b"agg_trade_id,price,quantity,first_trade_id,last_trade_id,transact_time,is_buyer_maker"


@pytest.mark.parametrize(
    "line",
    [
        CSV,
        CSV.removesuffix(b",True"),
        CSV.lower(),
        CSV.replace(b",", b" , "),
        b"\xef\xbb\xbf" + CSV,
        CSV.replace(b"1570752011620", b"1570752011620999"),
        JSON,
        JSON.replace(b'"f":1,"l":1,', b""),
        JSON.replace(b',"M":true', b""),
        b"\xef\xbb\xbf" + JSON,
    ],
)
def test_every_spelling_of_a_trade_gives_the_same_one(line: bytes) -> None:
    parse, is_header = choose_parser(line, resolution=MILLISECOND)
    assert not is_header
    assert parse(line) == TRADE


def test_decimals_are_canonical() -> None:
    assert str(csv_parser(resolution=1)(CSV).amount) == "23"


def test_a_buyer_who_takes_is_told() -> None:
    assert csv_parser(resolution=1)(CSV.replace(b"True", b"False")).taker_side == "buy"


def test_event_times_are_floored_to_the_resolution_of_the_exchange() -> None:
    line = CSV.replace(b"1570752011620", b"1570752011620999")
    assert csv_parser(resolution=1)(line).event_time == 1_570_752_011_620_999
    assert csv_parser(resolution=1_000_000)(line).event_time == 1_570_752_011_000_000


@pytest.mark.parametrize("header", [HEADER, HEADER.upper(), HEADER + b",is_best_match"])
def test_a_header_is_no_trade(header: bytes) -> None:
    assert choose_parser(header, resolution=1)[1]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (b"1,2,3", "3 fields"),
        (CSV + b",x", "9 fields"),
        (CSV.replace(b"13519807", b"x13519807"), "field 1"),
        (CSV.replace(b"13519807", b"-5"), "field 1"),
        (CSV.replace(b"1570752011620", b"2019-10-11"), "field 6"),
        (CSV.replace(b"True", b"yes"), "field 7"),
        (CSV.replace(b"0.00141342", b"1,5"), "fields"),
        (CSV.replace(b"0.00141342", b"0.0014x"), "not a decimal"),
        (CSV.replace(b"0.00141342", b"NaN"), "not a decimal"),
        (CSV.replace(b"0.00141342", b""), "not a decimal"),
        (CSV.replace(b"0.00141342", "٣".encode()), "characters"),
        (b"9" * (MAX_LINE_BYTES + 1), "bytes"),
    ],
)
def test_a_csv_line_that_is_no_trade_says_why(line: bytes, said: str) -> None:
    with pytest.raises(LineError, match=said):
        csv_parser(resolution=1)(line)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (b"{", "truncated"),
        (b"[]", "object"),
        (JSON.replace(b'"a":13519807,', b""), "`a`"),
        (JSON.replace(b'"0.00141342"', b"0.00141342"), "str"),
        (JSON.replace(b"1570752011620", b"1570752011620.5"), "int"),
        (JSON.replace(b"13519807", b"-13519807"), "below zero"),
        (JSON.replace(b'"m":true', b'"m":1'), "bool"),
        (JSON.replace(b"0.00141342", b"\xff"), "utf-8"),
        (b"{" + b" " * MAX_LINE_BYTES + b"}", "bytes"),
        (b"[" * 4000, "recursion|object"),
    ],
)
def test_a_json_line_that_is_no_trade_says_why(line: bytes, said: str) -> None:
    with pytest.raises(LineError, match=rf"(?i){said}"):
        json_parser(resolution=1)(line)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (CSV.replace(b"0.00141342", b"0"), "price"),
        (CSV.replace(b"0.00141342", b"-1"), "price"),
        (CSV.replace(b"23.00000000", b"0.0"), "amount"),
        (CSV.replace(b"1570752011620", b"1230767999999"), "event_time"),
        (CSV.replace(b"13519807", b"9223372036854775808"), "sequence"),
    ],
)
def test_a_trade_that_cannot_be_is_told_apart_from_a_broken_line(line: bytes, reason: str) -> None:
    with pytest.raises(InvalidTradeError) as caught:
        csv_parser(resolution=1)(line)
    assert caught.value.reason == reason


decimals = st.decimals(min_value="0.00000001", max_value="99999999", places=8)
times = st.integers(min_value=1_230_768_000_000, max_value=4_000_000_000_000)


@given(st.integers(0, 2**63 - 1), decimals, decimals, times, st.booleans())
def test_what_was_written_is_read(
    number: int, price: Decimal, amount: Decimal, time: int, maker: bool
) -> None:
    csv = f"{number},{price},{amount},1,2,{time},{maker},True".encode()
    json = f'{{"a":{number},"p":"{price}","q":"{amount}","T":{time},"m":{str(maker).lower()}}}'
    read = csv_parser(resolution=MILLISECOND)(csv)
    assert read == json_parser(resolution=MILLISECOND)(json.encode())
    assert (read.price, read.amount, read.event_time) == (price, amount, time * 1000)
    assert (read.trade_id, read.sequence) == (str(number), number)
    assert read.taker_side == ("sell" if maker else "buy")


@given(st.binary(max_size=200))
def test_any_bytes_are_a_trade_or_a_known_refusal(line: bytes) -> None:
    parse, _ = choose_parser(line, resolution=MILLISECOND)
    for each in (parse, csv_parser(resolution=1), json_parser(resolution=1)):
        with contextlib.suppress(LineError, InvalidTradeError):
            assert isinstance(each(line), Trade)


@given(st.sampled_from([CSV, JSON]), st.data())
def test_a_damaged_line_is_a_trade_or_a_known_refusal(line: bytes, data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(line) - 1))
    damaged = (
        line[:at] + data.draw(st.binary(max_size=3)) + line[at + data.draw(st.integers(0, 5)) :]
    )
    parse, _ = choose_parser(line, resolution=MILLISECOND)
    with contextlib.suppress(LineError, InvalidTradeError):
        assert isinstance(parse(damaged), Trade)
