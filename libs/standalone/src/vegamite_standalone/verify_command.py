"""What `vegamite verify` was asked for, checked before anything is touched, and then done."""

import contextlib
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from vegamite_aggregator.config import AggregatorSettings
from vegamite_common.domain.market import Market
from vegamite_common.domain.timeframe import Timeframe
from vegamite_common.runtime.lifecycle import EXIT_BUG, EXIT_CONFIG, EXIT_OK, Stop, run_process
from vegamite_standalone.process_log import configure_command_log
from vegamite_standalone.settings import ProcessSettings
from vegamite_standalone.target import load_target, parse_range
from vegamite_standalone.verifying import (
    VerifyOutcome,
    VerifyRequest,
    advise,
    summarise,
    verify,
)

EXIT_EQUAL = EXIT_OK
EXIT_DIFFERENT = EXIT_BUG


@dataclass(frozen=True, kw_only=True)
class PreparedVerify:
    """A request, what is compared, and the options that say so."""

    request: VerifyRequest
    target: ProcessSettings | AggregatorSettings
    where: Sequence[str]


def prepare_verify(
    *,
    markets: Sequence[str],
    begin: str | None,
    end: str | None,
    timeframes: Sequence[str],
    as_json: bool,
    data_dir: Path | None,
    config: Path | None,
) -> PreparedVerify:
    """Check the command line; ValueError or ConfigError says what is wrong with it."""
    from_time, to_time = parse_range(begin, end)
    request = VerifyRequest(
        markets=[Market.parse(market) for market in markets],
        from_time=from_time,
        to_time=to_time,
        timeframes=frozenset(map(_timeframe, timeframes)) or frozenset(Timeframe),
        as_json=as_json,
    )
    target, where = load_target(data_dir=data_dir, config=config)
    return PreparedVerify(request=request, target=target, where=where)


def _timeframe(text: str) -> Timeframe:
    try:
        return Timeframe(text)
    except ValueError:
        known = " ".join(timeframe.value for timeframe in Timeframe)
        raise ValueError(f"no timeframe is called {text[:20]!r}; they are {known}") from None


def run_verify(prepared: PreparedVerify) -> int:
    """Compare and print; returns the exit code: 0 equal, 1 different, 2 not possible."""
    outcome = VerifyOutcome()
    configure_command_log()

    async def main(stop: Stop) -> None:
        await verify(prepared.target, prepared.request, outcome, stop)

    run_process(main)
    if outcome.done:
        with contextlib.suppress(BrokenPipeError):
            _conclude(prepared, outcome)
            sys.stdout.flush()
    elif outcome.unread:
        # Python would complain of what it can't write at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    else:
        return EXIT_CONFIG
    return EXIT_DIFFERENT if outcome.differing else EXIT_EQUAL


def _conclude(prepared: PreparedVerify, outcome: VerifyOutcome) -> None:
    said = sys.stderr if prepared.request.as_json else sys.stdout
    lines = [summarise(outcome)]
    if not prepared.request.as_json:
        lines += advise(outcome, prepared.where)
    said.write("".join(f"{line}\n" for line in lines))
