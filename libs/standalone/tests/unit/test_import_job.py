"""What an import says of the time that its archives hold, record by record."""

from vegamite_common.domain.market import Market
from vegamite_common.domain.time import DAY, HOUR
from vegamite_common.messages.trades import Rebuild, TradesRecord, decode_trades
from vegamite_standalone.archive.import_job import claim_records
from vegamite_standalone.archive.intake import IntakeRules

RULES = IntakeRules(
    market=Market("kraken", "BTC/USD"),
    job="job-1",
    resolution=1,
    received_time=1_700_000_000_000_000,
    skip_bad=False,
)


def test_what_is_claimed_is_covered_again_by_the_rebuild_of_each_whole_day() -> None:
    covered = (19_000 * DAY + 9 * HOUR, 19_003 * DAY + 15 * HOUR)
    claim, *rebuilds = map(decode_trades, claim_records(RULES, covered))

    assert isinstance(claim, TradesRecord)
    assert (claim.job, claim.trades, claim.covered) == ("job-1", (), covered)
    first = 19_001 * DAY
    assert rebuilds == [
        Rebuild(
            exchange="kraken",
            symbol="BTC/USD",
            from_time=day,
            to_time=day + DAY,
            restored_since=first,
            covered=((day, day + DAY),),
        )
        for day in (first, first + DAY)
    ]


def test_part_of_a_day_is_claimed_and_nothing_rebuilt() -> None:
    (claim,) = claim_records(RULES, (19_000 * DAY + 9 * HOUR, 19_000 * DAY + 15 * HOUR))
    assert isinstance(decode_trades(claim), TradesRecord)
