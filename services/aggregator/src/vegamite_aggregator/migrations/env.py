"""Alembic's entry: runs the revisions in one transaction over the connection that the caller handed in."""

from alembic import context
from sqlalchemy import Connection

LOCK_KEY = 0x7665676D  # any constant does: two migrations at once take turns


def run_migrations() -> None:
    """Upgrade inside one transaction, under an advisory lock that ends with it."""
    connection: Connection = context.config.attributes["connection"]
    context.configure(
        connection=connection, version_table="alembic_version", transactional_ddl=True
    )
    with context.begin_transaction():
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({LOCK_KEY})")
        context.run_migrations()


run_migrations()
