"""What the aggregator measures. No label names a market: their number grows without bound."""

from math import nan

from prometheus_client import Counter, Gauge, Histogram

from vegamite_common.runtime.metrics import from_zero


def _unknown(gauge: Gauge) -> Gauge:
    """Return the gauge at NaN, which 0 isn't: a process that hasn't looked, or is a sink and never does, knows nothing."""
    gauge.set(nan)
    return gauge


TRADES = from_zero(
    Counter(
        "vegamite_aggregator_trades_total",
        "Trades read, by what became of them: inserted, duplicate, contradicting (same id, other content), quarantined",
        ["outcome"],
    ),
    "inserted",
    "duplicate",
    "contradicting",
    "quarantined",
)
TRADE_BATCHES = from_zero(
    Counter(
        "vegamite_aggregator_trade_batches_total",
        "Trades of a step inserted, by way: inserted (few, one statement), copied (one COPY), fallback (the COPY met a "
        "trade that was there, and was done again without those), looked (without those from the first, since the last "
        "step had some)",
        ["way"],
    ),
    "inserted",
    "copied",
    "fallback",
    "looked",
)
LATE_TRADES = from_zero(
    Counter(
        "vegamite_aggregator_late_trades_total",
        "Trades that came after their candle was final (final), after their time was covered (covered), or after their time "
        "had expired, which are not stored (expired)",
        ["kind"],
    ),
    "final",
    "covered",
    "expired",
)
QUARANTINED = from_zero(
    Counter(
        "vegamite_aggregator_quarantined_total", "Records and trades refused, by reason", ["reason"]
    ),
    "undecodable",
    "key",
    "partition",
    "future",
)
DEAD_LETTERS = from_zero(
    Counter(
        "vegamite_aggregator_dead_letters_total",
        "Records set apart with the reason: refused, or with refused trades in them",
        ["reason"],
    ),
    "undecodable",
    "key",
    "partition",
    "future",
)
CANDLES = from_zero(
    Counter(
        "vegamite_aggregator_candles_total", "Candles by event: final, revision, update", ["event"]
    ),
    "final",
    "revision",
    "update",
)
STEPS = from_zero(
    Counter(
        "vegamite_aggregator_steps_total",
        "Transactions by outcome: committed, fence_lost, failed, idle (nothing to write)",
        ["outcome"],
    ),
    "committed",
    "fence_lost",
    "failed",
    "idle",
)
STEP_SECONDS = Histogram(
    "vegamite_aggregator_step_duration_seconds",
    "Time from the first statement of a partition's transaction to its commit",
    buckets=(0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
)
STEP_TRADES = Histogram(
    "vegamite_aggregator_step_trades",
    "Trades read by one transaction that read records",
    buckets=(0, 1, 10, 100, 1_000, 3_000, 10_000, 30_000, 100_000),
)
COMMIT_SECONDS = Histogram(
    "vegamite_aggregator_commit_duration_seconds",
    "Time that the database takes to make a partition's transaction durable",
    buckets=(0.0005, 0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10),
)
LOCKS_BROKEN = Counter(
    "vegamite_aggregator_fence_locks_broken_total", "Backends ended because they held a fence"
)
WAITING_PARTITIONS = Gauge(
    "vegamite_aggregator_waiting_partitions",
    "Partitions that can't go on, by cause: failing, reading, publishing, held",
    ["cause"],
)
RESIDENT_CANDLES = Gauge(
    "vegamite_aggregator_resident_candles", "Candles in memory, of all partitions of this process"
)
RESIDENT_MARKETS = Gauge(
    "vegamite_aggregator_resident_markets",
    "Markets that have candles in memory; of the others a few numbers are known",
)
EVICTIONS = Counter(
    "vegamite_aggregator_market_evictions_total",
    "Times that a market's candles left memory for those of markets touched later",
)
LOADED_CANDLES = Counter(
    "vegamite_aggregator_loaded_candles_total",
    "Candles read back from the store because a decision needed them",
)
PARTITIONS = Gauge("vegamite_aggregator_partitions", "Partitions that this process owns")
LAG = Gauge(
    "vegamite_aggregator_lag_records",
    "Records in the log that aren't committed yet, by partition",
    ["partition"],
)
LAG_SECONDS = Gauge(
    "vegamite_aggregator_lag_seconds",
    "Age of the newest instant up to which all that the log has is committed, by partition; 0 when caught up",
    ["partition"],
)
NEWEST_TRADE = Gauge(
    "vegamite_aggregator_newest_trade_age_seconds",
    "Now less the event time of the newest stored trade, by exchange",
    ["exchange"],
)
NEWEST_CANDLE = Gauge(
    "vegamite_aggregator_newest_candle_age_seconds",
    "Now less the close time of the newest candle of one minute that is final, by exchange",
    ["exchange"],
)
COVERAGE_LAG = Gauge(
    "vegamite_aggregator_coverage_lag_seconds",
    "Now less the end of the stored coverage, of the worst tracked market of the exchange that has any",
    ["exchange"],
)
GAPS = Gauge(
    "vegamite_aggregator_gaps",
    "Gaps by exchange and state: open (waits for its trades), unfillable (can't be had any more)",
    ["exchange", "state"],
)
OLDEST_GAP = Gauge(
    "vegamite_aggregator_oldest_open_gap_age_seconds",
    "How long the oldest open gap has been known, by exchange; 0 without any",
    ["exchange"],
)
OPEN_GAP_SECONDS = Gauge(
    "vegamite_aggregator_open_gap_length_seconds",
    "Length of all open gaps together, in the markets' time, by exchange",
    ["exchange"],
)
OUTBOX_AGE = Gauge(
    "vegamite_aggregator_outbox_age_seconds",
    "How long the oldest committed record of the process's partitions has waited to be published; 0 without any",
)
OUTBOX = Counter("vegamite_aggregator_outbox_records_total", "Committed records published")
HEADROOM = _unknown(
    Gauge(
        "vegamite_aggregator_partition_headroom_seconds",
        "The end of the last day that has a table of trades, less now",
    )
)
MAINTENANCE_AGE = _unknown(
    Gauge(
        "vegamite_aggregator_maintenance_age_seconds",
        "Now less the time of the last maintenance that did all it had to; NaN before the first",
    )
)
HORIZON_AGE = _unknown(
    Gauge(
        "vegamite_aggregator_horizon_age_seconds",
        "Now less the least horizon of trades: how far back the market goes that expires last; NaN where nothing expires",
    )
)
UPKEEP = Gauge(
    "vegamite_aggregator_upkeep_done",
    "What all maintenances of this database did: archived_files, archived_trades, dropped_tables, deleted_candles",
    ["kind"],
)
DISCONTINUITIES = Counter(
    "vegamite_aggregator_discontinuities_total",
    "Times that a partition's stored offset lay before the log's start",
)
SINK_STATE = from_zero(
    Gauge(
        "vegamite_aggregator_sink_state",
        "1 for the state that writing to InfluxDB is in, else 0",
        ["state"],
    ),
    "starting",
    "writing",
    "away",
    "refused",
    "missing",
    "rejecting",
    "unread",
)
SINK_LAG = Gauge(
    "vegamite_aggregator_sink_lag_records",
    "Records that InfluxDB hasn't acknowledged yet, by topic and partition",
    ["topic", "partition"],
)
SINK_LAG_SECONDS = Gauge(
    "vegamite_aggregator_sink_lag_seconds",
    "Age of the newest record up to which InfluxDB acknowledged all, by topic and partition; 0 when caught up",
    ["topic", "partition"],
)
SINK_POINTS = from_zero(
    Counter(
        "vegamite_aggregator_sink_points_total",
        "Trades and candle states for InfluxDB by what became of them: written, held, expired, rejected, deleted",
        ["topic", "outcome"],
    ),
    *(
        (topic, outcome)
        for topic in ("trades", "candles", "status")
        for outcome in ("written", "held", "expired", "rejected")
    ),
    ("status", "deleted"),
)
SINK_QUARANTINED = from_zero(
    Counter(
        "vegamite_aggregator_sink_quarantined_total",
        "Records and trades that the sink refused, by reason",
        ["reason"],
    ),
    "undecodable",
    "key",
    "partition",
    "future",
)
SINK_FAILURES = from_zero(
    Counter(
        "vegamite_aggregator_sink_failures_total",
        "Times that InfluxDB couldn't be written or asked, by the state that this led to",
        ["state"],
    ),
    "away",
    "refused",
    "missing",
    "rejecting",
    "unread",
)
SINK_RETRIES = Counter(
    "vegamite_aggregator_sink_retries_total", "Requests that InfluxDB's client sent again by itself"
)
SINK_WRITE_SECONDS = Histogram(
    "vegamite_aggregator_sink_write_duration_seconds",
    "Time from handing points over to their acknowledgement",
    buckets=(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
)
SINK_UNREAD = Counter(
    "vegamite_aggregator_sink_unread_ranges_total",
    "Ranges of candles that large jobs changed and that InfluxDB lacks, since read_revised is off",
)
SINK_LOST = from_zero(
    Counter(
        "vegamite_aggregator_sink_lost_records_total",
        "Records that the log dropped before InfluxDB had them, by topic",
        ["topic"],
    ),
    "trades",
    "candles",
    "status",
)
