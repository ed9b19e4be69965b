"""Why a final candle is revised."""

from vegamite_common.domain.trade import Origin
from vegamite_common.messages.candles import RevisionReason

_WEIGHT: dict[RevisionReason | None, int] = {
    None: 0,
    "coverage": 1,
    "late_trade": 2,
    "backfill": 3,
    "import": 4,
    "correction": 5,
}


def reason_of(origin: Origin, job: str | None) -> RevisionReason:
    """Return the reason that trades of this origin give; simulated ones are a backfill where a job brings them."""
    if origin is Origin.IMPORT:
        return "import"
    if origin is Origin.BACKFILL or job is not None:
        return "backfill"
    return "late_trade"


def weightier(one: RevisionReason | None, other: RevisionReason | None) -> RevisionReason | None:
    """Return the reason that is told when both apply: correction, import, backfill, late trade, coverage, in this order."""
    return one if _WEIGHT[one] >= _WEIGHT[other] else other
