"""Revisions of so many candles that none of them is published: read where they are, and written as the others are.

The topic that tells of them and that of the candles are read side by side, by whichever replicas, and InfluxDB can't
compare and set. So a range is read after InfluxDB has all that the candles' topic had when it was told of (older states
come first), and read again behind what was written of it, until nothing newer is there (newer ones stay last).

A range that a rebuild corrected may have lost candles: where the system of record has none, and not because it expired
there, the point is deleted before the range is written.
"""

from collections.abc import Awaitable, Callable, Container, Iterable, Iterator, Mapping, Sequence
from itertools import groupby

import structlog

from vegamite_aggregator.config import InfluxSection
from vegamite_aggregator.core.facts import Quarantined
from vegamite_aggregator.core.placement import Placement
from vegamite_aggregator.core.point import can_be_written, candle_point, market_tags
from vegamite_aggregator.metrics import SINK_POINTS, SINK_UNREAD
from vegamite_aggregator.ports import CandlePage, CandleReader, PointStore, SinkError, StoreError
from vegamite_aggregator.service.sink_mapping import Placed, oldest_kept
from vegamite_common.bus.partition import partition_for
from vegamite_common.bus.port import Message
from vegamite_common.domain.candle import Candle, StateOrder
from vegamite_common.domain.time import Micros, format_time
from vegamite_common.messages.codec import MessageError
from vegamite_common.messages.status import Revised, decode_status
from vegamite_common.runtime.clock import Clock

PAGE_CANDLES = 5_000
"""How many candles are read, and written, at a time."""

STREAM = "status"
UNREAD_STREAM = "unread"
CORRECTION = "correction"
"""Why candles that a rebuild took away were revised: nothing else takes any."""

log = structlog.get_logger(__name__)


def read_revised(
    taken: Mapping[int, Sequence[Message]], *, partitions: int
) -> tuple[list[tuple[int, int, Revised]], tuple[Quarantined, ...]]:
    """Return the `revised` records, each with its partition and offset, and what was refused."""
    revised: list[tuple[int, int, Revised]] = []
    refused: list[Quarantined] = []
    for partition, messages in taken.items():
        for message in messages:
            try:
                status = decode_status(message.value)
            except MessageError as error:
                text = str(error)[:500]
                refused.append(Quarantined(message.offset, None, "undecodable", text))
                continue
            if not isinstance(status, Revised):
                continue
            key = status.market.key.encode()
            if message.key != key or partition_for(key, partitions) != partition:
                detail = f"a record of {status.market.key} under the key {message.key!r}"[:500]
                refused.append(Quarantined(message.offset, status.market, "key", detail))
                continue
            revised.append((partition, message.offset, status))
    return revised, tuple(refused)


class UnreadMapping:
    """`revised` records where nobody reads what they tell of: counted, and the first one told."""

    def __init__(self, *, partitions: int) -> None:
        self._partitions = partitions
        self._told = False

    async def place(self, taken: Mapping[int, Sequence[Message]]) -> Placed:
        """Count the ranges, and return no points."""
        revised, refused = read_revised(taken, partitions=self._partitions)
        SINK_UNREAD.inc(len(revised))
        if revised and not self._told:
            self._told = True
            _, _, first = revised[0]
            log.warning(
                "InfluxDB lacks candles that a large job changed: read_revised is off",
                market=first.market.key,
                timeframe=first.timeframe.value,
                from_time=format_time(first.from_time),
                to_time=format_time(first.to_time),
                reason=first.reason,
            )
        return Placed(Placement(()), refused)

    def forget(self, partitions: Iterable[int]) -> None:
        """Nothing is known."""


