"""`python -m vegamite_common.testing.services`: `prepare` what the tests' servers need; `up` and `down` for servers to keep.

What Docker or the environment gives needs nothing. Else missing programs come from the system's package
manager (as root, or by sudo without a password); where that can't be, the command is printed and we stop.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable

from vegamite_common.runtime.embedded_postgres import EmbeddedPostgresError
from vegamite_common.testing.services.chromium import find_chromium
from vegamite_common.testing.services.detached import describe, start_servers, stop_servers
from vegamite_common.testing.services.influxdb import influxd_is_built, influxd_program
from vegamite_common.testing.services.kafka_jars import kafka_jars
from vegamite_common.testing.services.kubernetes_tools import find_kubernetes_tools
from vegamite_common.testing.services.postgres import find_tls_bin_dir
from vegamite_common.testing.services.process import ServiceError
from vegamite_common.testing.services.prometheus import prometheus_programs


def missing_packages() -> list[str]:
    """Return the Debian packages that the tests' servers lack on this machine."""
    packages: list[str] = []
    # Fault tests run Kafka and PostgreSQL as processes, whatever Docker may offer the others.
    if shutil.which("java") is None:
        packages.append("default-jre-headless")
    if shutil.which("mvn") is None:
        packages.append("maven")
    # Go itself isn't needed where what it builds is in the cache.
    if shutil.which("go") is None and not influxd_is_built():
        packages.append("golang-go")
    try:
        find_tls_bin_dir()
    except ServiceError:
        packages.append("postgresql")
    try:
        find_chromium()
    except ServiceError:
        packages.append("chromium")
    return packages


def install(packages: list[str]) -> None:
    """Install Debian packages; ServiceError with the one command to run where we may not."""
    install_command = ["apt-get", "install", "--yes", "--no-install-recommends", *packages]
    by_hand = f"sudo sh -c 'apt-get update && {' '.join(install_command)}'"
    if shutil.which("apt-get") is None:
        raise ServiceError(
            "the tests need Java, Maven, Go, PostgreSQL 15 or newer and Chromium;"
            f" this system has no apt-get: install what provides {', '.join(packages)}"
        )
    prefix = _privilege()
    if prefix is None:
        raise ServiceError(f"the tests need packages that only root may install; run:\n  {by_hand}")
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for command in (["apt-get", "update", "-q"], install_command):
        done = subprocess.run([*prefix, *command], env=environment, check=False, stdout=sys.stderr)
        if done.returncode != 0:
            raise ServiceError(
                f"installing {', '.join(packages)} failed; run it by hand:\n  {by_hand}"
            )


def fetch_prometheus() -> None:
    """Have Prometheus' programs; where their package can't be fetched, the lists of packages are read anew first."""
    try:
        prometheus_programs()
    except ServiceError:
        prefix = _privilege() if shutil.which("apt-get") else None
        if prefix is None:
            raise
        subprocess.run([*prefix, "apt-get", "update", "-q"], check=False, stdout=sys.stderr)
        prometheus_programs()


def _privilege() -> list[str] | None:
    if os.geteuid() == 0:
        return []
    sudo = shutil.which("sudo")
    if sudo is None:
        return None
    allowed = subprocess.run([sudo, "-n", "true"], capture_output=True, check=False)
    return [sudo, "-n"] if allowed.returncode == 0 else None


def prepare() -> None:
    """Install and fetch whatever is missing; ServiceError says what couldn't be had."""
    packages = missing_packages()
    if packages:
        install(packages)
        still = missing_packages()
        if still:
            raise ServiceError(f"still missing after the installation: {', '.join(still)}")
    kafka_jars()
    influxd_program()
    find_kubernetes_tools()
    fetch_prometheus()


def _up(brokers: int) -> None:
    for line in describe(start_servers(_say, brokers=brokers)):
        _say(line)


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main(arguments: list[str]) -> int:
    """Run the command that the arguments name; returns the process's exit status."""
    commands: dict[tuple[str, ...], Callable[[], None]] = {
        ("prepare",): prepare,
        ("up",): lambda: _up(1),
        ("up", "1"): lambda: _up(1),
        ("up", "3"): lambda: _up(3),
        ("down",): lambda: stop_servers(_say),
    }
    command = commands.get(tuple(arguments))
    if command is None:
        usage = "python -m vegamite_common.testing.services prepare | up [1 | 3] | down"
        sys.stderr.write(f"usage: {usage} (1 or 3: how many Kafka brokers)\n")
        return 2
    try:
        command()
    except (ServiceError, EmbeddedPostgresError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
