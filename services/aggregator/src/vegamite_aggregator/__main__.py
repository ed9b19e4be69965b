"""`vegamite-aggregator [run|migrate|maintain]`: the service in one of its roles, the set-up, and what is due now and then."""

import argparse
import gc
import sys
from collections.abc import Sequence
from pathlib import Path

from vegamite_aggregator.bootstrap import open_maintenance, open_service, open_sink
from vegamite_aggregator.config import AggregatorSettings
from vegamite_aggregator.migrate import migrate
from vegamite_aggregator.ports import StoreError
from vegamite_common.runtime.config import ConfigError, load_settings
from vegamite_common.runtime.lifecycle import EXIT_BUG, EXIT_CONFIG, Stop, run_process
from vegamite_common.runtime.logging import configure_logging
from vegamite_common.runtime.management import open_management

_COLLECT_AFTER = 100_000
"""So many new objects until the next search for cycles: a step makes tens of thousands, and hardly a cycle among them."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command that the arguments name, and return the process's exit code."""
    parser = _parser()
    options = parser.parse_args(arguments)
    misplaced = _misplaced(options)
    if misplaced is not None:
        parser.error(misplaced)
    try:
        settings = load_settings(AggregatorSettings, options.config)
    except ConfigError as error:
        sys.stderr.write(f"{error}\n")
        return EXIT_CONFIG
    configure_logging(settings.log, service="aggregator")
    gc.set_threshold(_COLLECT_AFTER, 50, 50)
    if options.command == "migrate":
        return run_process(lambda _: migrate(settings))
    if options.command == "maintain":
        return _maintain(settings, dry_run=options.dry_run)
    if options.role == "influx":
        return run_process(lambda stop: _run_sink(settings, stop))
    new_epoch: bool = options.new_log_epoch
    return run_process(lambda stop: _run(settings, stop, new_log_epoch=new_epoch))


def _misplaced(options: argparse.Namespace) -> str | None:
    """Return what is wrong with options that the command, or the role, has no use for; None where nothing is."""
    if options.dry_run and options.command != "maintain":
        return "--dry-run goes with maintain"
    if options.role is not None and options.command != "run":
        return f"--role goes with run, not with {options.command}"
    if options.new_log_epoch and options.command != "run":
        return f"--new-log-epoch goes with run, not with {options.command}"
    if options.new_log_epoch and options.role == "influx":
        return "--new-log-epoch goes with the role candles, not with influx"
    return None


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="vegamite-aggregator", description=__doc__)
    parser.add_argument(
        "command",
        nargs="?",
        choices=("run", "migrate", "maintain"),
        default="run",
        help="run (default): fold trades into candles until a signal; "
        "migrate: bring the database's schema and the topics to this release's, then end; "
        "maintain: make tables ahead, archive and drop what has expired, then end (1 where something was left undone)",
    )
    parser.add_argument(
        "--role",
        choices=("candles", "influx"),
        help="run: candles (default): keep trades and candles in PostgreSQL; influx: write both to InfluxDB",
    )
    parser.add_argument("--config", type=Path, metavar="FILE", help="the configuration (TOML)")
    parser.add_argument(
        "--new-log-epoch",
        action="store_true",
        help="run: declare that Kafka's topics were replaced: reading starts at their beginning",
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="maintain: say what would be done, and do nothing"
    )
    return parser


def _maintain(settings: AggregatorSettings, *, dry_run: bool) -> int:
    """Run one maintenance, print what it came to, and return the exit code: 1 where something was left undone."""
    undone: list[str] = []

    async def main(stop: Stop) -> None:
        async with open_maintenance(settings) as maintenance:
            try:
                if dry_run:
                    lines = await maintenance.rehearse()
                else:
                    report = await maintenance.run(stop)
                    undone.extend(report.problems)
                    if report.stopped:
                        undone.append("stopped")
                    lines = report.lines()
            except StoreError as error:
                undone.append(str(error))
                lines = [f"the maintenance didn't get to its end: {error}"]
        sys.stdout.write("".join(f"{line}\n" for line in lines))

    code = run_process(main)
    return code or (EXIT_BUG if undone else 0)


async def _run(settings: AggregatorSettings, stop: Stop, *, new_log_epoch: bool) -> None:
    async with open_service(settings, new_log_epoch=new_log_epoch) as service:
        section = settings.aggregator
        async with open_management(
            service.health, host=section.management_host, port=section.management_port
        ):
            await service.run(stop)


async def _run_sink(settings: AggregatorSettings, stop: Stop) -> None:
    async with open_sink(settings) as service:
        section = settings.aggregator
        async with open_management(
            service.health, host=section.management_host, port=section.management_port
        ):
            await service.run(stop)


if __name__ == "__main__":
    sys.exit(main())
