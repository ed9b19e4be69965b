"""The whole first schema: reference data, trades, candles, coverage, the log's fences, keys and grants.

Texts that name things collate "C": their order is that of their bytes, whatever the server's locale.
"""

from alembic import op

revision = "0001"
down_revision = None

REFERENCE = (
    # Functions with their owner's rights take names from our schema only, temporary tables last.
    "SELECT set_config('search_path', quote_ident(current_schema()) || ', pg_temp', true)",
    """
    CREATE TABLE schema_version (
        version integer NOT NULL,
        compatible_from integer NOT NULL,
        CHECK (compatible_from <= version)
    )
    """,
    "CREATE UNIQUE INDEX schema_version_one_row ON schema_version ((true))",
    "INSERT INTO schema_version (version, compatible_from) VALUES (1, 1)",
    """
    CREATE TABLE exchange (
        exchange text COLLATE "C" PRIMARY KEY,
        name text NOT NULL,
        simulated boolean NOT NULL DEFAULT false,
        trades text NOT NULL CHECK (trades IN ('stream', 'poll', 'none')),
        updated_time timestamptz NOT NULL DEFAULT now()
    )
    """,
    """
    CREATE TABLE market (
        market_key integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        exchange text COLLATE "C" NOT NULL,
        symbol text COLLATE "C" NOT NULL,
        type text NOT NULL,
        base text COLLATE "C" NOT NULL,
        quote text COLLATE "C" NOT NULL,
        settle text COLLATE "C",
        contract_size numeric,
        inverse boolean,
        price_increment numeric,
        amount_increment numeric,
        state text NOT NULL DEFAULT 'unverified' CHECK (state IN ('active', 'inactive', 'unverified')),
        updated_time timestamptz NOT NULL DEFAULT now(),
        UNIQUE (exchange, symbol)
    )
    """,
    """
    CREATE TABLE tracked_market (
        market_key integer PRIMARY KEY REFERENCES market,
        history_from timestamptz NOT NULL DEFAULT now(),
        tracked_time timestamptz NOT NULL DEFAULT now()
    )
    """,
    """
    CREATE TABLE market_state (
        market_key integer PRIMARY KEY REFERENCES market,
        state text NOT NULL CHECK (state IN (
            'pending', 'connecting', 'live', 'reconnecting', 'clock_skew', 'unknown_symbol', 'unsupported')),
        since_time timestamptz NOT NULL DEFAULT now(),
        reason text,
        suggestions text[] NOT NULL DEFAULT '{}'
    )
    """,
    # Collectors hear of a change at once; the payload says which market.
    """
    CREATE FUNCTION notify_tracked_market() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        PERFORM pg_notify('tracked_market', coalesce(NEW.market_key, OLD.market_key)::text);
        RETURN NULL;
    END $$
    """,
    """
    CREATE TRIGGER tracked_market_changed AFTER INSERT OR UPDATE OR DELETE ON tracked_market
        FOR EACH ROW EXECUTE FUNCTION notify_tracked_market()
    """,
    # Looks before it inserts: a conflict would burn an identity value at each call.
    """
    CREATE FUNCTION ensure_market(
        p_exchange text, p_symbol text, p_type text, p_base text, p_quote text, p_settle text
    ) RETURNS integer LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
    DECLARE
        found_key integer;
    BEGIN
        LOOP
            SELECT market_key INTO found_key FROM market WHERE exchange = p_exchange AND symbol = p_symbol;
            EXIT WHEN found_key IS NOT NULL;
            INSERT INTO market (exchange, symbol, type, base, quote, settle, state)
                VALUES (p_exchange, p_symbol, p_type, p_base, p_quote, p_settle, 'unverified')
                ON CONFLICT DO NOTHING RETURNING market_key INTO found_key;
            EXIT WHEN found_key IS NOT NULL;
        END LOOP;
        RETURN found_key;
    END $$
    """,
)

