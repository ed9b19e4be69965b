"""The records that bring an archived day back."""

from collections.abc import AsyncIterator, Sequence
from pathlib import Path

from vegamite_aggregator.adapters.parquet_archive import ParquetArchive
from vegamite_aggregator.core.manifest import ArchivedTrade
from vegamite_common.domain.market import Market
from vegamite_common.domain.time import DAY, HOUR
from vegamite_common.messages.trades import Rebuild, TradesRecord, decode_trades
from vegamite_standalone.archive.intake import IntakeRules, Spool
from vegamite_standalone.archive.parquet import find_day, take_day

MARKET = Market("kraken", "BTC/USD")
MIDNIGHT = 19_000 * DAY


async def pages(*trades: ArchivedTrade) -> AsyncIterator[Sequence[ArchivedTrade]]:
    yield trades


async def test_what_was_complete_is_claimed_and_covered_by_the_days_rebuild(tmp_path: Path) -> None:
    covered = ((MIDNIGHT, MIDNIGHT + HOUR), (MIDNIGHT + 2 * HOUR, MIDNIGHT + DAY))
    trade = ArchivedTrade(
        event_time=MIDNIGHT + 1,
        trade_id="7",
        sequence=7,
        price="1.5",
        amount="2",
        taker_side="buy",
        received_time=MIDNIGHT + 2,
        origin="live",
        job=None,
    )
    await ParquetArchive(tmp_path).store(MARKET, MIDNIGHT, trades=pages(trade), covered=covered)
    file = tmp_path / "kraken" / "BTC%2FUSD" / "2022-01-08.parquet"
    rules = IntakeRules(
        market=MARKET, job="job-1", resolution=1, received_time=MIDNIGHT + 9 * DAY, skip_bad=False
    )
    with Spool() as spool:
        findings = take_day(
            find_day(file),
            since=MIDNIGHT - DAY,
            rules=rules,
            spool=spool,
            consumed=lambda _: None,
        )
        trades, *claims, rebuild = [decode_trades(encoded) for encoded in spool.read()]

    assert findings.trades == 1
    assert isinstance(trades, TradesRecord)
    assert [one.trade_id for one in trades.trades] == ["7"]
    assert [one.covered for one in claims if isinstance(one, TradesRecord)] == list(covered)
    assert rebuild == Rebuild(
        exchange="kraken",
        symbol="BTC/USD",
        from_time=MIDNIGHT,
        to_time=MIDNIGHT + DAY,
        restored_since=MIDNIGHT - DAY,
        covered=covered,
    )
