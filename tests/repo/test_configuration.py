"""`vegamite.toml` tells of every key, each in its section, with its default, and of nothing else."""

import importlib
import inspect
import re
import tomllib
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import BaseModel

from vegamite_common.runtime.config import SharedSettings, load_settings

HEADER = re.compile(r"^(?:# ?)?\[([a-z_.<>]+)\]$")
KEY = re.compile(r"^(?:# ?)?([a-z_][a-z0-9_]*) ?= ?\S")


def _settings_classes() -> list[type[SharedSettings]]:
    found: set[type[SharedSettings]] = set()
    for package in ("collector", "aggregator", "api", "standalone"):
        module = importlib.import_module(f"vegamite_{package}.config")
        found |= {
            member
            for _, member in inspect.getmembers(module, inspect.isclass)
            if issubclass(member, SharedSettings) and member.__module__ == module.__name__
        }
    return sorted(found, key=lambda each: each.__name__)


def _model_in(annotation: Any) -> type[BaseModel] | None:
    """The section that a field holds, also as a table's values: `dict[str, ExchangeSection]`."""
    if inspect.isclass(annotation) and issubclass(annotation, BaseModel):
        return annotation
    for argument in get_args(annotation):
        model = _model_in(argument)
        if model is not None:
            return model
    return None


def _keys_of(model: type[BaseModel], prefix: str) -> set[str]:
    keys: set[str] = set()
    for name, field in model.model_fields.items():
        inner = _model_in(field.annotation)
        if inner is None:
            keys.add(f"{prefix}{name}")
        else:
            many = "<id>." if inner is not field.annotation else ""
            keys |= _keys_of(inner, f"{prefix}{name}.{many}")
    return keys


@pytest.fixture(scope="module")
def defined() -> set[str]:
    return {key for settings in _settings_classes() for key in _keys_of(settings, "")}


@pytest.fixture(scope="module")
def documented(repository: Path) -> dict[str, str]:
    """Every key in the file, also one that is commented out, with the comment that explains it."""
    keys: dict[str, str] = {}
    section, comment = "", ""
    for line in (repository / "vegamite.toml").read_text().splitlines():
        if header := HEADER.match(line):
            section, comment = header[1], ""
        elif key := KEY.match(line):
            keys[f"{section}.{key[1]}"] = comment
            comment = ""
        elif line.startswith("#"):
            comment += line.removeprefix("#")
        else:
            comment = ""
    return keys


def test_every_service_has_settings() -> None:
    assert len(_settings_classes()) == 4


def test_every_key_is_documented(defined: set[str], documented: dict[str, str]) -> None:
    assert sorted(defined - documented.keys()) == []


def test_no_key_is_documented_that_nothing_reads(
    defined: set[str], documented: dict[str, str]
) -> None:
    assert sorted(documented.keys() - defined) == []


def test_every_key_is_explained(documented: dict[str, str]) -> None:
    assert [key for key, comment in documented.items() if len(comment.strip()) < 15] == []


def test_the_file_says_the_defaults(repository: Path) -> None:
    file = repository / "vegamite.toml"

    assert tomllib.loads(file.read_text())
    for settings in _settings_classes():
        assert load_settings(settings, file, environ={}) == load_settings(settings, environ={})


def _differing(default: BaseModel, told: BaseModel, section: str) -> list[str]:
    """The keys of a section, and of those inside it, whose default there is and that the file says to be another."""
    found: list[str] = []
    for key in type(default).model_fields:
        one, other = getattr(default, key), getattr(told, key)
        if isinstance(one, BaseModel) and isinstance(other, BaseModel):
            found += _differing(one, other, f"{section}.{key}")
        elif one not in (None, other):
            found.append(f"{section}.{key}")
    return found


def test_a_key_that_is_commented_out_shows_its_default_where_it_has_one(repository: Path) -> None:
    lines = (repository / "vegamite.toml").read_text().splitlines()
    shown = [
        line.removeprefix("# ") if HEADER.match(line) or KEY.match(line) else "" for line in lines
    ]
    table = tomllib.loads("\n".join(shown).replace("<id>", "kraken"))
    del table["standalone"]["postgres_bin_dir"]  # excludes database_url, and both are examples

    differing = []
    for settings in _settings_classes():
        for section in settings.model_fields.keys() - {"exchanges"}:
            default = getattr(settings(), section)
            told = type(default).model_validate(table[section])
            differing += _differing(default, told, section)

    assert differing == []
