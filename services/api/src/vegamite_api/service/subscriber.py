"""How a subscription begins: which streams it means, their snapshots, and where each stream goes on.

Trades go on from the offset up to which the database had committed when the snapshot was read; candles from the place
of the candle log that was read before, without the states that the snapshot already shows.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from vegamite_api.core.refusal import RefusedError
from vegamite_api.core.request import MAX_SNAPSHOT_ROWS, Selection, Subscribe
from vegamite_api.core.row import KnownMarket
from vegamite_api.core.seq import Seq
from vegamite_api.core.session import Session, Subscription, Wildcard
from vegamite_api.core.stream import Stream, candle_snapshot, trade_snapshot
from vegamite_api.ports import HistoryStore, MarketStore
from vegamite_api.service.past import Emit, Past, too_old
from vegamite_common.domain.market import Market


@dataclass
class Planned:
    """One stream of a request: it is whole after `after`; `joined` where it was subscribed before and just goes on."""

    stream: Stream
    market: KnownMarket
    after: Seq
    subscription: Subscription
    snapshot: bool
    joined: bool


@dataclass
class Plan:
    """What a request leads to."""

    asked: Subscribe
    streams: list[Planned]
    wildcards: tuple[Wildcard, ...]
    _snapshots: dict[Stream, str] = field(default_factory=dict)

    def results(self) -> list[dict[str, object]]:
        """Return the acknowledgement's results: per stream the place after which nothing is missing."""
        found: list[dict[str, object]] = [
            {**planned.stream.described, "seq": str(planned.after)} for planned in self.streams
        ]
        for wildcard in self.wildcards:
            fields: dict[str, object] = {
                "channel": wildcard.channel,
                "market": f"{wildcard.exchange}:*",
            }
            if wildcard.timeframe is not None:
                fields["timeframe"] = wildcard.timeframe
            found.append(fields)
        return found

    def put_snapshot(self, stream: Stream, text: str) -> None:
        """Keep a stream's snapshot message until it is its turn."""
        self._snapshots[stream] = text

    def take_snapshot(self, stream: Stream) -> Iterator[str]:
        """Yield the stream's snapshot message, where there is one, and forget it."""
        if stream in self._snapshots:
            yield self._snapshots.pop(stream)


