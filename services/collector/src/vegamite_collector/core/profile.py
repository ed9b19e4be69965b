"""What each exchange's interfaces can be relied on for; a cautious profile stands in where none was written."""

from dataclasses import dataclass, field, replace
from typing import Any, Literal

from vegamite_common.domain.time import HOUR, SECOND, Micros

MILLISECOND: Micros = 1000

Backfill = Literal["by_id", "by_time", "recent_n", "none"]
Acknowledgement = Literal["message", "ping"]


@dataclass(frozen=True, kw_only=True)
class ExchangeProfile:
    """How one exchange's trades are identified, timed, streamed and fetched again.

    `id_space` names the kind of id that stream and REST share; ids of another kind never meet it. `time_resolution` (µs)
    is what stream and REST both carry. `page_limit` is the most trades that one REST page brings and `page_window` (µs)
    the longest time that one page may ask for; `since_margin` (µs) is how much earlier a page by time has to ask, where the
    exchange's `since` is coarse or exclusive. `settling_seconds` (real seconds) is how long after its event a trade may
    still arrive. `acknowledgement` says how a subscription's begin is known: by the exchange's own answer, or by the
    answer to a ping that was sent after it. `info_time_keys` are the places in the exchange's own message that hold a time
    finer than ccxt's milliseconds. `options`, `stream_params` and `history_params` go to ccxt.
    """

    exchange: str
    id_space: str = "trade"
    ids_numeric: bool = False
    ids_contiguous: bool = False
    time_resolution: Micros = SECOND
    backfill: Backfill = "none"
    page_limit: int = 1000
    page_window: Micros | None = None
    since_margin: Micros = 0
    max_symbols_per_connection: int = 50
    subscribe_rate: float = 2.0
    settling_seconds: float = 1.0
    acknowledgement: Acknowledgement = "ping"
    info_time_keys: tuple[str | int, ...] = ()
    simulated: bool = False
    options: dict[str, Any] = field(default_factory=dict)
    stream_params: dict[str, Any] = field(default_factory=dict)
    history_params: dict[str, Any] = field(default_factory=dict)


_BINANCE = ExchangeProfile(
    exchange="binance",
    id_space="aggregate",
    ids_numeric=True,
    ids_contiguous=True,
    time_resolution=MILLISECOND,
    backfill="by_id",
    page_limit=1000,
    page_window=HOUR,
    max_symbols_per_connection=200,
    subscribe_rate=4.0,
    acknowledgement="message",
    # One kind of trade on both sides: the stream's default has ids of another space than REST.
    options={"fetchMarkets": {"types": ["spot"]}},
    stream_params={"name": "aggTrade"},
)

_PROFILES = {
    profile.exchange: profile
    for profile in (
        _BINANCE,
        replace(_BINANCE, exchange="binanceus"),
        ExchangeProfile(
            exchange="kraken",
            ids_numeric=True,
            ids_contiguous=True,
            # The stream has whole microseconds and REST more digits; whether the stream's last one is cut or rounded
            # isn't documented, so both are floored to the millisecond, and the ids order within.
            time_resolution=MILLISECOND,
            backfill="by_time",
            page_limit=1000,
            # REST takes whole seconds, and excludes the instant that it is given.
            since_margin=SECOND,
            acknowledgement="message",
            info_time_keys=("timestamp", 2),
        ),
        ExchangeProfile(exchange="coinbase", ids_numeric=True, time_resolution=MILLISECOND),
        ExchangeProfile(
            exchange="coinbaseexchange",
            ids_numeric=True,
            ids_contiguous=True,
            time_resolution=MILLISECOND,
        ),
        # REST has whole seconds only.
        ExchangeProfile(exchange="bitstamp", ids_numeric=True, time_resolution=SECOND),
        ExchangeProfile(
            exchange="okx",
            ids_numeric=True,
            time_resolution=MILLISECOND,
            backfill="recent_n",
            page_limit=500,
        ),
        ExchangeProfile(
            exchange="bybit", time_resolution=MILLISECOND, backfill="recent_n", page_limit=60
        ),
        ExchangeProfile(
            exchange="sim",
            id_space="simulated",
            ids_numeric=True,
            ids_contiguous=True,
            time_resolution=MILLISECOND,
            backfill="by_time",
            page_limit=5000,
            acknowledgement="message",
            simulated=True,
        ),
    )
}


def profile_for(exchange: str, *, settling_seconds: float | None = None) -> ExchangeProfile:
    """Return the profile of a ccxt exchange id, or the cautious one; `settling_seconds` replaces the profile's own."""
    profile = _PROFILES.get(exchange) or ExchangeProfile(exchange=exchange)
    if settling_seconds is None:
        return profile
    return replace(profile, settling_seconds=settling_seconds)


def known_profiles() -> tuple[ExchangeProfile, ...]:
    """Return every profile that was written, ordered by exchange."""
    return tuple(_PROFILES[exchange] for exchange in sorted(_PROFILES))
