"""Brings the database and the topics to what this release needs; may be run any number of times."""

from vegamite_aggregator.adapters.schema import upgrade_schema


async def migrate_database(url: str) -> bool:
    """Upgrade the schema of the database at `url`; return whether there was something to do; raise `MigrationError`."""
    return await upgrade_schema(url)
