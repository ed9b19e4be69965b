"""Start vegamite as `make run` does, in an environment that has no test tools, look at the demo market, and stop it.

Run by `make smoke` and by CI before anything else is installed: what the locks for users lack shows here alone.
"""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any

DEADLINE_SECONDS = 240
VEGAMITE = Path(sys.executable).with_name("vegamite")


def get(address: str) -> Any:
    """Return the JSON that the address answers with."""
    with urllib.request.urlopen(address, timeout=10) as answer:
        return json.load(answer)


def find_address(process: subprocess.Popen[bytes], log: Path) -> str:
    """Return the address that the process printed; exits with its output where it ended or said none in time."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        found = re.search(r"http://127\.0\.0\.1:\d+", log.read_text(errors="replace"))
        if found:
            return found[0]
        time.sleep(0.1)
    sys.exit(f"vegamite run did not come up:\n{log.read_text(errors='replace')}")


def wait_for_candles(address: str) -> int:
    """Return how many candles the demo market has, as soon as it has some and its history is being filled."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    while time.monotonic() < deadline:
        try:
            page = get(f"{address}/v1/candles?market=sim:DEMO/USD&timeframe=1m&limit=1000")
        except OSError:
            page = {"data": []}
        if len(page["data"]) > 100:
            return len(page["data"])
        time.sleep(0.1)
    sys.exit("the demo market has no candles")


def main() -> None:
    """Run it; the exit code says whether all was well."""
    with tempfile.TemporaryDirectory(prefix="vegamite-smoke-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        folder.chmod(0o755)  # the database's own user passes through
        log = folder / "output"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [VEGAMITE, "run", "--port", "0", "--data-dir", folder / "data"],
                stdout=output,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
            )
        try:
            address = find_address(process, log)
            candles = wait_for_candles(address)
            process.send_signal(signal.SIGINT)
            code = process.wait(timeout=60)
        finally:
            process.kill()
        if code != 0:
            sys.exit(f"vegamite run ended with {code}:\n{log.read_text(errors='replace')}")
    sys.stdout.write(f"smoke: vegamite runs; its demo market had {candles} one-minute candles\n")


if __name__ == "__main__":
    main()
