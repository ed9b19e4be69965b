"""`vegamite-collector [--config FILE]`: the collector as a process of its own."""

import argparse
import sys
from pathlib import Path

from vegamite_collector.bootstrap import open_service
from vegamite_collector.config import CollectorSettings
from vegamite_common.runtime.config import ConfigError, load_settings
from vegamite_common.runtime.lifecycle import EXIT_CONFIG, Stop, run_process
from vegamite_common.runtime.logging import configure_logging
from vegamite_common.runtime.management import open_management


async def _run(settings: CollectorSettings, stop: Stop) -> None:
    section = settings.collector
    async with (
        open_service(settings) as service,
        open_management(service.health, host=section.management_host, port=section.management_port),
    ):
        await service.run(stop)


def main() -> None:
    """Run until SIGTERM or SIGINT; exits with 0, or 2 where the configuration or the start was refused."""
    parser = argparse.ArgumentParser(
        prog="vegamite-collector", description="Collects the trades of the tracked markets."
    )
    parser.add_argument(
        "--config", type=Path, help="configuration file (TOML); VEGAMITE_* variables lie over it"
    )
    arguments = parser.parse_args()
    try:
        settings = load_settings(CollectorSettings, arguments.config)
    except ConfigError as error:
        print(error, file=sys.stderr)  # noqa: T201 -- the log isn't configured yet
        sys.exit(EXIT_CONFIG)
    configure_logging(settings.log, service="collector")
    sys.exit(run_process(lambda stop: _run(settings, stop)))


if __name__ == "__main__":
    main()
