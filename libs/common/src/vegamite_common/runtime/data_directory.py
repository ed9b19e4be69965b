"""The directory that one instance keeps its data in: made, locked, and shared with a system user.

As root the embedded database must run as somebody else. That user has to reach its files through
our directory, so this module answers two questions without ever changing a directory above ours:
who is the user, and which directory on the way can't it enter.
"""

import fcntl
import os
import pwd
import shutil
import stat
import subprocess
from dataclasses import dataclass
from pathlib import Path

SYSTEM_USER = "vegamite"
LOCK_NAME = "vegamite.lock"

_PROBE = 'for d do [ -x "$d" ] || { printf %s "$d"; exit 1; }; done'


class DataDirectoryError(Exception):
    """The data directory can't be used; the text says why and what to do, in one sentence."""


@dataclass(frozen=True, slots=True)
class SystemUser:
    """An unprivileged account that owns the embedded database's files and processes."""

    name: str
    uid: int
    gid: int


def find_system_user() -> SystemUser | None:
    """Return whom to run the database as: nobody else (None) unless we are root.

    As root the system user is created when it is missing; DataDirectoryError when that fails.
    """
    if os.geteuid() != 0:
        return None
    try:
        entry = pwd.getpwnam(SYSTEM_USER)
    except KeyError:
        _create_system_user()
        entry = pwd.getpwnam(SYSTEM_USER)
    if entry.pw_uid == 0:
        raise DataDirectoryError(
            f"the user {SYSTEM_USER!r} has root's rights; it must be an ordinary one"
        )
    return SystemUser(name=entry.pw_name, uid=entry.pw_uid, gid=entry.pw_gid)


def _create_system_user() -> None:
    nowhere = ["--home-dir", "/nonexistent", "--shell", "/usr/sbin/nologin"]
    if shutil.which("useradd"):
        command = ["useradd", "--system", "--user-group", "--no-create-home", *nowhere, SYSTEM_USER]
    else:  # busybox
        command = [
            "adduser",
            "-S",
            "-D",
            "-H",
            "-h",
            "/nonexistent",
            "-s",
            "/sbin/nologin",
            SYSTEM_USER,
        ]
    try:
        made = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as error:
        raise DataDirectoryError(
            f"PostgreSQL doesn't run as root, and the user {SYSTEM_USER!r} can't be created: {error}"
        ) from error
    try:
        pwd.getpwnam(SYSTEM_USER)  # somebody else may have made it meanwhile
    except KeyError:
        detail = made.stderr.strip() or f"{command[0]} ended with {made.returncode}"
        raise DataDirectoryError(
            f"PostgreSQL doesn't run as root, and the user {SYSTEM_USER!r} can't be created: {detail}"
        ) from None


def first_barrier(path: Path, user: SystemUser | None) -> Path | None:
    """Return the outermost existing directory on the way to `path`, or `path`, that `user` can't enter."""
    if user is None:
        return None
    way = [directory for directory in [*reversed(path.parents), path] if directory.exists()]
    probe = subprocess.run(
        ["/bin/sh", "-c", _PROBE, "sh", *map(str, way)],
        user=user.uid,
        group=user.gid,
        extra_groups=[],
        cwd="/",
        capture_output=True,
        text=True,
        check=False,
    )
    if probe.returncode == 0:
        return None
    return Path(probe.stdout) if probe.stdout else path


class DataDirectory:
    """An instance's own directory, held by a lock from `open` to `close` (or the process's end)."""

    def __init__(self, path: Path, *, with_database: bool = True) -> None:
        """Name the directory; nothing is touched before `open`. Without a database in it there is no system user."""
        self._with_database = with_database
        self.path = path.expanduser().absolute()
        self.user: SystemUser | None = None
        self._lock: int | None = None

    def open(self) -> None:
        """Create the directory if need be and lock it; DataDirectoryError says who holds it otherwise."""
        self.user = find_system_user() if self._with_database else None
        try:
            self._create()
            self._take_lock()
        except OSError as error:
            raise DataDirectoryError(
                f"the data directory {self.path} can't be used: {error.strerror}"
            ) from error

    def _create(self) -> None:
        barrier = first_barrier(self.path.parent, self.user)
        if barrier is not None and self.user is not None:
            raise DataDirectoryError(
                f"the user {self.user.name!r}, which PostgreSQL runs as, can't enter {barrier};"
                " choose another data directory"
            )
        self._create_parents()
        if not self.path.exists() or not any(self.path.iterdir()):
            # Ours alone to shape: the system user may pass through, nobody else may look in.
            self.path.mkdir(mode=0o700, exist_ok=True)
            if os.geteuid() == 0:
                self._shape()
        elif self.user is not None and self._made_without_database():
            self._shape()
        barrier = first_barrier(self.path, self.user)
        if barrier is not None and self.user is not None:
            raise DataDirectoryError(
                f"the user {self.user.name!r}, which PostgreSQL runs as, can't enter {self.path};"
                f" allow it (chgrp {self.user.name} and chmod g+x) or choose another data directory"
            )

    def _shape(self) -> None:
        """Let the system user's group pass through, or root's own where there is no such user (yet)."""
        os.chown(self.path, -1, os.getegid() if self.user is None else self.user.gid)
        self.path.chmod(0o710)

    def _made_without_database(self) -> bool:
        """Whether it is as we shape one without a system user, and was used: nobody else's private directory is."""
        found = self.path.lstat()
        ours = (found.st_uid, found.st_gid) == (os.geteuid(), os.getegid())
        if not ours or not stat.S_ISDIR(found.st_mode) or stat.S_IMODE(found.st_mode) != 0o710:
            return False
        try:
            lock = (self.path / LOCK_NAME).lstat()
        except FileNotFoundError:
            return False
        return stat.S_ISREG(lock.st_mode) and lock.st_uid == os.geteuid()

    def _create_parents(self) -> None:
        missing = [parent for parent in self.path.parents if not parent.exists()]
        for parent in reversed(missing):
            parent.mkdir(exist_ok=True)
            if self.user is not None:
                parent.chmod(0o755)  # just made by us: whatever the umask, the system user passes

    def _take_lock(self) -> None:
        descriptor = os.open(self.path / LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(descriptor, 20).decode("ascii", "replace").strip()
            os.close(descriptor)
            by = f"process {holder}" if holder else "another process"
            raise DataDirectoryError(f"the data directory {self.path} is in use by {by}") from None
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"{os.getpid()}\n".encode())
        self._lock = descriptor

    def close(self) -> None:
        """Let go of the directory; a second call does nothing."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def __enter__(self) -> "DataDirectory":
        """Open it."""
        self.open()
        return self

    def __exit__(self, *_: object) -> None:
        """Close it."""
        self.close()
