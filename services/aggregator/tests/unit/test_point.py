from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vegamite_aggregator.core.point import (
    HOMES,
    LATEST_POINT,
    can_be_written,
    candle_point,
    home_of,
    market_tags,
    plain_id,
    trade_point,
)
from vegamite_common.domain.candle import Candle
from vegamite_common.domain.market import Market
from vegamite_common.domain.time import SECOND
from vegamite_common.domain.timeframe import Timeframe
from vegamite_common.domain.trade import Origin, Trade

MARKET = Market("kraken", "BTC/USD:USD")
_IDS = st.text(alphabet='0a\\\n\x1f\x7f"xé', min_size=1, max_size=8)
AT = 1_768_478_400_123_456


def trade(trade_id: str = "12345", **rest: object) -> Trade:
    return Trade(
        trade_id=trade_id,
        sequence=-3,
        event_time=AT,
        price=Decimal("43210.10"),
        amount=Decimal("0.00000001"),
        **rest,  # type: ignore[arg-type]
    )


def line(one: Trade, slot: int = 0) -> str:
    tags = market_tags(MARKET)
    point = trade_point(tags, one, slot=slot, received_time=AT + 9, origin=Origin.BACKFILL)
    assert point.bucket == "recent"
    return point.line.decode()


def test_a_trade_is_one_line() -> None:
    assert line(trade(taker_side="sell"), slot=2) == (
        "trade,exchange=kraken,symbol=BTC/USD:USD,slot=2 price=43210.1,amount=1e-08"
        ',trade_id="12345",sequence=-3i,taker_side="sell",origin="backfill"'
        f",received_time={AT + 9}i {AT * 1000 + 345}"
    )
    assert ',taker_side="unknown",' in line(trade())


def test_whatever_an_id_holds_it_stays_one_field_on_one_line() -> None:
    assert ',trade_id="a\\"b\\\\\\\\c\\\\x0ad e=f,g",' in line(trade('a"b\\c\nd e=f,g'))


@given(_IDS, _IDS)
def test_ids_that_differ_differ_as_points_have_them(first: str, second: str) -> None:
    assert (plain_id(first) == plain_id(second)) == (first == second)
    assert "\n" not in plain_id(first)


@given(_IDS)
def test_a_home_is_three_digits(trade_id: str) -> None:
    assert 0 <= home_of(trade_id) < HOMES


@given(st.integers(min_value=0, max_value=10**18))
def test_a_thousand_neighbours_have_a_thousand_homes(first: int) -> None:
    assert len({home_of(str(number)) for number in range(first, first + HOMES)}) == HOMES


def test_homes_of_ids_that_are_no_numbers_are_spread() -> None:
    homes = [home_of(f"{number:08x}-id") for number in range(20_000)]
    assert len(set(homes)) == HOMES
    assert max(homes.count(home) for home in set(homes)) < 60


def test_a_home_never_changes() -> None:
    assert [home_of(text) for text in ("7", "0042", "9f3e-11", "²")] == [7, 42, 980, 403]


def test_tags_are_escaped() -> None:
    tags = market_tags(Market("sim", "A=1/B"))
    assert tags == "exchange=sim,symbol=A\\=1/B"


def test_what_line_protocol_has_no_words_for_is_told() -> None:
    assert can_be_written(MARKET, LATEST_POINT)
    assert not can_be_written(MARKET, LATEST_POINT + 1)
    assert not can_be_written(Market("sim", "A\\/B"), AT)
    assert (LATEST_POINT + 1) * HOMES <= 2**63


@pytest.mark.parametrize(("final", "word"), [(True, "true"), (False, "false")])
def test_a_candle_is_one_line_with_its_rank(final: bool, word: str) -> None:
    opened = AT - AT % (60 * SECOND)
    candle = Candle(
        timeframe=Timeframe.M1, open_time=opened, open=Decimal(1), high=Decimal("9.5"),
        low=Decimal("0.5"), close=Decimal(2), volume=Decimal(4), quote_volume=Decimal(10),
        buy_volume=Decimal(1), buy_quote_volume=Decimal(3), trade_count=7, first_event_time=opened,
        first_sequence=1, first_trade_id="1", last_event_time=opened, last_sequence=7,
        last_trade_id="7", epoch=2, as_of=77, updated_at=AT, final=final, complete=True,
        revision=3 if final else 0,
    )  # fmt: skip
    point = candle_point(market_tags(MARKET), candle, "downsampled")
    assert point.bucket == "downsampled"
    assert point.line.decode() == (
        "candle,exchange=kraken,symbol=BTC/USD:USD,timeframe=1m open=1.0,high=9.5,low=0.5,close=2.0"
        ",volume=4.0,quote_volume=10.0,buy_volume=1.0,buy_quote_volume=3.0,vwap=2.5,trade_count=7i"
        f",close_time={opened + 60 * SECOND}i,final={word},complete=true,epoch=2i,as_of=77i"
        f",revision={3 if final else 0}i,updated_at={AT}i {opened * 1000}"
    )
