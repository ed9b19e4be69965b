import asyncio
import json
from pathlib import Path

import pytest

from vegamite_common.bus.offset_store import FileOffsetStore
from vegamite_common.bus.port import BusError


async def test_what_was_reserved_is_there_for_the_next_process(tmp_path: Path) -> None:
    file = tmp_path / "offsets.json"
    store = FileOffsetStore(file)
    assert await store.load() == {}
    await store.reserve("trades", 0, 100)
    await store.reserve("trades", 1, 50)
    await store.reserve("trades", 0, 200)
    await store.reserve("candles", 0, 7)
    assert await FileOffsetStore(file).load() == {"trades": {0: 200, 1: 50}, "candles": {0: 7}}
    assert not file.with_name("offsets.json.new").exists()


async def test_reservations_that_overlap_are_all_kept(tmp_path: Path) -> None:
    store = FileOffsetStore(tmp_path / "offsets.json")
    await asyncio.gather(*(store.reserve("t", partition, 10) for partition in range(20)))
    assert await FileOffsetStore(tmp_path / "offsets.json").load() == {
        "t": dict.fromkeys(range(20), 10)
    }


async def test_a_cancelled_reservation_leaves_a_whole_file(tmp_path: Path) -> None:
    file = tmp_path / "offsets.json"
    store = FileOffsetStore(file)
    await store.reserve("t", 0, 1)
    for bound in range(2, 30):
        task = asyncio.create_task(store.reserve("t", 0, bound))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait({task})
        assert json.loads(file.read_text())["t"]["0"] <= bound
    await store.reserve("t", 0, 30)
    assert await FileOffsetStore(file).load() == {"t": {0: 30}}


@pytest.mark.parametrize(
    "content", ["", "{", "[]", '{"t": 3}', '{"t": {"x": 1}}', '{"t": {"0": null}}', '"t"']
)
async def test_a_damaged_file_is_refused_not_taken_for_an_empty_one(
    tmp_path: Path, content: str
) -> None:
    file = tmp_path / "offsets.json"
    file.write_text(content)
    with pytest.raises(BusError, match="is damaged: not a table of offsets"):
        await FileOffsetStore(file).load()


async def test_a_place_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    store = FileOffsetStore(tmp_path / "missing" / "offsets.json")
    assert await store.load() == {}
    with pytest.raises(BusError, match="can't be written"):
        await store.reserve("t", 0, 1)
