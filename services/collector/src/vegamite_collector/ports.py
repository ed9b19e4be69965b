"""What the collector needs from outside: exchanges as sources of trades, and the store of markets, states and gaps.

The bus and the clock are ports of `vegamite_common`.
"""

from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import AbstractAsyncContextManager
from decimal import Decimal
from typing import Literal, Protocol, TypeAlias

import msgspec

from vegamite_collector.core.normalise import Quarantined
from vegamite_collector.core.profile import ExchangeProfile
from vegamite_collector.core.repair import Page, PageRequest
from vegamite_common.domain.coverage import Span
from vegamite_common.domain.market import Market
from vegamite_common.domain.time import Micros
from vegamite_common.domain.trade import Trade
from vegamite_common.messages.status import SourceStateName


class SourceError(Exception):
    """The exchange can't be reached, refused, or ended the connection; the text is one short sentence for people."""

    def __init__(
        self, text: str, *, retry_after: float | None = None, cause: str = "source_error"
    ) -> None:
        super().__init__(text)
        self.retry_after = retry_after
        self.cause = cause


class UnknownSymbolError(SourceError):
    """The exchange lists no such market; `known` are the symbols that it lists."""

    def __init__(self, text: str, *, known: Collection[str]) -> None:
        super().__init__(text)
        self.known = known


class UnsupportedExchangeError(SourceError):
    """The exchange is unknown, or offers no stream of trades."""


class Subscribed(msgspec.Struct, frozen=True):
    """The exchange acknowledged the subscription at `at` (clock µs): trades made later will come."""

    at: Micros


class TradesArrived(msgspec.Struct, frozen=True):
    """The trades of one message, in total order, and what of it was refused."""

    received_time: Micros
    trades: tuple[Trade, ...]
    quarantined: tuple[Quarantined, ...] = ()


class Proved(msgspec.Struct, frozen=True):
    """A ping sent at `sent_time` (clock µs) was answered: every trade sent before its answer came before this event."""

    sent_time: Micros


class Lost(msgspec.Struct, frozen=True):
    """Something came that could not be read: trades may be missing from here on back to the last proof."""

    cause: str
    text: str


SourceEvent: TypeAlias = Subscribed | TradesArrived | Proved | Lost


class ReferenceMarket(msgspec.Struct, frozen=True):
    """What an exchange says of one of its markets; absent where it doesn't say."""

    market: Market
    type: str
    base: str
    quote: str
    settle: str | None = None
    contract_size: Decimal | None = None
    inverse: bool | None = None
    price_increment: Decimal | None = None
    amount_increment: Decimal | None = None
    active: bool = True


class TradeSource(Protocol):
    """One exchange: its stream of trades, its history and its list of markets. Any call may raise `SourceError`."""

    @property
    def profile(self) -> ExchangeProfile:
        """What the exchange's interfaces can be relied on for."""
        ...

    def stream(self, symbol: str) -> AbstractAsyncContextManager[AsyncIterator[SourceEvent]]:
        """Subscribe for as long as the block lasts; the events come in the order of the connection.

        The iterator raises `SourceError` once the connection is lost, `UnknownSymbolError` for a symbol that isn't listed.
        It is bounded: while its events aren't taken, the connection is not read.
        """
        ...

    async def fetch(self, symbol: str, request: PageRequest) -> Page:
        """Return one page of history."""
        ...

    async def markets(self, *, reload: bool = False) -> Sequence[ReferenceMarket]:
        """Return every market that the exchange lists; `reload` asks the exchange again."""
        ...

    async def close(self) -> None:
        """End all connections."""
        ...


class SourceFactory(Protocol):
    """Opens the source of an exchange when it is first needed."""

    async def __call__(self, exchange: str) -> TradeSource:
        """Return a new source; raise `UnsupportedExchangeError` where there is none."""
        ...


class TrackedMarket(msgspec.Struct, frozen=True):
    """A market to collect, and from when on its trades are wanted."""

    market_key: int
    market: Market
    history_from: Micros


class ExchangeRow(msgspec.Struct, frozen=True):
    """One exchange as the API lists it."""

    exchange: str
    name: str
    trades: Literal["stream", "poll", "none"]
    simulated: bool = False


class MarketState(msgspec.Struct, frozen=True):
    """What a market's source is doing since `since_time`, why, and what else may have been meant."""

    state: SourceStateName
    since_time: Micros
    reason: str | None = None
    suggestions: tuple[str, ...] = ()


class OpenGap(msgspec.Struct, frozen=True):
    """A gap that waits for its trades."""

    market_key: int
    span: Span


class StoreError(Exception):
    """The store can't be reached; the call may be repeated."""


class MarketStore(Protocol):
    """The database as the collector sees it. Any call may raise `StoreError`."""

    async def tracked_markets(self) -> Sequence[TrackedMarket]:
        """Return every tracked market."""
        ...

    async def tracked_market(self, market_key: int) -> TrackedMarket | None:
        """Return one tracked market, None where it isn't tracked (any more)."""
        ...

    async def next_change(self) -> int | None:
        """Wait for the next change of the tracked markets and return its market key; None: anything may have changed."""
        ...

    async def save_exchanges(self, rows: Sequence[ExchangeRow]) -> None:
        """Make the exchange table say what `rows` say."""
        ...

    async def save_markets(self, exchange: str, markets: Sequence[ReferenceMarket]) -> None:
        """Store an exchange's markets; those that it no longer lists become inactive."""
        ...

    async def save_state(self, market_key: int, state: MarketState) -> None:
        """Store what a market's source is doing."""
        ...

    async def open_gaps(self, market_keys: Sequence[int], *, before: Micros) -> Sequence[OpenGap]:
        """Return the open gaps of these markets that end before `before`, the newest first."""
        ...

    async def ended_jobs(self, jobs: Collection[str]) -> frozenset[str]:
        """Return those of the jobs that the aggregator has seen the end of."""
        ...

    async def close(self) -> None:
        """End what the store opened."""
        ...
