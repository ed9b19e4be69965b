"""Writing through the client's batching: what was handed over, and what came of it.

The client collects what it is given into batches, by number and by time, sends one after the other from a thread of its
own, retries what may be retried (exponentially, with jitter, a few times), and calls back. So a flight, all points handed
over at once, is done when the bytes called back are those handed over; its batches may come in any order.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from influxdb_client.client.influxdb_client import InfluxDBClient
from influxdb_client.client.write_api import WriteApi, WriteOptions
from reactivex.scheduler import ThreadPoolScheduler

from vegamite_aggregator.config import InfluxSection
from vegamite_aggregator.ports import SinkError

PARCEL_LINES = 100
"""Lines that are handed over as one, since the client's work is by what it is handed; a batch has whole parcels."""

_CLIENT_RETRIES = 3
_LONGEST_RETRY_MS = 5_000
_CLOSE_MS = 1_000
_MARGIN_SECONDS = 30.0


class _AbandonedError(Exception):
    """The process ends, and doesn't wait for retries."""


class Failure:
    """A batch that the client gave up: the bucket, its lines, and why."""

    def __init__(self, bucket: str, lines: list[bytes], error: BaseException) -> None:
        self.bucket = bucket
        self.lines = lines
        self.error = error


class _Flight:
    """What was handed over, and how much of it was called back; a parcel counts its bytes and one line's end."""

    def __init__(self, weight: int) -> None:
        self.left = weight
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.failures: list[Failure] = []

    def take(self, weight: int, failure: Failure | None) -> None:
        """Something was called back."""
        self.left -= weight
        if failure is not None:
            self.failures.append(failure)
        if self.left <= 0 and not self.done.done():
            self.done.set_result(None)


class _Channel:
    """One writing client, with the flight that it is on; thrown away with a flight that was given up."""

    def __init__(
        self, client: InfluxDBClient, section: InfluxSection, on_retry: Callable[[], None]
    ) -> None:
        self.flight: _Flight | None = None
        self._abandoned = False
        self._on_retry = on_retry
        self._loop = asyncio.get_running_loop()
        # The options' own default is one thread for all clients of the process.
        self._scheduler = ThreadPoolScheduler(max_workers=1)
        longest = min(_LONGEST_RETRY_MS, section.max_retry_interval_ms)
        self._api: WriteApi = client.write_api(
            write_options=WriteOptions(
                batch_size=max(1, section.batch_size // PARCEL_LINES),
                flush_interval=section.flush_interval_ms,
                jitter_interval=section.jitter_interval_ms,
                retry_interval=min(section.retry_interval_ms, longest),
                max_retries=_CLIENT_RETRIES,
                max_retry_delay=longest,
                max_retry_time=_CLIENT_RETRIES * (longest + section.timeout_ms),
                exponential_base=2,
                max_close_wait=_CLOSE_MS,
                write_scheduler=self._scheduler,
            ),
            success_callback=self._succeeded,
            error_callback=self._failed,
            retry_callback=self._retried,
        )

    def hand_over(self, parcels: Sequence[tuple[str, bytes]]) -> None:
        """Give the client what it is to write; may block, so not for the event loop."""
        for bucket, parcel in parcels:
            self._api.write(bucket=bucket, record=parcel)

    def abandon(self) -> None:
        """Drop what waits; what is being sent gets its answer, or its time limit, and nobody hears of it."""
        self._abandoned = True
        self.flight = None

    def shut(self) -> None:
        """End the client's threads; blocks for about a second, so not for the event loop."""
        self._scheduler.executor.shutdown(wait=False, cancel_futures=True)
        close: Callable[[], None] = self._api.close
        close()

    # The client calls these from its threads.

    def _succeeded(self, _target: Any, data: bytes) -> None:
        self._tell(self._take, len(data) + 1, None)

    def _failed(self, target: Any, data: bytes, error: BaseException) -> None:
        self._tell(self._take, len(data) + 1, Failure(target[0], data.split(b"\n"), error))

    def _retried(self, _target: Any, _data: bytes, error: BaseException) -> None:
        if self._abandoned:
            raise _AbandonedError from error
        self._tell(self._on_retry)

    def _tell(self, what: Callable[..., None], *arguments: object) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(what, *arguments)

    def _take(self, weight: int, failure: Failure | None) -> None:
        if self.flight is not None:
            self.flight.take(weight, failure)


class BatchWriter:
    """Writes one flight at a time."""

    def __init__(
        self, client: InfluxDBClient, section: InfluxSection, on_retry: Callable[[], None]
    ) -> None:
        """Begin; `on_retry` is called on the event loop whenever the client tries something again."""
        self._client = client
        self._section = section
        self._on_retry = on_retry
        self._channel = _Channel(client, section, on_retry)
        self._ending: set[asyncio.Task[None]] = set()

    async def write(self, lines: dict[str, list[bytes]]) -> list[Failure]:
        """Write lines, by bucket, and return the batches that failed; raises `SinkError` when no word comes of them.

        Cancelled, it gives up what it can; a request that is under way may still reach the server.
        """
        parcels = [
            (bucket, b"\n".join(some[at : at + PARCEL_LINES]))
            for bucket, some in lines.items()
            for at in range(0, len(some), PARCEL_LINES)
        ]
        if not parcels:
            return []
        channel = self._channel
        flight = channel.flight = _Flight(sum(len(parcel) + 1 for _, parcel in parcels))
        try:
            async with asyncio.timeout(self._patience(len(parcels))):
                await asyncio.to_thread(channel.hand_over, parcels)
                await flight.done
        except BaseException as error:
            self._replace_channel()
            if isinstance(error, TimeoutError):
                # Not expected of the client; but to wait for ever would be worse than to write twice.
                raise SinkError("away", "the client gave no word of what it was to write") from None
            raise
        channel.flight = None
        return flight.failures

    async def close(self) -> None:
        """Give up what is waiting, and end the client's threads."""
        self._channel.abandon()
        await asyncio.to_thread(self._channel.shut)
        if self._ending:
            await asyncio.wait(self._ending)

    def _replace_channel(self) -> None:
        """Leave the client to what it still has, where nobody mistakes its word for that of the next flight."""
        left, self._channel = (
            self._channel,
            _Channel(self._client, self._section, self._on_retry),
        )
        left.abandon()
        ending = asyncio.create_task(asyncio.to_thread(left.shut), name="influx-shut")
        self._ending.add(ending)
        ending.add_done_callback(self._ending.discard)

    def _patience(self, parcels: int) -> float:
        """The longest that so many parcels may take, in seconds: each batch with all of its retries."""
        section = self._section
        batches = 2 + parcels // max(1, section.batch_size // PARCEL_LINES)
        each = (_CLIENT_RETRIES + 1) * (
            section.timeout_ms + _LONGEST_RETRY_MS + section.jitter_interval_ms
        )
        return _MARGIN_SECONDS + (batches * each + section.flush_interval_ms) / 1000
