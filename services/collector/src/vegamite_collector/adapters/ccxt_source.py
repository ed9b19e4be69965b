"""`CcxtSource`: one exchange as a source of trades, through the real ccxt client."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any

import structlog

from vegamite_collector.adapters.ccxt_client import collecting_class
from vegamite_collector.adapters.ccxt_connection import Wiring, current_feed
from vegamite_collector.adapters.ccxt_feed import AHEAD_SECONDS, Feed, Feeds, Gate
from vegamite_collector.adapters.ccxt_words import (
    client_config,
    describe_error,
    redirect,
    reference_market,
)
from vegamite_collector.adapters.polling import poll_events
from vegamite_collector.core.normalise import SyntheticIds, normalise
from vegamite_collector.core.profile import ExchangeProfile
from vegamite_collector.core.repair import Page, PageRequest
from vegamite_collector.ports import (
    ReferenceMarket,
    SourceError,
    SourceEvent,
    UnknownSymbolError,
    UnsupportedExchangeError,
)
from vegamite_common.runtime.clock import Clock
from vegamite_common.runtime.section import ExchangeSection

log = structlog.get_logger(__name__)

LEAVE_SECONDS = 2.0


class Pace:
    """Lets through at most `rate` a second, evenly."""

    def __init__(self, rate: float) -> None:
        self._interval = 1 / rate
        self._next = 0.0

    async def wait(self) -> None:
        """Return when it is the caller's turn."""
        now = time.monotonic()
        turn = max(now, self._next)
        self._next = turn + self._interval
        await asyncio.sleep(turn - now)


@dataclass(frozen=True)
class _Shard:
    """One client of ccxt, and the feeds that its connections fill."""

    client: Any
    feeds: Feeds


