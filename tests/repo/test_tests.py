"""Laws about the tests themselves: where they are, how they are called, and that none is skipped."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

KINDS = {"unit", "integration"}


@pytest.fixture(scope="session")
def test_folders(repository: Path, members: dict[str, Path]) -> list[Path]:
    return [*(folder / "tests" for folder in members.values()), repository / "tests"]


def _python_files(folders: list[Path]) -> Iterator[Path]:
    for folder in folders:
        yield from sorted(folder.rglob("*.py"))


def test_every_member_has_tests(members: dict[str, Path]) -> None:
    without = [
        name for name, folder in members.items() if not list(folder.glob("tests/*/**/test_*.py"))
    ]

    assert without == []


def test_members_tests_are_of_a_kind(members: dict[str, Path]) -> None:
    kinds = {
        path.name
        for folder in members.values()
        for path in (folder / "tests").iterdir()
        if path.is_dir()
    }

    assert kinds - {"__pycache__"} <= KINDS


def test_test_folders_hold_tests_and_their_fixtures_only(test_folders: list[Path]) -> None:
    strange = [
        str(path)
        for path in _python_files(test_folders)
        if not (path.name.startswith("test_") or path.name == "conftest.py")
        and "standins" not in path.parts  # what images are made of
        and path.parent.name != "chaos"  # the program that `make chaos` runs
    ]

    assert strange == []


def test_no_test_is_skipped_or_expected_to_fail(test_folders: list[Path]) -> None:
    banned = {"skip", "skipif", "xfail", "importorskip"}
    skipping = [
        f"{path}:{node.lineno}"
        for path in _python_files(test_folders)
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute) and node.attr in banned
    ]

    assert skipping == []


def _sleeps(path: Path) -> Iterator[int]:
    """The lines on which a test sleeps; giving way to other tasks (`sleep(0)`) is no sleep."""
    for node in ast.walk(ast.parse(path.read_text())):
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and node.func.attr == "sleep"
            and isinstance(node.func.value, ast.Name)
            and node.func.value.id in {"asyncio", "time"}
            and not (
                node.args and isinstance(node.args[0], ast.Constant) and not node.args[0].value
            )
        ):
            yield node.lineno


def test_no_test_waits_by_sleeping(test_folders: list[Path]) -> None:
    """What is waited for is asked for, by `eventually()`; the length of a fault is none, and says so on its line."""
    sleeping = [
        f"{path}:{number}"
        for path in _python_files(test_folders)
        for number in _sleeps(path)
        if "  # " not in path.read_text().splitlines()[number - 1]
    ]

    assert sleeping == []
