import gzip
import itertools
import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vegamite_common.testing.fake_exchange import AggregateTrade, GeneratedFeed, RecordedFeed
from vegamite_common.testing.fake_exchange.feed import FOREVER_MS, Feed, split_symbol
from vegamite_common.testing.fake_exchange.generator import BLOCK_MS, LISTED_MS

START = 1_570_752_000_000
HOUR_MS = 3_600_000


def window(feed: Feed, start: int, end: int) -> list[AggregateTrade]:
    return feed.from_time(start, until=end, limit=1_000_000)


def generated(symbol: str = "BTC/USDT", seed: int = 7, rate: float = 1.0) -> GeneratedFeed:
    return GeneratedFeed(symbol, seed=seed, rate=rate)


def test_same_seed_gives_the_same_trades_in_another_instance_asked_in_another_order() -> None:
    one, other = generated(), generated()
    other.latest(until=START + 10 * HOUR_MS, limit=5)
    assert window(one, START, START + HOUR_MS) == window(other, START, START + HOUR_MS)


@pytest.mark.parametrize("changed", [{"seed": 8}, {"symbol": "ETH/USDT"}])
def test_another_seed_or_symbol_gives_other_trades(changed: dict[str, Any]) -> None:
    ours = window(generated(), START, START + HOUR_MS)
    theirs = window(generated(**changed), START, START + HOUR_MS)
    assert [t.price for t in ours] != [t.price for t in theirs]


def test_generated_ids_rise_by_one_and_times_never_fall_over_many_blocks() -> None:
    trades = window(generated(), START, START + 3 * HOUR_MS)
    assert [t.trade_id for t in trades] == list(
        range(trades[0].trade_id, trades[0].trade_id + len(trades))
    )
    assert all(a.time_ms <= b.time_ms for a, b in itertools.pairwise(trades))


def test_generated_fills_follow_one_another_without_a_hole() -> None:
    trades = window(generated(), START, START + HOUR_MS)
    assert all(t.first_fill_id <= t.last_fill_id for t in trades)
    assert all(a.last_fill_id + 1 == b.first_fill_id for a, b in itertools.pairwise(trades))


