"""What is wrong with a configuration, in words: which key, where it was set, what is allowed; never its value."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel
from pydantic_core import ErrorDetails

Location = tuple[str | int, ...]


class ConfigError(Exception):
    """The configuration can't be used: `problems` has one human sentence each, with key, place and what is allowed."""

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = list(problems)
        super().__init__("\n".join(self.problems))


@dataclass
class Origins:
    """Where values came from, to say so in an error."""

    file: Path | None
    variables: Mapping[str, str]
    overrides: Mapping[str, Any]
    secrets_dir: Path | None = None
    _lines: dict[Location, int] | None = field(default=None, repr=False)

    def place(self, location: Location) -> str:
        """`command line`, `variable NAME`, a secret's file, or `file:line`, of the strongest source that has the key."""
        keys = tuple(str(part) for part in location)
        if _reaches(self.overrides, keys):
            return "command line"
        for name, value in self.variables.items():
            own = tuple(name[len("VEGAMITE_") :].lower().split("__"))
            if own[: len(keys)] == keys or (
                keys[: len(own)] == own and _json_reaches(value, keys[len(own) :])
            ):
                return f"variable {name}"
        if self.secrets_dir is not None and (self.secrets_dir.joinpath(*keys)).is_file():
            return str(self.secrets_dir.joinpath(*keys))
        if self.file is None:
            return "configuration"
        if self._lines is None:
            self._lines = key_lines(self.file.read_text(encoding="utf-8"))
        for length in range(len(keys), 0, -1):
            line = self._lines.get(keys[:length])
            if line is not None:
                return f"{self.file}:{line}"
        return str(self.file)


def _reaches(mapping: object, keys: tuple[str, ...]) -> bool:
    """True where the mapping sets the key itself, or something that contains or replaces it."""
    for key in keys:
        if not isinstance(mapping, Mapping):
            return True
        if key not in mapping:
            return False
        mapping = mapping[key]
    return True


def _json_reaches(text: str, keys: tuple[str, ...]) -> bool:
    try:
        return _reaches(json.loads(text), keys)
    except ValueError:
        return True


_HEADER = re.compile(r"^\s*\[\[?\s*([^\]]+?)\s*\]\]?\s*(?:#.*)?$")
_KEY = re.compile(
    r"""^\s*((?:[A-Za-z0-9_-]+|"[^"]*"|'[^']*')(?:\s*\.\s*(?:[A-Za-z0-9_-]+|"[^"]*"|'[^']*'))*)\s*=(.*)$"""
)
_PART = re.compile(r"""[A-Za-z0-9_-]+|"[^"]*"|'[^']*'""")
_LONG_TEXT = re.compile(r"\"\"\"|'''")


def key_lines(text: str) -> dict[Location, int]:
    """The line (from 1) of each section and key of a TOML text; the parser of the standard library doesn't tell."""
    lines: dict[Location, int] = {}
    section: Location = ()
    quote: str | None = None
    for number, line in enumerate(text.splitlines(), start=1):
        if quote is not None:
            quote = None if quote in line else quote
            continue
        if header := _HEADER.match(line):
            section = _parts(header[1])
            for length in range(1, len(section) + 1):
                lines.setdefault(section[:length], number)
        elif key := _KEY.match(line):
            lines.setdefault(section + _parts(key[1]), number)
            marks = _LONG_TEXT.findall(key[2])
            quote = marks[-1] if len(marks) % 2 else None
    return lines


def _parts(dotted: str) -> Location:
    return tuple(part.strip("\"'") for part in _PART.findall(dotted))


def nearest(name: str, allowed: Iterable[str]) -> str:
    """`; did you mean X? allowed: …` for a name that isn't known."""
    names = sorted(allowed)
    close = difflib.get_close_matches(name, names, n=1)
    hint = f"; did you mean {close[0]}?" if close else ""
    return f"{hint}; allowed: {', '.join(names)}" if names else hint


def render(root: type[BaseModel], error: ErrorDetails, origins: Origins) -> str:
    """One sentence for one of pydantic's errors: place, dotted key, what is wrong and what is allowed."""
    location = _without_union_tags(root, error["loc"])
    key = ".".join(str(part) for part in location) or "configuration"
    place = origins.place(location) if location else origins.file or "configuration"
    if error["type"] == "extra_forbidden":
        parent = _model_at(root, location[:-1])
        return f"{place}: unknown key {key}{nearest(str(location[-1]), parent.model_fields if parent else ())}"
    return f"{place}: {key} {_requirement(error)}"


def _requirement(error: ErrorDetails) -> str:
    message = error["msg"]
    if error["type"] == "missing":
        return "is required"
    if error["type"] == "value_error":
        return f"is refused: {message.removeprefix('Value error, ')}"
    if message.startswith("Input should be "):
        return "must be " + message.removeprefix("Input should be ")
    return f"is refused: {message}"


def _model_at(root: type[BaseModel], location: Location) -> type[BaseModel] | None:
    """The section model that holds the keys of a location, through tables of sections; None inside free tables."""
    model: type[BaseModel] | None = root
    table: type[BaseModel] | None = None
    for part in location:
        if table is not None:
            model, table = table, None
            continue
        if model is None or str(part) not in model.model_fields:
            return None
        annotation = model.model_fields[str(part)].annotation
        model = (
            annotation
            if isinstance(annotation, type) and issubclass(annotation, BaseModel)
            else None
        )
        if model is None:
            sections = [
                item
                for item in get_args(annotation)
                if isinstance(item, type) and issubclass(item, BaseModel)
            ]
            table = sections[0] if sections else None
    return model


def _without_union_tags(root: type[BaseModel], location: Location) -> Location:
    """A location without what pydantic appends for the members of a union (`urls.str`, `urls.dict[str,any]`)."""
    for length in range(len(location), 0, -1):
        parent = _model_at(root, location[: length - 1])
        if parent is not None and str(location[length - 1]) in parent.model_fields:
            annotation = parent.model_fields[str(location[length - 1])].annotation
            members = get_args(annotation)
            has_sections = any(
                isinstance(item, type) and issubclass(item, BaseModel) for item in members
            )
            return location[:length] if members and not has_sections else location
    return location
