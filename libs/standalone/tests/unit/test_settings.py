from pathlib import Path

import pytest

from vegamite_common.runtime.config import ConfigError
from vegamite_standalone.config import default_data_directory
from vegamite_standalone.settings import load_process_settings


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VEGAMITE_SECRETS_DIR", raising=False)


def written(tmp_path: Path, text: str) -> Path:
    file = tmp_path / "vegamite.toml"
    file.write_text(text)
    return file


def test_the_command_line_reaches_the_service_that_it_concerns(tmp_path: Path) -> None:
    settings = load_process_settings(
        None, {"host": "::1", "port": 8080, "demo": False, "data_dir": tmp_path}
    )
    assert (settings.api.api.host, settings.api.api.port) == ("::1", 8080)
    assert settings.collector.collector.demo.enabled is False
    assert settings.standalone.standalone.data_directory == tmp_path


def test_the_command_line_wins_over_the_file_and_the_file_over_defaults(tmp_path: Path) -> None:
    file = written(tmp_path, "[standalone]\nport = 9000\nhost = 'localhost'\n")
    settings = load_process_settings(file, {"port": 9001})
    assert (settings.api.api.host, settings.api.api.port) == ("localhost", 9001)


def test_the_demo_is_on_unless_told_otherwise(tmp_path: Path) -> None:
    assert load_process_settings(None, {}).collector.collector.demo.enabled
    file = written(tmp_path, "[standalone]\ndemo = false\n")
    assert not load_process_settings(file, {}).collector.collector.demo.enabled


def test_one_partition_whatever_a_cluster_has(tmp_path: Path) -> None:
    file = written(tmp_path, "[kafka.topics]\npartitions = 48\n")
    settings = load_process_settings(file, {})
    assert settings.aggregator.kafka.topics.partitions == 1
    assert settings.collector.kafka.topics.partitions == 1


def test_everybody_on_the_machine_may_read_unless_told_otherwise(tmp_path: Path) -> None:
    assert load_process_settings(None, {}).api.api.anonymous_read
    file = written(tmp_path, "[api]\nanonymous_read = false\n")
    assert not load_process_settings(file, {}).api.api.anonymous_read


def test_an_address_that_is_listened_on_may_be_asked_for() -> None:
    assert "192.0.2.7" in load_process_settings(None, {"host": "192.0.2.7"}).api.api.allowed_hosts
    assert "0.0.0.0" not in load_process_settings(None, {"host": "0.0.0.0"}).api.api.allowed_hosts


def test_all_problems_are_told_at_once_and_each_once(tmp_path: Path) -> None:
    file = written(
        tmp_path,
        "[standalone]\nprot = 1\n[collector]\nheartbeat_ms = 'often'\n[log]\nlevel = 'loud'\n[aggregater]\n",
    )
    with pytest.raises(ConfigError) as caught:
        load_process_settings(file, {})
    problems = caught.value.problems
    assert len(problems) == len(set(problems)) == 4
    for place in (f"{file}:2", f"{file}:4", f"{file}:6", f"{file}:7"):
        assert any(problem.startswith(place) for problem in problems), (place, problems)


def test_a_port_that_is_none_is_refused_as_the_command_lines() -> None:
    with pytest.raises(ConfigError, match=r"command line: standalone\.port"):
        load_process_settings(None, {"port": 70_000})


def test_without_a_directory_each_user_has_a_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 0)
    assert default_data_directory() == Path("/var/lib/vegamite")
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    assert default_data_directory().is_relative_to(Path.home())


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("[api]\nport = 'x'\n", "api.port"),
        ("[standalone]\nport = 'y'\n", "standalone.port"),
        ("[collector.demo]\nenabled = 'perhaps'\n", "collector.demo.enabled"),
    ],
)
def test_a_wrong_value_is_refused_where_something_else_overrides_it(
    tmp_path: Path, text: str, key: str
) -> None:
    file = written(tmp_path, text)
    with pytest.raises(ConfigError, match=f"vegamite.toml:2: {key} "):
        load_process_settings(file, {"port": 9001, "demo": True})


def test_influxdb_is_refused_with_the_reason(tmp_path: Path) -> None:
    file = tmp_path / "vegamite.toml"
    file.write_text('[influxdb]\nurl = "http://127.0.0.1:8086"\n')
    with pytest.raises(ConfigError, match=r"doesn't write to InfluxDB: its log is in memory"):
        load_process_settings(file, {})
    file.write_text("[influxdb]\nbatch_size = 500\n")
    assert load_process_settings(file, {}).aggregator.influxdb.batch_size == 500
