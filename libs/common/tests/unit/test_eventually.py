import pytest

from vegamite_common.testing.eventually import eventually


async def test_it_returns_the_first_true_result() -> None:
    seen = iter([0, "", 7])
    assert await eventually(lambda: next(seen)) == 7


async def test_a_probe_of_assertions_may_fail_before_it_holds() -> None:
    attempts = []

    async def probe() -> None:
        attempts.append(1)
        assert len(attempts) >= 3

    await eventually(probe)
    assert len(attempts) == 3


async def test_it_ends_with_the_last_result_that_was_not_true() -> None:
    with pytest.raises(
        AssertionError, match=r"the sky falls did not come true .*last result: False"
    ):
        await eventually(lambda: False, timeout_s=0.01, message="the sky falls")


async def test_it_ends_with_the_last_failed_assertion() -> None:
    def probe() -> None:
        raise AssertionError("one is not two")

    with pytest.raises(AssertionError, match="one is not two"):
        await eventually(probe, timeout_s=0.01)


async def test_another_error_ends_the_waiting_at_once() -> None:
    def probe() -> None:
        raise KeyError("gone")

    with pytest.raises(KeyError):
        await eventually(probe)
