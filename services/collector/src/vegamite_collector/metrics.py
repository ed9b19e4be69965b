"""What the collector measures. No label names a market: their number grows without bound; exchanges are few."""

from prometheus_client import Counter, Gauge, Histogram

from vegamite_common.runtime.metrics import from_zero

TRADES = Counter(
    "vegamite_collector_trades_total",
    "Trades put into the log, by exchange and origin",
    ["exchange", "origin"],
)
LATE_TRADES = Counter(
    "vegamite_collector_late_trades_total",
    "Streamed trades of a time that was already claimed to be complete",
    ["exchange"],
)
QUARANTINED = Counter(
    "vegamite_collector_quarantined_trades_total",
    "Trades that can't be believed, by reason",
    ["exchange", "reason"],
)
BAD_FRAMES = Counter(
    "vegamite_collector_bad_frames_total", "Frames that could not be used", ["exchange", "kind"]
)
CONNECTIONS_LOST = Counter(
    "vegamite_collector_lost_connections_total", "Subscriptions that ended", ["exchange", "cause"]
)
SPANS_BROKEN = Counter(
    "vegamite_collector_broken_spans_total", "Coverage that was interrupted", ["exchange", "cause"]
)
MARKETS = Gauge(
    "vegamite_collector_markets",
    "Markets that this process collects, by exchange and state",
    ["exchange", "state"],
)
TRACKED_MARKETS = Gauge(
    "vegamite_collector_tracked_markets",
    "Markets that are to be collected, by whichever collector, by exchange",
    ["exchange"],
)
NEWEST_TRADE = Gauge(
    "vegamite_collector_newest_trade_age_seconds",
    "Now less the event time of the newest streamed trade, by exchange",
    ["exchange"],
)
PARTITIONS = Gauge("vegamite_collector_partitions", "Partitions that this process holds")
PRODUCE_FAILURES = Counter(
    "vegamite_collector_produce_failures_total", "Batches whose outcome in the log is unknown"
)
RECORDS = Counter("vegamite_collector_records_total", "Records acknowledged by the log")
QUEUE_RECORDS = Gauge(
    "vegamite_collector_queued_records", "Records that wait for the log, all partitions"
)
PUBLISH_SECONDS = Histogram(
    "vegamite_collector_publish_seconds",
    "From the start of a batch's write to its acknowledgement",
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
)
CLOCK_DIFFERENCE = Gauge(
    "vegamite_collector_clock_difference_seconds",
    "The log's clock less ours, at the last heartbeat",
)
COVERAGE_LAG = Gauge(
    "vegamite_collector_coverage_lag_seconds",
    "Now less the time up to which the last heartbeat claimed, or since which we write, of the worst partition",
)
REPAIRS = Counter(
    "vegamite_collector_repairs_total", "Repairs of gaps, by outcome", ["exchange", "outcome"]
)
REPAIRED_TRADES = Counter(
    "vegamite_collector_repaired_trades_total", "Trades fetched for gaps", ["exchange"]
)
STORE_FAULTS = Counter("vegamite_collector_store_faults_total", "Failed calls of the database")

_LOST = ("timeout", "socket_closed", "source_error")
_BROKEN = (
    *_LOST,
    "unknown_symbol",
    "unsupported",
    "quarantine",
    "missing_trades",
    "polled_too_slowly",
    "undecodable_frame",
    "unhandled_frame",
    "moved",
    "untracked",
    "stopped",
)


def show_exchange(exchange: str, *, simulated: bool) -> None:
    """Export whatever is counted of the exchange as 0 from now on, where it wasn't counted yet."""
    for counter, values in (
        (TRADES, ("simulated",) if simulated else ("live", "backfill")),
        (QUARANTINED, ("event_time", "trade_id", "sequence", "price", "amount")),
        (BAD_FRAMES, ("undecodable", "unhandled")),
        (CONNECTIONS_LOST, _LOST),
        (SPANS_BROKEN, _BROKEN),
        (REPAIRS, ("filled", "unfillable", "failed", "abandoned")),
    ):
        from_zero(counter, *((exchange, value) for value in values))
    from_zero(LATE_TRADES, exchange)
    from_zero(REPAIRED_TRADES, exchange)
