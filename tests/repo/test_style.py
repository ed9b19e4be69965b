"""Local rules of style that no linter knows."""

import ast
from collections.abc import Iterator
from pathlib import Path

LONGEST_MODULE = 500
LONGEST_FUNCTION = 60
VAGUE_NAMES = {"base", "common", "helper", "helpers", "manager", "misc", "util", "utils"}
CODE = {".py", ".ts", ".tsx", ".css"}


def _sources(members: dict[str, Path]) -> Iterator[Path]:
    for folder in members.values():
        yield from sorted((folder / "src").rglob("*.py"))


def test_no_module_is_over_500_lines(committed_files: list[Path]) -> None:
    lengths = {
        str(path): len(path.read_text().splitlines())
        for path in committed_files
        if path.suffix in CODE
    }

    assert {path: length for path, length in lengths.items() if length > LONGEST_MODULE} == {}


def test_no_function_is_long(members: dict[str, Path]) -> None:
    long = {
        f"{path}:{node.lineno} {node.name}": length
        for path in _sources(members)
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (length := (node.end_lineno or node.lineno) - node.lineno + 1) > LONGEST_FUNCTION
    }

    assert long == {}


def test_no_module_has_a_name_that_says_nothing(members: dict[str, Path]) -> None:
    vague = [
        str(path)
        for folder in members.values()
        for path in (folder / "src").rglob("*.py")
        if {*path.relative_to(folder / "src").parts[1:-1], path.stem} & VAGUE_NAMES
    ]

    assert vague == []


def test_instants_say_which_instant_they_are(members: dict[str, Path]) -> None:
    bare = [
        f"{path}:{node.lineno}"
        for path in _sources(members)
        for node in ast.walk(ast.parse(path.read_text()))
        if (isinstance(node, ast.arg) and node.arg == "timestamp")
        or (
            isinstance(node, ast.Name)
            and node.id == "timestamp"
            and isinstance(node.ctx, ast.Store)
        )
    ]

    assert bare == []


def test_every_package_is_typed_and_told(members: dict[str, Path]) -> None:
    for name, folder in members.items():
        assert (folder / "src" / name / "py.typed").is_file(), name
        assert (folder / "README.md").stat().st_size > 0, name
        assert ast.get_docstring(ast.parse((folder / "src" / name / "__init__.py").read_text())), (
            name
        )
