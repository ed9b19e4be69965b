"""Archived days: exact, one file each, whole or not at all."""

import json
from collections.abc import AsyncIterator, Sequence
from decimal import Decimal
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vegamite_aggregator.adapters import parquet_archive
from vegamite_aggregator.adapters.parquet_archive import (
    ParquetArchive,
    check_archive,
    exchange_and_symbol,
    read_trades,
)
from vegamite_aggregator.core.manifest import ArchivedTrade
from vegamite_aggregator.ports import ArchiveError, StoreError
from vegamite_common.domain.market import Market
from vegamite_common.domain.time import DAY, parse_time

DAY_ONE = parse_time("2025-01-31T00:00:00Z")
DEMO = Market("sim", "DEMO/USD:USD")
COVERED = [(DAY_ONE, DAY_ONE + 5)]


def kept(number: int, *, price: str = "1.5") -> ArchivedTrade:
    at = DAY_ONE + number // 3
    return ArchivedTrade(at, f"{number:06}", number, price, "0.1", "buy", at + 7, "live", None)


async def pages(
    trades: Sequence[ArchivedTrade], size: int = 7
) -> AsyncIterator[Sequence[ArchivedTrade]]:
    for start in range(0, len(trades), size):
        yield trades[start : start + size]


async def store(directory: Path, trades: Sequence[ArchivedTrade]) -> int:
    archive = ParquetArchive(directory)
    return await archive.store(DEMO, DAY_ONE, trades=pages(trades), covered=COVERED)


def place(directory: Path) -> Path:
    return directory / "sim" / "DEMO%2FUSD%3AUSD"


async def test_a_day_is_one_file_and_a_manifest_and_reads_back_as_it_was(tmp_path: Path) -> None:
    trades = [kept(number) for number in range(100)]
    trades[3] = trades[3]._replace(
        taker_side=None, job="j", origin="import", price="9" * 30 + "." + "1" * 30
    )
    assert await store(tmp_path, trades) == 100
    assert sorted(path.name for path in place(tmp_path).iterdir()) == [
        "2025-01-31.json",
        "2025-01-31.parquet",
    ]
    file = place(tmp_path) / "2025-01-31.parquet"
    assert list(read_trades(file)) == trades
    manifest = check_archive(file)
    assert manifest.market == DEMO
    assert (manifest.rows, manifest.first_trade_id, manifest.last_trade_id) == (
        100,
        "000000",
        "000099",
    )
    assert manifest.covered == tuple(COVERED)
    assert manifest.bytes == file.stat().st_size


async def test_again_nothing_is_written(tmp_path: Path) -> None:
    trades = [kept(number) for number in range(10)]
    await store(tmp_path, trades)
    before = {path: path.stat().st_mtime_ns for path in place(tmp_path).iterdir()}
    assert await store(tmp_path, trades) == 0
    assert await store(tmp_path, trades[3:5]) == 0
    assert {path: path.stat().st_mtime_ns for path in place(tmp_path).iterdir()} == before


async def test_what_is_new_joins_what_is_there_and_the_first_stays(tmp_path: Path) -> None:
    await store(tmp_path, [kept(number) for number in range(0, 10, 2)])
    assert await store(tmp_path, [kept(number, price="7") for number in range(6)]) == 8
    assert sorted(path.name for path in place(tmp_path).iterdir()) == [
        "2025-01-31.2.parquet",
        "2025-01-31.json",
    ]
    held = list(read_trades(place(tmp_path) / "2025-01-31.2.parquet"))
    assert [(int(one.trade_id), one.price) for one in held] == [
        (0, "1.5"), (1, "7"), (2, "1.5"), (3, "7"), (4, "1.5"), (5, "7"), (6, "1.5"), (8, "1.5")
    ]  # fmt: skip


async def test_nothing_makes_no_file(tmp_path: Path) -> None:
    assert await store(tmp_path, []) == 0
    assert list(place(tmp_path).iterdir()) == []


@pytest.mark.parametrize("step", ["_write", "_compare", "_measure"])
async def test_whatever_fails_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    await store(tmp_path, [kept(1)])
    before = {path.name: path.read_bytes() for path in place(tmp_path).iterdir()}
    real = getattr(parquet_archive, step)

    def fail(*args: object) -> object:
        if step == "_measure" and not str(args[0]).endswith("tmp"):
            return real(*args)
        raise OSError(28, "No space left on device", "somewhere")

    with monkeypatch.context() as patched:
        patched.setattr(parquet_archive, step, fail)
        with pytest.raises(ArchiveError, match="somewhere: No space left on device"):
            await store(tmp_path, [kept(2)])
    assert {path.name: path.read_bytes() for path in place(tmp_path).iterdir()} == before
    assert await store(tmp_path, [kept(2)]) == 2


async def test_a_store_that_fails_on_the_way_is_told_as_that(tmp_path: Path) -> None:
    async def failing() -> AsyncIterator[Sequence[ArchivedTrade]]:
        yield [kept(1)]
        raise StoreError("the database went away")

    archive = ParquetArchive(tmp_path)
    with pytest.raises(StoreError, match="went away"):
        await archive.store(DEMO, DAY_ONE, trades=failing(), covered=[])
    assert list(place(tmp_path).iterdir()) == []


