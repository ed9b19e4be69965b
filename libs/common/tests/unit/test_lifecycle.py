import asyncio
import os
import signal
import subprocess
import sys
import textwrap

import pytest

from vegamite_common.runtime.health import Health
from vegamite_common.runtime.lifecycle import (
    EXIT_DRAIN_LIMIT,
    EXIT_OK,
    Stop,
    run_services,
    run_until_stopped,
)
from vegamite_common.testing.eventually import eventually


class TestStop:
    async def test_a_request_is_seen_by_all_and_stays(self) -> None:
        stop = Stop()
        waiting = [asyncio.create_task(stop.wait()) for _ in range(2)]
        assert not stop.requested
        stop.request()
        await asyncio.gather(*waiting)
        stop.request()
        assert stop.requested

    async def test_whoever_asks_or_waits_watches(self) -> None:
        fresh, asked = Stop(), Stop()
        _ = asked.requested
        assert (fresh.watched, asked.watched) == (False, True)
        waited = Stop()
        waiting = asyncio.create_task(waited.wait())
        await eventually(lambda: waited.watched)
        waiting.cancel()

    async def test_a_wait_ends_with_the_request_or_the_time(self) -> None:
        stop = Stop()
        assert not await stop.wait_for(0.01)
        waiting = asyncio.create_task(stop.wait_for(60))
        stop.request()
        assert await waiting
        assert await stop.wait_for(60)


class TestRunUntilStopped:
    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
    async def test_a_signal_asks_to_stop_and_waits_for_the_drain(
        self, number: signal.Signals
    ) -> None:
        done: list[str] = []

        async def main(stop: Stop) -> None:
            os.kill(os.getpid(), number)
            await stop.wait()
            done.append("stop seen")
            await asyncio.sleep(0)
            done.append("drained")

        assert await run_until_stopped(main) == EXIT_OK
        assert done == ["stop seen", "drained"]

    async def test_who_returns_by_himself_ends_well(self) -> None:
        async def main(stop: Stop) -> None:
            assert not stop.requested

        assert await run_until_stopped(main) == EXIT_OK

    async def test_a_drain_over_the_limit_is_cancelled(self) -> None:
        cancelled: list[bool] = []

        async def main(stop: Stop) -> None:
            stop.request()
            await stop.wait()
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                cancelled.append(True)
                raise

        assert await run_until_stopped(main, drain_seconds=0.05) == EXIT_DRAIN_LIMIT
        assert cancelled == [True]

    async def test_a_second_signal_does_not_wait(self) -> None:
        async def main(stop: Stop) -> None:
            os.kill(os.getpid(), signal.SIGTERM)
            await stop.wait()
            os.kill(os.getpid(), signal.SIGTERM)
            await asyncio.Event().wait()

        async with asyncio.timeout(10):
            assert await run_until_stopped(main) == EXIT_DRAIN_LIMIT

    async def test_a_signal_while_starting_ends_it_at_once_and_well(self) -> None:
        closed: list[bool] = []

        async def main(stop: Stop) -> None:
            os.kill(os.getpid(), signal.SIGTERM)
            try:
                await asyncio.Event().wait()  # as for a database that isn't there
            finally:
                closed.append(True)
            await stop.wait()

        async with asyncio.timeout(10):
            assert await run_until_stopped(main) == EXIT_OK
        assert closed == [True]

    async def test_a_bug_propagates_also_while_draining(self) -> None:
        async def early(stop: Stop) -> None:
            raise LookupError("early")

        async def late(stop: Stop) -> None:
            stop.request()
            await stop.wait()
            raise LookupError("late")

        for main in (early, late):
            with pytest.raises(LookupError, match=main.__name__):
                await run_until_stopped(main)

    async def test_the_signals_are_given_back(self) -> None:
        async def main(stop: Stop) -> None:
            pass

        await run_until_stopped(main)
        assert signal.getsignal(signal.SIGTERM) in (signal.SIG_DFL, signal.SIG_IGN)


