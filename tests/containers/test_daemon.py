"""Where the container tests' Docker daemon comes from."""

import os
import re
import subprocess
from pathlib import Path

NOWHERE = "unix:///nonexistent/docker.sock"
ASK = ("bash", "-c", 'echo "$DOCKER_HOST"; docker version --format "{{.Server.Version}}"')


def _with_docker(
    repository: Path, *command: str, **environment: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [repository / "tests/containers/with-docker", *command],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        env={**os.environ, **environment},
    )


def test_the_daemon_that_answers_is_taken(repository: Path) -> None:
    done = _with_docker(repository, *ASK)

    assert done.returncode == 0, done.stderr
    assert re.fullmatch(r"\S+\n\d\S*\n", done.stdout), done.stdout


def test_the_commands_exit_code_is_passed_on(repository: Path) -> None:
    assert _with_docker(repository, "bash", "-c", "exit 7").returncode == 7


def test_without_a_daemon_others_than_root_are_told_what_to_do(
    repository: Path, tmp_path: Path
) -> None:
    somebody = tmp_path / "id"
    somebody.write_text("#!/bin/sh\necho 1000\n")
    somebody.chmod(0o755)
    path = f"{tmp_path}:{os.environ['PATH']}"

    done = _with_docker(repository, "echo", "ran", DOCKER_HOST=NOWHERE, PATH=path)

    assert (done.returncode, done.stdout) == (1, "")
    assert len(done.stderr.splitlines()) == 1
    assert "start Docker" in done.stderr
