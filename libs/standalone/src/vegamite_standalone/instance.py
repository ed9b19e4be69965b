"""`vegamite run`: collector, aggregator and API side by side in this process, from lock to lock."""

import asyncio
import sys
from contextlib import AsyncExitStack
from pathlib import Path

import structlog
from rich.console import Console

from vegamite_common.runtime.lifecycle import Resources, Service, StartError, Stop, run_services
from vegamite_standalone.adapters.postgres_tracking import offer_markets
from vegamite_standalone.admin_key import ensure_admin_key
from vegamite_standalone.display import Banner, print_banner, show_status
from vegamite_standalone.listen import page_url, take_address
from vegamite_standalone.local_system import hold_data_directory, open_local_system
from vegamite_standalone.process_log import configure_process_log
from vegamite_standalone.services import open_services
from vegamite_standalone.settings import ProcessSettings
from vegamite_standalone.version import installed_version

log = structlog.get_logger(__name__)


async def run_instance(settings: ProcessSettings, stop: Stop) -> None:
    """Run until `stop`; `StartError` where something that an operator can mend is in the way."""
    section = settings.standalone.standalone
    console = Console()
    watched = console.is_terminal and sys.stderr.isatty()
    async with AsyncExitStack() as stack:
        # The cheapest refusals first: nothing is made or started for a port that is taken.
        listener = stack.enter_context(take_address(section.host, section.port))
        directory = await stack.enter_async_context(hold_data_directory(section))
        log_file = configure_process_log(
            settings.standalone.log, directory=directory, watched=watched
        )
        system = await stack.enter_async_context(
            open_local_system(settings.standalone, directory=directory)
        )
        resources = system.resources
        await offer_markets(
            resources.pool, directory=directory, demo=section.demo, now=resources.clock.now()
        )
        key = _admin_key(directory)
        services = await stack.enter_async_context(
            open_services(settings, system=system, listener=listener, admin_key=key)
        )
        banner = Banner(
            version=installed_version(),
            url=page_url(listener, host=section.host, key=key),
            directory=directory,
            log=log_file,
        )
        print_banner(console, banner)
        log.info("started", version=banner.version, data=str(directory))
        await _run(services, console if watched else None, resources, stop)
    log.info("stopped")


def _admin_key(directory: Path) -> str:
    try:
        return ensure_admin_key(directory)
    except (OSError, ValueError) as error:
        raise StartError(f"the admin key can't be read or made: {error}") from None


async def _run(
    services: list[Service], watched: Console | None, resources: Resources, stop: Stop
) -> None:
    """Run the services, and beside them the display on a terminal; what ends the services ends it."""
    display = (
        asyncio.create_task(show_status(watched, resources, stop), name="display")
        if watched is not None
        else None
    )
    try:
        await run_services(services, stop)
    finally:
        if display is not None:
            display.cancel()
            await asyncio.wait({display})
