"""${message}.

Expand first, contract in a later release: pods of the release before go on working during a rollout.
"""

from alembic import op

revision = ${repr(up_revision)}
down_revision = ${repr(down_revision)}

STATEMENTS: tuple[str, ...] = ()


def upgrade() -> None:
    """Run the statements, one by one, in alembic's transaction."""
    for statement in STATEMENTS:
        op.get_bind().exec_driver_sql(statement)
