import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vegamite_common.runtime.clock import Clock, SimulatedClock, SystemClock, wall_now
from vegamite_common.testing.manual_clock import ManualClock

ORIGIN = 1_570_834_800_000_000


def simulated(speed: float = 60.0, wall_origin: int = 1_000_000) -> SimulatedClock:
    return SimulatedClock(origin=ORIGIN, wall_origin=wall_origin, speed=speed)


def test_the_system_clock_is_the_machines() -> None:
    clock: Clock = SystemClock()
    before = wall_now()
    assert before <= clock.now() <= wall_now()
    assert clock.from_wall(before) == before
    assert clock.span(1.5) == 1_500_000
    assert (clock.speed, clock.simulated) == (1.0, False)


def test_a_simulated_clock_shows_its_origin_at_its_wall_origin_and_runs_at_its_speed() -> None:
    clock: Clock = simulated()
    assert clock.from_wall(1_000_000) == ORIGIN
    assert clock.from_wall(2_000_000) == ORIGIN + 60_000_000
    assert clock.from_wall(0) == ORIGIN - 60_000_000
    assert clock.simulated is True


def test_a_span_is_what_passes_in_so_many_real_seconds() -> None:
    clock = simulated(speed=2.5)
    assert clock.span(1.0) == clock.from_wall(2_000_000) - clock.from_wall(1_000_000) == 2_500_000


@given(st.integers(0, 2**53), st.integers(0, 2**53), st.floats(0.01, 1000))
def test_processes_with_the_same_three_numbers_agree_and_time_never_runs_back(
    one: int, other: int, speed: float
) -> None:
    here, there = simulated(speed), simulated(speed)
    assert here.from_wall(one) == there.from_wall(one)
    first, second = sorted((one, other))
    assert here.from_wall(first) <= here.from_wall(second)


def test_now_is_the_walls_now_translated() -> None:
    clock = simulated(wall_origin=wall_now())
    before = clock.from_wall(wall_now())
    assert before <= clock.now() <= clock.from_wall(wall_now())


@pytest.mark.parametrize("speed", [0, -1, float("nan"), float("inf")])
def test_time_that_does_not_pass_is_refused(speed: float) -> None:
    with pytest.raises(ValueError, match="speed"):
        simulated(speed=speed)


def test_a_manual_clock_moves_when_it_is_told_to() -> None:
    clock: Clock = ManualClock(ORIGIN)
    assert isinstance(clock, ManualClock)
    clock.advance(1.5)
    assert clock.now() == clock.from_wall(0) == ORIGIN + 1_500_000
    clock.set(ORIGIN)
    assert clock.now() == ORIGIN


@pytest.mark.parametrize("clock", [SystemClock(), simulated(speed=1e6), ManualClock(ORIGIN)])
async def test_sleeping_takes_real_time_on_every_clock(clock: Clock) -> None:
    loop = asyncio.get_running_loop()
    before = loop.time()
    await clock.sleep(0.02)
    assert loop.time() - before >= 0.015
