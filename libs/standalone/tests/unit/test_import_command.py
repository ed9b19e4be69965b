from pathlib import Path

import pytest

from vegamite_common.domain.market import Market
from vegamite_common.domain.time import parse_time
from vegamite_standalone.archive.import_job import ImportRequest, ImportResult
from vegamite_standalone.archive.intake import Findings
from vegamite_standalone.import_command import parse_claim, prepare_import
from vegamite_standalone.importing import describe

NOW = parse_time("2026-01-02T00:00:00Z")


def test_a_claim_is_the_interval_that_was_named() -> None:
    begin, end = "2019-10-11", "2019-10-12T00:00:00Z"
    assert parse_claim(begin, end, now=NOW) == (parse_time(begin), parse_time(end))
    assert parse_claim(None, None, now=NOW) is None


@pytest.mark.parametrize(
    ("begin", "end", "said"),
    [
        ("2019-10-11", None, "go together"),
        (None, "2019-10-11", "go together"),
        ("yesterday", "2019-10-11", "--from: not a time"),
        ("2019-10-11", "2019-13-11", "--to: not a time"),
        ("2019-10-11", "2019-10-11", "--to must be after --from"),
        ("2019-10-11", "2026-01-02", "isn't past"),
        ("2019-10-11", "2026-01-01T23:59:59.000001Z", "isn't past"),
    ],
)
def test_a_claim_that_cannot_be_says_why(begin: str | None, end: str | None, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        parse_claim(begin, end, now=NOW)


@pytest.mark.parametrize("market", ["XRP/ETH", "binance:", "Binance:XRP/ETH", "binance:XRPETH"])
def test_a_market_that_is_none_is_refused(market: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not a"):
        prepare_import(
            market=market,
            files=[],
            covered=(None, None),
            skip_bad=False,
            data_dir=tmp_path,
            config=None,
        )


@pytest.mark.parametrize(
    ("market", "said"),
    [
        ("nope:A/B", "no exchange has the id 'nope'; .*"),
        ("binanc:XRP/ETH", "no exchange has the id 'binanc'; did you mean binance or .*"),
        ("async_support:XRP/ETH", "no exchange has the id 'async_support'; .*"),
    ],
)
def test_an_exchange_that_nobody_knows_is_refused_before_anything_is_made(
    market: str, said: str, tmp_path: Path
) -> None:
    (tmp_path / "a.csv").write_text("")
    with pytest.raises(ValueError, match=f"^{said}$"):
        prepare_import(
            market=market,
            files=[tmp_path / "a.csv"],
            covered=(None, None),
            skip_bad=False,
            data_dir=tmp_path / "data",
            config=None,
        )
    assert [path.name for path in tmp_path.iterdir()] == ["a.csv"]


@pytest.mark.parametrize("market", ["sim:DEMO/USD", "kraken:BTC/USD", "okx:BTC/USDT"])
def test_whatever_ccxt_lists_and_the_simulation_may_be_imported(
    market: str, tmp_path: Path
) -> None:
    prepared = prepare_import(
        market=market,
        files=[],
        covered=(None, None),
        skip_bad=False,
        data_dir=tmp_path,
        config=None,
    )
    assert prepared.requests[0].market.key == market


def test_a_directory_is_called_one(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is a directory; a file is needed"):
        prepare_import(
            market="binance:XRP/ETH",
            files=[tmp_path],
            covered=(None, None),
            skip_bad=False,
            data_dir=tmp_path / "data",
            config=None,
        )


def test_a_missing_file_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"none\.csv: no such file"):
        prepare_import(
            market="binance:XRP/ETH",
            files=[tmp_path / "none.csv"],
            covered=(None, None),
            skip_bad=False,
            data_dir=tmp_path / "data",
            config=None,
        )
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_named_twice_is_read_once(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("")
    prepared = prepare_import(
        market="binance:XRP/ETH",
        files=[tmp_path / "a.csv"] * 2,
        covered=(None, None),
        skip_bad=False,
        data_dir=tmp_path / "data",
        config=None,
    )
    assert prepared.requests[0].files == [tmp_path / "a.csv"]
    assert prepared.requests[0].resolution == 1000


REQUEST = ImportRequest(
    market=Market("binance", "XRP/ETH"), files=[], resolution=1, covered=(0, 86_400_000_000)
)


def test_what_came_in_is_told_in_numbers() -> None:
    result = ImportResult(findings=Findings(trades=10), stored=7, covered=REQUEST.covered)
    assert describe(REQUEST, result) == [
        "binance:XRP/ETH: 10 trades read, 7 new, 3 already stored, 0 quarantined",
        "complete from 1970-01-01T00:00:00Z to 1970-01-02T00:00:00Z",
    ]


def test_what_was_left_out_is_told_and_nothing_is_called_complete() -> None:
    findings = Findings(
        trades=1, quarantined={"event_time": 2}, skipped=1, first_skipped=["a.csv:3: x"]
    )
    assert describe(REQUEST, ImportResult(findings=findings, stored=1)) == [
        "binance:XRP/ETH: 1 trades read, 1 new, 0 already stored, 2 quarantined",
        "quarantined for their event time: 2",
        "1 broken lines left out, the first of them:",
        "  a.csv:3: x",
        "not taken as complete: not every line of every file is a stored trade",
    ]
