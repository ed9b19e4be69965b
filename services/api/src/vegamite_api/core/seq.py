"""The position of a record in the log, as clients see it: `epoch-partition-offset`, the same on every replica for ever."""

import re
from typing import NamedTuple

from vegamite_api.core.refusal import invalid, shown

_SEQ = re.compile(r"(\d{1,9})-(\d{1,9})-(-1|\d{1,18})", re.ASCII)


class Seq(NamedTuple):
    """One record's place: log epoch, partition, offset; offset -1 is the place before the first record."""

    epoch: int
    partition: int
    offset: int

    def __str__(self) -> str:
        return f"{self.epoch}-{self.partition}-{self.offset}"


def parse_seq(text: str, *, parameter: str) -> Seq:
    """Return the place that `text` names; raise `RefusedError`, naming `parameter`, where it names none."""
    found = _SEQ.fullmatch(text)
    if found is None:
        raise invalid(
            parameter, f"not a seq: '{shown(text)}'", "a seq that this API sent, as in 3-7-5400"
        )
    epoch, partition, offset = (int(part) for part in found.groups())
    return Seq(epoch, partition, offset)
