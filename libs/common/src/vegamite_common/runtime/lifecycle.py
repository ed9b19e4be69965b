"""The life of a process: start, run until a signal, drain, end with a code that says why.

SIGTERM and SIGINT set a flag (`Stop`); a service's `run` sees it, takes nothing new, drains, flushes and returns. All
has 25 s, inside Kubernetes' 30; then it is cancelled. A bug crashes the process through the `TaskGroup`; an operational
fault never reaches here: services retry those.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import structlog
import uvloop

from vegamite_common.bus.port import BusError
from vegamite_common.runtime.config_error import ConfigError
from vegamite_common.runtime.health import Health

if TYPE_CHECKING:
    import asyncpg

    from vegamite_common.bus.port import Bus
    from vegamite_common.runtime.clock import Clock

DRAIN_SECONDS = 25.0
"""How long a service may take from the signal to its end."""

EXIT_OK = 0
EXIT_BUG = 1
EXIT_CONFIG = 2
EXIT_DRAIN_LIMIT = 3

_SIGNALS = (signal.SIGTERM, signal.SIGINT)
log = structlog.get_logger(__name__)


class StartError(Exception):
    """The service can't start for a reason that the operator can mend; the text is one plain sentence."""


_REFUSED = (ConfigError, StartError, BusError)
"""What ends a start with one sentence. Once it runs, a service retries a `BusError` itself."""


class Stop:
    """The request to stop: set once, never withdrawn.

    `watched` is true once somebody has asked for it or waits for it. Before, a process is still starting: nobody there
    would see the request, so the process ends what it does instead.
    """

    def __init__(self) -> None:
        self._event = asyncio.Event()
        self.watched = False

    @property
    def requested(self) -> bool:
        """True from the first request on."""
        self.watched = True
        return self._event.is_set()

    def request(self) -> None:
        """Ask everyone who holds this to drain and return."""
        self._event.set()

    async def wait(self) -> None:
        """Return once a stop is requested."""
        self.watched = True
        await self._event.wait()

    async def arrival(self) -> None:
        """Return once a stop is requested; who waits so doesn't count as watching."""
        await self._event.wait()

    async def wait_for(self, seconds: float) -> bool:
        """Wait at most `seconds` (real ones) for the request; True where it came. A sleep that a stop cuts short."""
        if self.requested:
            return True
        try:
            async with asyncio.timeout(seconds):
                await self._event.wait()
        except TimeoutError:
            return False
        return True


class Service(Protocol):
    """One of the services, built and ready to run."""

    @property
    def name(self) -> str:
        """`collector`, `aggregator` or `api`."""
        ...

    @property
    def health(self) -> Health:
        """Liveness and readiness of its loop."""
        ...

    async def run(self, stop: Stop) -> None:
        """Work until `stop` is requested, then drain and return; raises only on a bug."""
        ...


@dataclass(frozen=True, kw_only=True)
class Resources:
    """What a process's services share, opened and closed by whoever made it."""

    clock: Clock
    bus: Bus
    pool: asyncpg.Pool[asyncpg.Record]


async def run_until_stopped(
    main: Callable[[Stop], Awaitable[None]],
    *,
    stop: Stop | None = None,
    drain_seconds: float = DRAIN_SECONDS,
) -> int:
    """Run `main(stop)` with the signals bound to `stop`; returns the exit code. A bug propagates.

    A second signal while draining cancels at once; so does the end of `drain_seconds` after the first. A signal while
    starting, before anything watches `stop`, cancels too, and ends well.
    """
    stop = stop or Stop()
    signalled = False
    loop = asyncio.get_running_loop()
    task = loop.create_task(_as_coroutine(main(stop)), name="main")

    def on_signal(number: signal.Signals) -> None:
        nonlocal signalled
        again, signalled = signalled, True
        if again:
            log.warning("stopping at once", signal=number.name)
            task.cancel()
        else:
            log.info("stopping", signal=number.name)
            stop.request()

    for number in _SIGNALS:
        loop.add_signal_handler(number, on_signal, number)
    try:
        return await _drained(task, stop, drain_seconds)
    finally:
        for number in _SIGNALS:
            loop.remove_signal_handler(number)


async def _drained(task: asyncio.Task[None], stop: Stop, drain_seconds: float) -> int:
    waiting = asyncio.create_task(stop.arrival(), name="stop")
    starting = False
    try:
        await asyncio.wait({task, waiting}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            starting = not stop.watched
            if starting:
                task.cancel()
            await asyncio.wait({task}, timeout=drain_seconds)
    finally:
        waiting.cancel()
    if task.done() and not task.cancelled():
        task.result()
        return EXIT_OK
    if task.done() and starting:
        return EXIT_OK
    if not task.done():
        log.error("drain took too long; cancelled", limit_seconds=drain_seconds)
        task.cancel()
        await asyncio.wait({task}, timeout=2.0)
    return EXIT_DRAIN_LIMIT


async def _as_coroutine(awaitable: Awaitable[None]) -> None:
    await awaitable


async def run_services(services: list[Service], stop: Stop) -> None:
    """Run several services side by side until `stop`; the bug of one stops all and propagates as an `ExceptionGroup`."""
    async with asyncio.TaskGroup() as group:
        for service in services:
            group.create_task(service.run(stop), name=service.name)


def run_process(main: Callable[[Stop], Coroutine[Any, Any, None]]) -> int:
    """Run a service's process on uvloop and return its exit code, for `sys.exit`.

    0: drained after a signal, or done. 1: a bug (logged with its traceback). 2: configuration or start refused, in one
    sentence on stderr. 3: the drain limit passed or a second signal came.
    """
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(run_until_stopped(main))
    except _REFUSED as error:
        sys.stderr.write(f"{error}\n")
        return EXIT_CONFIG
    except KeyboardInterrupt:
        return EXIT_DRAIN_LIMIT
    except BaseExceptionGroup as group:
        refused = group.subgroup(_REFUSED)
        if refused is not None and group.split(_REFUSED)[1] is None:
            for leaf in _leaves(refused):
                sys.stderr.write(f"{leaf}\n")
            return EXIT_CONFIG
        log.critical("crashed", exc_info=group)
        return EXIT_BUG
    except Exception as error:
        log.critical("crashed", exc_info=error)
        return EXIT_BUG


def _leaves(group: BaseExceptionGroup[BaseException]) -> list[BaseException]:
    found: list[BaseException] = []
    for error in group.exceptions:
        found += _leaves(error) if isinstance(error, BaseExceptionGroup) else [error]
    return found
