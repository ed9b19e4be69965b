from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vegamite_aggregator.adapters.time_partition import (
    WIDTHS,
    Width,
    candle_table,
    partition_at,
    partitions_of_day,
)
from vegamite_common.domain.time import DAY, EARLIEST, SECOND, from_datetime
from vegamite_common.domain.timeframe import Timeframe

INSTANTS = st.integers(EARLIEST, 4_000_000_000 * SECOND)


def moment(year: int, month: int, day: int, hour: int = 0, minute: int = 0) -> datetime:
    return datetime(year, month, day, hour, minute, tzinfo=UTC)


def at(year: int, month: int, day: int, hour: int = 0, minute: int = 0) -> int:
    return from_datetime(moment(year, month, day, hour, minute))


@pytest.mark.parametrize(
    ("width", "instant", "name", "begin", "end"),
    [
        (Width.DAY, at(2019, 12, 31, 23, 59), "p_20191231", (2019, 12, 31), (2020, 1, 1)),
        (Width.DAY, at(2020, 1, 1), "p_20200101", (2020, 1, 1), (2020, 1, 2)),
        (Width.MONTH, at(2024, 2, 29, 12), "p_202402", (2024, 2, 1), (2024, 3, 1)),
        (Width.MONTH, at(2023, 12, 31), "p_202312", (2023, 12, 1), (2024, 1, 1)),
        (Width.MONTH, at(2023, 1, 31), "p_202301", (2023, 1, 1), (2023, 2, 1)),
        (Width.YEAR, at(2020, 12, 31, 23), "p_2020", (2020, 1, 1), (2021, 1, 1)),
        (Width.DECADE, at(2009, 1, 1), "p_2000", (2000, 1, 1), (2010, 1, 1)),
        (Width.DECADE, at(2020, 1, 1), "p_2020", (2020, 1, 1), (2030, 1, 1)),
    ],
)
def test_an_instant_has_one_partition(
    width: Width, instant: int, name: str, begin: tuple[int, int, int], end: tuple[int, int, int]
) -> None:
    found = partition_at("p", width, instant)
    assert (found.parent, found.name) == ("p", name)
    assert (found.begin, found.end) == (moment(*begin), moment(*end))


@given(INSTANTS, st.sampled_from(Width))
def test_partitions_hold_their_instants_and_touch_without_overlap(
    instant: int, width: Width
) -> None:
    here = partition_at("p", width, instant)
    assert from_datetime(here.begin) <= instant < from_datetime(here.end)
    following = partition_at("p", width, from_datetime(here.end))
    before = partition_at("p", width, from_datetime(here.begin) - 1)
    assert following.begin == here.end
    assert before.end == here.begin
    assert len({here.name, following.name, before.name}) == 3


@given(INSTANTS)
def test_a_days_partitions_hold_every_candle_of_its_trades(instant: int) -> None:
    made = {partition.name: partition for partition in partitions_of_day(instant // DAY)}
    for timeframe in Timeframe:
        opened = timeframe.open_time(instant)
        needed = partition_at(candle_table(timeframe), WIDTHS[timeframe], opened)
        assert made[needed.name] == needed


def test_the_month_and_the_minute_have_different_tables() -> None:
    assert candle_table(Timeframe.MO1) == "candle_1mo"
    assert candle_table(Timeframe.M1) == "candle_1m"
