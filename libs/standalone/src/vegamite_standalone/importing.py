"""`vegamite import`: the bulk job over an instance that isn't running, or over a deployed system."""

from dataclasses import dataclass
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

from vegamite_aggregator.config import AggregatorSettings
from vegamite_common.domain.time import format_time
from vegamite_common.runtime.lifecycle import Stop
from vegamite_standalone.archive.import_job import (
    ImportRequest,
    ImportResult,
    read_archives,
    store_archives,
)
from vegamite_standalone.cluster_system import open_cluster
from vegamite_standalone.local_system import (
    hold_data_directory,
    open_local_system,
    run_aggregator,
)
from vegamite_standalone.settings import ProcessSettings


class ImportBar:
    """The import's three steps as bars on a terminal; silent where nobody watches. Safe to call from a thread."""

    def __init__(self, console: Console) -> None:
        """Draw on `console` between `__enter__` and `__exit__`."""
        self._progress = Progress(
            TextColumn("{task.description:<8}"),
            BarColumn(),
            TaskProgressColumn(),
            TimeElapsedColumn(),
            console=console,
            disable=not console.is_terminal,
            transient=True,
        )
        self._tasks = {
            name: self._progress.add_task(name, total=None, start=False)
            for name in ("reading", "sending", "storing")
        }

    def reading(self, done: int, total: int) -> None:
        """`done` of `total` bytes are read."""
        self._update("reading", done, total)

    def sending(self, done: int, total: int) -> None:
        """`done` of `total` records are sent."""
        self._update("sending", done, total)

    def storing(self, stored: int, total: int) -> None:
        """`stored` of at most `total` trades are stored."""
        self._update("storing", stored, total)

    def _update(self, name: str, done: int, total: int) -> None:
        task = self._tasks[name]
        self._progress.start_task(task)
        self._progress.update(task, completed=done, total=max(total, 1))

    def __enter__(self) -> "ImportBar":
        """Begin to draw."""
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Leave the terminal as it was."""
        self._progress.stop()


@dataclass
class ImportOutcome:
    """Where `import_into_*` leaves its result for whoever prints it."""

    result: ImportResult | None = None


async def import_into_directory(
    settings: ProcessSettings, request: ImportRequest, outcome: ImportOutcome, stop: Stop
) -> None:
    """Import into the instance of the data directory, which must not be running: its own database, bus and aggregator."""
    section = settings.standalone.standalone
    now = settings.standalone.clock.clock().now()
    with ImportBar(Console(stderr=True)) as bar:
        async with read_archives(request, now=now, stop=stop, progress=bar) as read:
            if not read.empty:
                async with (
                    hold_data_directory(section) as directory,
                    open_local_system(settings.standalone, directory=directory) as system,
                    run_aggregator(settings.aggregator, system.resources),
                ):
                    await store_archives(read, resources=system.resources, stop=stop, progress=bar)
            outcome.result = read.result


async def import_into_cluster(
    settings: AggregatorSettings, request: ImportRequest, outcome: ImportOutcome, stop: Stop
) -> None:
    """Import through Kafka; whichever aggregator owns the market's partition stores it."""
    now = settings.clock.clock().now()
    with ImportBar(Console(stderr=True)) as bar:
        async with read_archives(request, now=now, stop=stop, progress=bar) as read:
            if not read.empty:
                async with open_cluster(settings, name="vegamite-import") as resources:
                    await store_archives(read, resources=resources, stop=stop, progress=bar)
            outcome.result = read.result


def describe(request: ImportRequest, result: ImportResult) -> list[str]:
    """Return what an import came to, in plain lines: first the sum, then what was left out and why."""
    found = result.findings
    lines = [
        (
            f"{request.market.key}: {found.trades} trades read, {result.stored} new,"
            f" {result.duplicates} already stored, {sum(found.quarantined.values())} quarantined"
        )
    ]
    lines += [
        f"quarantined for their {reason.replace('_', ' ')}: {count}"
        for reason, count in sorted(found.quarantined.items())
    ]
    if result.expired:
        lines.append(
            f"{result.expired} trades are of expired time and were left out: --from and --to, where every trade"
            " between them is in the files, bring it back"
        )
    if found.skipped:
        lines.append(f"{found.skipped} broken lines left out, the first of them:")
        lines += [f"  {told}" for told in found.first_skipped]
    if result.covered is not None:
        begin, end = map(format_time, result.covered)
        lines.append(f"complete from {begin} to {end}")
    elif request.covered is not None:
        lines.append("not taken as complete: not every line of every file is a stored trade")
    return lines