class Worker:
    """A service that records its life, and breaks where told to."""

    def __init__(self, name: str, *, breaks: bool = False) -> None:
        self.name = name
        self.health = Health(name)
        self.events: list[str] = []
        self._breaks = breaks

    async def run(self, stop: Stop) -> None:
        self.events.append("started")
        if self._breaks:
            raise LookupError(self.name)
        try:
            await stop.wait()
            self.events.append("drained")
        except asyncio.CancelledError:
            self.events.append("cancelled")
            raise


class TestRunServices:
    async def test_all_run_side_by_side_until_the_stop(self) -> None:
        stop = Stop()
        workers = [Worker("a"), Worker("b")]
        running = asyncio.create_task(run_services(list(workers), stop))
        await eventually(lambda: all(worker.events for worker in workers))
        stop.request()
        await running
        assert [worker.events for worker in workers] == [["started", "drained"]] * 2

    async def test_the_bug_of_one_ends_all(self) -> None:
        good, bad = Worker("good"), Worker("bad", breaks=True)
        with pytest.raises(ExceptionGroup) as caught:
            await run_services([good, bad], Stop())
        assert caught.group_contains(LookupError, match="bad")
        assert good.events == ["started", "cancelled"]


def run_program(
    body: str, *, send: signal.Signals | None = None, send_again_after: str | None = None
) -> tuple[int, str, str]:
    """Run a process made with `run_process`; once it says ready, send it a signal, and perhaps another."""
    program = textwrap.dedent(
        """
        import asyncio, sys
        from vegamite_common.runtime.lifecycle import StartError, run_process
        from vegamite_common.runtime.config import ConfigError
        from vegamite_common.runtime.logging import configure_logging
        from vegamite_common.runtime.section import LogSection
        from vegamite_common.bus.port import BusError

        configure_logging(LogSection(format="json"), service="test")

        async def main(stop):
            print("ready", flush=True)
        {body}

        sys.exit(run_process(main))
        """
    ).format(body=textwrap.indent(textwrap.dedent(body), "    "))
    process = subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        if send is not None:
            process.send_signal(send)
        if send_again_after is not None and send is not None:
            assert process.stdout.readline() == send_again_after
            process.send_signal(send)
        # Not communicate(): it would miss what came together with the lines read above.
        assert process.stderr is not None
        output, errors = process.stdout.read(), process.stderr.read()
        process.wait(timeout=60)
    return process.returncode, output, errors


class TestRunProcess:
    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
    def test_a_signal_drains_and_ends_with_0(self, number: signal.Signals) -> None:
        code, output, _ = run_program('await stop.wait()\nprint("drained")', send=number)
        assert (code, output) == (0, "drained\n")

    def test_it_runs_on_uvloop(self) -> None:
        code, output, _ = run_program("print(type(asyncio.get_running_loop()).__module__)")
        assert (code, output) == (0, "uvloop\n")

    def test_a_bug_ends_with_1_and_its_traceback(self) -> None:
        code, output, errors = run_program('raise LookupError("a bug")')
        assert code == 1
        assert "LookupError: a bug" in output + errors

    @pytest.mark.parametrize(
        "error",
        [
            'ConfigError(["one sentence"])',
            'StartError("one sentence")',
            'BusError("one sentence")',
            'ExceptionGroup("several", [StartError("one sentence")])',
        ],
    )
    def test_a_refused_start_ends_with_2_and_one_sentence(self, error: str) -> None:
        code, _, errors = run_program(f"raise {error}")
        assert (code, errors) == (2, "one sentence\n")

    def test_a_bug_beside_a_refusal_is_a_bug(self) -> None:
        code, _, _ = run_program('raise ExceptionGroup("x", [StartError("s"), LookupError("b")])')
        assert code == 1

    def test_two_signals_end_a_process_that_does_not_drain(self) -> None:
        code, output, _ = run_program(
            """
            await stop.wait()
            print("stopping", flush=True)
            await asyncio.Event().wait()
            """,
            send=signal.SIGTERM,
            send_again_after="stopping\n",
        )
        assert (code, output) == (EXIT_DRAIN_LIMIT, "")
