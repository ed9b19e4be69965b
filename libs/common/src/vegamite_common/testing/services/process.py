"""What every server process of the tests shares: free ports, a folder for downloads, an end by its id."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Self


class ServiceError(Exception):
    """A server that the tests need can't be had; the text says what is missing and how to get it."""


def cache_directory() -> Path:
    """Return the folder that downloads are kept in: $VEGAMITE_TEST_CACHE, else `~/.cache/vegamite`."""
    chosen = os.environ.get("VEGAMITE_TEST_CACHE")
    directory = Path(chosen) if chosen else Path.home() / ".cache" / "vegamite"
    directory.mkdir(parents=True, exist_ok=True)
    return directory


def free_ports(count: int) -> list[int]:
    """Return `count` different TCP ports that are free on loopback right now."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def port_answers(port: int) -> bool:
    """Say whether something takes connections on this loopback port."""
    with socket.socket() as client:
        client.settimeout(1)
        return client.connect_ex(("127.0.0.1", port)) == 0


def make_server_directory(name: str) -> Path:
    """Make a fresh temporary folder that another system user may pass through (not list)."""
    directory = Path(tempfile.mkdtemp(prefix=f"vegamite-{name}-", dir="/tmp"))
    directory.chmod(0o711)
    return directory


def remove_directory(directory: Path) -> None:
    """Remove a folder and all in it, as far as that goes."""
    shutil.rmtree(directory, ignore_errors=True)


def end_process(process: subprocess.Popen[bytes], *, timeout_s: float = 15.0) -> None:
    """Ask the process to end, then kill it; returns when it is gone."""
    if process.poll() is not None:
        return
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(timeout_s)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def wait_for_port(
    process: subprocess.Popen[bytes], port: int, *, log: Path, timeout_s: float = 90.0
) -> None:
    """Return once the server answers on `port`; ServiceError with the end of its log if it doesn't."""
    deadline = time.monotonic() + timeout_s
    while not port_answers(port):
        if process.poll() is not None or time.monotonic() > deadline:
            ended = "ended" if process.poll() is not None else f"didn't answer within {timeout_s} s"
            end_process(process)
            tail = "\n".join(log.read_text(errors="replace").splitlines()[-15:])
            raise ServiceError(f"the server on port {port} {ended}; the end of its log:\n{tail}")
        time.sleep(0.05)


class ServerProcess:
    """What a server of a test is: one process on loopback, its data in a folder of its own, ports that it keeps.

    It may be stopped, killed and started again on its data; `close` removes the folder. Blocking: call the methods through
    `asyncio.to_thread` in a coroutine.
    """

    name: str
    """Of the server, as its folder and its log have it."""

    def __init__(self, *, ports: int) -> None:
        """Choose the folder and so many ports, of which the server answers at the first; `start` makes the server."""
        self.directory = make_server_directory(self.name)
        self.port, *self._other_ports = free_ports(ports)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """The process id; ServiceError when it isn't running."""
        if self._process is None:
            raise ServiceError(f"this {self.name} isn't running")
        return self._process.pid

    @property
    def log(self) -> Path:
        """What the server said, over all its starts."""
        return self.directory / f"{self.name}.log"

    def start(self) -> None:
        """Start it, on the data that is there, and return when it answers."""
        command = self._command()
        with self.log.open("ab") as output:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=self.directory,
                start_new_session=True,
            )
        wait_for_port(self._process, self.port, log=self.log)

    def stop(self) -> None:
        """Stop it in order."""
        if self._process is not None:
            end_process(self._process)
            self._process = None

    def kill(self) -> None:
        """End it by SIGKILL."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def close(self) -> None:
        """End it and remove its folder; nothing of it is needed any more."""
        self.kill()
        remove_directory(self.directory)

    def __enter__(self) -> Self:
        """Start it."""
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Close it."""
        self.close()

    def _command(self) -> list[str]:
        """Write what the server needs into its folder, and return the command that starts it."""
        raise NotImplementedError