class Subscriber:
    """Begins subscriptions, for all connections."""

    def __init__(self, *, store: HistoryStore, markets: MarketStore, past: Past) -> None:
        self._store = store
        self._markets = markets
        self._past = past

    def position(self, stream: Stream) -> Seq:
        """Return the place of the last record of the stream's partition that this replica has seen."""
        return self._past.position(stream)

    @staticmethod
    def wildcards(selection: Selection) -> tuple[Wildcard, ...]:
        """Return the whole exchanges that a selection names."""
        timeframe = None if selection.timeframe is None else selection.timeframe.value
        return tuple(
            Wildcard(selection.channel, exchange, timeframe) for exchange in selection.exchanges
        )

    async def prepare(self, asked: Subscribe, session: Session) -> Plan:
        """Return the plan of a request; raises `RefusedError` where something in it can't be had, and nothing is begun."""
        selection = asked.selection
        known = await self._known_markets(selection)
        timeframe = None if selection.timeframe is None else selection.timeframe.value
        streams = {
            Stream(selection.channel, market.key, timeframe): known[market] for market in known
        }
        session.check_quota(list(streams))
        self._check_rows(asked, len(streams))
        for key, seq in asked.resume.items():
            stream = Stream(selection.channel, key, timeframe)
            await self._past.check_resume(stream, seq, parameter=f"params.resume[{key}]")
        # From here on nothing waits: the positions below are all of one moment.
        planned = [
            self._planned(stream, market, asked, session) for stream, market in streams.items()
        ]
        return Plan(asked, planned, self.wildcards(selection))

    async def _known_markets(self, selection: Selection) -> dict[Market, KnownMarket]:
        found = await self._store.find_markets(selection.markets)
        for index, market in enumerate(selection.markets):
            if market not in found:
                raise RefusedError(
                    "unknown_market",
                    f"unknown market: {market.key!r}",
                    parameter=f"params.markets[{index}]",
                    allowed="markets of GET /v1/markets",
                )
        if selection.exchanges:
            unknown = await self._markets.unknown_exchanges(selection.exchanges)
            if unknown:
                raise RefusedError(
                    "unknown_exchange",
                    f"unknown exchange: {min(unknown)!r}",
                    parameter="params.markets",
                    allowed="exchanges of GET /v1/exchanges",
                )
        for exchange in selection.exchanges:
            tracked = await self._markets.tracked_markets(exchange)
            found.update(await self._store.find_markets(tracked))
        return found

    @staticmethod
    def _check_rows(asked: Subscribe, streams: int) -> None:
        if asked.snapshot * streams > MAX_SNAPSHOT_ROWS:
            raise RefusedError(
                "invalid_parameter",
                f"{streams} snapshots of {asked.snapshot} rows are too much at once",
                parameter="params.snapshot",
                allowed=f"at most {MAX_SNAPSHOT_ROWS // max(1, streams)} for so many markets",
            )

    def _planned(
        self, stream: Stream, market: KnownMarket, asked: Subscribe, session: Session
    ) -> Planned:
        resumed = asked.resume.get(stream.market)
        snapshot = resumed is None and asked.snapshot > 0
        existing = session.get(stream)
        after = resumed or self._past.position(stream)
        if existing is not None and resumed is None and not snapshot:
            return Planned(stream, market, after, existing, snapshot=False, joined=True)
        subscription = Subscription(stream, from_offset=after.offset + 1)
        return Planned(stream, market, after, subscription, snapshot=snapshot, joined=False)

    async def read_snapshots(self, plan: Plan) -> None:
        """Read the plan's snapshots, all from one state of the database, and settle where each stream goes on."""
        wanted = {
            planned.market.market_key: planned for planned in plan.streams if planned.snapshot
        }
        if not wanted:
            return
        places = {key: planned.after.partition for key, planned in wanted.items()}
        if plan.asked.selection.channel == "trades":
            await self._read_trades(plan, wanted, places)
        else:
            await self._read_candles(plan, wanted, places)

    async def _read_trades(
        self, plan: Plan, wanted: dict[int, Planned], places: dict[int, int]
    ) -> None:
        snapshots = await self._store.trade_snapshots(places, plan.asked.snapshot)
        for key, planned in wanted.items():
            snapshot = snapshots[key]
            self._check_epoch(planned, snapshot.epoch)
            planned.after = planned.after._replace(offset=snapshot.next_offset - 1)
            planned.subscription.from_offset = snapshot.next_offset
            text = trade_snapshot(planned.stream, planned.after, snapshot.trades)
            plan.put_snapshot(planned.stream, text)

    async def _read_candles(
        self, plan: Plan, wanted: dict[int, Planned], places: dict[int, int]
    ) -> None:
        timeframe = plan.asked.selection.timeframe
        assert timeframe is not None
        snapshots = await self._store.candle_snapshots(places, timeframe, plan.asked.snapshot)
        for key, planned in wanted.items():
            snapshot = snapshots[key]
            self._check_epoch(planned, snapshot.epoch)
            planned.subscription.hold(
                snapshot.candles, epoch=snapshot.epoch, next_offset=snapshot.next_offset
            )
            text = candle_snapshot(planned.stream, planned.after, snapshot.candles)
            plan.put_snapshot(planned.stream, text)

    def _check_epoch(self, planned: Planned, epoch: int) -> None:
        if epoch != planned.after.epoch:
            raise too_old(planned.stream, planned.after, parameter="params.snapshot")

    async def catch_up(self, planned: Planned, *, emit: Emit, register: Callable[[], None]) -> None:
        """Emit what the stream had since its place, then register it for what comes, with no hole between."""
        await self._past.catch_up(planned.stream, planned.after, emit=emit, register=register)
