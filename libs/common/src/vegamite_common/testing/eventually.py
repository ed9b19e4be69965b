"""Waiting in tests for what must come true, without sleeping longer than it takes."""

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar, overload

T = TypeVar("T")


@overload
async def eventually(
    probe: Callable[[], Awaitable[T]],
    *,
    timeout_s: float = ...,
    interval_s: float = ...,
    message: str = ...,
) -> T: ...


@overload
async def eventually(
    probe: Callable[[], T],
    *,
    timeout_s: float = ...,
    interval_s: float = ...,
    message: str = ...,
) -> T: ...


async def eventually(
    probe: Callable[[], Any],
    *,
    timeout_s: float = 20.0,
    interval_s: float = 0.02,
    message: str = "",
) -> Any:
    """Call `probe` (plain or async) until its result is true or it stops raising AssertionError; return that.

    Raises AssertionError with the last failure, or the last result, when `timeout_s` real seconds are over.
    """
    deadline = time.monotonic() + timeout_s
    while True:
        failure: AssertionError | None = None
        result: Any = None
        try:
            outcome = probe()
            result = await outcome if inspect.isawaitable(outcome) else outcome
        except AssertionError as error:
            failure = error
        else:
            # A probe made of assertions alone returns None, and has held.
            if result is None or result:
                return result
        if time.monotonic() >= deadline:
            said = message or getattr(probe, "__name__", "the condition")
            last = f"last result: {result!r}" if failure is None else f"last failure: {failure}"
            raise AssertionError(
                f"{said} did not come true within {timeout_s} s; {last}"
            ) from failure
        await asyncio.sleep(interval_s)
