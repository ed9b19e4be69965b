"""The figures of the comparison, as JSON and as tables."""

import statistics
from collections.abc import Mapping, Sequence

from measuring import Run

GOALS = {
    ("vegamite", "quix"): 12.0,
    ("vegamite", "bytewax"): 3.0,
    ("vegamite", "kafka-streams"): 1.0,
    ("vegamite-postgres", "quix-postgres"): 8.0,
}
PEERS = ("quix", "quix-tuned", "bytewax", "bytewax-tuned", "kafka-streams")
PAIRS = (
    *(("vegamite", peer) for peer in PEERS),
    *(("vegamite-wire", peer) for peer in PEERS),
    ("vegamite-postgres", "quix-postgres"),
    ("vegamite-postgres", "quix-postgres-wire"),
)


def figures(run: Run) -> dict[str, float]:
    """Return one run's figures, as they go into JSON."""
    return {
        "trades": run.samples[-1].trades,
        "startup_seconds": round(run.startup(), 2),
        "warm_up_rate": round(run.warming()),
        "steady_rate": round(run.steady()),
        "whole_rate": round(run.whole()),
        "processor_seconds_per_million": round(run.processor_cost(), 2),
        "candles": len(run.candles),
    }


def table(programs: Mapping[str, str], rounds: Sequence[Mapping[str, Run]]) -> str:
    """Return every program's figures in Markdown; `programs` says what each does."""
    titles = (
        "program",
        "what",
        "start-up, s",
        "first third, trades/s",
        "steady, trades/s",
        "first to last, trades/s",
        "processor s a million trades",
    )
    lines = [f"| {' | '.join(titles)} |", "|---" * len(titles) + "|"]
    for name, what in programs.items():
        runs = [results[name] for results in rounds]
        cells = [
            name,
            what,
            _spread([run.startup() for run in runs], 1),
            _spread([run.warming() for run in runs]),
            _spread([run.steady() for run in runs]),
            _spread([run.whole() for run in runs]),
            _spread([run.processor_cost() for run in runs], 2),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def ratio_table(rounds: Sequence[Mapping[str, Run]]) -> str:
    """Return ours against each peer, run by run, in Markdown."""
    lines = ["| ours | against | steady | first to last | goal |", "|---|---|---|---|---|"]
    for own, peer in PAIRS:
        pairs = [(each[own], each[peer]) for each in rounds if own in each and peer in each]
        if not pairs:
            continue
        steady = [one.steady() / other.steady() for one, other in pairs]
        whole = [one.whole() / other.whole() for one, other in pairs]
        cells = [own, peer, _spread(steady, 2, "x"), _spread(whole, 2, "x")]
        # The database's rows come in few large commits: only the whole says how fast they do.
        judged = whole if own == "vegamite-postgres" else steady
        lines.append(f"| {' | '.join(cells)} | {_verdict(judged, GOALS.get((own, peer)))} |")
    return "\n".join(lines)


def _verdict(ratios: Sequence[float], goal: float | None) -> str:
    if goal is None:
        return "none"
    reached = statistics.median(ratios) >= goal
    return f">= {goal:g}x: {'reached' if reached else 'MISSED'}"


def _spread(values: Sequence[float], digits: int = 0, unit: str = "") -> str:
    """Return the median, and the least and the greatest in brackets."""
    middle = f"{statistics.median(values):,.{digits}f}{unit}"
    return f"{middle} [{min(values):,.{digits}f} … {max(values):,.{digits}f}]"
