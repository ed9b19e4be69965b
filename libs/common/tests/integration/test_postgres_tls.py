"""A database that is reached over TLS, its certificate checked: as in a deployment with a database from outside."""

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from pydantic import SecretStr

from vegamite_common.runtime.embedded_postgres import EmbeddedPostgres
from vegamite_common.runtime.lifecycle import StartError
from vegamite_common.runtime.postgres import open_pool
from vegamite_common.runtime.section import PostgresSection
from vegamite_common.testing.certificate import Certificate, make_certificate
from vegamite_common.testing.services.postgres import find_tls_bin_dir
from vegamite_common.testing.services.process import (
    free_ports,
    make_server_directory,
    remove_directory,
)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return make_certificate(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="module")
def server(certificate: Certificate) -> Iterator[str]:
    """`user:password@127.0.0.1:port/database` of a server that speaks TLS alone on TCP."""
    directory = make_server_directory("postgres-tls")
    (port,) = free_ports(1)
    postgres = EmbeddedPostgres(directory / "postgres", bin_dir=find_tls_bin_dir())
    postgres.start()  # makes the files, and tells whose they are
    owner = (directory / "postgres").stat()
    postgres.stop()
    files = {}
    for name, source in (("cert", certificate.certificate), ("key", certificate.key)):
        files[name] = directory / f"server.{name}"
        files[name].write_bytes(source.read_bytes())
        files[name].chmod(0o600)
        os.chown(files[name], owner.st_uid, owner.st_gid)
    settings = {
        "listen_addresses": "127.0.0.1",
        "port": str(port),
        "ssl": "on",
        "ssl_cert_file": str(files["cert"]),
        "ssl_key_file": str(files["key"]),
    }
    postgres = EmbeddedPostgres(
        directory / "postgres", bin_dir=find_tls_bin_dir(), settings=settings
    )
    postgres.start()
    try:
        login = urlsplit(postgres.url).netloc.rstrip("@")
        yield f"{login}@127.0.0.1:{port}/vegamite"
    finally:
        postgres.stop()
        remove_directory(directory)


def section(server: str, options: str) -> PostgresSection:
    return PostgresSection(
        url=SecretStr(f"postgresql://{server}?{options}"), start_timeout_ms=200, pool_size=2
    )


async def test_a_server_whose_certificate_is_known_is_reached_over_tls(
    server: str, certificate: Certificate
) -> None:
    known = section(server, f"sslmode=verify-full&sslrootcert={certificate.certificate}")
    pool = await open_pool(known)
    try:
        protected = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()"
        assert await pool.fetchval(protected) is True
    finally:
        await pool.close()


async def test_a_server_with_a_strange_certificate_is_refused(server: str, tmp_path: Path) -> None:
    stranger = await asyncio.to_thread(make_certificate, tmp_path)
    with pytest.raises(StartError, match="PostgreSQL's certificate isn't trusted: self"):
        await open_pool(section(server, f"sslmode=verify-full&sslrootcert={stranger.certificate}"))


async def test_a_certificate_file_that_is_missing_is_named(server: str, tmp_path: Path) -> None:
    missing = tmp_path / "ca.crt"
    with pytest.raises(StartError, match=str(missing)):
        await open_pool(section(server, f"sslmode=verify-full&sslrootcert={missing}"))
