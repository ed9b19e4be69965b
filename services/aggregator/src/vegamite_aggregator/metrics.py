"""What the aggregator measures. No label names a market: their number grows without bound."""

from prometheus_client import Counter, Gauge, Histogram

TRADES = Counter(
    "vegamite_aggregator_trades_total",
    "Trades read, by what became of them: inserted, duplicate, contradicting (same id, other content), quarantined",
    ["outcome"],
)
LATE_TRADES = Counter(
    "vegamite_aggregator_late_trades_total",
    "Trades that came after their candle was final (final) or after their time was covered (covered)",
    ["kind"],
)
QUARANTINED = Counter(
    "vegamite_aggregator_quarantined_total", "Records and trades refused, by reason", ["reason"]
)
CANDLES = Counter(
    "vegamite_aggregator_candles_total", "Candles by event: final, revision, update", ["event"]
)
STEPS = Counter(
    "vegamite_aggregator_steps_total",
    "Transactions by outcome: committed, fence_lost, failed, idle (nothing to write)",
    ["outcome"],
)
STEP_SECONDS = Histogram(
    "vegamite_aggregator_step_duration_seconds",
    "Time from the first statement of a partition's transaction to its commit",
    buckets=(0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
)
LOCKS_BROKEN = Counter(
    "vegamite_aggregator_fence_locks_broken_total", "Backends ended because they held a fence"
)
PARTITIONS = Gauge("vegamite_aggregator_partitions_count", "Partitions that this process owns")
LAG = Gauge(
    "vegamite_aggregator_lag_records",
    "Records in the log that aren't committed yet, by partition",
    ["partition"],
)
OUTBOX = Counter("vegamite_aggregator_outbox_records_total", "Committed records published")
DISCONTINUITIES = Counter(
    "vegamite_aggregator_discontinuities_total",
    "Times that a partition's stored offset lay before the log's start",
)
