"""Documentation that can be checked: its links lead somewhere, its decisions are numbered."""

import re
from pathlib import Path

LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")


def test_every_relative_link_leads_to_a_file(committed_files: list[Path]) -> None:
    dead = [
        f"{path}: {target}"
        for path in committed_files
        if path.suffix == ".md"
        for target in LINK.findall(path.read_text())
        if "://" not in target and not target.startswith(("#", "mailto:"))
        if not (path.parent / target.partition("#")[0]).exists()
    ]

    assert dead == []


def test_decisions_are_numbered_without_a_hole(repository: Path) -> None:
    names = sorted(path.name for path in (repository / "docs/decisions").glob("*.md"))

    assert names
    assert [int(name[:4]) for name in names] == list(range(1, len(names) + 1))


def test_a_decision_says_why_and_what_follows(repository: Path) -> None:
    for path in (repository / "docs/decisions").glob("*.md"):
        text = path.read_text()
        assert re.match(rf"# {int(path.name[:4])}\. \S", text), path.name
        for section in ("## Context", "## Decision", "## Consequences"):
            assert section in text, f"{path.name} lacks {section!r}"


def test_the_index_names_every_page(repository: Path) -> None:
    index = (repository / "docs/README.md").read_text()
    pages = [path.relative_to(repository / "docs") for path in (repository / "docs").rglob("*.md")]

    missing = [str(page) for page in pages if str(page) != "README.md" and f"({page})" not in index]
    assert missing == []
