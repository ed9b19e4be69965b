"""Whether an object is one that Kubernetes takes, told strictly and without a cluster."""

import functools
import importlib.resources
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import jsonschema_rs
import yaml

from vegamite_common.testing.charts.manifest import Manifest, title

KUBERNETES_VERSIONS = tuple(f"1.{minor}" for minor in range(30, 38))
"""The versions of Kubernetes that the charts promise to work on."""


class SchemaMissingError(LookupError):
    """Nobody here knows the kind: not this version of Kubernetes, nor a definition that was given."""


def _built_in(version: str) -> Any:
    return importlib.resources.files("kubernetes_validate").joinpath(
        "kubernetes-json-schema", f"v{version}.0-local-strict"
    )


@functools.cache
def _definitions(version: str) -> jsonschema_rs.Registry:
    content = json.loads(_built_in(version).joinpath("_definitions.json").read_text())
    return jsonschema_rs.Registry([(content["$id"], content)])


@functools.cache
def _validator(version: str, api_version: str, kind: str) -> jsonschema_rs.Draft202012Validator:
    group, _, number = api_version.rpartition("/")
    name = "-".join(part for part in (kind.lower(), group.partition(".")[0], number) if part)
    path = _built_in(version).joinpath(f"{name}.json")
    if not path.is_file():
        raise SchemaMissingError(f"Kubernetes {version} has no {kind} of {api_version}")
    schema = json.loads(path.read_text())
    # Groups share first words (policy, policy.example.org): the schema says which one it is of.
    of = {(each["group"], each["version"]) for each in schema["x-kubernetes-group-version-kind"]}
    if (group, number) not in of:
        raise SchemaMissingError(f"Kubernetes {version} has no {kind} of {api_version}")
    return jsonschema_rs.Draft202012Validator(schema, registry=_definitions(version))


def _told(manifest: Manifest, errors: Iterable[jsonschema_rs.ValidationError]) -> list[str]:
    return [
        f"{title(manifest)}: {'.'.join(map(str, each.instance_path))}: {each.message[:300]}"
        for each in errors
    ]


def built_in_problems(manifest: Manifest, version: str) -> list[str]:
    """Return what Kubernetes `version` ("1.30") refuses or doesn't know in an object of its own kinds; SchemaMissingError for others."""
    validator = _validator(version, manifest["apiVersion"], manifest["kind"])
    return _told(manifest, validator.iter_errors(manifest))


class CustomSchemas:
    """The kinds that a folder of CustomResourceDefinitions (YAML) defines; an unknown key is an error."""

    def __init__(self, folder: Path) -> None:
        self._validators: dict[tuple[str, str], jsonschema_rs.Draft202012Validator] = {}
        for path in sorted(folder.glob("*.yaml")):
            for document in yaml.safe_load_all(path.read_text()):
                if document and document.get("kind") == "CustomResourceDefinition":
                    self._add(document["spec"])

    @property
    def kinds(self) -> frozenset[tuple[str, str]]:
        """Every (apiVersion, kind) that is defined."""
        return frozenset(self._validators)

    def _add(self, spec: dict[str, Any]) -> None:
        for version in spec["versions"]:
            schema = _closed(version["schema"]["openAPIV3Schema"])
            # What every object has, whatever its definition says of it.
            schema["properties"].update(
                apiVersion={"type": "string"}, kind={"type": "string"}, metadata={"type": "object"}
            )
            key = (f"{spec['group']}/{version['name']}", spec["names"]["kind"])
            self._validators[key] = jsonschema_rs.Draft202012Validator(schema)

    def problems(self, manifest: Manifest) -> list[str]:
        """Return what the definition refuses or doesn't know in the object; SchemaMissingError if none defines its kind."""
        key = (manifest["apiVersion"], manifest["kind"])
        if key not in self._validators:
            raise SchemaMissingError(f"no definition of {key[1]} of {key[0]} is at hand")
        return _told(manifest, self._validators[key].iter_errors(manifest))


_WORDS = ("description", "default", "example", "title")


def _closed(schema: Any) -> Any:
    """The same schema as JSON Schema, with every set of properties closed."""
    if isinstance(schema, list):
        return [_closed(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    if schema.get("x-kubernetes-int-or-string"):
        return {"type": ["integer", "string"]}
    closed: dict[str, Any] = {}
    for key, value in schema.items():
        if key == "properties":
            closed[key] = {name: _closed(each) for name, each in value.items()}
        elif key not in _WORDS and not key.startswith("x-"):
            closed[key] = _closed(value)
    if "properties" in closed and not schema.get("x-kubernetes-preserve-unknown-fields"):
        closed.setdefault("additionalProperties", False)
    if schema.get("nullable") and isinstance(closed.get("type"), str):
        closed["type"] = [closed["type"], "null"]
    return closed
