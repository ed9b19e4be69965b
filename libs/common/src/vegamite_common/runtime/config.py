"""The configuration of a service: one shared file, the environment over it, refused with a reason where it is wrong.

Order, strongest first: overrides (the command line), environment `VEGAMITE_SECTION__KEY`, secret files (the directory
that `VEGAMITE_SECRETS_DIR` names, `<section>/<key>`), TOML. A service validates its own and the shared sections, skips
the sections of the other services by name, and refuses any other name. Errors are rendered here, never by pydantic: with key,
file and line or variable, and what is allowed; they never show a value.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self, TypeVar

from pydantic import Field, ValidationError, model_validator
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    NestedSecretsSettingsSource,
    PydanticBaseSettingsSource,
    SecretsSettingsSource,
    SettingsConfigDict,
    SettingsError,
)

from vegamite_common.runtime.config_error import ConfigError, Origins, nearest, render
from vegamite_common.runtime.section import (
    ClockSection,
    ExchangeSection,
    KafkaSection,
    LogSection,
    Port,
    PostgresSection,
    Section,
    ServiceSection,
    TextList,
    TopicsSection,
)

__all__ = [
    "SERVICE_SECTIONS",
    "ClockSection",
    "ConfigError",
    "ExchangeSection",
    "KafkaSection",
    "LogSection",
    "Port",
    "PostgresSection",
    "Section",
    "ServiceSection",
    "SharedSettings",
    "TextList",
    "TopicsSection",
    "load_settings",
]

SERVICE_SECTIONS = frozenset({"collector", "aggregator", "api", "standalone", "influxdb"})
"""Sections that belong to one service each (`influxdb` to the aggregator); the others skip them."""

PREFIX = "VEGAMITE_"
SECRETS_DIR = "VEGAMITE_SECRETS_DIR"
_NOT_SETTINGS = (SECRETS_DIR, "VEGAMITE_TEST_")

S = TypeVar("S", bound="SharedSettings")


class SharedSettings(BaseSettings):
    """The shared sections; a service subclasses it with its own section. Built directly it reads no environment."""

    model_config = SettingsConfigDict(
        extra="forbid",
        frozen=True,
        hide_input_in_errors=True,
        env_prefix=PREFIX,
        env_nested_delimiter="__",
    )

    log: LogSection = LogSection()
    clock: ClockSection = ClockSection()
    kafka: KafkaSection = KafkaSection()
    postgres: PostgresSection = PostgresSection()
    exchanges: dict[str, ExchangeSection] = Field(default_factory=dict)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003 -- pydantic-settings names the arguments
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Only what is passed in: `load_settings` reads the sources, so that it can say where a value came from."""
        return (init_settings,)

    @model_validator(mode="after")
    def _simulated_time_is_local(self) -> Self:
        if self.clock.simulated:
            away = sorted(
                name
                for name, section in self.exchanges.items()
                if section.urls and not section.on_loopback
            )
            if away:
                raise ValueError(
                    f"[clock] is simulated, so every exchange must be on loopback; not so: {', '.join(away)}"
                )
        return self


class _Environment(EnvSettingsSource):
    """The environment given, instead of the process's own."""

    def __init__(self, settings_cls: type[BaseSettings], variables: Mapping[str, str]) -> None:
        self._variables = {name.lower(): value for name, value in variables.items()}
        super().__init__(settings_cls)

    def _load_env_vars(self) -> Mapping[str, str | None]:
        return dict(self._variables)


def load_settings(
    cls: type[S],
    file: Path | None = None,
    overrides: Mapping[str, Any] | None = None,
    *,
    environ: Mapping[str, str] | None = None,
) -> S:
    """Read and validate the settings of one service; `overrides` is a nested mapping. Raises `ConfigError` with every problem.

    `environ` replaces the process's environment. A named file that is missing is an error.
    """
    variables = dict(os.environ if environ is None else environ)
    origins = Origins(
        file=file, variables=_own_variables(variables), overrides=dict(overrides or {})
    )
    problems = _unknown_variables(cls, origins)
    table = _read_toml(file)
    problems += _unknown_sections(cls, table, origins)
    known = set(cls.model_fields)
    layers: list[dict[str, Any]] = [{name: value for name, value in table.items() if name in known}]
    layers.append(_read_secrets(cls, variables, origins))
    layers.append(_read_environment(cls, origins))
    layers.append(dict(overrides or {}))
    merged: dict[str, Any] = {}
    for layer in layers:
        merged = _merge(merged, layer)
    try:
        settings = cls(**merged)
    except ValidationError as error:
        problems += [
            render(cls, item, origins)
            for item in error.errors(include_url=False, include_input=False)
        ]
    if problems:
        raise ConfigError(problems)
    return settings