SERIES = (
    """
    CREATE TABLE trade (
        market_key integer NOT NULL,
        event_time timestamptz NOT NULL,
        trade_id text COLLATE "C" NOT NULL,
        sequence bigint NOT NULL,
        price numeric NOT NULL,
        amount numeric NOT NULL,
        taker_side text CHECK (taker_side IN ('buy', 'sell')),
        received_time timestamptz NOT NULL,
        origin text NOT NULL,
        job text COLLATE "C",
        PRIMARY KEY (market_key, event_time, trade_id)
    ) PARTITION BY RANGE (event_time)
    """,
    """
    CREATE TABLE candle (
        market_key integer NOT NULL,
        timeframe text COLLATE "C" NOT NULL,
        open_time timestamptz NOT NULL,
        open numeric NOT NULL,
        high numeric NOT NULL,
        low numeric NOT NULL,
        close numeric NOT NULL,
        volume numeric NOT NULL,
        quote_volume numeric NOT NULL,
        buy_volume numeric NOT NULL,
        buy_quote_volume numeric NOT NULL,
        trade_count bigint NOT NULL,
        first_event_time timestamptz NOT NULL,
        first_sequence bigint NOT NULL,
        first_trade_id text COLLATE "C" NOT NULL,
        last_event_time timestamptz NOT NULL,
        last_sequence bigint NOT NULL,
        last_trade_id text COLLATE "C" NOT NULL,
        final boolean NOT NULL,
        complete boolean NOT NULL,
        revision integer NOT NULL,
        epoch integer NOT NULL,
        as_of bigint NOT NULL,
        updated_at timestamptz NOT NULL,
        held_by text[] COLLATE "C",
        pending_reason text,
        PRIMARY KEY (market_key, timeframe, open_time)
    ) PARTITION BY LIST (timeframe)
    """,
    # Every decision looks at every candle that isn't final, or is held by a job: these stay few.
    "CREATE INDEX candle_open ON candle (market_key, open_time) WHERE NOT final",
    "CREATE INDEX candle_held ON candle (market_key, open_time) WHERE held_by IS NOT NULL",
)

# Table names fold case, so the month is spelt out.
TIMEFRAMES = {
    name: f"candle_{'1mo' if name == '1M' else name}"
    for name in [
        "1s",
        "1m",
        "3m",
        "5m",
        "15m",
        "30m",
        "1h",
        "2h",
        "4h",
        "6h",
        "8h",
        "12h",
        "1d",
        "3d",
        "1w",
        "1M",
    ]
}

TIMEFRAME_TABLES = tuple(
    f"CREATE TABLE {table} PARTITION OF candle FOR VALUES IN ('{name}') PARTITION BY RANGE (open_time)"
    for name, table in TIMEFRAMES.items()
)

PARTITIONING = (
    # LIKE, then ATTACH: PARTITION OF would lock the parent exclusively, and stop every writer and reader.
    # Runs with the owner's rights, since only the owner may attach; the names of the parents are checked.
    """
    CREATE FUNCTION ensure_time_partition(p_parent text, p_name text, p_from timestamptz, p_to timestamptz)
    RETURNS boolean LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
    BEGIN
        IF p_parent !~ '^(trade|candle_[0-9]{1,2}(s|m|h|d|w|mo))$' OR p_name !~ '^(trade|candle_[0-9a-z]+)_[0-9]{4,8}$' THEN
            RAISE EXCEPTION 'not a time-partitioned table: % (%)', p_parent, p_name;
        END IF;
        PERFORM pg_advisory_xact_lock(hashtext(p_name));
        IF to_regclass(quote_ident(p_name)) IS NOT NULL THEN
            RETURN false;
        END IF;
        EXECUTE format('CREATE TABLE %I (LIKE %I INCLUDING ALL) WITH (fillfactor = %s)',
                       p_name, p_parent, CASE WHEN p_parent = 'trade' THEN 100 ELSE 85 END);
        EXECUTE format('ALTER TABLE %I ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)',
                       p_parent, p_name, p_from, p_to);
        RETURN true;
    END $$
    """,
    "REVOKE EXECUTE ON FUNCTION ensure_time_partition FROM PUBLIC",
    "REVOKE EXECUTE ON FUNCTION ensure_market FROM PUBLIC",
)

