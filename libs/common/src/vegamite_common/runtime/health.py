"""Liveness and readiness of one service. Liveness: its loop moved lately. Readiness: it can serve. Neither is "Kafka is up"."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

LIVE_SECONDS = 60.0
"""A loop that has not moved for so long is stuck; equals the longest poll interval that Kafka forgives."""


@dataclass(frozen=True)
class State:
    """An answer and, where it is no, the reason."""

    ok: bool
    reason: str = ""


class Health:
    """What a service's probes say; the loop calls `beat`, its owner `set_ready`. Monotonic seconds, not the clock's time."""

    def __init__(
        self,
        name: str = "service",
        *,
        live_seconds: float = LIVE_SECONDS,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name = name
        self._live_seconds = live_seconds
        self._monotonic = monotonic
        self._beat = monotonic()
        self._ready = State(ok=False, reason="starting")

    def beat(self) -> None:
        """Say that the loop moved; called at least every few seconds, with or without work."""
        self._beat = self._monotonic()

    def set_ready(self, ready: bool, reason: str = "") -> None:  # noqa: FBT001 -- reads as a sentence
        """Say whether the service can serve and, if not, why."""
        self._ready = State(ok=ready, reason="" if ready else reason or "not ready")

    def live(self, now: float | None = None) -> State:
        """Whether the loop moved within the limit; `now` is a monotonic time in seconds."""
        silent = (self._monotonic() if now is None else now) - self._beat
        if silent > self._live_seconds:
            return State(ok=False, reason=f"{self.name}: the loop has not moved for {silent:.0f} s")
        return State(ok=True)

    def ready(self) -> State:
        """Whether the service can serve."""
        if self._ready.ok:
            return self._ready
        return State(ok=False, reason=f"{self.name}: {self._ready.reason}")


class JointHealth:
    """The health of several services in one process: live and ready only where all are."""

    def __init__(self, parts: list[Health]) -> None:
        self._parts = parts

    def live(self) -> State:
        """Whether every loop moved lately; else the reasons, joined."""
        return _joint([part.live() for part in self._parts])

    def ready(self) -> State:
        """Whether every service can serve; else the reasons, joined."""
        return _joint([part.ready() for part in self._parts])


def _joint(states: list[State]) -> State:
    reasons = [state.reason for state in states if not state.ok]
    return State(ok=not reasons, reason="; ".join(reasons))
