"""`vegamite run` on a terminal: a quiet table, the log in a file, Ctrl-C."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from vegamite_common.testing.eventually import eventually

pytestmark = pytest.mark.timeout(200)


@pytest.fixture
def terminal(instance: Any, open_terminal: Callable[..., Any]) -> Any:
    return open_terminal("run", "--port", "0", "--data-dir", str(instance.data))


async def test_a_person_sees_the_address_and_the_markets_and_no_log_line(
    terminal: Any, instance: Any
) -> None:
    await eventually(
        lambda: "sim:DEMO/USD" in terminal.written and "s ago" in terminal.written,
        timeout_s=90,
        message="the table shows the demo's newest trade",
    )
    assert "/#key=vgm_" in terminal.written
    assert "simulated" in terminal.written
    terminal.press(b"\x03")
    await eventually(
        lambda: terminal.process.poll() is not None, timeout_s=15, message="Ctrl-C ends it"
    )
    assert terminal.process.returncode == 0
    assert "[info" not in terminal.written
    assert "Traceback" not in terminal.written
    log = read_log(instance.data / "log" / "vegamite.log")
    assert {"started", "stopped"} <= {line["message"] for line in log}
    assert not any("vgm_" in json.dumps(line) for line in log)


def read_log(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]
