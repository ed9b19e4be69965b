"""The `vegamite` command: refusals in plain words, without a traceback, before anything is made."""

import signal
import subprocess
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

Vegamite = Callable[..., Any]

IMPORT = ("import", "--market", "binance:XRP/ETH", "--format", "binance-aggtrades")


def test_the_version_is_the_releases(vegamite: Vegamite) -> None:
    for command in ("version", "--version"):
        assert vegamite(command).stdout == version("vegamite-standalone") + "\n"


@pytest.mark.parametrize(
    "command",
    [
        (),
        ("run",),
        ("migrate",),
        ("markets",),
        ("import",),
        ("verify",),
        ("rebuild",),
        ("version",),
    ],
)
def test_every_command_explains_itself(command: tuple[str, ...], vegamite: Vegamite) -> None:
    done = vegamite(*command, "--help")
    assert done.returncode == 0
    assert "Usage: vegamite" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("fly",), "fly"),
        (("run", "--port", "70000"), "--port"),
        (("run", "--host", "192.0.2.1", "--port", "0"), "192.0.2.1 is no address of this machine"),
        (("run", "--config", "none.toml"), "none.toml: no such configuration file"),
        (("run", "--database-url", "mysql://x"), "postgresql://"),
        (("migrate", "--config", "a", "--data-dir", "b"), "exclude one another"),
        ((*IMPORT, "none.csv"), "none.csv: no such file"),
        ((*IMPORT, "--config", "a", "--data-dir", "b", "c"), "exclude one another"),
        ((*IMPORT, "--from", "2020-01-01", __file__), "--from and --to go together"),
        (
            ("import", "--market", "nothing", "--format", "binance-aggtrades", __file__),
            "not a market",
        ),
        (
            ("import", "--market", "binance:XRP/ETH", "--format", "parquet", __file__),
            "binance-aggtrades",
        ),
        (
            ("import", "--market", "binanc:A/B", "--format", "binance-aggtrades", __file__),
            "did you mean binance",
        ),
        ((*IMPORT, "/"), "/ is a directory"),
        (("verify", "--market", "BTC"), "not a market"),
        (("verify", "--timeframe", "7m"), "no timeframe is called '7m'; they are 1s 1m "),
        (("verify", "--from", "2020-01-02", "--to", "2020-01-01"), "--to must be after --from"),
        (("verify", "--config", "a", "--data-dir", "b"), "exclude one another"),
        (("rebuild", "--market", "kraken:BTC/USD"), "--from"),
        (("markets", "list", "--api-key-file", "/"), "/ is a directory"),
        (("markets", "add", "BTC"), "not a market"),
        (("markets", "list", "--url", "file:///etc/passwd"), "is no address"),
        (("markets", "list", "--api-key-file", "none.key"), "none.key: no such file"),
    ],
)
def test_what_cannot_be_is_refused_in_plain_words(
    arguments: tuple[str, ...], said: str, vegamite: Vegamite, server_directory: Path
) -> None:
    options = ("--data-dir", server_directory / "data") if arguments[0] == "run" else ()
    done = vegamite(*arguments, *options)
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    assert list(server_directory.iterdir()) == []


def test_an_instance_that_does_not_answer_is_named(vegamite: Vegamite) -> None:
    done = vegamite("markets", "list", "--url", "http://127.0.0.1:1")
    assert done.returncode == 2
    assert done.stderr.startswith("http://127.0.0.1:1 doesn't answer: ")


def test_an_unknown_key_is_refused_with_file_and_line(
    vegamite: Vegamite, server_directory: Path, tmp_path: Path
) -> None:
    file = tmp_path / "vegamite.toml"
    file.write_text("[standalone]\nport = 0\nprot = 1\n")
    done = vegamite("run", "--config", file, "--data-dir", server_directory / "data")
    assert done.returncode == 2
    assert done.stderr.startswith(f"{file}:3: unknown key standalone.prot; did you mean port?")


def test_a_directory_is_migrated_once_and_again_without_harm(
    vegamite: Vegamite, server_directory: Path
) -> None:
    for _ in range(2):
        done = vegamite("migrate", "--data-dir", server_directory / "data")
        assert (done.returncode, done.stdout) == (0, "the schema is up to date\n"), done.stderr


@pytest.mark.parametrize("after_s", [0.5, 1.0, 2.0])
def test_ctrl_c_while_it_starts_ends_it_without_a_traceback(
    after_s: float, vegamite_command: list[str], server_directory: Path
) -> None:
    command = [
        *vegamite_command,
        "run",
        "--port",
        "0",
        "--data-dir",
        str(server_directory / "data"),
    ]
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    try:
        process.wait(after_s)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGINT)
    said, _ = process.communicate(timeout=60)
    # Before Python itself is up nobody can catch it; from our first line on we do.
    assert process.returncode in (0, 1, 130, -signal.SIGINT), said
    assert b"vegamite_standalone" not in said or b"Traceback" not in said
    assert not (server_directory / "data" / "postgres" / "data" / "postmaster.pid").exists()
