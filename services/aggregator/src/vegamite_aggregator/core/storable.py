"""What the store could not keep as it is, though the record is one of the topic: refused at the door."""

from vegamite_common.domain.time import DAY, LATEST_EVENT
from vegamite_common.messages.codec import MessageError
from vegamite_common.messages.trades import (
    Heartbeat,
    JobEnded,
    JobStarted,
    Rebuild,
    SpanClosed,
    SpanOpened,
    TradesRecord,
    TradesTopicRecord,
)

MAX_TEXT = 200
"""Most characters of a job's or writer's name, a cause or a reason."""

MAX_REBUILD = 31 * DAY
"""Longest time that one record may ask to be computed again, since one transaction does it."""


def require_storable(record: TradesTopicRecord) -> None:
    """Raise `MessageError` for a name that the store could not keep as it is, and for a rebuild without measure."""
    if type(record) is TradesRecord and record.job is None:
        return  # the most of all records, and nothing to look at
    for text in _texts(record):
        if not (0 < len(text) <= MAX_TEXT and text.isprintable()):
            raise MessageError(f"not a name of 1 to {MAX_TEXT} printable characters: {text[:40]!r}")
    if isinstance(record, Rebuild) and (
        record.to_time - record.from_time > MAX_REBUILD or record.to_time > LATEST_EVENT
    ):
        raise MessageError(f"rebuild: at most {MAX_REBUILD // DAY} days, before the year 9999")


def _texts(record: TradesTopicRecord) -> list[str]:
    match record:
        case TradesRecord(job=job) | JobStarted(job=job):
            return [] if job is None else [job]
        case JobEnded(job=job, unfillable=unfillable):
            return [job] if unfillable is None else [job, unfillable.reason]
        case SpanClosed(writer=writer, cause=cause):
            return [writer, cause]
        case SpanOpened(writer=writer) | Heartbeat(writer=writer):
            return [writer]
    return []
