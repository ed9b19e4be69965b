"""Nothing committed depends on the machine that it was written on, or names where packages come from."""

import re
from pathlib import Path

import pytest

# Put together here so that this file keeps its own law.
DOT = r"\."
REGISTRIES = [
    f"pypi{DOT}org",
    f"pythonhosted{DOT}org",
    f"registry{DOT}npmjs",
    f"npmjs{DOT}org",
    f"repo{DOT}maven",
    f"maven{DOT}org",
    f"repo1{DOT}",
    f"proxy{DOT}golang",
    f"deb{DOT}debian",
]
MACHINE_PATHS = [r"/wor[k]/", r"/roo[t]/", r"/home/[a-z]+/", r"/Users/[A-Za-z]+/", r"/tmp/brie[f]"]
SECRETS = [
    r"-----BEGIN [A-Z ]*PRIVATE KEY-----",
    r"\bAKIA[0-9A-Z]{16}\b",
    r"\bghp_[A-Za-z0-9]{36}\b",
]


@pytest.mark.parametrize("pattern", [*REGISTRIES, *MACHINE_PATHS, *SECRETS])
def test_no_file_names_a_registry_a_path_of_a_machine_or_a_secret(
    committed_files: list[Path], pattern: str
) -> None:
    found = [
        f"{path}:{number}: {line.strip()[:120]}"
        for path in committed_files
        for number, line in enumerate(path.read_text(errors="replace").splitlines(), start=1)
        if re.search(pattern, line)
    ]

    assert found == []


def test_no_committed_file_is_large(committed_files: list[Path]) -> None:
    limit = 1_000_000

    assert {
        str(path): path.stat().st_size for path in committed_files if path.stat().st_size > limit
    } == {}
