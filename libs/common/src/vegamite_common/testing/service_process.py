"""One process of ours in a test: started by its command, read by its log, killed or stopped by its id."""

import json
import os
import signal
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from vegamite_common.testing.services.process import ServiceError


class ServiceProcess:
    """A process that logs JSON lines to `log`; `start` again after `kill` is a restart, with the same command.

    Blocking: call its methods through `asyncio.to_thread` in a coroutine. Raises `ServiceError`, with the end of the
    log, where the process ends by itself or doesn't get ready.
    """

    def __init__(
        self, command: Sequence[str], *, log: Path, environment: Mapping[str, str] | None = None
    ) -> None:
        self.command = list(command)
        self.log = log
        self.environment = {**os.environ, **(environment or {})}
        self._process: subprocess.Popen[bytes] | None = None
        self._log_start = 0

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.kill()

    def start(self) -> None:
        """Start the process; its output is appended to the log."""
        with self.log.open("ab") as output:
            self._log_start = output.tell()
            self._process = subprocess.Popen(
                self.command,
                stdout=output,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                env=self.environment,
                start_new_session=True,
            )

    @property
    def process(self) -> subprocess.Popen[bytes]:
        """The process as it was started last."""
        if self._process is None:
            raise ServiceError(f"not started: {self.command}")
        return self._process

    def kill(self) -> None:
        """End the process at once (SIGKILL); harmless where it has ended."""
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait()

    def stop(self, *, timeout_s: float = 40.0) -> int:
        """Ask the process to drain and end (SIGTERM); return its exit code, or kill it and raise after the timeout."""
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.kill()
            raise ServiceError(self._said(f"did not end within {timeout_s} s")) from None

    def records(self) -> list[dict[str, Any]]:
        """Return what the process, since it was started last, logged as JSON."""
        with self.log.open("rb") as lines:
            lines.seek(self._log_start)
            return [
                json.loads(line)
                for line in lines
                if line.startswith(b"{") and line.endswith(b"}\n")
            ]

    def wait_for_record(self, key: str, *, timeout_s: float = 60.0) -> Any:
        """Return the value of `key` in the first log record that has it."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            for record in self.records():
                if key in record:
                    return record[key]
            self._check_alive()
            time.sleep(0.05)
        raise ServiceError(self._said(f"logged no {key} within {timeout_s} s"))

    def wait_until_ready(self, url: str, *, timeout_s: float = 60.0) -> None:
        """Return once `url` answers 200."""
        deadline = time.monotonic() + timeout_s
        last = "nothing"
        while time.monotonic() < deadline:
            self._check_alive()
            try:
                with urllib.request.urlopen(url, timeout=5):
                    return
            except urllib.error.HTTPError as error:
                last = f"{error.code} {error.read()[:200]!r}"
            except OSError as error:
                last = str(error)
            time.sleep(0.05)
        raise ServiceError(self._said(f"{url} not ready within {timeout_s} s, last: {last}"))

    def _check_alive(self) -> None:
        if self.process.poll() is not None:
            raise ServiceError(self._said(f"ended with {self.process.returncode}"))

    def _said(self, what: str) -> str:
        tail = "\n".join(self.log.read_text(errors="replace").splitlines()[-25:])
        return f"{' '.join(self.command[:4])}: {what}; the end of its log:\n{tail}"
