import json
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import REGISTRY

from vegamite_common.runtime.logging import RepeatedFault, configure_logging, escape
from vegamite_common.runtime.section import LogSection


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    """Logging is the process's; leave it as it was."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    # Taken away first, or they would be closed as handlers of an earlier configuration.
    root.handlers = []
    yield
    for handler in root.handlers:
        handler.close()
    root.handlers, root.level = handlers, level
    structlog.reset_defaults()


def lines(text: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in text.splitlines()]


class TestOutput:
    def test_a_container_gets_one_json_object_a_line(
        self, capsys: pytest.CaptureFixture[str]
    ) -> None:
        configure_logging(LogSection(), service="collector")
        structlog.get_logger("a.b").info("market live", market="kraken:BTC/USD", trades=3)
        (line,) = lines(capsys.readouterr().err)
        assert line.pop("time")
        assert line == {
            "message": "market live",
            "level": "info",
            "logger": "a.b",
            "service": "collector",
            "market": "kraken:BTC/USD",
            "trades": 3,
        }

    def test_libraries_log_in_the_same_form(self, capsys: pytest.CaptureFixture[str]) -> None:
        configure_logging(LogSection(), service="api")
        logging.getLogger("library").warning("about %s", "this")
        (line,) = lines(capsys.readouterr().err)
        assert (line["message"], line["logger"], line["service"]) == (
            "about this",
            "library",
            "api",
        )

    def test_a_level_hides_what_is_less_severe(self, capsys: pytest.CaptureFixture[str]) -> None:
        configure_logging(LogSection(level="warning"), service="api")
        structlog.get_logger("a").info("hidden")
        structlog.get_logger("a").warning("shown")
        assert [line["message"] for line in lines(capsys.readouterr().err)] == ["shown"]

    def test_a_traceback_stays_inside_its_line(self, capsys: pytest.CaptureFixture[str]) -> None:
        configure_logging(LogSection(), service="api")
        try:
            raise LookupError("a\nbug")
        except LookupError:
            structlog.get_logger("a").exception("crashed")
        (line,) = lines(capsys.readouterr().err)
        assert "LookupError" in str(line["exception"])

    def test_people_get_text(self, capsys: pytest.CaptureFixture[str]) -> None:
        configure_logging(LogSection(format="console"), service="api")
        structlog.get_logger("a").info("market live", market="kraken:BTC/USD")
        text = capsys.readouterr().err
        assert "market live" in text
        assert "market=kraken:BTC/USD" in text

    def test_with_a_file_all_goes_there_and_only_warnings_to_stderr(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        file = tmp_path / "logs" / "vegamite.log"
        configure_logging(LogSection(file=file), service="standalone")
        log = structlog.get_logger("a")
        log.info("quiet")
        log.warning("loud")
        assert [line["message"] for line in lines(file.read_text())] == ["quiet", "loud"]
        assert [line["message"] for line in lines(capsys.readouterr().err)] == ["loud"]

    def test_the_file_is_rotated_by_size(self, tmp_path: Path) -> None:
        file = tmp_path / "vegamite.log"
        configure_logging(LogSection(file=file, file_max_bytes=1000, file_backups=2), service="s")
        for number in range(100):
            structlog.get_logger("a").info("line", number=number)
        names = sorted(path.name for path in tmp_path.iterdir())
        assert names == ["vegamite.log", "vegamite.log.1", "vegamite.log.2"]
        assert all(path.stat().st_size <= 1000 for path in tmp_path.iterdir())
        assert lines(file.read_text())[-1]["number"] == 99

    def test_configuring_again_replaces_what_was_there(
        self, capsys: pytest.CaptureFixture[str]
    ) -> None:
        for _ in range(2):
            configure_logging(LogSection(), service="api")
        structlog.get_logger("a").info("once")
        assert len(lines(capsys.readouterr().err)) == 1


class TestEscape:
    @given(st.text())
    def test_no_text_begins_a_line_or_moves_a_cursor(self, text: str) -> None:
        escaped = escape(text)
        assert len(escaped.splitlines()) <= 1
        assert not any(ord(sign) < 0x20 or 0x7F <= ord(sign) < 0xA0 for sign in escaped)

    @pytest.mark.parametrize(
        ("text", "escaped"),
        [
            ("a\nb\r\tc", "a\\nb\\r\\tc"),
            ("\x1b[31mred", "\\x1b[31mred"),
            ("\x85\u2028\u202e", "\\x85\\u2028\\u202e"),
            ("Ünïcödé €", "Ünïcödé €"),
        ],
    )
    def test_what_is_readable_stays(self, text: str, escaped: str) -> None:
        assert escape(text) == escaped

    @pytest.mark.parametrize("form", ["json", "console"])
    def test_values_of_any_kind_are_escaped_on_the_way_out(
        self, form: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        configure_logging(LogSection.model_validate({"format": form}), service="s")
        evil = "x\n2026 forged line\x1b[2J"
        structlog.get_logger("a").warning(
            evil, text=evil, listed=[evil], table={evil: (evil,)}, error=ValueError(evil)
        )
        text = capsys.readouterr().err
        assert len(text.splitlines()) == 1
        assert "\x1b[2J" not in text


class Seconds:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class TestRepeatedFault:
    def test_a_fault_is_told_when_it_begins_and_when_it_is_over(self) -> None:
        seconds = Seconds()
        fault = RepeatedFault("away", over="back", exchange="kraken", monotonic=seconds)
        with structlog.testing.capture_logs() as told:
            fault.went_well()
            for _ in range(100):
                fault.failed(OSError("refused"))
                seconds.now += 0.5
            assert fault.count == 100
            fault.went_well(markets=2)
            fault.went_well()
        assert told == [
            {
                "event": "away",
                "error": "OSError: refused",
                "exchange": "kraken",
                "log_level": "warning",
            },
            {
                "event": "back",
                "count": 100,
                "seconds": 50.0,
                "markets": 2,
                "exchange": "kraken",
                "log_level": "info",
            },
        ]
        assert fault.count == 0

    def test_one_that_stays_is_told_again_now_and_then_with_its_count(self) -> None:
        seconds = Seconds()
        fault = RepeatedFault("away", over="back", every_seconds=60, monotonic=seconds)
        with structlog.testing.capture_logs() as told:
            for _ in range(121):
                fault.failed("x")
                seconds.now += 1
        assert [line.get("count") for line in told] == [None, 61, 121]

    def test_what_comes_and_goes_is_one_fault_until_it_settles(self) -> None:
        seconds = Seconds()
        fault = RepeatedFault("away", over="back", settle_seconds=5, monotonic=seconds)
        with structlog.testing.capture_logs() as told:
            for _ in range(50):
                fault.failed("x")
                seconds.now += 1
                fault.went_well()
            seconds.now += 4
            fault.went_well()
        assert [(line["event"], line.get("count")) for line in told] == [
            ("away", None),
            ("back", 50),
        ]

    def test_each_failure_is_counted_in_the_metrics(self) -> None:
        def counted() -> float:
            return (
                REGISTRY.get_sample_value(
                    "vegamite_common_faults_total", {"fault": "a thing of this test fails"}
                )
                or 0.0
            )

        fault = RepeatedFault("a thing of this test fails", over="works")
        before = counted()
        fault.failed()
        fault.failed()
        assert counted() == before + 2
