"""Retention: up to where a market's trades and candles have expired, and how partitions that hold nothing else are dropped."""

from alembic import op

revision = "0002"
down_revision = "0001"

SCHEMA = (
    # Functions with their owner's rights take names from our schema only, temporary tables last.
    "SELECT set_config('search_path', quote_ident(current_schema()) || ', pg_temp', true)",
    # What is older than `horizon_time` has expired: trades by their event time, candles by their open time. Moves forward
    # only, and only together with the version of the fence of the market's partition.
    """
    CREATE TABLE horizon (
        market_key integer NOT NULL,
        series text COLLATE "C" NOT NULL,
        horizon_time timestamptz NOT NULL,
        moved_time timestamptz NOT NULL DEFAULT now(),
        PRIMARY KEY (market_key, series)
    )
    """,
    """
    CREATE TABLE maintenance (
        completed_time timestamptz,
        archived_files bigint NOT NULL DEFAULT 0,
        archived_trades bigint NOT NULL DEFAULT 0,
        dropped_partitions bigint NOT NULL DEFAULT 0,
        deleted_candles bigint NOT NULL DEFAULT 0
    )
    """,
    "CREATE UNIQUE INDEX maintenance_one_row ON maintenance ((true))",
    "INSERT INTO maintenance DEFAULT VALUES",
    # A job may bring back an expired time; what it brought of another one is counted here, and not stored.
    """
    ALTER TABLE job
        ADD COLUMN restores_from timestamptz,
        ADD COLUMN restores_to timestamptz,
        ADD COLUMN expired bigint NOT NULL DEFAULT 0
    """,
    # What waits there is gone a moment later: to compress it is to no avail.
    "ALTER TABLE outbox ALTER COLUMN value SET STORAGE EXTERNAL",
    # A partition's owner begins with the gaps that aren't filled: few, among all that ever were.
    "CREATE INDEX gap_unresolved ON gap (market_key, from_time) WHERE state <> 'filled'",
    # How many records the partition has set apart as dead letters since then: so many are allowed in an hour.
    """
    ALTER TABLE partition_fence
        ADD COLUMN set_apart integer NOT NULL DEFAULT 0,
        ADD COLUMN set_apart_since timestamptz
    """,
)

# Dropping locks the parent exclusively: a short wait for that lock, and the caller tries again, instead of a queue of
# readers and writers behind a long query. Nothing is believed of the caller: what hasn't expired stays.
DROP_FUNCTION = """
    CREATE FUNCTION drop_time_partition(p_parent text, p_name text) RETURNS text
    LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT SET lock_timeout = '250ms' AS $function$
    DECLARE
        v_series text := CASE p_parent WHEN 'trade' THEN 'trade' WHEN 'candle_1mo' THEN '1M' ELSE substr(p_parent, 8) END;
        v_bounds text[];
        v_end timestamptz;
        v_needed boolean;
    BEGIN
        IF p_parent !~ '^(trade|candle_[0-9]{1,2}(s|m|h|d|w|mo))$' OR p_name !~ '^(trade|candle_[0-9a-z]+)_[0-9]{4,8}$' THEN
            RAISE EXCEPTION 'not a time-partitioned table: % (%)', p_parent, p_name;
        END IF;
        PERFORM pg_advisory_xact_lock(hashtext(p_name));
        SELECT regexp_match(pg_get_expr(part.relpartbound, part.oid), '\\(''([^'']+)''\\) TO \\(''([^'']+)''\\)') INTO v_bounds
        FROM pg_inherits JOIN pg_class part ON part.oid = inhrelid
        WHERE inhparent = to_regclass(quote_ident(p_parent)) AND part.oid = to_regclass(quote_ident(p_name));
        IF v_bounds IS NULL THEN
            RETURN 'absent';
        END IF;
        v_end := v_bounds[2]::timestamptz;
        IF NOT EXISTS (SELECT FROM horizon WHERE series = v_series AND horizon_time >= v_end) THEN
            RETURN 'needed';
        END IF;
        EXECUTE format('LOCK TABLE ONLY %I, ONLY %I IN ACCESS EXCLUSIVE MODE', p_parent, p_name);
        EXECUTE format($query$
            WITH RECURSIVE met AS (
                (SELECT market_key FROM %1$I ORDER BY market_key LIMIT 1)
                UNION ALL
                SELECT (SELECT next.market_key FROM %1$I next WHERE next.market_key > met.market_key
                        ORDER BY next.market_key LIMIT 1)
                FROM met WHERE met.market_key IS NOT NULL
            )
            SELECT EXISTS (
                SELECT FROM met WHERE met.market_key IS NOT NULL AND NOT EXISTS (
                    SELECT FROM horizon WHERE horizon.market_key = met.market_key AND series = $1 AND horizon_time >= $2))
        $query$, p_name) INTO v_needed USING v_series, v_end;
        -- Who brings something back has stored it together with the job's row, and waits for our lock from now on.
        IF v_needed OR EXISTS (
            SELECT FROM job WHERE state = 'open' AND restores_from < v_end AND restores_to > v_bounds[1]::timestamptz
        ) THEN
            RETURN 'needed';
        END IF;
        EXECUTE format('DROP TABLE %I', p_name);
        RETURN 'dropped';
    END $function$
"""

GRANTS = {
    "vegamite_collector": ("SELECT ON horizon, maintenance",),
    "vegamite_aggregator": (
        "SELECT ON horizon, maintenance",
        "INSERT, UPDATE ON horizon",
        "UPDATE ON maintenance",
        "EXECUTE ON FUNCTION drop_time_partition",
    ),
    "vegamite_api": ("SELECT ON horizon, maintenance",),
}

GRANT_STATEMENTS = tuple(
    f"""
    DO $$ BEGIN
        IF EXISTS (SELECT FROM pg_roles WHERE rolname = '{role}') THEN
            GRANT {grant} TO {role};
        END IF;
    END $$
    """
    for role, grants in GRANTS.items()
    for grant in grants
)


def upgrade() -> None:
    """Run the statements, one by one, in alembic's transaction."""
    for statement in (
        *SCHEMA,
        DROP_FUNCTION,
        "REVOKE EXECUTE ON FUNCTION drop_time_partition FROM PUBLIC",
        *GRANT_STATEMENTS,
        "UPDATE schema_version SET version = 2",
    ):
        op.get_bind().exec_driver_sql(statement)
