"""The words that `values_schema.py` describes values with: JSON Schema, a function a kind of value."""

from typing import Any

Schema = dict[str, Any]

QUANTITY = r"^[0-9]+(\.[0-9]+)?(m|k|Ki|M|Mi|G|Gi|T|Ti)?$"
DURATION = r"^([0-9]+(ms|s|m|h))+$"
NAME = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"
PORTED = r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?:[0-9]{1,5}"


def closed(description: str, /, **properties: Schema) -> Schema:
    """An object of ours: no other keys."""
    return {
        "description": description,
        "type": "object",
        "additionalProperties": False,
        "properties": properties,
    }


def needing(schema: Schema, *keys: str) -> Schema:
    """The same object, where these keys have to be."""
    return {**schema, "required": list(keys)}


def table(description: str, values: Schema | None = None, names: str | None = None) -> Schema:
    """An object whose keys are the deployer's, or Kubernetes'."""
    schema: Schema = {"description": description, "type": "object"}
    if values is not None:
        schema["additionalProperties"] = values
    if names is not None:
        schema["propertyNames"] = {"pattern": names}
    return schema


def array(description: str, items: Schema) -> Schema:
    """A list."""
    return {"description": description, "type": "array", "items": items}


def objects(description: str) -> Schema:
    """A list of what Kubernetes defines."""
    return array(description, {"type": "object"})


def text(description: str, pattern: str | None = None) -> Schema:
    """A string; with a pattern the empty one is allowed besides, for "not set"."""
    schema: Schema = {"description": description, "type": "string"}
    if pattern is not None:
        schema["pattern"] = f"^$|{pattern}"
    return schema


def filled(description: str, pattern: str) -> Schema:
    """A string that fits the pattern, and so can't be empty."""
    return {"description": description, "type": "string", "pattern": pattern}


def choice(description: str, *words: str) -> Schema:
    """One of some words."""
    return {"description": description, "type": "string", "enum": list(words)}


def whole(description: str, low: int, high: int | None = None) -> Schema:
    """A whole number within bounds."""
    schema: Schema = {"description": description, "type": "integer", "minimum": low}
    if high is not None:
        schema["maximum"] = high
    return schema


def flag(description: str) -> Schema:
    """True or false."""
    return {"description": description, "type": "boolean"}


def strings(description: str) -> Schema:
    """A table of strings, as labels and annotations are: no numbers, which Kubernetes would refuse."""
    return table(description, {"type": "string"})


def secret(what: str) -> Schema:
    """The name of a Secret in the release's namespace."""
    return text(f"Name of a Secret in the release's namespace that holds {what}", NAME)


def key(what: str) -> Schema:
    """A key of a Secret."""
    return text(f"Key in that Secret of {what}", r"^[-._A-Za-z0-9]+$")


def resources() -> Schema:
    """What a container asks for and may have at most. Quantities are strings, or YAML would change some of them."""
    amounts = table("By resource", {"type": "string", "pattern": QUANTITY})
    return closed(
        'Resources; quantities are strings, as "500m" and "1"', requests=amounts, limits=amounts
    )