class CcxtSource:
    """One exchange through ccxt; its connections are opened when they are first needed.

    `on_bad_frame(kind, text)` is told of each frame that couldn't be used. At most `queue_limit` trades wait to be taken.
    """

    def __init__(
        self,
        exchange: str,
        *,
        profile: ExchangeProfile,
        section: ExchangeSection,
        clock: Clock,
        on_bad_frame: Callable[[str, str], None],
        queue_limit: int,
    ) -> None:
        self.profile = profile
        self._section = section
        self._clock = clock
        self._on_bad_frame = on_bad_frame
        self._gate = Gate(queue_limit)
        self._class = collecting_class(exchange)
        self._shards = [self._new_shard()]
        self._client = self._shards[0].client
        self._pace = Pace(profile.subscribe_rate)
        self._streams = self._client.has.get("watchTrades") is True
        if not self._streams and self._client.has.get("fetchTrades") is not True:
            raise UnsupportedExchangeError(f"{exchange}: ccxt knows no way to its trades")

    def _new_shard(self) -> _Shard:
        clock, gate, profile = self._clock, self._gate, self.profile
        feeds = Feeds(lambda symbol: Feed(symbol, profile=profile, clock=clock, gate=gate))
        wiring = Wiring(clock=clock, feeds=feeds, gate=gate, on_bad_frame=self._on_bad_frame)
        client = self._class(client_config(profile, self._section), wiring)
        if self._section.urls is not None:
            client.urls["api"] = redirect(
                client.urls["api"], self._section.urls, exchange=profile.exchange
            )
        return _Shard(client, feeds)

    def _shard_with_room(self) -> _Shard:
        """A client has the exchange's connections to itself, and each takes so many symbols: beyond that, another client."""
        for shard in self._shards:
            if len(shard.feeds) < self.profile.max_symbols_per_connection:
                return shard
        self._shards.append(self._new_shard())
        return self._shards[-1]

    @asynccontextmanager
    async def stream(self, symbol: str) -> AsyncIterator[AsyncIterator[SourceEvent]]:
        """Subscribe for as long as the block lasts; see `TradeSource`."""
        if not self._streams:
            async with aclosing(
                poll_events(
                    lambda: self.fetch(symbol, PageRequest()),
                    profile=self.profile,
                    clock=self._clock,
                )
            ) as polled:
                yield polled
            return
        shard = self._shard_with_room()
        feed = shard.feeds.open(symbol)
        holding = asyncio.create_task(
            self._hold(shard, feed), name=f"subscription {self.profile.exchange}:{symbol}"
        )
        try:
            yield _events(feed)
        finally:
            holding.cancel()
            with suppress(asyncio.CancelledError):
                await holding
            shard.feeds.close(feed)
            await self._leave(shard, feed)

    async def _hold(self, shard: _Shard, feed: Feed) -> None:
        """Keep the subscription: the watch call returns only by an error, since our connections never resolve it."""
        current_feed.set(feed)
        try:
            await self._require(feed.symbol)
            if not shard.client.markets:
                shard.client.set_markets(self._client.markets, self._client.currencies)
            while True:
                await self._pace.wait()
                await shard.client.watch_trades(
                    feed.symbol, None, None, dict(self.profile.stream_params)
                )
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            # ccxt cancels the futures of a connection that it closes.
            feed.fail(SourceError("the connection was closed", cause="socket_closed"))
        except SourceError as error:
            feed.fail(error)
        except Exception as error:  # noqa: BLE001 -- foreign code over a network: whatever it raises, the subscription has ended
            feed.fail(self._source_error(error))

    async def _require(self, symbol: str) -> None:
        await self._load_markets()
        if symbol not in self._client.markets:
            raise UnknownSymbolError(
                f"{self.profile.exchange} lists no market {symbol}",
                known=tuple(self._client.markets),
            )

    async def _leave(self, shard: _Shard, feed: Feed) -> None:
        """Close the connection that the feed was alone on; else take the symbol off it."""
        client = shard.client
        connection = client.clients.get(feed.url) if feed.url is not None else None
        if connection is None or feed.url is None:
            return
        if shard.feeds.of_connection(feed.url):
            with suppress(Exception):
                async with asyncio.timeout(LEAVE_SECONDS):
                    await client.un_watch_trades(feed.symbol, dict(self.profile.stream_params))
            return
        del client.clients[feed.url]
        connection.error = connection.error or SourceError("closed by us")
        await connection.close()

    async def fetch(self, symbol: str, request: PageRequest) -> Page:
        """Return one page of history; see `TradeSource`."""
        asked_time = self._clock.now()
        params: dict[str, Any] = dict(self.profile.history_params)
        since = None
        if request.from_id is not None:
            params["fromId"] = request.from_id
        elif request.since is not None:
            since = (request.since - self.profile.since_margin) // 1000
            if request.until is not None:
                params["until"] = request.until // 1000 - 1
        try:
            await self._require(symbol)
            raw = await self._client.fetch_trades(symbol, since, request.limit, params)
            sent = max(self._client.parsed_count, len(raw)) if raw else 0
        except SourceError:
            raise
        except Exception as error:
            raise self._source_error(error) from error
        arrived = normalise(
            raw,
            profile=self.profile,
            received_time=self._clock.now(),
            ahead_limit=self._clock.span(AHEAD_SECONDS),
            synthetic_ids=SyntheticIds(),
        )
        return Page(arrived.trades, sent, asked_time, len(arrived.quarantined))

    async def markets(self, *, reload: bool = False) -> Sequence[ReferenceMarket]:
        """Return every market that the exchange lists; see `TradeSource`."""
        try:
            await self._load_markets(reload=reload)
        except Exception as error:
            raise self._source_error(error) from error
        rows = (
            reference_market(self.profile.exchange, raw) for raw in self._client.markets.values()
        )
        return [row for row in rows if row is not None]

    async def _load_markets(self, *, reload: bool = False) -> None:
        if reload or not self._client.markets:
            await self._client.load_markets(reload)

    async def close(self) -> None:
        """End all connections."""
        for shard in self._shards:
            with suppress(Exception):
                await shard.client.close()

    def _source_error(self, error: Exception) -> SourceError:
        return describe_error(
            self.profile.exchange, error, headers=self._client.last_response_headers
        )


async def _events(feed: Feed) -> AsyncIterator[SourceEvent]:
    while True:
        yield await feed.next()
