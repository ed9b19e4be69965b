"""Brings the database and the topics to what this release needs; may be run any number of times, by several at once."""

from pydantic import SecretStr

from vegamite_aggregator.adapters.schema import MigrationError, upgrade_schema
from vegamite_aggregator.config import AggregatorSettings
from vegamite_common.bus.kafka import KafkaBus
from vegamite_common.bus.port import (
    CANDLES,
    DEAD_LETTERS,
    STATUS,
    TRADES,
    Bus,
    BusError,
    TopicSpec,
)
from vegamite_common.runtime.lifecycle import StartError
from vegamite_common.runtime.postgres import open_pool
from vegamite_common.runtime.section import PostgresSection, TopicsSection

__all__ = ["MigrationError", "migrate", "migrate_database", "migrate_topics", "topic_specs"]

_HOUR_MS = 3_600_000


async def migrate(settings: AggregatorSettings) -> None:
    """Bring topics and database to what this release needs, waiting for servers that aren't there yet.

    The topics come first: services wait for the schema, so its version says that all is there. Raise `StartError`, with
    one line that says why, where that can't be.
    """
    bus = KafkaBus(settings.kafka, settings.clock.clock())
    try:
        await bus.start()
        try:
            await migrate_topics(bus, settings.kafka.topics)
        finally:
            await bus.close()
    except BusError as error:
        raise StartError(f"the topics can't be prepared: {error}") from None
    pool = await open_pool(settings.postgres, application_name="vegamite-migrate")
    await pool.close()
    try:
        await migrate_database(settings.postgres)
    except MigrationError as error:
        raise StartError(f"the database can't be migrated: {error}") from None


async def migrate_database(postgres: PostgresSection | str) -> bool:
    """Upgrade the schema of a database, named by its settings or its URL; return whether there was something to do.

    Raise `MigrationError`, with one line that says why, where that fails.
    """
    if isinstance(postgres, str):
        postgres = PostgresSection(url=SecretStr(postgres))
    return await upgrade_schema(postgres)


def topic_specs(topics: TopicsSection) -> tuple[TopicSpec, ...]:
    """Return how the four topics have to be; all have the same number of partitions, so that a market has one number."""
    hours = {
        TRADES: topics.trades_retention_hours,
        CANDLES: topics.candles_retention_hours,
        STATUS: topics.status_retention_hours,
        DEAD_LETTERS: topics.dead_letters_retention_hours,
    }
    return tuple(
        TopicSpec(
            topic=topic,
            partitions=topics.partitions,
            replication=topics.replication_factor,
            retention_ms=kept * _HOUR_MS,
        )
        for topic, kept in hours.items()
    )


async def migrate_topics(bus: Bus, topics: TopicsSection) -> None:
    """Make the missing topics and check those that exist; with `manage = false` only check. Raise `BusError`."""
    specs = topic_specs(topics)
    if topics.manage:
        await bus.create_topics(specs)
    await bus.check_topics(specs)
