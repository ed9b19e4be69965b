"""The values of a chart as they are documented: those with a default, and those that only an example in a comment shows."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

import yaml

Path = tuple[str, ...]

_EMPTY = re.compile(r"^(?P<indent> *)(?P<key>[\w.-]+): (?:\{\}|\[\])\s*(?:#.*)?$")
_COMMENT = re.compile(r"^(?P<indent> +)# ?(?P<content>.*)$")
_YAML = re.compile(r"^ *(?:- |(?:- )?[\w./-]+:(?: |$))")


def documented_values(text: str) -> dict[str, Any]:
    """Return what a values.yaml holds, with the examples that stand in comments below an empty table or list in their place."""
    lines = text.splitlines()
    shown: list[str] = []
    index = 0
    while index < len(lines):
        line = lines[index]
        index += 1
        empty = _EMPTY.match(line)
        if empty is None:
            shown.append(line)
            continue
        examples: list[str] = []
        while index < len(lines) and (comment := _COMMENT.match(lines[index])):
            if len(comment["indent"]) <= len(empty["indent"]):
                break
            if _YAML.match(comment["content"]):
                examples.append(comment["indent"] + comment["content"])
            index += 1
        shown += [f"{empty['indent']}{empty['key']}:", *examples] if examples else [line]
    return dict(yaml.safe_load("\n".join(shown)) or {})


def leaves(values: Mapping[str, Any], *, at: Path = ()) -> Iterator[tuple[Path, Any]]:
    """Yield the path and value of everything that is no table with keys; a list counts as one value."""
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from leaves(value, at=(*at, key))
        else:
            yield (*at, key), value


def nested(path: Path, value: Any) -> dict[str, Any]:
    """Return the tables that give the value that path."""
    for key in reversed(path):
        value = {key: value}
    return dict(value)


def value_at(values: Mapping[str, Any], path: Path) -> Any:
    """Return the value at that path, None where there is none."""
    found: Any = values
    for key in path:
        found = found.get(key) if isinstance(found, Mapping) else None
    return found


def merged(lower: Mapping[str, Any], upper: Mapping[str, Any]) -> dict[str, Any]:
    """Return the tables laid over one another, as Helm does it; a list replaces a list."""
    result = dict(lower)
    for key, value in upper.items():
        below = result.get(key)
        result[key] = (
            merged(below, value)
            if isinstance(below, Mapping) and isinstance(value, Mapping)
            else value
        )
    return result
