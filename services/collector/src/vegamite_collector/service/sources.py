"""`Sources`: the exchanges in use, each opened when it is first needed and closed when its last market leaves."""

import asyncio

from vegamite_collector.ports import SourceFactory, TradeSource


class Sources:
    """Opened sources by exchange id."""

    def __init__(self, factory: SourceFactory) -> None:
        self._factory = factory
        self._opened: dict[str, TradeSource] = {}
        self._lock = asyncio.Lock()

    async def get(self, exchange: str) -> TradeSource:
        """Return the exchange's source; raise `UnsupportedExchangeError` where there is none."""
        async with self._lock:
            source = self._opened.get(exchange)
            if source is None:
                source = self._opened[exchange] = await self._factory(exchange)
            return source

    async def keep_only(self, exchanges: set[str]) -> None:
        """Close the sources of all other exchanges."""
        for exchange in [name for name in self._opened if name not in exchanges]:
            source = self._opened.pop(exchange)
            await source.close()

    async def close(self) -> None:
        """Close every source."""
        await self.keep_only(set())
