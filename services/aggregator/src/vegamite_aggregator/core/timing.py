"""The lengths of time that decide, in microseconds of the clock in use, and T: how far the log is known to be read."""

import msgspec

from vegamite_common.domain.time import HOUR, SECOND, Micros


class Timing(msgspec.Struct, frozen=True):
    """Lengths in microseconds of the clock in use (scaled by the caller under a simulated clock).

    `grace`: an interval without coverage is final so long after its end. `job_silence`: a job without records for so long
    is over; `restore_silence`: one that restores expired time, since what it has stored isn't folded before its day is whole.
    `span_silence`: an open span that no heartbeat reached for so long is forgotten, its writer being dead; one that
    lives opens it again. `letter_window`: the time in which a partition may set only so many records
    apart. `future`: how far ahead of its received time a trade may be. `fetch_age`: how old a look at the log's end may be.
    """

    grace: Micros = 30 * SECOND
    job_silence: Micros = 60 * SECOND
    restore_silence: Micros = HOUR
    span_silence: Micros = 600 * SECOND
    future: Micros = 5 * SECOND
    letter_window: Micros = HOUR
    fetch_age: Micros = 1 * SECOND


def log_time(
    *,
    next_offset: int,
    last_append_time: Micros | None,
    end_offset: int,
    fetched_time: Micros,
    now: Micros,
    timing: Timing,
) -> Micros | None:
    """Return T: the clock, while a young fetch showed the log's end at `next_offset`, else the last record's append time.

    `next_offset` and `last_append_time` are those after the records of this step; `end_offset` is what the fetch at
    `fetched_time` showed. None where nothing was read yet and the log's end is unknown: then nothing is past.
    """
    if next_offset >= end_offset and now - fetched_time < timing.fetch_age:
        return now
    return last_append_time
