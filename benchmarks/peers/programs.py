"""The programs that are compared: how each is made ready and started."""

import contextlib
import hashlib
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from workload import BURSTS_TOPIC, TRADES_TOPIC

from vegamite_common.testing.services.kafka_jars import KAFKA_VERSION
from vegamite_common.testing.services.process import cache_directory

HERE = Path(__file__).resolve().parent
LOCK = HERE / "peers.txt"
STORED = {
    "vegamite-postgres": "trades by key, 16 timeframes, exactly once, from our wire format",
    "quix-postgres": "trades without a key, no candles, from a record a trade",
    "quix-postgres-wire": "the same, from our wire format",
}
"""What goes into PostgreSQL; see stored.py."""


@dataclass(frozen=True)
class Program:
    """A program to be measured over so many trades; with `exact` every digit of its candles counts.

    With `totals` it tells of all timeframes at its end.
    """

    name: str
    what: str
    command: tuple[str, ...]
    environment: dict[str, str]
    trades: int
    exact: bool = False
    totals: bool = False


def peers_python() -> Path:
    """Return the interpreter of the environment with the peers' packages, made at the first call for each lock."""
    base = _base_python()
    resolved = str(Path(base).resolve()).encode()
    digest = hashlib.sha256(resolved + LOCK.read_bytes()).hexdigest()[:12]
    folder = cache_directory() / f"peers-{digest}"
    python = folder / "bin" / "python"
    if (folder / "ready").exists():
        return python
    print(f"installing the peers' packages into {folder}", file=sys.stderr, flush=True)
    shutil.rmtree(folder, ignore_errors=True)
    subprocess.run([base, "-m", "venv", folder], check=True)
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    installed = subprocess.run(
        [*pip, "--require-hashes", "-r", str(LOCK)], capture_output=True, text=True, check=False
    )
    if installed.returncode != 0:
        raise SystemExit(
            f"the peers' packages can't be installed for {base}:\n{installed.stderr[-2000:]}"
        )
    (folder / "ready").touch()
    return python


def _base_python() -> str:
    """Return an interpreter here that bytewax has wheels for, which is up to Python 3.12: ours where that fits."""
    fitting = "import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 13))"
    for candidate in (sys.executable, "python3.12", "python3.11", "python3"):
        with contextlib.suppress(OSError):
            if (
                subprocess.run(
                    [candidate, "-c", fitting], capture_output=True, check=False
                ).returncode
                == 0
            ):
                return candidate
    raise SystemExit("bytewax has no wheel for this Python: python3.12 or python3.11 is needed")


def kafka_streams_jars() -> Path:
    """Return the folder of the Kafka Streams program and its jars, built by Maven at the first call for each source."""
    sources = HERE / "kafka_streams"
    digest = hashlib.sha256(KAFKA_VERSION.encode())
    for file in sorted(path for path in sources.rglob("*") if path.is_file()):
        digest.update(file.read_bytes())
    jars = cache_directory() / f"kafka-streams-{digest.hexdigest()[:12]}"
    if jars.is_dir():
        return jars
    if shutil.which("mvn") is None or shutil.which("javac") is None:
        raise SystemExit(
            "Kafka Streams needs Maven and a JDK (Debian: maven, default-jdk-headless)"
        )
    print(f"building the Kafka Streams program into {jars}", file=sys.stderr, flush=True)
    work = jars.with_name(f"{jars.name}.{os.getpid()}")
    shutil.copytree(sources, work)
    options = ["-DincludeScope=runtime", f"-DoutputDirectory={work / 'jars'}"]
    goals = ["package", "dependency:copy-dependencies"]
    built = subprocess.run(
        ["mvn", "--batch-mode", "--quiet", f"-Dkafka.version={KAFKA_VERSION}", *goals, *options],
        cwd=work,
        capture_output=True,
        text=True,
        check=False,
    )
    if built.returncode != 0:
        raise SystemExit(f"Maven couldn't build {sources}:\n{built.stdout[-3000:]}")
    shutil.copy(work / "target" / "kafka-streams-peer-1.jar", work / "jars")
    (work / "jars").rename(jars)
    shutil.rmtree(work)
    return jars


def window_programs(bootstrap: str, workload: int) -> list[Program]:
    """The programs that turn a topic into candles and keep them in memory; `{state}` in a command is a fresh folder."""
    return [
        _ours("vegamite", "16 timeframes, exact, a record a trade", bootstrap, workload, "line"),
        _quix("quix", "one 1m window, floats", bootstrap, workload, "documented"),
        _quix("quix-tuned", "the same, tuned", bootstrap, workload, "tuned"),
        _bytewax("bytewax", "one 1m window, floats", bootstrap, workload, "documented"),
        _bytewax("bytewax-tuned", "the same, tuned", bootstrap, workload, "tuned"),
        _kafka_streams(bootstrap, workload),
        _ours(
            "vegamite-wire",
            "16 timeframes, exact, 50 trades a record",
            bootstrap,
            workload,
            "burst",
        ),
    ]


def _ours(name: str, what: str, bootstrap: str, workload: int, form: str) -> Program:
    topic = TRADES_TOPIC if form == "line" else BURSTS_TOPIC
    script = str(HERE / "vegamite_fold.py")
    command = (sys.executable, script, bootstrap, topic, form, str(workload))
    return Program(name, what, command, {}, workload, exact=True, totals=True)


def _quix(name: str, what: str, bootstrap: str, workload: int, style: str) -> Program:
    trades = _enough(workload, 0.1)
    script = str(HERE / "quix_window.py")
    arguments = (script, bootstrap, TRADES_TOPIC, str(trades), "{state}", style)
    return Program(name, what, (str(peers_python()), *arguments), {}, trades)


def _bytewax(name: str, what: str, bootstrap: str, workload: int, style: str) -> Program:
    trades = _enough(workload, 0.3)
    environment = {
        "PEER_BOOTSTRAP": bootstrap,
        "PEER_TOPIC": TRADES_TOPIC,
        "PEER_TRADES": str(trades),
        "PEER_STYLE": style,
    }
    arguments = ("-m", "bytewax.run", "bytewax_window:flow")
    return Program(name, what, (str(peers_python()), *arguments), environment, trades)


def _kafka_streams(bootstrap: str, workload: int) -> Program:
    arguments = ("vegamite.peers.MinuteCandles", bootstrap, TRADES_TOPIC, str(workload), "{state}")
    command = ("java", "-cp", f"{kafka_streams_jars()}/*", *arguments)
    return Program("kafka-streams", "one 1m window, doubles, one thread", command, {}, workload)


def _enough(workload: int, share: float) -> int:
    """Return a share of the workload: a slow program needs fewer trades to be measured for as long."""
    return max(1, round(workload * share))
