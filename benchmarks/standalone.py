"""What standalone costs: how soon the second start answers, and memory and processor while idle with the demo market.

Usage: python benchmarks/standalone.py [--idle SECONDS] [--runs N] [--vegamite COMMAND]

Starts `vegamite run` on a fresh data directory, lets the demo's day be filled, stops it, starts it again and times the
first answer of `GET /v1/markets`; then watches the process alone (PostgreSQL's processes aside) for the idle time. The
baseline, in the same run, is the time that `python -c 'import fastapi, ccxt'` takes, since start-up is mostly imports.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")
DEADLINE_SECONDS = 240
ADDRESS = re.compile(r"http://127\.0\.0\.1:(\d+)")


def start(
    command: list[str], data_directory: Path, log: Path
) -> tuple[subprocess.Popen[bytes], float]:
    """Start standalone on a port of the system's choice; return the process and the instant of its start."""
    with log.open("wb") as output:
        began = time.monotonic()
        process = subprocess.Popen(
            [*command, "run", "--port", "0", "--data-dir", str(data_directory)],
            stdout=output,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
        )
    return process, began


def first_answer(process: subprocess.Popen[bytes], log: Path, began: float) -> tuple[float, str]:
    """Return the seconds until `GET /v1/markets` answered, and the base address; raise where the process ended."""
    while time.monotonic() - began < DEADLINE_SECONDS:
        if process.poll() is not None:
            raise SystemExit(f"vegamite run ended with {process.returncode}:\n{log.read_text()}")
        found = ADDRESS.search(log.read_text())
        if found:
            address = found[0]
            try:
                with urllib.request.urlopen(f"{address}/v1/markets", timeout=5) as answer:
                    answer.read()
                return time.monotonic() - began, address
            except OSError:
                pass
        time.sleep(0.02)
    raise SystemExit(f"no answer within {DEADLINE_SECONDS} s:\n{log.read_text()}")


def wait_for_history(address: str) -> float:
    """Wait until the demo market has no open gap; return the seconds it took."""
    began = time.monotonic()
    while time.monotonic() - began < DEADLINE_SECONDS:
        with urllib.request.urlopen(f"{address}/v1/gaps?market=sim:DEMO/USD", timeout=10) as answer:
            gaps = json.load(answer)["data"]
        if gaps and all(gap["state"] == "filled" for gap in gaps):
            return time.monotonic() - began
        time.sleep(0.2)
    raise SystemExit("the demo's history was not filled in time")


def usage(pid: int) -> tuple[float, float]:
    """Return (processor seconds, resident mebibytes) of one process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    status = Path(f"/proc/{pid}/status").read_text()
    resident = re.search(r"VmRSS:\s+(\d+)", status)
    assert resident
    return (int(fields[11]) + int(fields[12])) / TICKS, int(resident[1]) / 1024


def stop(process: subprocess.Popen[bytes]) -> float:
    """End the process as Ctrl-C does; return the seconds it took."""
    began = time.monotonic()
    process.send_signal(signal.SIGINT)
    process.wait(timeout=60)
    return time.monotonic() - began


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--idle", type=float, default=60.0, help="seconds to watch (default 60)")
    parser.add_argument("--runs", type=int, default=5, help="second starts to time (default 5)")
    parser.add_argument("--vegamite", default=str(Path(sys.executable).with_name("vegamite")))
    arguments = parser.parse_args()
    command = [arguments.vegamite]
    with tempfile.TemporaryDirectory(
        prefix="vegamite-benchmark-", ignore_cleanup_errors=True
    ) as folder:
        # The database's own user has to reach its directory.
        Path(folder).chmod(0o755)
        data_directory, log = Path(folder) / "data", Path(folder) / "log"
        process, began = start(command, data_directory, log)
        seconds, address = first_answer(process, log, began)
        filled = wait_for_history(address)
        print(
            f"first start: answers after {seconds:.1f} s, the demo's day is there {filled:.1f} s later"
        )
        stopped = stop(process)
        print(f"stop: {stopped:.1f} s")
        starts, imports = [], []
        for run in range(arguments.runs):
            began = time.monotonic()
            subprocess.run([sys.executable, "-c", "import fastapi, ccxt"], check=True)
            imports.append(time.monotonic() - began)
            process, began = start(command, data_directory, log)
            seconds, address = first_answer(process, log, began)
            starts.append(seconds)
            if run < arguments.runs - 1:
                stop(process)
        median = statistics.median(starts)
        print(
            f"second start: median {median:.2f} s ({min(starts):.2f} to {max(starts):.2f}) of {len(starts)}; "
            f"{median / statistics.median(imports):.1f} times the imports alone (goal: under 15 s)"
        )
        time.sleep(20)  # connections are made and caches are filled
        before, _ = usage(process.pid)
        watched = time.monotonic()
        peak = 0.0
        while time.monotonic() - watched < arguments.idle:
            time.sleep(1)
            peak = max(peak, usage(process.pid)[1])
        used = usage(process.pid)[0] - before
        share = 100 * used / (time.monotonic() - watched)
        print(
            f"idle: {share:.1f} % of a core (goal: under 10 %), {peak:.0f} MiB resident (goal: under 250 MB)"
        )
        stop(process)


if __name__ == "__main__":
    main()
