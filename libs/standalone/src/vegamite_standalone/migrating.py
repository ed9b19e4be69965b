"""`vegamite migrate --data-dir`: the schema of an instance's own database."""

from vegamite_standalone.config import StandaloneSettings
from vegamite_standalone.local_system import hold_data_directory, open_database


async def migrate_directory(settings: StandaloneSettings) -> None:
    """Bring the database of an instance that isn't running up to date; `StartError` where that can't be."""
    async with (
        hold_data_directory(settings.standalone) as directory,
        open_database(settings, directory),
    ):
        pass  # opening it migrates it