def test_generated_market_is_alive() -> None:
    trades = window(generated(), START, START + 6 * HOUR_MS)
    assert len(trades) == pytest.approx(6 * 3600, rel=0.05)
    times = [t.time_ms for t in trades]
    assert len(set(times)) < 0.9 * len(times), "bursts share milliseconds"
    assert {t.buyer_is_maker for t in trades} == {True, False}
    assert len({t.price for t in trades}) > 1000
    counts = [
        sum(1 for t in times if t // 60_000 == m)
        for m in range(times[0] // 60_000, times[-1] // 60_000)
    ]
    assert max(counts) > 3 * (sum(counts) / len(counts)), "some minutes are busy"


@pytest.mark.parametrize("seed", range(8))
def test_generated_prices_and_amounts_are_positive_multiples_of_their_increments(seed: int) -> None:
    feed = generated(seed=seed, rate=0.1)
    for trade in window(feed, START, START + 12 * HOUR_MS):
        for text, increment in (
            (trade.price, feed.listing.price_increment),
            (trade.amount, feed.listing.amount_increment),
        ):
            assert Decimal(text) > 0
            assert Decimal(text) % Decimal(increment) == 0
            assert len(text.partition(".")[2]) == 8


@settings(max_examples=50)
@given(
    start=st.integers(START, START + 2 * HOUR_MS),
    length=st.integers(0, 2 * HOUR_MS),
    limit=st.integers(1, 1500),
)
def test_id_time_and_latest_address_the_same_trades(start: int, length: int, limit: int) -> None:
    feed = generated()
    until = start + length
    whole = window(feed, start, until)
    assert feed.from_time(start, until=until, limit=limit) == whole[:limit]
    assert all(start <= t.time_ms <= until for t in whole)
    latest = feed.latest(until=until, limit=limit)
    assert len(latest) == limit
    assert [t for t in latest if t.time_ms >= start] == whole[-limit:]
    if whole:
        assert feed.from_id(whole[0].trade_id, until=until, limit=limit) == whole[:limit]


def test_nothing_happened_before_the_first_block_and_ids_start_there_at_0() -> None:
    feed = generated()
    assert window(feed, 0, LISTED_MS - 1) == []
    assert feed.latest(until=LISTED_MS - 1, limit=10) == []
    first = feed.from_id(-5, until=FOREVER_MS, limit=3)
    assert [t.trade_id for t in first] == [0, 1, 2]
    assert feed.latest(until=first[1].time_ms, limit=10)[0].trade_id == 0


def test_trades_stay_in_their_block() -> None:
    feed = generated(rate=0.5)
    for block in range(1000, 1020):
        begin = LISTED_MS + block * BLOCK_MS
        assert len(window(feed, begin, begin + BLOCK_MS - 1)) == feed.block_size


def line(number: int, **changes: Any) -> dict[str, Any]:
    row = {
        "a": number,
        "p": "1.50",
        "q": "2",
        "f": number,
        "l": number,
        "T": 1000 + number,
        "m": True,
        "M": True,
    }
    return {**row, **changes}


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    content = "".join(json.dumps(row) + "\n" for row in rows).encode()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


@pytest.mark.parametrize("name", ["day.ndjson", "day.ndjson.gz"])
def test_recording_is_read_as_it_is(tmp_path: Path, name: str) -> None:
    feed = RecordedFeed.read(write(tmp_path / name, [line(1), line(2, p="1.25")]), "XRP/ETH")
    assert [t.price for t in feed.trades] == ["1.50", "1.25"]
    assert feed.listing.market_id == "XRPETH"
    assert feed.listing.price_increment == "0.01000000"
    assert feed.listing.amount_increment == "1.00000000"


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([], "without trades"),
        ([line(2), line(1, T=5000)], "ids in a recording must rise"),
        ([line(1), line(1)], "ids in a recording must rise"),
        ([line(1), line(2, T=5)], "times in a recording must not fall"),
        ([line(1), line(2, T="soon")], "day.ndjson:2"),
    ],
)
def test_broken_recording_is_refused(tmp_path: Path, rows: list[dict[str, Any]], said: str) -> None:
    path = write(tmp_path / "day.ndjson", rows)
    with pytest.raises(ValueError, match=said):
        RecordedFeed.read(path, "XRP/ETH")


def test_recording_answers_by_id_time_and_end_with_inclusive_bounds() -> None:
    trades = [
        AggregateTrade(n, "1", "1", n, n, t, buyer_is_maker=False)
        for n, t in ((10, 100), (11, 200), (12, 200), (14, 300))
    ]
    feed = RecordedFeed(generated().listing, trades)

    def ids(found: list[AggregateTrade]) -> list[int]:
        return [t.trade_id for t in found]

    assert ids(feed.from_id(11, until=FOREVER_MS, limit=2)) == [11, 12]
    assert ids(feed.from_id(13, until=FOREVER_MS, limit=2)) == [14]
    assert ids(feed.from_id(11, until=200, limit=9)) == [11, 12]
    assert ids(feed.from_time(200, until=300, limit=9)) == [11, 12, 14]
    assert ids(feed.from_time(201, until=299, limit=9)) == []
    assert ids(feed.latest(until=200, limit=2)) == [11, 12]
    assert ids(feed.latest(until=99, limit=2)) == []


@pytest.mark.parametrize(
    "symbol", ["BTC", "btc/usdt", "BTC/", "/USDT", "BTC/USDT:USDT", "B-C/USDT", "ÄTH/USDT"]
)
def test_only_spot_symbols_in_capitals_name_a_market(symbol: str) -> None:
    with pytest.raises(ValueError, match="not a spot symbol"):
        split_symbol(symbol)