async def test_leftovers_of_a_killed_run_are_taken_up(tmp_path: Path) -> None:
    place(tmp_path).mkdir(parents=True)
    (place(tmp_path) / ".2025-01-31.4711.tmp").write_bytes(b"half")
    (place(tmp_path) / "2025-01-31.parquet").write_bytes(b"whole, but its manifest never came")
    assert await store(tmp_path, [kept(1)]) == 1
    assert check_archive(place(tmp_path) / "2025-01-31.parquet").rows == 1
    assert len(list(place(tmp_path).iterdir())) == 2


async def test_a_file_that_is_not_its_manifests_is_refused_and_stays(tmp_path: Path) -> None:
    await store(tmp_path, [kept(1)])
    file = place(tmp_path) / "2025-01-31.parquet"
    whole = file.read_bytes()
    file.write_bytes(whole[:-9] + b"x" + whole[-8:])
    with pytest.raises(ArchiveError, match="not the file that its manifest was written for"):
        await store(tmp_path, [kept(2)])
    assert file.read_bytes() != whole
    file.unlink()
    with pytest.raises(ArchiveError, match="No such file"):
        check_archive(file)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "not a manifest"),
        ("{}", "not a manifest: Object missing required field"),
        ('{"schema_version": 2, "exchange": "sim"}', "not a manifest"),
    ],
)
def test_a_manifest_that_is_none_is_named(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "2025-01-31.json").write_text(text)
    with pytest.raises(ArchiveError, match=said):
        check_archive(tmp_path / "2025-01-31.parquet")
    with pytest.raises(ArchiveError, match=r"its manifest 2025-02-01.json isn't beside it"):
        check_archive(tmp_path / "2025-02-01.parquet")


async def test_a_manifest_names_only_its_neighbour_and_its_own_version(tmp_path: Path) -> None:
    await store(tmp_path, [kept(1)])
    manifest = place(tmp_path) / "2025-01-31.json"
    good = json.loads(manifest.read_text())
    for change, said in (
        ({"file": "../2025-01-31.parquet"}, "not a file beside"),
        ({"schema_version": 9}, "schema version 9; this release reads 1"),
        ({"exchange": "No!"}, "not an exchange id"),
        ({"other": 1}, "unknown field"),
    ):
        manifest.write_text(json.dumps({**good, **change}))
        with pytest.raises(ArchiveError, match=said):
            check_archive(manifest)


@pytest.mark.parametrize("content", [b"", b"PAR1xxxxPAR1", b"nonsense" * 100])
def test_what_is_no_parquet_is_said_to_be_none(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "2025-01-31.parquet"
    file.write_bytes(content)
    with pytest.raises(ArchiveError, match="can't be read"):
        list(read_trades(file))


def test_every_symbol_has_a_directory_of_its_own() -> None:
    long = Market("sim", f"{'ü' * 40}/{'ß' * 40}")
    longer = Market("sim", f"{'ü' * 40}/{'ß' * 39}x")
    names = {
        exchange_and_symbol(market) for market in (DEMO, long, longer, Market("sim", "DEMO/USD"))
    }
    assert len(names) == 4
    assert all(len(path.name) < 255 and "/" not in path.name for path in names)


NUMBER = st.decimals(
    min_value=Decimal("1e-30"), max_value=Decimal("9e29"), allow_nan=False, places=30
)
TEXT = st.text(
    st.characters(exclude_characters="\x00", exclude_categories=["Cs"]), min_size=1, max_size=20
)


@settings(max_examples=30, deadline=None)
@given(
    st.lists(
        st.builds(
            ArchivedTrade,
            event_time=st.integers(DAY_ONE, DAY_ONE + DAY - 1),
            trade_id=TEXT,
            sequence=st.integers(-(2**63), 2**63 - 1),
            price=NUMBER.map(lambda number: format(number, "f")),
            amount=NUMBER.map(lambda number: format(number, "f")),
            taker_side=st.sampled_from(["buy", "sell", None]),
            received_time=st.integers(0, DAY_ONE * 2),
            origin=st.sampled_from(["live", "import"]),
            job=st.none() | TEXT,
        ),
        min_size=1,
        max_size=30,
        unique_by=lambda one: (one.event_time, one.trade_id),
    )
)
async def test_any_trades_come_back_to_the_last_digit(
    tmp_path_factory: pytest.TempPathFactory, trades: list[ArchivedTrade]
) -> None:
    directory = tmp_path_factory.mktemp("archive")
    ordered = sorted(trades, key=lambda one: (one.event_time, one.trade_id.encode()))
    assert await store(directory, ordered) == len(trades)
    manifest = msgspec.json.decode((place(directory) / "2025-01-31.json").read_bytes())
    assert list(read_trades(place(directory) / manifest["file"])) == ordered
