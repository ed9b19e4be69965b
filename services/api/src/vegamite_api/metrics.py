"""Every metric of the API."""

from prometheus_client import Counter, Gauge, Histogram

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
SUBSCRIPTIONS = Gauge(
    "vegamite_api_subscriptions",
    "Subscribed streams of all WebSocket connections, by channel.",
    ["channel"],
)
MESSAGES_SENT = Counter("vegamite_api_messages_sent_total", "WebSocket messages sent.")
MESSAGES_REFUSED = Counter(
    "vegamite_api_messages_refused_total", "Inbound WebSocket messages refused, by code.", ["code"]
)
SLOW_CONSUMERS = Counter(
    "vegamite_api_slow_consumers_total", "WebSocket connections ended because they read too slowly."
)
CONFLATED = Counter(
    "vegamite_api_conflated_messages_total",
    "Queued updates of candles in progress that gave way to a newer one.",
)
TAIL_RECORDS = Counter(
    "vegamite_api_tail_records_total", "Log records read for the streams, by topic.", ["topic"]
)
TAIL_LAG = Gauge(
    "vegamite_api_tail_lag_records",
    "Log records not read yet for the streams, by topic.",
    ["topic"],
)
TAIL_BROKEN = Counter(
    "vegamite_api_tail_broken_records_total",
    "Log records that could not be read, by topic.",
    ["topic"],
)
LOG_FAULTS = Counter("vegamite_api_log_faults_total", "Times that the log could not be reached.")
