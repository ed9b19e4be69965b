"""What the API measures. Labels are routes, codes, topics and channels: few, whatever clients send."""

from collections.abc import Iterable

from prometheus_client import Counter, Gauge, Histogram

from vegamite_common.runtime.metrics import from_zero

_TOPICS = ("trades", "candles", "status")
_REFUSALS = (
    "auth_required",
    "forbidden",
    "invalid_body",
    "invalid_parameter",
    "message_too_large",
    "missing_parameter",
    "not_found",
    "rate_limited",
    "resume_too_old",
    "subscription_limit",
    "unauthorized",
    "unavailable",
    "unknown_exchange",
    "unknown_market",
    "unknown_method",
    "unknown_parameter",
)

REQUESTS = Counter(
    "vegamite_api_requests_total",
    "HTTP requests answered, by route, method and status.",
    ["route", "method", "status"],
)
REQUEST_SECONDS = Histogram(
    "vegamite_api_request_seconds",
    "Time from an HTTP request to its answer, by route.",
    ["route"],
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
)
STORE_FAULTS = Counter(
    "vegamite_api_store_faults_total", "Questions that PostgreSQL could not answer."
)
CONNECTIONS = Gauge("vegamite_api_connections", "Open WebSocket connections.")
SUBSCRIPTIONS = from_zero(
    Gauge(
        "vegamite_api_subscriptions",
        "Subscribed streams of all WebSocket connections, by channel.",
        ["channel"],
    ),
    *_TOPICS,
)
MESSAGES_SENT = Counter("vegamite_api_messages_sent_total", "WebSocket messages sent.")
MESSAGES_REFUSED = from_zero(
    Counter(
        "vegamite_api_messages_refused_total",
        "Inbound WebSocket messages refused, by code.",
        ["code"],
    ),
    *_REFUSALS,
)
SLOW_CONSUMERS = Counter(
    "vegamite_api_slow_consumers_total", "WebSocket connections ended because they read too slowly."
)
CONFLATED = Counter(
    "vegamite_api_conflated_messages_total",
    "Queued updates of candles in progress that gave way to a newer one.",
)
TAIL_RECORDS = from_zero(
    Counter(
        "vegamite_api_tail_records_total", "Log records read for the streams, by topic.", ["topic"]
    ),
    *_TOPICS,
)
TAIL_LAG = Gauge(
    "vegamite_api_tail_lag_records",
    "Log records not read yet for the streams, by topic.",
    ["topic"],
)
TAIL_BROKEN = from_zero(
    Counter(
        "vegamite_api_tail_broken_records_total",
        "Log records that could not be read, by topic.",
        ["topic"],
    ),
    *_TOPICS,
)
LOG_FAULTS = Counter("vegamite_api_log_faults_total", "Times that the log could not be reached.")


def show_routes(routes: Iterable[tuple[str, str]]) -> None:
    """Export failed answers of these routes (path template and method) as 0 from now on."""
    from_zero(
        REQUESTS,
        *((path, method, status) for path, method in routes for status in ("500", "503")),
    )
