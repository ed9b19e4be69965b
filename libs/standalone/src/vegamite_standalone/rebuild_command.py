"""What `vegamite rebuild` was asked for, checked before anything is touched, and then done."""

from dataclasses import dataclass
from pathlib import Path

from vegamite_aggregator.config import AggregatorSettings
from vegamite_common.domain.market import Market
from vegamite_common.runtime.lifecycle import EXIT_CONFIG, Stop, run_process
from vegamite_standalone.process_log import configure_command_log
from vegamite_standalone.rebuilding import (
    RebuildOutcome,
    RebuildRequest,
    describe_rebuild,
    rebuild,
)
from vegamite_standalone.settings import ProcessSettings
from vegamite_standalone.target import load_target, parse_range


@dataclass(frozen=True, kw_only=True)
class PreparedRebuild:
    """A request, and whose candles it is about."""

    request: RebuildRequest
    target: ProcessSettings | AggregatorSettings


def prepare_rebuild(
    *,
    market: str,
    begin: str,
    end: str,
    idle_seconds: float,
    data_dir: Path | None,
    config: Path | None,
) -> PreparedRebuild:
    """Check the command line; ValueError or ConfigError says what is wrong with it."""
    chosen = Market.parse(market)
    from_time, to_time = parse_range(begin, end)
    assert from_time is not None
    assert to_time is not None
    target, _ = load_target(data_dir=data_dir, config=config)
    request = RebuildRequest(
        market=chosen, from_time=from_time, to_time=to_time, idle_seconds=idle_seconds
    )
    return PreparedRebuild(request=request, target=target)


def run_rebuild(prepared: PreparedRebuild) -> tuple[int, list[str]]:
    """Have it computed; returns the exit code, and what to print."""
    outcome = RebuildOutcome()
    configure_command_log()

    async def main(stop: Stop) -> None:
        await rebuild(prepared.target, prepared.request, outcome, stop)

    code = run_process(main)
    if not outcome.done:
        return code or EXIT_CONFIG, []
    return code, describe_rebuild(prepared.request, outcome)
