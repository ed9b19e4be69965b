"""A Prometheus for tests, which scrapes what it is told each second, and `promtool`, which checks what is written for it."""

import json
import shutil
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlencode

from vegamite_common.testing.services.process import ServerProcess, ServiceError, cache_directory

_MISSING = (
    "Prometheus and promtool are needed: install Debian's `prometheus`,"
    " or run `apt-get update` as root and try again"
)


class PrometheusPrograms(NamedTuple):
    """Where the two programs are."""

    prometheus: Path
    promtool: Path


def prometheus_programs() -> PrometheusPrograms:
    """Return the programs on PATH, else those of Debian's package, fetched the first time; ServiceError where there are none.

    The package is unpacked into the cache folder, never installed: its installation starts a server on port 9090.
    """
    found = [shutil.which(name) for name in PrometheusPrograms._fields]
    if all(found):
        return PrometheusPrograms(*(Path(str(path)) for path in found))
    target = cache_directory() / "prometheus"
    if not target.is_dir():
        _fetch(target)
    return PrometheusPrograms(*(target / "usr/bin" / name for name in PrometheusPrograms._fields))


def _fetch(target: Path) -> None:
    if shutil.which("apt-get") is None or shutil.which("dpkg-deb") is None:
        raise ServiceError(_MISSING)
    unfinished = Path(tempfile.mkdtemp(prefix=".prometheus-", dir=target.parent))
    try:
        _run(["apt-get", "download", "-q", "prometheus"], folder=unfinished)
        packages = sorted(path.name for path in unfinished.glob("*.deb"))
        _run(["dpkg-deb", "-x", *packages, "tree"], folder=unfinished)
        if not target.is_dir():  # another run may have been quicker
            (unfinished / "tree").rename(target)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _run(command: Sequence[str], *, folder: Path) -> None:
    done = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, check=False, timeout=300
    )
    if done.returncode != 0:
        raise ServiceError(f"{_MISSING}; {' '.join(command)} said:\n{done.stderr[-1000:]}")


def check_metrics(text: str) -> str:
    """Return what `promtool check metrics` finds wrong with an exposition; empty where that is nothing."""
    done = subprocess.run(
        [prometheus_programs().promtool, "check", "metrics"],
        input=text,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    return (done.stdout + done.stderr).strip()


class PrometheusServer(ServerProcess):
    """A real server on loopback.

    `targets` are addresses (host:port) by the name of their job; each is scraped at `/metrics` every second.
    """

    name = "prometheus"

    def __init__(self, targets: Mapping[str, str | Sequence[str]]) -> None:
        """Choose folder and port; `start` makes the server."""
        super().__init__(ports=1)
        self._targets = {
            job: [given] if isinstance(given, str) else list(given)
            for job, given in targets.items()
        }

    @property
    def url(self) -> str:
        """Where it is asked."""
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start it and return when it answers."""
        super().start()
        self._wait_until_ready(self.log)

    def _command(self) -> list[str]:
        config = self.directory / "prometheus.yml"
        # JSON is YAML.
        config.write_text(
            json.dumps(
                {
                    "global": {"scrape_interval": "1s", "scrape_timeout": "1s"},
                    "scrape_configs": [
                        {"job_name": job, "static_configs": [{"targets": addresses}]}
                        for job, addresses in self._targets.items()
                    ],
                }
            )
        )
        return [
            str(prometheus_programs().prometheus),
            f"--config.file={config}",
            f"--storage.tsdb.path={self.directory / 'data'}",
            f"--web.listen-address=127.0.0.1:{self.port}",
            "--log.level=warn",
        ]

    def _wait_until_ready(self, log: Path, *, timeout_s: float = 90.0) -> None:
        """It listens before it has opened its storage, and answers 503 until then."""
        deadline = time.monotonic() + timeout_s
        while True:
            try:
                with urllib.request.urlopen(f"{self.url}/-/ready", timeout=10):
                    return
            except OSError as error:
                if time.monotonic() > deadline:
                    tail = log.read_text(errors="replace")[-2000:]
                    raise ServiceError(f"Prometheus isn't ready ({error}):\n{tail}") from None
            time.sleep(0.05)

    def query(self, expression: str) -> list[dict[str, Any]]:
        """Return the series of an instant query, each with `metric` (its labels) and `value` ([time, text]).

        Raises ServiceError with Prometheus' own words for an expression that it refuses.
        """
        data = self._ask("/api/v1/query", query=expression)
        if data["resultType"] in ("scalar", "string"):
            return [{"metric": {}, "value": data["result"]}]
        found: list[dict[str, Any]] = data["result"]
        return found

    def label_values(self, label: str, match: str) -> list[str]:
        """Return the values that a label has in the series that a selector finds."""
        found: list[str] = self._ask(f"/api/v1/label/{label}/values", **{"match[]": match})
        return found

    def healthy_jobs(self) -> set[str]:
        """Return the jobs whose last scrapes all went well."""
        targets = self._ask("/api/v1/targets")["activeTargets"]
        bad = {target["labels"]["job"] for target in targets if target["health"] != "up"}
        return {target["labels"]["job"] for target in targets} - bad

    def _ask(self, path: str, **parameters: str) -> Any:
        address = f"{self.url}{path}?{urlencode(parameters)}"
        try:
            with urllib.request.urlopen(address, timeout=30) as answer:
                body = json.load(answer)
        except urllib.error.HTTPError as error:
            body = json.load(error)
            raise ServiceError(f"{parameters}: {body.get('error', body)}") from None
        if body["status"] != "success":
            raise ServiceError(f"{parameters}: {body}")
        return body["data"]
