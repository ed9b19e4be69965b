"""All settings of one standalone process, read before anything is touched."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from vegamite_aggregator.config import AggregatorSettings
from vegamite_api.config import ApiSettings
from vegamite_collector.config import CollectorSettings
from vegamite_common.runtime.config import ConfigError, SharedSettings, load_settings
from vegamite_standalone.config import StandaloneSettings, dictated

S = TypeVar("S", bound=SharedSettings)

_LOOPBACK = ("127.0.0.1", "localhost", "::1")
_DRAIN_MS = 300
_NO_SINK = (
    "[influxdb] url is set, but an instance in one process doesn't write to InfluxDB: its log is in memory, and what"
    " InfluxDB lacks when it stops could not be had again; services with Kafka do (vegamite-aggregator --role influx)"
)


@dataclass(frozen=True, kw_only=True)
class ProcessSettings:
    """What standalone and each of its services is configured with."""

    standalone: StandaloneSettings
    aggregator: AggregatorSettings
    collector: CollectorSettings
    api: ApiSettings


def load_process_settings(file: Path | None, options: Mapping[str, Any]) -> ProcessSettings:
    """Read everything; `options` are the command line's, by the names of `[standalone]`. ConfigError tells all problems."""
    problems: list[str] = []

    def load(cls: type[S], overrides: Mapping[str, Any]) -> S | None:
        try:
            # What the command line or standalone overrides must be right too: a wrong value is never passed over.
            load_settings(cls, file)
            return load_settings(cls, file, overrides)
        except ConfigError as error:
            problems.extend(problem for problem in error.problems if problem not in problems)
            return None

    standalone = load(StandaloneSettings, {"standalone": options})
    section = (standalone or StandaloneSettings()).standalone
    rules = dictated(host=section.host, port=section.port, demo=section.demo)
    shared = {"kafka": rules["kafka"]}
    aggregator = load(AggregatorSettings, shared)
    collector = load(CollectorSettings, {**shared, "collector": rules["collector"]})
    api = load(ApiSettings, {**shared, "api": rules["api"]})
    if standalone is None or aggregator is None or collector is None or api is None:
        raise ConfigError(problems)
    if aggregator.influxdb.url is not None:
        raise ConfigError([_NO_SINK])
    return ProcessSettings(
        standalone=standalone, aggregator=aggregator, collector=collector, api=_at_home(api)
    )


def _at_home(settings: ApiSettings) -> ApiSettings:
    """Give the API the defaults of one person's machine where the configuration says nothing else."""
    section = settings.api
    defaults: dict[str, Callable[[], Any]] = {
        "anonymous_read": lambda: True,
        "drain_ms": lambda: _DRAIN_MS,
        "allowed_hosts": lambda: (
            section.allowed_hosts
            if section.host in (*_LOOPBACK, "0.0.0.0", "::")  # noqa: S104 - compared, not bound
            else (*section.allowed_hosts, section.host)
        ),
    }
    update = {
        name: value() for name, value in defaults.items() if name not in section.model_fields_set
    }
    return settings.model_copy(update={"api": section.model_copy(update=update)})
