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
