"""`vegamite run` on a terminal: a quiet table, the log in a file, Ctrl-C."""

import fcntl
import json
import os
import pty
import subprocess
import termios
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from vegamite_common.testing.eventually import eventually

pytestmark = pytest.mark.timeout(200)


class Terminal:
    """A command with a terminal of its own, and what it has written there."""

    def __init__(self, command: list[str]) -> None:
        self._main, ours = pty.openpty()
        termios.tcsetwinsize(ours, (40, 120))
        self.process = subprocess.Popen(
            command,
            stdin=ours,
            stdout=ours,
            stderr=ours,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # noqa: PLW1509 -- one system call
            env={**os.environ, "TERM": "xterm-256color"},
        )
        os.close(ours)
        self._written = bytearray()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        while True:
            try:
                chunk = os.read(self._main, 65_536)
            except OSError:  # the other end is closed
                return
            self._written += chunk

    @property
    def written(self) -> str:
        """Everything so far, control sequences included."""
        return self._written.decode(errors="replace")

    def press(self, key: bytes) -> None:
        """Type on the terminal."""
        os.write(self._main, key)

    def close(self) -> None:
        """End the command, if need be."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self._reader.join(5)
        os.close(self._main)


@pytest.fixture
def terminal(instance: Any, vegamite_command: list[str]) -> Iterator[Terminal]:
    opened = Terminal([*vegamite_command, "run", "--port", "0", "--data-dir", str(instance.data)])
    yield opened
    opened.close()


async def test_a_person_sees_the_address_and_the_markets_and_no_log_line(
    terminal: Terminal, instance: Any
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
