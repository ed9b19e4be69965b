"""`vegamite-aggregator [run|migrate]`: the service in one of its roles, and the set-up of database and topics."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from vegamite_aggregator.bootstrap import open_service, open_sink
from vegamite_aggregator.config import AggregatorSettings
from vegamite_aggregator.migrate import migrate
from vegamite_common.runtime.config import ConfigError, load_settings
from vegamite_common.runtime.lifecycle import EXIT_CONFIG, Stop, run_process
from vegamite_common.runtime.logging import configure_logging
from vegamite_common.runtime.management import open_management


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command that the arguments name, and return the process's exit code."""
    options = _parser().parse_args(arguments)
    try:
        settings = load_settings(AggregatorSettings, options.config)
    except ConfigError as error:
        sys.stderr.write(f"{error}\n")
        return EXIT_CONFIG
    configure_logging(settings.log, service="aggregator")
    if options.command == "migrate":
        return run_process(lambda _: migrate(settings))
    if options.role == "influx":
        return run_process(lambda stop: _run_sink(settings, stop))
    new_epoch: bool = options.new_log_epoch
    return run_process(lambda stop: _run(settings, stop, new_log_epoch=new_epoch))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="vegamite-aggregator", description=__doc__)
    parser.add_argument(
        "command",
        nargs="?",
        choices=("run", "migrate"),
        default="run",
        help="run (default): fold trades into candles until a signal; "
        "migrate: bring the database's schema and the topics to this release's, then end",
    )
    parser.add_argument(
        "--role",
        choices=("candles", "influx"),
        default="candles",
        help="candles (default): keep trades and candles in PostgreSQL; influx: write both to InfluxDB",
    )
    parser.add_argument("--config", type=Path, metavar="FILE", help="the configuration (TOML)")
    parser.add_argument(
        "--new-log-epoch",
        action="store_true",
        help="declare that Kafka's topics were replaced: reading starts at their beginning",
    )
    return parser


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
