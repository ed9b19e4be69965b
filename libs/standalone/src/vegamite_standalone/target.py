"""What `verify` and `rebuild` are called with alike: a range of time, and whose data."""

import shlex
from pathlib import Path

from vegamite_aggregator.config import AggregatorSettings
from vegamite_common.domain.time import Micros, parse_time
from vegamite_common.runtime.config import load_settings
from vegamite_standalone.settings import ProcessSettings, load_process_settings


def parse_range(begin: str | None, end: str | None) -> tuple[Micros | None, Micros | None]:
    """Return the instants that `--from` and `--to` name, None where not given; ValueError where they can't be."""
    from_time = None if begin is None else _instant("--from", begin)
    to_time = None if end is None else _instant("--to", end)
    if from_time is not None and to_time is not None and from_time >= to_time:
        raise ValueError("--to must be after --from")
    return from_time, to_time


def _instant(option: str, text: str) -> Micros:
    try:
        return parse_time(text)
    except ValueError as error:
        raise ValueError(f"{option}: {error}") from None


def load_target(
    *, data_dir: Path | None, config: Path | None
) -> tuple[ProcessSettings | AggregatorSettings, list[str]]:
    """Return the settings of a deployed system or of an instance, and the options that name it; ConfigError says why not."""
    if config is not None:
        return load_settings(AggregatorSettings, config), ["--config", shlex.quote(str(config))]
    options = {} if data_dir is None else {"data_dir": data_dir}
    where = [] if data_dir is None else ["--data-dir", shlex.quote(str(data_dir))]
    return load_process_settings(None, options), where
