"""`vegamite migrate`: the schema of an instance's or a deployed system's database, and the latter's topics."""

from vegamite_aggregator.config import AggregatorSettings
from vegamite_aggregator.migrate import MigrationError, migrate_database, migrate_topics
from vegamite_common.bus.kafka import KafkaBus
from vegamite_common.bus.port import BusError
from vegamite_common.runtime.lifecycle import StartError
from vegamite_standalone.config import StandaloneSettings
from vegamite_standalone.local_system import hold_data_directory, open_database


async def migrate_directory(settings: StandaloneSettings) -> None:
    """Bring the database of an instance that isn't running up to date; `StartError` where that can't be."""
    async with (
        hold_data_directory(settings.standalone) as directory,
        open_database(settings, directory),
    ):
        pass  # opening it migrates it


async def migrate_cluster(settings: AggregatorSettings) -> None:
    """Bring the configured database and topics up to date; `StartError` where that can't be."""
    try:
        await migrate_database(settings.postgres)
    except MigrationError as error:
        raise StartError(f"the database can't be migrated: {error}") from None
    bus = KafkaBus(settings.kafka, settings.clock.clock())
    try:
        await bus.start()
        try:
            await migrate_topics(bus, settings.kafka.topics)
        finally:
            await bus.close()
    except BusError as error:
        raise StartError(f"the topics can't be made: {error}") from None
