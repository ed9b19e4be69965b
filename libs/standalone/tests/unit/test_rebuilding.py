from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vegamite_aggregator.core.storable import MAX_REBUILD
from vegamite_common.domain.market import Market
from vegamite_common.domain.time import DAY, parse_time
from vegamite_common.domain.timeframe import Timeframe
from vegamite_common.runtime.config import ConfigError
from vegamite_standalone.rebuild_command import prepare_rebuild
from vegamite_standalone.rebuilding import (
    TRADES_A_RECORD,
    RebuildOutcome,
    RebuildRequest,
    describe_rebuild,
    portions,
)

BEGIN = parse_time("2024-02-27")
REQUEST = RebuildRequest(
    market=Market("kraken", "BTC/USD"), from_time=BEGIN, to_time=BEGIN + 3 * DAY
)


@given(
    days=st.integers(1, 100),
    counts=st.dictionaries(st.integers(0, 99), st.integers(1, 3 * TRADES_A_RECORD)),
)
def test_portions_follow_each_other_and_none_is_too_much(days: int, counts: dict[int, int]) -> None:
    trades = {BEGIN + day * DAY: count for day, count in counts.items()}
    cut = list(portions(BEGIN, BEGIN + days * DAY, trades))
    assert [begin for begin, _ in cut] == [BEGIN, *[end for _, end in cut[:-1]]]
    assert cut[-1][1] == BEGIN + days * DAY
    for begin, end in cut:
        assert 0 < end - begin <= MAX_REBUILD
        assert (end - begin) % DAY == 0
        if end - begin > DAY:
            assert sum(trades.get(day, 0) for day in range(begin, end, DAY)) <= TRADES_A_RECORD
    for (begin, end), (_, after) in pairwise(cut):
        more = sum(trades.get(day, 0) for day in range(begin, end + DAY, DAY))
        assert more > TRADES_A_RECORD or end + DAY - begin > MAX_REBUILD, (after, "could be one")


def test_what_a_rebuild_changed_is_told_by_timeframe() -> None:
    outcome = RebuildOutcome(days=(BEGIN, BEGIN + 3 * DAY), trades=12)
    first = describe_rebuild(REQUEST, outcome)
    assert first == [
        "kraken:BTC/USD: computed from 2024-02-27 to 2024-03-01 again, from 12 trades",
        "nothing had to be corrected",
    ]
    outcome.corrected = {Timeframe.MO1: {0}, Timeframe.M1: {BEGIN, BEGIN + DAY}}
    # A minute of now, which has only become final in its own time, is nobody's correction.
    outcome.finals = {Timeframe.M1: {BEGIN + 4 * DAY}, Timeframe.M5: {BEGIN}}
    outcome.ranges = {Timeframe.S1: (BEGIN, BEGIN + DAY)}
    assert describe_rebuild(REQUEST, outcome)[1:] == [
        "3 candles corrected: 2 of 1m, 1 of 1M",
        "1 candle made final: 1 of 5m",
        "1s corrected from 2024-02-27T00:00:00Z to 2024-02-28T00:00:00Z, not one by one",
    ]
    assert describe_rebuild(REQUEST, RebuildOutcome()) == [
        "kraken:BTC/USD: nothing is stored of that time"
    ]


@pytest.mark.parametrize(
    ("market", "begin", "end", "said"),
    [
        ("BTC", "2024-01-01", "2024-01-02", "not a market"),
        ("kraken:BTC/USD", "soon", "2024-01-02", "--from: not a time"),
        ("kraken:BTC/USD", "2024-01-01", "2024-99-02", "--to: not a time"),
        ("kraken:BTC/USD", "2024-01-02", "2024-01-02", "--to must be after --from"),
    ],
)
def test_what_cannot_be_rebuilt_is_refused(
    market: str, begin: str, end: str, said: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=said):
        prepare_rebuild(
            market=market, begin=begin, end=end, idle_seconds=1, data_dir=tmp_path, config=None
        )


def test_a_configuration_that_is_missing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such configuration file"):
        prepare_rebuild(
            market="kraken:BTC/USD",
            begin="2024-01-01",
            end="2024-01-02",
            idle_seconds=1,
            data_dir=None,
            config=tmp_path / "none.toml",
        )
