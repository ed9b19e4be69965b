"""What `vegamite import` was asked for, checked before anything is touched, and then done."""

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from vegamite_aggregator.config import AggregatorSettings
from vegamite_collector.adapters.ccxt_modules import exchange_ids
from vegamite_collector.core.demo import DEMO_MARKET
from vegamite_collector.core.profile import profile_for
from vegamite_common.domain.market import Market
from vegamite_common.domain.time import SECOND, Micros, format_time, parse_time
from vegamite_common.runtime.clock import wall_now
from vegamite_common.runtime.config import load_settings
from vegamite_common.runtime.lifecycle import Stop, run_process
from vegamite_standalone.archive.file import ArchiveError
from vegamite_standalone.archive.import_job import ImportRequest
from vegamite_standalone.archive.parquet import ArchivedDay, by_market, find_day
from vegamite_standalone.given_file import require_file
from vegamite_standalone.importing import (
    ImportOutcome,
    describe,
    import_into_cluster,
    import_into_directory,
)
from vegamite_standalone.process_log import configure_command_log
from vegamite_standalone.settings import ProcessSettings, load_process_settings

SETTLED_AFTER: Micros = SECOND
"""How old the end of what is claimed to be complete has to be: later trades may still have been on their way."""


@dataclass(frozen=True, kw_only=True)
class PreparedImport:
    """A request for each market, and where they go: an instance's directory, or a deployed system.

    `refused` are files that nothing can be taken of, each with its reason.
    """

    requests: Sequence[ImportRequest]
    target: ProcessSettings | AggregatorSettings
    refused: Sequence[str] = ()


def prepare_import(
    *,
    market: str,
    files: Sequence[Path],
    covered: tuple[str | None, str | None],
    skip_bad: bool,
    data_dir: Path | None,
    config: Path | None,
) -> PreparedImport:
    """Check the command line; ValueError or ConfigError says what is wrong with it."""
    chosen = Market.parse(market)
    _require_exchange(chosen.exchange)
    for path in files:
        require_file(path)
    request = ImportRequest(
        market=chosen,
        files=list(dict.fromkeys(files)),
        resolution=profile_for(chosen.exchange).time_resolution,
        covered=parse_claim(*covered, now=wall_now()),
        skip_bad=skip_bad,
    )
    return PreparedImport(requests=[request], target=_target(data_dir, config))


def prepare_restore(
    *,
    market: str | None,
    files: Sequence[Path],
    data_dir: Path | None,
    config: Path | None,
) -> PreparedImport:
    """Check a command line that names archived days, of one market or of many; ValueError or ConfigError says what is wrong."""
    chosen = None if market is None else Market.parse(market)
    days: list[ArchivedDay] = []
    refused: list[str] = []
    for path in files:
        require_file(path)
        try:
            day = find_day(path)
        except ArchiveError as error:
            refused.append(str(error))
            continue
        if chosen not in (None, day.manifest.market):
            raise ValueError(f"{path} holds trades of {day.manifest.market.key}, not of {market}")
        days.append(day)
    requests = [
        ImportRequest(market=of, files=[day.path for day in mine], resolution=1, days=mine)
        for of, mine in by_market(days).items()
    ]
    return PreparedImport(requests=requests, target=_target(data_dir, config), refused=refused)


def _target(data_dir: Path | None, config: Path | None) -> ProcessSettings | AggregatorSettings:
    if config is not None:
        return load_settings(AggregatorSettings, config)
    return load_process_settings(None, {} if data_dir is None else {"data_dir": data_dir})


def _require_exchange(exchange: str) -> None:
    """Return where an instance could track the exchange too; ValueError otherwise, with the nearest ids."""
    known = [DEMO_MARKET.exchange, *exchange_ids()]
    if exchange in known:
        return
    near = difflib.get_close_matches(exchange, known, n=3)
    hint = f"did you mean {' or '.join(near)}" if near else "the ids are ccxt's, as in binance"
    raise ValueError(f"no exchange has the id {exchange!r}; {hint}{'?' if near else ''}")


def parse_claim(begin: str | None, end: str | None, *, now: Micros) -> tuple[Micros, Micros] | None:
    """Return the interval that `--from` and `--to` name, None without both; ValueError where it can't be."""
    if begin is None and end is None:
        return None
    if begin is None or end is None:
        raise ValueError("--from and --to go together")
    try:
        from_time = parse_time(begin)
    except ValueError as error:
        raise ValueError(f"--from: {error}") from None
    try:
        to_time = parse_time(end)
    except ValueError as error:
        raise ValueError(f"--to: {error}") from None
    if from_time >= to_time:
        raise ValueError("--to must be after --from")
    if to_time > now - SETTLED_AFTER:
        raise ValueError(
            f"--to is {format_time(to_time)}, which isn't past: nobody holds every trade of it"
        )
    return from_time, to_time


def run_prepared(prepared: PreparedImport) -> tuple[int, list[str], list[str]]:
    """Import; returns the exit code, what to print, and the archives that were refused, each with its reason."""
    outcomes: list[tuple[ImportRequest, ImportOutcome]] = []
    configure_command_log()

    async def main(stop: Stop) -> None:
        for request in prepared.requests:
            outcome = ImportOutcome()
            outcomes.append((request, outcome))
            if isinstance(prepared.target, ProcessSettings):
                await import_into_directory(prepared.target, request, outcome, stop)
            else:
                await import_into_cluster(prepared.target, request, outcome, stop)

    code = run_process(main)
    lines: list[str] = []
    refused = list(prepared.refused)
    for request, outcome in outcomes:
        if outcome.result is not None:
            lines += describe(request, outcome.result)
            refused += outcome.result.refused
    return code, lines, refused