class RevisionMapping:
    """`revised` records of `market.status.v1`; a `TopicMapping` that writes, page by page, what is too much for one flight."""

    def __init__(
        self,
        store: PointStore,
        reader: CandleReader,
        section: InfluxSection,
        *,
        clock: Clock,
        partitions: int,
        candles_written: Callable[[int], Awaitable[None]],
    ) -> None:
        """`candles_written(partition)` returns once InfluxDB has all that the candles' topic has of a partition now."""
        self._store = store
        self._reader = reader
        self._section = section
        self._clock = clock
        self._partitions = partitions
        self._candles_written = candles_written
        self._done: dict[int, dict[int, Micros]] = {}

    async def place(self, taken: Mapping[int, Sequence[Message]]) -> Placed:
        """Write what the records tell of, and return no points; after a `SinkError` it goes on where it was."""
        revised, refused = read_revised(taken, partitions=self._partitions)
        for partition, offset, told in revised:
            await self._copy(told, partition, offset)
        for partition in taken:
            self._done.pop(partition, None)
        return Placed(Placement(()), refused)

    def forget(self, partitions: Iterable[int]) -> None:
        """Forget how far the records of these partitions were carried out."""
        for partition in partitions:
            self._done.pop(partition, None)

    async def _copy(self, told: Revised, partition: int, offset: int) -> None:
        done = self._done.setdefault(partition, {})
        at = done.get(offset, told.from_time)
        if at == told.from_time:
            await self._candles_written(partition)
        while at < told.to_time:
            page = await self._page(told, at, told.to_time, PAGE_CANDLES)
            if told.reason == CORRECTION and self._section.read_back:
                await self._delete_lost(told, at, page)
            written: dict[Micros, StateOrder] = {}
            candles: Sequence[Candle] = page.candles
            while candles:
                await self._write(told, candles)
                written.update((candle.open_time, candle.state_order) for candle in candles)
                # Twice as many: what was added meanwhile mustn't hide the last ones.
                again = await self._page(told, at, page.to_time, 2 * PAGE_CANDLES)
                candles = [
                    candle
                    for candle in again.candles
                    if candle.state_order > written.get(candle.open_time, (-1, -1, False, -1))
                ]
            at = done[offset] = page.to_time

    async def _delete_lost(self, told: Revised, at: Micros, page: CandlePage) -> None:
        """Delete the points of a page that are no candles any more."""
        try:
            expired = await self._reader.expired_before(told.market, told.timeframe)
        except StoreError as error:
            raise SinkError("unread", str(error)) from error
        kept = {candle.open_time for candle in page.candles}
        at = max(at, expired)
        while at < page.to_time:
            times = await self._store.candle_times(
                told.market, told.timeframe, from_time=at, to_time=page.to_time, limit=PAGE_CANDLES
            )
            for first, last, count in _runs(times, kept):
                deleted = await self._store.delete_candles(
                    told.market, told.timeframe, first=first, last=last
                )
                SINK_POINTS.labels(STREAM, "deleted" if deleted else "rejected").inc(count)
                if not deleted:
                    log.warning(
                        "InfluxDB can't delete candles that are none any more",
                        market=told.market.key,
                        timeframe=told.timeframe.value,
                        first=format_time(first),
                        last=format_time(last),
                    )
            at = times[-1] + 1 if len(times) == PAGE_CANDLES else page.to_time

    async def _page(self, told: Revised, at: Micros, to_time: Micros, limit: int) -> CandlePage:
        try:
            return await self._reader.page(
                told.market, told.timeframe, from_time=at, to_time=to_time, limit=limit
            )
        except StoreError as error:
            raise SinkError("unread", str(error)) from error

    async def _write(self, told: Revised, candles: Sequence[Candle]) -> None:
        """Write those of the candles that belong into InfluxDB."""
        bucket = self._section.role_of(told.timeframe)
        oldest = oldest_kept(self._section, self._clock).get(bucket)
        wanted = [candle for candle in candles if candle.final or self._section.updates]
        kept = [candle for candle in wanted if oldest is None or candle.open_time >= oldest]
        possible = [candle for candle in kept if can_be_written(told.market, candle.open_time)]
        tags = market_tags(told.market)
        points = [candle_point(tags, candle, bucket) for candle in possible]
        rejected = await self._store.write(points) if points else ()
        expired = sum(one.expired for one in rejected)
        for outcome, count in (
            ("written", len(points) - len(rejected)),
            ("expired", len(wanted) - len(kept) + expired),
            ("rejected", len(kept) - len(points) + len(rejected) - expired),
        ):
            if count:
                SINK_POINTS.labels(STREAM, outcome).inc(count)
        wrong = [one for one in rejected if not one.expired]
        if wrong:
            log.warning(
                "InfluxDB rejected points", stream=STREAM, count=len(wrong), reason=wrong[0].reason
            )


def _runs(times: Sequence[Micros], kept: Container[Micros]) -> Iterator[tuple[Micros, Micros, int]]:
    """Yield the first, the last and the number of each run of times without one of `kept` between them."""
    for is_kept, run in groupby(times, key=lambda time: time in kept):
        if not is_kept:
            lost = list(run)
            yield lost[0], lost[-1], len(lost)
