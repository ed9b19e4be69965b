"""A minute of `make chaos`, as its users run it; and that its verdict can be trusted."""

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from tests.chaos.__main__ import judge
from tests.chaos.control import PHASES
from tests.chaos.environment import ROOT
from tests.chaos.run import Result

SEED = os.environ.get("VEGAMITE_TEST_SEED", "20191011")
ROUNDS = 5


@pytest.mark.timeout(420)
def test_whatever_is_killed_stopped_or_cut_what_is_stored_is_what_the_log_has() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.chaos", "--rounds", str(ROUNDS), "--seed", SEED],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=400,
    )

    sys.stdout.write(done.stdout)
    assert done.returncode == 0, done.stdout
    assert done.stdout.splitlines()[-1].startswith(
        f"chaos PASSED: seed {SEED}, {ROUNDS} of {ROUNDS}"
    )


_APPLY_ALL = """
from pathlib import Path
from tests.chaos.aggregator_process import tell_phases
from tests.chaos.control import Control
from tests.chaos.mutation import MUTATIONS
words = Control(Path({path!r}))
tell_phases(words)
for mutate in MUTATIONS.values():
    mutate(words)
"""


def test_phases_and_mutations_find_in_the_aggregator_what_they_are_tied_to(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _APPLY_ALL.format(path=str(tmp_path / "words"))],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )

    assert done.returncode == 0, done.stderr


def _result(*, hits: int = 10, failure: str = "", mutated: int = 0) -> Result:
    counted = {phase: Counter({"aimed": hits - 1, "at random": 1}) for phase in PHASES}
    return Result(seed=1, rounds=100, hits=counted, failure=failure, mutated=mutated)


@pytest.mark.parametrize(
    ("result", "mutation", "status"),
    [
        (_result(), "", 0),
        (_result(failure="a candle differs"), "", 1),
        (_result(hits=9), "", 2),
        (_result(failure="a candle differs", mutated=1), "fence", 1),
        (_result(mutated=1), "fence", 0),
        (_result(mutated=0), "fence", 2),
    ],
)
def test_the_exit_status_is_the_verdict(result: Result, mutation: str, status: int) -> None:
    assert judge(result, rounds=100, mutation=mutation)[0] == status


def test_a_short_run_need_not_have_hit_every_phase_often() -> None:
    assert judge(_result(hits=1), rounds=5, mutation="")[0] == 0
