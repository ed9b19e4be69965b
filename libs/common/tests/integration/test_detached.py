"""Servers that are left running for whoever develops by hand, and what ends them."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest
from aiokafka.admin import AIOKafkaAdminClient

from vegamite_common.testing.eventually import eventually
from vegamite_common.testing.services.influxdb import InfluxAddress

pytestmark = pytest.mark.timeout(240)

COMMAND = [sys.executable, "-m", "vegamite_common.testing.services"]


class Place:
    """A folder to run the commands in, as the repository's root is one."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.state = folder / ".cache" / "services.json"

    def run(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        """Run a command to its end."""
        return subprocess.run(
            [*COMMAND, *arguments],
            cwd=self.folder,
            capture_output=True,
            text=True,
            check=False,
            timeout=200,
            stdin=subprocess.DEVNULL,
        )


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    made = Place(tmp_path)
    yield made
    made.run("down")


def runs(pid: int) -> bool:
    """Whether the process is there; one that is dead and waits for somebody to ask after it isn't."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return text.rpartition(")")[2].split()[0] not in "ZX"


def status_of(url: str) -> int:
    with urllib.request.urlopen(url, timeout=10) as answer:
        return int(answer.status)


def exported(output: str) -> dict[str, str]:
    lines = [shlex.split(line)[1] for line in output.splitlines() if line.startswith("  export ")]
    return dict(line.split("=", 1) for line in lines)


async def test_servers_stay_until_they_are_taken_down_and_nothing_of_them_is_left(
    place: Place,
) -> None:
    up = place.run("up")
    assert up.returncode == 0, up.stderr
    variables = exported(up.stdout)
    connection = await asyncpg.connect(variables["VEGAMITE_TEST_POSTGRES"])
    assert await connection.fetchval("SELECT 1 + 1") == 2
    await connection.close()
    kafka = AIOKafkaAdminClient(bootstrap_servers=variables["VEGAMITE_TEST_KAFKA"])
    await kafka.start()
    assert len((await kafka.describe_cluster())["brokers"]) == 1
    await kafka.close()
    influxdb = InfluxAddress.parse(variables["VEGAMITE_TEST_INFLUXDB"])
    assert status_of(f"{influxdb.url}/ping") == 204
    assert re.fullmatch(r"vegamite:\w+", influxdb.token)
    pids = {int(pid) for pid in re.findall(r"process (\d+)", up.stdout)}
    assert len(pids) == 3
    assert place.state.stat().st_mode & 0o777 == 0o600

    again = place.run("up")
    assert again.stdout == f"running already\n{up.stdout}"

    processes = json.loads(place.state.read_text())["processes"]
    directories = [Path(process["directory"]) for process in processes]
    assert all(directory.is_dir() for directory in directories)
    (broker,) = (process["pid"] for process in processes if process["name"] == "Kafka")
    os.kill(broker, signal.SIGKILL)
    await eventually(lambda: not runs(broker), message="the broker is gone")
    refused = place.run("up")
    assert refused.returncode == 1
    assert "Kafka ended meanwhile; run make services-down first" in refused.stderr

    down = place.run("down")
    assert down.returncode == 0, down.stderr
    assert re.findall(r"process \d+ +(.+)", down.stdout) == ["had ended", "stopped", "stopped"]
    assert not any(map(runs, pids))
    assert not any(directory.exists() for directory in directories)
    assert not place.state.exists()
    assert place.run("down").stdout == "nothing to stop\n"


def test_a_process_that_only_has_the_id_of_one_of_ours_is_left_alone(place: Place) -> None:
    stranger = subprocess.Popen(["sleep", "600"], start_new_session=True)
    try:
        place.state.parent.mkdir()
        folder = place.folder / "kafka"
        folder.mkdir()
        process = {
            "name": "Kafka",
            "pid": stranger.pid,
            "began": "1",
            "directory": str(folder),
            "stop_signal": 15,
        }
        place.state.write_text(json.dumps({"processes": [process], "variables": {}}))
        down = place.run("down")
        assert (down.returncode, down.stderr) == (0, "")
        assert down.stdout == f"Kafka       process {stranger.pid:<8} had ended\n"
        assert stranger.poll() is None
        assert not folder.exists()
    finally:
        stranger.kill()
        stranger.wait()


def test_a_file_that_says_something_else_is_told_of(place: Place) -> None:
    place.state.parent.mkdir()
    for text in ("{", "[]", '{"processes": [{"pid": 1}], "variables": {}}'):
        place.state.write_text(text)
        for command in ("up", "down"):
            done = place.run(command)
            assert (done.returncode, done.stdout) == (1, "")
            assert "services.json can't be read" in done.stderr
            assert "Traceback" not in done.stderr
    place.state.unlink()


def test_what_nobody_offers_is_refused(place: Place) -> None:
    for arguments in ((), ("up", "2"), ("up", "3", "3"), ("sideways",)):
        done = place.run(*arguments)
        assert done.returncode == 2
        assert done.stderr.startswith("usage: ")
