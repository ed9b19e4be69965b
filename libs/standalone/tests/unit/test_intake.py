import gzip
import io
import zipfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vegamite_common.domain.market import Market
from vegamite_common.domain.trade import Origin
from vegamite_common.messages.trades import MAX_TRADES, TradesRecord, decode_trades
from vegamite_standalone.archive.file import ArchiveError, read_parts
from vegamite_standalone.archive.intake import Findings, IntakeRules, Spool, take_archive

NOW = 1_700_000_000_000_000
MARKET = Market("binance", "XRP/ETH")
HEADER = b"agg_trade_id,price,quantity,first_trade_id,last_trade_id,transact_time,is_buyer_maker,is_best_match\n"


def line(number: int, *, price: str = "0.0014", time: int = 1_570_752_000_000) -> bytes:
    return f"{number},{price},1.5,{number},{number},{time + number},False,True\n".encode()


def take(path: Path, *, skip_bad: bool = False) -> tuple[Findings, list[TradesRecord]]:
    rules = IntakeRules(
        market=MARKET, job="job-1", resolution=1000, received_time=NOW, skip_bad=skip_bad
    )
    with Spool() as spool:
        findings = take_archive(path, rules=rules, spool=spool, consumed=lambda _: None)
        records = [decode_trades(encoded) for encoded in spool.read()]
    assert all(isinstance(record, TradesRecord) for record in records)
    return findings, [record for record in records if isinstance(record, TradesRecord)]


def pack(kind: str, content: bytes, path: Path) -> None:
    if kind == "gzip":
        path.write_bytes(gzip.compress(content))
    elif kind == "zip":
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w") as archive:
            archive.writestr("inside.csv", content)
        path.write_bytes(packed.getvalue())
    else:
        path.write_bytes(content)


@pytest.mark.parametrize("kind", ["plain", "gzip", "zip"])
@pytest.mark.parametrize("header", [b"", HEADER])
def test_every_packing_gives_every_trade(kind: str, header: bytes, tmp_path: Path) -> None:
    path = tmp_path / "archive"  # the name doesn't tell; the first bytes do
    pack(kind, header + b"".join(map(line, range(2500))), path)
    findings, records = take(path)
    assert findings == Findings(trades=2500)
    assert [len(record.trades) for record in records] == [MAX_TRADES, MAX_TRADES, 500]
    assert [trade.sequence for record in records for trade in record.trades] == list(range(2500))
    assert {(r.exchange, r.symbol, r.job, r.origin, r.received_time) for r in records} == {
        ("binance", "XRP/ETH", "job-1", Origin.IMPORT, NOW)
    }


def test_each_member_of_a_zip_may_have_its_own_header(tmp_path: Path) -> None:
    path = tmp_path / "two.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.csv", HEADER + line(1))
        archive.writestr("deeper/b.csv", HEADER + line(2) + b"oops\n")
    with pytest.raises(ArchiveError, match=r"two\.zip!deeper/b\.csv:3: 1 fields"):
        take(path)


def test_a_broken_line_is_named_and_nothing_else_is_given(tmp_path: Path) -> None:
    path = tmp_path / "broken.csv"
    path.write_bytes(HEADER + b"\n" + line(1) + b"1,2,3\n" + line(2))
    with pytest.raises(ArchiveError) as caught:
        take(path)
    assert str(caught.value) == f"{path}:4: 3 fields; 7 or 8 are expected"


def test_broken_lines_may_be_left_out_and_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "broken.csv"
    path.write_bytes(b"".join(line(n) + b"broken\n" for n in range(9)))
    findings, records = take(path, skip_bad=True)
    assert (findings.trades, findings.skipped, findings.whole) == (9, 9, False)
    assert findings.first_skipped[0].startswith(f"{path}:2: ")
    assert len(findings.first_skipped) == 5
    assert sum(len(record.trades) for record in records) == 9


def test_trades_that_cannot_be_are_quarantined_and_the_rest_is_taken(tmp_path: Path) -> None:
    path = tmp_path / "odd.csv"
    ahead = NOW // 1000 + 5_001
    path.write_bytes(line(1) + line(2, price="0") + line(0, time=ahead) + line(0, time=ahead - 1))
    findings, records = take(path)
    assert (findings.trades, findings.quarantined) == (2, {"price": 1, "event_time": 1})
    assert not findings.whole
    assert len(records[0].trades) == 2


def test_a_line_that_goes_on_for_ever_is_refused_without_reading_it_at_once(tmp_path: Path) -> None:
    path = tmp_path / "endless.csv"
    path.write_bytes(line(1) + b"9" * 3_000_000 + b"\n" + line(2))
    with pytest.raises(ArchiveError, match=rf"^{path}:2: .* bytes"):
        take(path)
    findings, _ = take(path, skip_bad=True)
    assert (findings.trades, findings.skipped) == (2, 1)


@pytest.mark.parametrize("kind", ["gzip", "zip"])
def test_a_file_cut_short_is_refused_by_name(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "cut"
    pack(kind, b"".join(map(line, range(5000))), path)
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(ArchiveError, match=f"^{path}: damaged"):
        take(path)


def test_a_missing_file_and_a_directory_are_refused_by_name(tmp_path: Path) -> None:
    for path, reason in ((tmp_path / "none", "No such file"), (tmp_path, "directory")):
        with pytest.raises(ArchiveError, match=f"^{path}: .*{reason}"):
            take(path)


def test_an_empty_file_holds_no_trades(tmp_path: Path) -> None:
    (tmp_path / "empty").write_bytes(b"")
    assert take(tmp_path / "empty") == (Findings(), [])


def test_progress_reaches_far_into_the_file(tmp_path: Path) -> None:
    path = tmp_path / "long.csv"
    path.write_bytes(b"".join(map(line, range(50_000))))
    told: list[int] = []
    for part in read_parts(path, consumed=told.append):
        assert sum(1 for _ in part.lines) == 50_000
    assert told == sorted(told)
    assert path.stat().st_size * 0.9 < told[-1] <= path.stat().st_size


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    content=st.binary(max_size=400),
    magic=st.sampled_from([b"", b"\x1f\x8b", b"\x1f\x8b\x08\x00", b"PK\x03\x04"]),
)
def test_any_file_is_taken_or_refused_in_words(
    content: bytes, magic: bytes, tmp_path: Path
) -> None:
    path = tmp_path / "fuzz"
    path.write_bytes(magic + content)
    refusal = ""
    try:
        take(path)
    except ArchiveError as error:
        refusal = str(error)
    assert refusal == "" or refusal.startswith(str(path))
