"""What is tracked is kept while the database is away, and changes when it says so."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import pytest

from vegamite_collector.ports import MarketStore, StoreError, TrackedMarket
from vegamite_collector.service.tracking import TrackedMarkets
from vegamite_common.domain.market import Market
from vegamite_common.testing.manual_clock import ManualClock

BTC = TrackedMarket(7, Market("binance", "BTC/USDT"), 0)


class Store:
    """The tracked markets as a database would tell them; it can be away."""

    def __init__(self) -> None:
        self.rows = {7: BTC}
        self.away = False

    async def tracked_markets(self) -> Sequence[TrackedMarket]:
        return list(self.rows.values())

    async def tracked_market(self, market_key: int) -> TrackedMarket | None:
        if self.away:
            raise StoreError("away")
        return self.rows.get(market_key)


async def loaded() -> tuple[TrackedMarkets, Store]:
    store = Store()
    clock = ManualClock(0)
    markets = TrackedMarkets(store=cast(MarketStore, store), clock=clock, refresh_seconds=30)
    await markets.refresh()
    return markets, store


async def test_a_market_stays_tracked_while_the_database_is_away() -> None:
    markets, store = await loaded()
    store.away = True
    with pytest.raises(StoreError):
        await markets.forget_or_reload(7)
    assert list(markets.all()) == [BTC]


async def test_a_change_raises_the_version_and_a_repeat_does_not() -> None:
    markets, store = await loaded()
    version = markets.version
    await markets.forget_or_reload(7)
    assert markets.version == version
    del store.rows[7]
    await markets.forget_or_reload(7)
    assert markets.version == version + 1
    assert list(markets.all()) == []
