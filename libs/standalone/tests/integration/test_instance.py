"""`vegamite run`: one process that keeps its data, whatever ends it, and refuses in plain words."""

import json
import os
import signal
import socket
import stat
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from vegamite_common.testing.eventually import eventually

DEMO = "sim:DEMO/USD"
Vegamite = Callable[..., Any]

pytestmark = pytest.mark.timeout(300)


def newest(instance: Any) -> Any:
    return instance.json("/v1/candles", market=DEMO, timeframe="1m", limit=3)["data"]


def tracked(instance: Any) -> list[str]:
    return [market["market"] for market in instance.json("/v1/markets", tracked="true")["data"]]


def is_running(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


def owner_of(pid: int) -> int:
    return Path(f"/proc/{pid}").stat().st_uid


async def test_the_first_start_shows_a_market_that_moves_with_its_last_day(instance: Any) -> None:
    instance.start()
    assert tracked(instance) == ["kraken:BTC/USD", "kraken:ETH/USD", DEMO]

    def whole_day() -> bool:
        gaps = instance.json("/v1/gaps", market=DEMO)["data"]
        return bool(gaps) and all(gap["state"] == "filled" for gap in gaps)

    await eventually(whole_day, timeout_s=150, message="the demo's day is filled")
    day = instance.json("/v1/candles", market=DEMO, timeframe="1m", limit=2000)["data"]
    assert len(day) >= 24 * 60
    before = newest(instance)[-1]
    await eventually(lambda: newest(instance)[-1] != before, message="the newest candle moves")
    (market,) = instance.json("/v1/markets", exchange="sim")["data"]
    assert (market["simulated"], market["state"]) == (True, "live")


async def test_a_killed_instance_has_everything_when_it_is_started_again(instance: Any) -> None:
    instance.start()

    def newest_trades() -> list[Any]:
        trades = instance.json("/v1/trades", market=DEMO, limit=200)["data"]
        return trades if len(trades) == 200 else []

    before = await eventually(newest_trades, timeout_s=60)
    database = instance.database_pid()
    key = instance.key
    instance.kill()
    instance.start()
    # The server outlived its owner, and was taken over as it was.
    assert instance.database_pid() == database
    assert instance.key == key
    span = {"start": before[0]["event_time"], "end": before[-1]["event_time"]}
    again = instance.json("/v1/trades", market=DEMO, limit=1000, **span)["data"]
    assert again == [trade for trade in before if trade["event_time"] < span["end"]]
    os.kill(instance.database_pid(), signal.SIGKILL)
    instance.kill()
    instance.start()
    assert instance.database_pid() != database
    assert instance.json("/v1/trades", market=DEMO, limit=1000, **span)["data"] == again


async def test_a_database_that_dies_is_started_again_and_all_goes_on(instance: Any) -> None:
    def newest_time() -> str:
        rows = instance.json("/v1/trades", market=DEMO, limit=1)["data"]
        return str(rows[-1]["event_time"]) if rows else ""

    instance.start()
    before = await eventually(newest_time, timeout_s=60)
    first = instance.database_pid()
    os.kill(first, signal.SIGKILL)
    await eventually(
        lambda: instance.database_pid() not in (0, first), timeout_s=30, message="a new server runs"
    )
    await eventually(
        lambda: newest_time() > before, timeout_s=60, message="newer trades are stored and served"
    )


async def test_ctrl_c_ends_it_its_database_and_its_lock(instance: Any, vegamite: Vegamite) -> None:
    instance.start()
    database = instance.database_pid()
    assert instance.stop(signum=signal.SIGINT, timeout_s=10) == 0
    assert not is_running(database)
    assert not (instance.data / "postgres" / "data" / "postmaster.pid").exists()
    instance.start("--no-demo")
    assert instance.stop(signum=signal.SIGTERM, timeout_s=10) == 0


async def test_without_the_demo_there_is_none_and_with_it_it_comes_back(instance: Any) -> None:
    instance.start("--no-demo")
    assert DEMO not in tracked(instance)
    instance.stop()
    instance.start("--demo")
    assert DEMO in tracked(instance)
    instance.stop()
    instance.start("--no-demo")
    assert DEMO not in tracked(instance)


async def test_markets_are_tracked_and_let_go_from_the_command_line(
    instance: Any, vegamite: Vegamite
) -> None:
    instance.start("--no-demo")
    to = ("--url", instance.base, "--api-key-file", instance.data / "admin.key")
    listed = vegamite("markets", "list", *to)
    assert listed.returncode == 0, listed.stderr
    assert [line.split()[0] for line in listed.stdout.splitlines()[1:]] == [
        "kraken:BTC/USD",
        "kraken:ETH/USD",
    ]
    assert vegamite("markets", "remove", "kraken:ETH/USD", *to).returncode == 0
    added = vegamite("markets", "add", "kraken:SOL/USD", "--history-from", "2026-01-01", *to)
    assert (added.returncode, added.stdout) == (0, "kraken:SOL/USD is tracked\n"), added.stderr
    assert tracked(instance) == ["kraken:BTC/USD", "kraken:SOL/USD"]
    wrong = vegamite("markets", "add", "nowhere:BTC/USD", *to)
    assert wrong.returncode == 2
    assert "nowhere" in wrong.stderr
    nobody = vegamite(
        "markets", "remove", "kraken:SOL/USD", "--url", instance.base, HOME="/nonexistent"
    )
    assert (nobody.returncode, tracked(instance)) == (2, ["kraken:BTC/USD", "kraken:SOL/USD"])
    # What was let go stays so over a restart.
    instance.stop()
    instance.start("--no-demo")
    assert tracked(instance) == ["kraken:BTC/USD", "kraken:SOL/USD"]


async def test_a_second_instance_on_the_same_directory_is_refused(
    instance: Any, vegamite: Vegamite
) -> None:
    instance.start("--no-demo")
    second = vegamite("run", "--port", 0, "--data-dir", instance.data)
    assert (second.returncode, second.stdout) == (2, "")
    assert second.stderr == (
        f"the data directory {instance.data} is in use by process {instance.process.pid}\n"
    )
    assert instance.json("/v1/markets", tracked="true")["data"]


def test_a_taken_port_is_one_sentence_and_nothing_is_made(
    vegamite: Vegamite, server_directory: Path
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = vegamite("run", "--port", port, "--data-dir", server_directory / "data")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        f"port {port} on 127.0.0.1 is in use by another program; choose another one with --port\n"
    )
    assert list(server_directory.iterdir()) == []


async def test_its_own_files_are_private_and_directories_above_stay_as_they_were(
    instance: Any, server_directory: Path
) -> None:
    before = {path: path.stat().st_mode for path in instance.data.parents}
    instance.start("--no-demo")
    assert {path: path.stat().st_mode for path in instance.data.parents} == before
    assert stat.S_IMODE((instance.data / "admin.key").stat().st_mode) == 0o600
    assert stat.S_IMODE(instance.data.stat().st_mode) & 0o007 == 0
    assert (owner_of(instance.database_pid()) == os.getuid()) == (os.getuid() != 0)


async def test_a_given_database_is_used_by_one_instance_at_a_time(
    instance: Any, database: str, vegamite: Vegamite, server_directory: Path
) -> None:
    instance.start("--no-demo", "--database-url", database)
    assert tracked(instance) == ["kraken:BTC/USD", "kraken:ETH/USD"]
    assert not (instance.data / "postgres").exists()
    other = vegamite(
        "run", "--port", 0, "--data-dir", server_directory / "other", "--database-url", database
    )
    assert (other.returncode, other.stdout) == (2, "")
    assert other.stderr == "the database is in use by another vegamite process\n"


async def test_one_address_answers_the_probes_and_serves_the_page(instance: Any) -> None:
    instance.start("--no-demo")
    assert instance.text("/healthz") == "ok\n"
    metrics = instance.text("/metrics")
    for service in ("collector", "aggregator", "api"):
        assert f"vegamite_{service}_" in metrics, service
    assert "<html" in instance.text("/")


async def test_a_write_needs_the_key_that_was_printed(instance: Any) -> None:
    instance.start("--no-demo")

    def put(**headers: str) -> int:
        body = json.dumps({"markets": ["kraken:SOL/USD"]}).encode()
        headers["Content-Type"] = "application/json"
        address = f"{instance.base}/v1/tracked-markets"
        request = urllib.request.Request(address, data=body, headers=headers, method="PUT")
        try:
            with urllib.request.urlopen(request) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            return error.code

    assert put() == 401
    assert put(Authorization=f"Bearer {instance.key}x") == 401
    assert put(Authorization=f"Bearer {instance.key}") == 202