def _own_variables(variables: Mapping[str, str]) -> dict[str, str]:
    own = {}
    for name, value in variables.items():
        upper = name.upper()
        if upper.startswith(PREFIX) and not upper.startswith(_NOT_SETTINGS):
            own[name] = value
    return own


def _unknown_variables(cls: type[SharedSettings], origins: Origins) -> list[str]:
    problems = []
    for name in sorted(origins.variables):
        section, _, key = name[len(PREFIX) :].lower().partition("__")
        if section in cls.model_fields:
            if section == "exchanges" and key and "__" not in key:
                continue
            if section not in SERVICE_SECTIONS or key:
                continue
        if section in SERVICE_SECTIONS:
            continue
        problems.append(
            f"variable {name}: unknown section [{section}]{nearest(section, _sections(cls))}"
        )
    return problems


def _unknown_sections(
    cls: type[SharedSettings], table: Mapping[str, Any], origins: Origins
) -> list[str]:
    allowed = set(cls.model_fields) | SERVICE_SECTIONS
    problems = []
    for name, value in table.items():
        if name not in allowed:
            what = (
                f"unknown section [{name}]"
                if isinstance(value, dict)
                else f"key {name} is outside any section"
            )
            problems.append(f"{origins.place((name,))}: {what}{nearest(name, _sections(cls))}")
    return problems


def _sections(cls: type[SharedSettings]) -> list[str]:
    return sorted(set(cls.model_fields) | SERVICE_SECTIONS)


def _read_toml(file: Path | None) -> dict[str, Any]:
    if file is None:
        return {}
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError([f"{file}: no such configuration file"]) from None
    except OSError as error:
        raise ConfigError([f"{file}: cannot be read: {error.strerror}"]) from None
    except UnicodeDecodeError:
        raise ConfigError([f"{file}: is not UTF-8 text"]) from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError([f"{file}: is not valid TOML: {error}"]) from None


def _read_environment(cls: type[SharedSettings], origins: Origins) -> dict[str, Any]:
    """The sections that the environment sets; a variable that must be JSON and isn't raises `ConfigError`."""
    try:
        return dict(_Environment(cls, origins.variables)())
    except SettingsError:
        raise ConfigError(_not_json(cls, origins)) from None


def _not_json(cls: type[SharedSettings], origins: Origins) -> list[str]:
    """Name the variables whose text is not the JSON that their key needs."""
    problems = []
    for name, value in sorted(origins.variables.items()):
        try:
            _Environment(cls, {name: value})()
        except SettingsError:
            problems.append(
                f"variable {name}: must be JSON, or set its keys one by one ({name}__<KEY>)"
            )
    return problems


def _read_secrets(
    cls: type[SharedSettings], variables: Mapping[str, str], origins: Origins
) -> dict[str, Any]:
    """The values of `<section>/<key>` files; a directory that is named and missing raises `ConfigError`."""
    name = variables.get(SECRETS_DIR)
    if not name:
        return {}
    directory = Path(name)
    origins.secrets_dir = directory
    try:
        source = NestedSecretsSettingsSource(
            SecretsSettingsSource(cls, secrets_dir=directory),
            secrets_dir=directory,
            secrets_dir_missing="error",
            secrets_nested_subdir=True,
            secrets_prefix="",
        )
        values = dict(source())
        entries = sorted(entry.name for entry in directory.iterdir())
    except SettingsError:
        raise ConfigError(
            [f"variable {SECRETS_DIR}: {directory} is not a directory of secret files"]
        ) from None
    except OSError as error:
        raise ConfigError([f"{directory}: cannot be read: {error.strerror}"]) from None
    strangers = [
        f"{directory / entry}: unknown section [{entry}]{nearest(entry, _sections(cls))}"
        for entry in entries
        # Kubernetes keeps the files of a volume behind names with a dot.
        if not entry.startswith(".") and entry not in _sections(cls)
    ]
    if strangers:
        raise ConfigError(strangers)
    return values


def _merge(lower: Mapping[str, Any], upper: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(lower)
    for key, value in upper.items():
        below = merged.get(key)
        merged[key] = (
            _merge(below, value)
            if isinstance(below, Mapping) and isinstance(value, Mapping)
            else value
        )
    return merged
