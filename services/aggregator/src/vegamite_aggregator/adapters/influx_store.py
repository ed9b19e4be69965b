"""`PointStore` over any server with the write API of InfluxDB 2."""

import asyncio
from collections.abc import Callable, Sequence
from typing import TypeVar

from influxdb_client.client.influxdb_client import InfluxDBClient
from influxdb_client.client.write_api import SYNCHRONOUS

from vegamite_aggregator.adapters import influx_query
from vegamite_aggregator.adapters.influx_bucket import prepare_buckets
from vegamite_aggregator.adapters.influx_client import (
    FAULTS,
    WRONG_POINTS,
    as_sink_error,
    open_client,
    status_of,
    words_of,
)
from vegamite_aggregator.adapters.influx_deletion import delete_candles
from vegamite_aggregator.adapters.influx_writing import BatchWriter
from vegamite_aggregator.config import InfluxSection
from vegamite_aggregator.core.point import BucketRole, Point
from vegamite_aggregator.core.written import Series, Slots, Window
from vegamite_aggregator.ports import Rejected, SinkError
from vegamite_common.domain.candle import StateOrder
from vegamite_common.domain.market import Market
from vegamite_common.domain.time import Micros
from vegamite_common.domain.timeframe import Timeframe

REJECTIONS_IN_A_ROW = 100
"""After so many rejected points without one that is taken, it isn't the points that are wrong."""

_EXPIRED = ("beyond retention policy", "retention policy duration")
AnswerT = TypeVar("AnswerT")


class InfluxPointStore:
    """Writes by the client's batching, asks by Flux; nothing here keeps points over a failure."""

    def __init__(
        self, section: InfluxSection, *, url: str, token: str, on_retry: Callable[[], None]
    ) -> None:
        """Build the client; must be called where an event loop runs. `on_retry` counts what the client tries again."""
        self._section = section
        self._url = url
        self._token = token
        self._client: InfluxDBClient = open_client(section, url=url, token=token)
        self._writer = BatchWriter(self._client, section, on_retry)
        self._plain = self._client.write_api(write_options=SYNCHRONOUS)
        self._buckets: dict[BucketRole, str] = {
            "recent": section.bucket,
            "downsampled": section.downsampled_bucket,
        }
        self._rejected_in_a_row = 0

    async def prepare(self) -> None:
        """Make the buckets and set their retention, unless somebody else does."""
        if self._section.manage_buckets:
            await self._ask(
                lambda: prepare_buckets(
                    self._client, self._section, url=self._url, token=self._token
                )
            )

    async def newest_trades(self, markets: Sequence[Market], since: Micros) -> dict[Market, Micros]:
        """Return the event time of each market's newest trade from `since` on."""
        bucket = self._buckets["recent"]
        return await self._ask(
            lambda: influx_query.newest_trades(self._client, bucket, markets, since)
        )

    async def newest_candles(
        self, markets: Sequence[Market], since: Micros
    ) -> dict[Market, dict[Timeframe, Micros]]:
        """Return the open times of each market's newest candles from `since` on, by timeframe."""
        found: dict[Market, dict[Timeframe, Micros]] = {}
        for bucket in self._buckets.values():
            part = await self._ask(
                lambda bucket=bucket: influx_query.newest_candles(  # type: ignore[misc]
                    self._client, bucket, markets, since
                )
            )
            for market, times in part.items():
                known = found.setdefault(market, {})
                for timeframe, time in times.items():
                    known[timeframe] = max(time, known.get(timeframe, time))
        return found

    async def trades(self, window: Window) -> dict[Series, dict[Micros, Slots]]:
        """Return the slots of the trades in a window, by event time."""
        bucket = self._buckets["recent"]
        return await self._ask(lambda: influx_query.stored_trades(self._client, bucket, window))

    async def candles(self, window: Window) -> dict[Series, dict[Micros, StateOrder]]:
        """Return the states of the candles in a window, by open time."""
        bucket = self._buckets[self._section.role_of(window.timeframe)]
        return await self._ask(lambda: influx_query.stored_candles(self._client, bucket, window))

    async def candle_times(
        self,
        market: Market,
        timeframe: Timeframe,
        *,
        from_time: Micros,
        to_time: Micros,
        limit: int,
    ) -> Sequence[Micros]:
        """Return the first open times in [from_time, to_time) at which there are candles."""
        bucket = self._buckets[self._section.role_of(timeframe)]
        return await self._ask(
            lambda: influx_query.candle_times(
                self._client,
                bucket,
                market,
                timeframe,
                first=from_time,
                last=to_time - 1,
                limit=limit,
            )
        )

    async def delete_candles(
        self, market: Market, timeframe: Timeframe, *, first: Micros, last: Micros
    ) -> bool:
        """Delete the candles that open from `first` to `last`; see the port."""
        bucket = self._buckets[self._section.role_of(timeframe)]
        return await self._ask(
            lambda: delete_candles(
                self._client,
                self._section,
                market,
                timeframe,
                url=self._url,
                token=self._token,
                bucket=bucket,
                first=first,
                last=last,
            )
        )

    async def write(self, points: Sequence[Point]) -> Sequence[Rejected]:
        """Write points, and return those that were rejected; see the port."""
        lines: dict[str, list[bytes]] = {}
        for point in points:
            lines.setdefault(self._buckets[point.bucket], []).append(point.line)
        failures = await self._writer.write(lines)
        for failure in failures:
            if status_of(failure.error) not in WRONG_POINTS:
                raise as_sink_error(failure.error)
        if len(failures) == 0:
            self._rejected_in_a_row = 0
        rejected: list[Rejected] = []
        for failure in failures:
            rejected += await self._ask(
                lambda failure=failure: self._sort_out(failure.bucket, failure.lines)  # type: ignore[misc]
            )
        return rejected

    async def close(self) -> None:
        """Give up what is under way, and disconnect."""
        await self._writer.close()
        await asyncio.to_thread(self._client.close)

    async def _ask(self, question: Callable[[], AnswerT]) -> AnswerT:
        try:
            return await asyncio.to_thread(question)
        except FAULTS as error:
            raise as_sink_error(error) from error

    def _sort_out(self, bucket: str, lines: list[bytes]) -> list[Rejected]:
        """Write lines of which some are wrong, halving them until the wrong ones stand alone."""
        try:
            self._plain.write(bucket=bucket, record=b"\n".join(lines))
        except FAULTS as error:
            if status_of(error) not in WRONG_POINTS:
                raise
            if len(lines) > 1:
                half = len(lines) // 2
                return self._sort_out(bucket, lines[:half]) + self._sort_out(bucket, lines[half:])
            words = words_of(error)
            expired = any(phrase in words for phrase in _EXPIRED)
            self._rejected_in_a_row += not expired
            if self._rejected_in_a_row > REJECTIONS_IN_A_ROW:
                raise SinkError("rejecting", words) from None
            return [Rejected(line=lines[0], reason=words, expired=expired)]
        self._rejected_in_a_row = 0
        return []
