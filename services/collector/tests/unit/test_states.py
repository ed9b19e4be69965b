"""States of sources, as they are counted: by exchange, never by market."""

from typing import Any

from prometheus_client import REGISTRY

from vegamite_collector.metrics import show_exchange
from vegamite_collector.ports import TrackedMarket
from vegamite_collector.service.states import SourceStates
from vegamite_common.domain.market import Market
from vegamite_common.runtime.clock import SystemClock


def tracked(number: int, key: str) -> TrackedMarket:
    return TrackedMarket(number, Market.parse(key), 0)


def count(exchange: str, state: str) -> float | None:
    return REGISTRY.get_sample_value(
        "vegamite_collector_markets", {"exchange": exchange, "state": state}
    )


def test_markets_are_counted_by_exchange_and_state_until_they_are_collected_no_more(
    store: Any,
) -> None:
    nobody: Any = None
    states = SourceStates(store=store, producer=nobody, status_partitions=1, clock=SystemClock())
    one, two, other = (
        tracked(1, "binance:BTC/USDT"),
        tracked(2, "binance:ETH/USDT"),
        tracked(3, "kraken:BTC/USD"),
    )
    for market in (one, two, other):
        states.set(market, "connecting")
    states.set(one, "live")
    states.set(two, "live")
    states.set(two, "reconnecting", reason="away")

    assert count("binance", "live") == 1
    assert count("binance", "reconnecting") == 1
    assert count("binance", "connecting") == 0
    assert count("kraken", "connecting") == 1
    assert count("kraken", "live") == 0

    states.forget(other.market)
    assert count("kraken", "connecting") is None
    assert count("binance", "live") == 1


def test_what_is_counted_of_an_exchange_is_there_before_it_happens() -> None:
    show_exchange("poloniex", simulated=False)

    for name, labels in (
        ("trades_total", {"origin": "live"}),
        ("late_trades_total", {}),
        ("quarantined_trades_total", {"reason": "price"}),
        ("lost_connections_total", {"cause": "timeout"}),
        ("repairs_total", {"outcome": "failed"}),
    ):
        value = REGISTRY.get_sample_value(
            f"vegamite_collector_{name}", {"exchange": "poloniex", **labels}
        )
        assert value == 0, name
