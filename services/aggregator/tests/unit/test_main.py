"""Options that a command has no use for."""

import pytest

from vegamite_aggregator.__main__ import main


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ("migrate --role influx", "--role goes with run, not with migrate"),
        ("maintain --role candles", "--role goes with run, not with maintain"),
        ("migrate --new-log-epoch", "--new-log-epoch goes with run, not with migrate"),
        ("maintain --new-log-epoch", "--new-log-epoch goes with run, not with maintain"),
        ("--role influx --new-log-epoch", "--new-log-epoch goes with the role candles"),
        ("run --dry-run", "--dry-run goes with maintain"),
        ("migrate --dry-run", "--dry-run goes with maintain"),
    ],
)
def test_an_option_that_the_command_has_no_use_for_is_refused(
    arguments: str, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main([*arguments.split(), "--config", "nowhere.toml"])
    assert ended.value.code == 2
    assert told in capsys.readouterr().err