LOG = (
    """
    CREATE TABLE coverage_span (
        market_key integer NOT NULL,
        from_time timestamptz NOT NULL,
        to_time timestamptz NOT NULL,
        end_cause text,
        PRIMARY KEY (market_key, from_time),
        CHECK (from_time < to_time)
    )
    """,
    """
    CREATE TABLE open_span (
        writer text COLLATE "C" NOT NULL,
        market_key integer NOT NULL,
        partition integer NOT NULL,
        from_time timestamptz NOT NULL,
        to_time timestamptz NOT NULL,
        PRIMARY KEY (writer, market_key)
    ) WITH (fillfactor = 50)
    """,
    "CREATE INDEX open_span_partition ON open_span (partition)",
    """
    CREATE TABLE gap (
        market_key integer NOT NULL,
        from_time timestamptz NOT NULL,
        to_time timestamptz NOT NULL,
        cause text NOT NULL,
        state text NOT NULL DEFAULT 'open' CHECK (state IN ('open', 'filled', 'unfillable')),
        reason text,
        recovered bigint NOT NULL DEFAULT 0,
        opened_time timestamptz NOT NULL,
        closed_time timestamptz,
        PRIMARY KEY (market_key, from_time),
        CHECK (from_time < to_time)
    )
    """,
    "CREATE INDEX gap_open ON gap (market_key) WHERE state = 'open'",
    """
    CREATE TABLE job (
        job text COLLATE "C" PRIMARY KEY,
        market_key integer NOT NULL,
        partition integer NOT NULL,
        origin text NOT NULL,
        state text NOT NULL DEFAULT 'open' CHECK (state IN ('open', 'ended', 'silent')),
        opened_time timestamptz NOT NULL,
        last_append_time timestamptz NOT NULL,
        ended_time timestamptz,
        trades bigint NOT NULL DEFAULT 0
    )
    """,
    "CREATE INDEX job_open ON job (partition) WHERE state = 'open'",
    "CREATE INDEX job_market ON job (market_key, opened_time)",
    """
    CREATE TABLE log_epoch (
        epoch integer PRIMARY KEY,
        partitions integer NOT NULL CHECK (partitions > 0),
        created_time timestamptz NOT NULL DEFAULT now()
    )
    """,
    """
    CREATE TABLE partition_fence (
        partition integer PRIMARY KEY,
        version bigint NOT NULL,
        epoch integer NOT NULL REFERENCES log_epoch,
        next_offset bigint NOT NULL,
        last_append_time timestamptz,
        owner text NOT NULL
    ) WITH (fillfactor = 50)
    """,
    """
    CREATE TABLE outbox (
        id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        partition integer NOT NULL,
        topic text NOT NULL,
        key bytea,
        value bytea NOT NULL,
        created_time timestamptz NOT NULL DEFAULT now()
    )
    """,
    "CREATE INDEX outbox_partition ON outbox (partition, topic, id)",
    """
    CREATE TABLE api_key (
        key_id text COLLATE "C" PRIMARY KEY,
        hash bytea NOT NULL UNIQUE,
        scope text NOT NULL,
        name text NOT NULL,
        created_time timestamptz NOT NULL DEFAULT now(),
        expires_time timestamptz
    )
    """,
)

ROLES = ("vegamite_collector", "vegamite_aggregator", "vegamite_api")

# Roles belong to the server, not to the database: made where the migrating user may, left to the operator elsewhere.
CREATE_ROLES = (
    """
    DO $$
    DECLARE
        name text;
    BEGIN
        IF (SELECT rolcreaterole OR rolsuper FROM pg_roles WHERE rolname = current_user) THEN
            FOREACH name IN ARRAY ARRAY['vegamite_collector', 'vegamite_aggregator', 'vegamite_api'] LOOP
                BEGIN
                    EXECUTE format('CREATE ROLE %I NOLOGIN', name);
                EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL;
                END;
            END LOOP;
        END IF;
    END $$
    """,
)

_READ_ALL = ", ".join(
    (
        "schema_version, exchange, market, tracked_market, market_state, trade, candle, coverage_span, open_span, gap, job",
        "log_epoch, partition_fence",
        # A query that knows its timeframe may go to that table at once; its own partitions need no grant.
        *TIMEFRAMES.values(),
    )
)

GRANTS = {
    "vegamite_collector": (
        f"SELECT ON {_READ_ALL}",
        "INSERT, UPDATE, DELETE ON exchange, market, market_state",
        "EXECUTE ON FUNCTION ensure_market",
    ),
    "vegamite_aggregator": (
        f"SELECT ON {_READ_ALL}, outbox",
        "INSERT, UPDATE, DELETE ON trade, candle, coverage_span, open_span, gap, job, partition_fence, outbox, log_epoch",
        "EXECUTE ON FUNCTION ensure_market",
        "EXECUTE ON FUNCTION ensure_time_partition",
    ),
    "vegamite_api": (
        f"SELECT ON {_READ_ALL}, api_key",
        "INSERT, UPDATE, DELETE ON tracked_market, api_key",
        "EXECUTE ON FUNCTION ensure_market",
    ),
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
        *REFERENCE,
        *SERIES,
        *TIMEFRAME_TABLES,
        *PARTITIONING,
        *LOG,
        *CREATE_ROLES,
        *GRANT_STATEMENTS,
    ):
        op.get_bind().exec_driver_sql(statement)
