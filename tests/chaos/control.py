"""Words in shared memory between the run and each aggregator under test: which phase it is in, and what shall befall it where.

One side writes orders, the other side phases; a word is eight bytes and written whole. That they outlive a `SIGKILL` and
cost no system call is why this is no socket.
"""

import mmap
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PHASES = ("fetch", "fold", "copy", "commit", "publish")
"""What an aggregator does with a record, in order; `copy` is all of the insertion of trades."""

ACTIONS = ("kill", "stop", "hold")
"""What an order does to the process: SIGKILL, SIGSTOP, or a standstill until the run lets it go on."""

POINTS = ("entering", "midway", "leaving")
"""Where in a phase an order is carried out; only a COPY has a middle: half of its rows are sent."""

HOLD_SECONDS = 10.0

_ORDERED, _PHASE, _POINT, _COUNTDOWN, _ACTION, _FIRED, _RELEASED, _MUTATED, _TOOK = range(9)
_ACTIVE, _ENTERED = 16, 24
_WORDS = 32


class Control:
    """The shared words of one aggregator, in a file that both sides map."""

    def __init__(self, path: Path) -> None:
        self.path = path
        if not path.exists():
            path.write_bytes(bytes(8 * _WORDS))
        with path.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), 8 * _WORDS)
        self._words = memoryview(self._map).cast("q")
        self._lock = threading.Lock()

    # --- the run's side ---------------------------------------------------------------------------

    def order(self, action: str, phase: str, *, point: str, countdown: int) -> int:
        """Order what shall happen at the `countdown`-th time that the phase is entered or left; return the order's number."""
        words = self._words
        words[_ORDERED] = 0
        words[_PHASE] = PHASES.index(phase)
        words[_POINT] = POINTS.index(point)
        words[_COUNTDOWN] = countdown
        words[_ACTION] = ACTIONS.index(action)
        number = max(words[_FIRED], words[_TOOK]) + 1
        words[_TOOK] = number
        words[_ORDERED] = number
        return number

    def cancel(self) -> None:
        """Take back an order that nothing came of."""
        self._words[_ORDERED] = 0

    def fired(self, number: int) -> bool:
        """Whether the order was carried out."""
        return self._words[_FIRED] >= number

    def release(self, number: int) -> None:
        """Let a process go on that the order holds."""
        self._words[_RELEASED] = number

    def renew(self) -> None:
        """Forget the phases of a process that is no more."""
        for word in range(_ACTIVE, _ACTIVE + len(PHASES)):
            self._words[word] = 0
        self.cancel()

    def active(self) -> list[str]:
        """Return the phases that the process is in right now; several, since it works on partitions side by side."""
        return [name for at, name in enumerate(PHASES) if self._words[_ACTIVE + at] > 0]

    def entered(self) -> dict[str, int]:
        """Return how often each phase was entered, over all processes that had this file."""
        return {name: self._words[_ENTERED + at] for at, name in enumerate(PHASES)}

    @property
    def mutated(self) -> int:
        """How often a mutation did something else than the code it replaces."""
        return self._words[_MUTATED]

    # --- the aggregator's side --------------------------------------------------------------------

    def note_mutated(self) -> None:
        """Count that the mutation mattered."""
        self._words[_MUTATED] += 1

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Be in a phase inside the block."""
        at = PHASES.index(name)
        with self._lock:
            self._words[_ACTIVE + at] += 1
            self._words[_ENTERED + at] += 1
        try:
            self.reach(name, "entering")
            yield
            self.reach(name, "leaving")
        finally:
            with self._lock:
                self._words[_ACTIVE + at] -= 1

    def reach(self, name: str, point: str) -> None:
        """Carry out the order that waits for this phase's point, if one does; the whole process stands meanwhile."""
        words = self._words
        number = words[_ORDERED]
        if (
            number <= words[_FIRED]
            or PHASES[words[_PHASE]] != name
            or POINTS[words[_POINT]] != point
        ):
            return
        with self._lock:
            words[_COUNTDOWN] -= 1
            if words[_COUNTDOWN] > 0 or words[_FIRED] >= number:
                return
            words[_FIRED] = number
        match ACTIONS[words[_ACTION]]:
            case "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            case "stop":
                os.kill(os.getpid(), signal.SIGSTOP)
            case _:
                self._hold(number)

    def _hold(self, number: int) -> None:
        deadline = time.monotonic() + HOLD_SECONDS
        while self._words[_RELEASED] < number and time.monotonic() < deadline:
            time.sleep(0.001)  # the whole process stands on purpose
