from pathlib import Path

import pytest
from pydantic import Field, SecretStr, ValidationError

from vegamite_common.runtime.clock import SimulatedClock, SystemClock
from vegamite_common.runtime.config import (
    ClockSection,
    ConfigError,
    ExchangeSection,
    KafkaSection,
    PostgresSection,
    ServiceSection,
    SharedSettings,
    TextList,
    load_settings,
)
from vegamite_common.runtime.config_error import key_lines


class OwnSection(ServiceSection):
    limit: int = Field(default=3, ge=1)
    names: TextList = ("a",)
    password: SecretStr | None = None


class OwnSettings(SharedSettings):
    collector: OwnSection = OwnSection()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "vegamite.toml"


def refused(
    file: Path | None = None, environ: dict[str, str] | None = None, **overrides: object
) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load_settings(OwnSettings, file, overrides, environ=environ or {})
    assert str(caught.value) == "\n".join(caught.value.problems)
    return caught.value.problems


class TestOrder:
    def test_without_any_source_there_are_the_defaults(self) -> None:
        assert load_settings(OwnSettings, environ={}) == OwnSettings()

    def test_the_environment_lies_over_the_file_key_by_key(self, file: Path) -> None:
        file.write_text('[kafka]\nclient_id = "file"\ncompression = "lz4"\n')
        settings = load_settings(
            OwnSettings, file, environ={"VEGAMITE_KAFKA__CLIENT_ID": "environment"}
        )
        assert (settings.kafka.client_id, settings.kafka.compression) == ("environment", "lz4")

    def test_the_command_line_is_strongest_then_environment_then_secrets_then_file(
        self, file: Path, tmp_path: Path
    ) -> None:
        file.write_text(
            '[log]\nlevel = "debug"\nformat = "json"\nfile_backups = 1\nfile_max_bytes = 1000\n'
        )
        secrets = tmp_path / "secrets" / "log"
        secrets.mkdir(parents=True)
        for key, value in {
            "format": "console",
            "file_backups": "2",
            "file_max_bytes": "2000",
        }.items():
            (secrets / key).write_text(value + "\n")
        environ = {
            "VEGAMITE_SECRETS_DIR": str(secrets.parent),
            "VEGAMITE_LOG__FILE_BACKUPS": "3",
            "VEGAMITE_LOG__FILE_MAX_BYTES": "3000",
        }
        log = load_settings(
            OwnSettings, file, {"log": {"file_max_bytes": 4000}}, environ=environ
        ).log
        assert (log.level, log.format, log.file_backups, log.file_max_bytes) == (
            "debug",
            "console",
            3,
            4000,
        )

    def test_a_secret_file_gives_a_secret(self, tmp_path: Path) -> None:
        (tmp_path / "postgres").mkdir()
        (tmp_path / "postgres" / "password").write_text("hush\n")
        settings = load_settings(OwnSettings, environ={"VEGAMITE_SECRETS_DIR": str(tmp_path)})
        assert settings.postgres.password == SecretStr("hush")
        assert "hush" not in repr(settings)

    def test_exchanges_are_set_by_variables_too(self, file: Path) -> None:
        file.write_text("[exchanges.kraken]\nrate_limit = 2\n")
        settings = load_settings(
            OwnSettings,
            file,
            environ={
                "VEGAMITE_EXCHANGES__KRAKEN__API_KEY": "k",
                "VEGAMITE_EXCHANGES__BINANCE__OPTIONS": '{"defaultType": "spot"}',
            },
        )
        assert settings.exchanges["kraken"].rate_limit == 2
        assert settings.exchanges["kraken"].api_key == SecretStr("k")
        assert settings.exchanges["binance"].options == {"defaultType": "spot"}

    def test_a_section_can_be_one_variable_of_json(self) -> None:
        settings = load_settings(
            OwnSettings,
            environ={"VEGAMITE_KAFKA": '{"client_id": "a"}', "VEGAMITE_KAFKA__COMPRESSION": "none"},
        )
        assert (settings.kafka.client_id, settings.kafka.compression) == ("a", "none")

    def test_lists_are_arrays_in_the_file_and_commas_in_the_environment(self, file: Path) -> None:
        file.write_text('[collector]\nnames = ["x", "y"]\n')
        assert load_settings(OwnSettings, file, environ={}).collector.names == ("x", "y")
        over = {"VEGAMITE_COLLECTOR__NAMES": "p, q"}
        assert load_settings(OwnSettings, file, environ=over).collector.names == ("p", "q")

    def test_built_directly_settings_read_no_environment(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("VEGAMITE_LOG__LEVEL", "debug")
        assert OwnSettings().log.level == "info"
        assert load_settings(OwnSettings).log.level == "debug"


class TestOthersSections:
    def test_sections_of_other_services_are_passed_over_whatever_they_hold(
        self, file: Path
    ) -> None:
        file.write_text(
            '[api]\nwhatever = 1\n[aggregator]\nlimit = "x"\n[standalone]\n[influxdb]\nurl = 1\n'
        )
        environ = {"VEGAMITE_API__WHATEVER": "1", "VEGAMITE_STANDALONE__PORT": "nonsense"}
        assert load_settings(OwnSettings, file, environ=environ) == OwnSettings()

    def test_variables_of_the_tests_are_passed_over(self) -> None:
        assert load_settings(OwnSettings, environ={"VEGAMITE_TEST_KAFKA": "x"}) == OwnSettings()


class TestRefusals:
    def test_an_unknown_key_is_named_with_its_line_and_what_is_allowed(self, file: Path) -> None:
        file.write_text('# a comment\n\n[kafka]\nclient_id = "x"\ncompresion = "lz4"\n')
        (problem,) = refused(file)
        assert problem.startswith(
            f"{file}:5: unknown key kafka.compresion; did you mean compression?"
        )
        assert "allowed: batch_max_bytes, bootstrap_servers, client_id, compression," in problem

    def test_an_unknown_key_inside_a_nested_section_too(self, file: Path) -> None:
        file.write_text("[kafka.topics]\npartition = 3\n[exchanges.kraken]\nratelimit = 1\n")
        first, second = refused(file)
        assert first.startswith(
            f"{file}:2: unknown key kafka.topics.partition; did you mean partitions?"
        )
        assert second.startswith(
            f"{file}:4: unknown key exchanges.kraken.ratelimit; did you mean rate_limit?"
        )

    def test_an_unknown_section_is_named_with_its_line(self, file: Path) -> None:
        file.write_text("[log]\n\n[colector]\nx = 1\n")
        (problem,) = refused(file)
        assert problem.startswith(
            f"{file}:3: unknown section [colector]; did you mean collector?; allowed: aggregator, api,"
        )

    def test_a_key_outside_any_section_is_named(self, file: Path) -> None:
        file.write_text("port = 1\n")
        (problem,) = refused(file)
        assert problem.startswith(f"{file}:1: key port is outside any section")

    def test_a_wrong_value_is_named_with_what_is_allowed(self, file: Path) -> None:
        file.write_text(
            '[log]\nlevel = "loud"\n\n[collector]\nlimit = 0\nmanagement_port = "many"\n'
        )
        assert refused(file) == [
            f"{file}:2: log.level must be 'debug', 'info', 'warning' or 'error'",
            f"{file}:6: collector.management_port must be a valid integer, unable to parse string as an integer",
            f"{file}:5: collector.limit must be greater than or equal to 1",
        ]

    def test_a_wrong_variable_is_named_and_not_the_line_below_it(self, file: Path) -> None:
        file.write_text("[collector]\nlimit = 5\n")
        assert refused(file, {"VEGAMITE_COLLECTOR__LIMIT": "0"}) == [
            "variable VEGAMITE_COLLECTOR__LIMIT: collector.limit must be greater than or equal to 1"
        ]

    def test_a_wrong_line_is_named_and_not_a_variable_beside_it(self, file: Path) -> None:
        file.write_text("[collector]\nlimit = 0\n")
        environ = {"VEGAMITE_COLLECTOR": '{"management_port": 1}', "VEGAMITE_COLLECTOR__NAMES": "a"}
        (problem,) = refused(file, environ)
        assert problem.startswith(f"{file}:2: collector.limit")

    def test_a_wrong_option_of_the_command_line_is_named(self) -> None:
        assert refused(log={"level": "loud"}) == [
            "command line: log.level must be 'debug', 'info', 'warning' or 'error'"
        ]

    @pytest.mark.parametrize(
        "name", ["VEGAMITE_FOO", "VEGAMITE_FOO__X", "VEGAMITE_COLECTOR__LIMIT", "vegamite_foo__x"]
    )
    def test_an_unknown_variable_is_named(self, name: str) -> None:
        (problem,) = refused(environ={name: "1"})
        assert problem.startswith(f"variable {name}: unknown section [")

    def test_an_unknown_key_in_a_variable_is_named(self) -> None:
        (problem,) = refused(environ={"VEGAMITE_KAFKA__POOL": "1"})
        assert problem.startswith(
            "variable VEGAMITE_KAFKA__POOL: unknown key kafka.pool; allowed: "
        )

    def test_a_variable_that_must_be_json_is_named(self) -> None:
        assert refused(environ={"VEGAMITE_LOG": "{", "VEGAMITE_LOG__LEVEL": "info"}) == [
            "variable VEGAMITE_LOG: must be JSON, or set its keys one by one (VEGAMITE_LOG__<KEY>)"
        ]

    def test_a_file_that_is_named_and_missing_is_an_error(self, file: Path) -> None:
        assert refused(file) == [f"{file}: no such configuration file"]

    def test_a_directory_in_place_of_the_file_is_an_error(self, tmp_path: Path) -> None:
        assert refused(tmp_path) == [f"{tmp_path}: cannot be read: Is a directory"]

    @pytest.mark.parametrize("content", [b"[log\n", b"a = \n", b"[log]\nlevel = 'x\n"])
    def test_a_file_that_is_no_toml_is_an_error_with_its_place(
        self, file: Path, content: bytes
    ) -> None:
        file.write_bytes(content)
        (problem,) = refused(file)
        assert problem.startswith(f"{file}: is not valid TOML: ")
        assert "(at " in problem

    def test_a_file_that_is_no_text_is_an_error(self, file: Path) -> None:
        file.write_bytes(b"\xff\xfe\x00")
        assert refused(file) == [f"{file}: is not UTF-8 text"]

    def test_all_problems_are_told_at_once(self, file: Path) -> None:
        file.write_text('[log]\nlevel = "loud"\n[foo]\n')
        problems = refused(file, {"VEGAMITE_BAR__X": "1", "VEGAMITE_KAFKA__COMPRESSION": "rar"})
        assert len(problems) == 4

    def test_a_missing_directory_of_secrets_is_an_error(self, tmp_path: Path) -> None:
        missing = tmp_path / "none"
        (problem,) = refused(environ={"VEGAMITE_SECRETS_DIR": str(missing)})
        assert (
            problem
            == f"variable VEGAMITE_SECRETS_DIR: {missing} is not a directory of secret files"
        )

    def test_a_wrong_secret_file_is_named(self, tmp_path: Path) -> None:
        for section, key in (("kafka", "sasl_pasword"), ("collector", "limit")):
            (tmp_path / section).mkdir()
            (tmp_path / section / key).write_text("hush")
        problems = refused(environ={"VEGAMITE_SECRETS_DIR": str(tmp_path)})
        assert problems[0].startswith(
            f"{tmp_path}/kafka/sasl_pasword: unknown key kafka.sasl_pasword; did you mean sasl_password?"
        )
        assert problems[1].startswith(
            f"{tmp_path}/collector/limit: collector.limit must be a valid integer"
        )
        (tmp_path / "kafak").mkdir()
        (problem,) = refused(environ={"VEGAMITE_SECRETS_DIR": str(tmp_path)})
        assert problem.startswith(f"{tmp_path}/kafak: unknown section [kafak]; did you mean kafka?")


class TestSecrets:
    @pytest.mark.parametrize(
        "environ",
        [
            {"VEGAMITE_POSTGRES__URL": "mysql://u:hush@h/d"},
            {
                "VEGAMITE_POSTGRES__URL": "postgresql://u:hush@h/d",
                "VEGAMITE_POSTGRES__POOL_SIZE": "0",
            },
            {"VEGAMITE_POSTGRES": '{"url": 5, "password": "hush", "hush_key": 1}'},
            {
                "VEGAMITE_KAFKA__SECURITY_PROTOCOL": "SASL_SSL",
                "VEGAMITE_KAFKA__SASL_PASSWORD": "hush",
            },
            {"VEGAMITE_COLLECTOR__PASSWORD": "hush", "VEGAMITE_COLLECTOR__LIMIT": "hush"},
            {
                "VEGAMITE_EXCHANGES__KRAKEN__API_SECRET": "hush",
                "VEGAMITE_EXCHANGES__KRAKEN__PROXY": "{hush",
            },
            {"VEGAMITE_POSTGRES": '{"password": "hush"'},
        ],
    )
    def test_no_error_shows_a_value(self, environ: dict[str, str]) -> None:
        try:
            shown = repr(load_settings(OwnSettings, environ=environ))
        except ConfigError as error:
            shown = str(error)
        assert "hush" not in shown.replace("postgres.hush_key", "")

    def test_no_error_shows_a_value_of_the_file(self, file: Path) -> None:
        file.write_text('[postgres]\nurl = ["hush"]\n[kafka]\nsasl_password = 12345\n')
        problems = refused(file)
        assert [problem.split(": ")[0] for problem in problems] == [f"{file}:4", f"{file}:2"]
        assert "hush" not in str(problems)
        assert "12345" not in str(problems)


class TestSections:
    def test_the_three_numbers_of_a_simulated_clock_belong_together(self) -> None:
        assert isinstance(ClockSection().clock(), SystemClock)
        clock = ClockSection(origin=1_000_000, wall_origin=2_000_000, speed=60).clock()
        assert isinstance(clock, SimulatedClock)
        assert clock.from_wall(3_000_000) == 61_000_000
        for wrong in (
            {"origin": 1},
            {"wall_origin": 1},
            {"speed": 2.0},
            {"origin": 1, "wall_origin": 1, "speed": 0},
        ):
            with pytest.raises(ValidationError):
                ClockSection.model_validate(wrong)

    @pytest.mark.parametrize(
        ("urls", "loopback"),
        [
            ("http://127.0.0.1:9000", True),
            ("http://localhost:1/x", True),
            ({"ws": "ws://[::1]:9/stream", "rest": {"public": "http://127.0.0.9"}}, True),
            ({"ws": "ws://127.0.0.1", "rest": {"public": "https://api.example.org"}}, False),
            ("https://api.example.org", False),
            ("https://127.0.0.1.example.org", False),
            (None, False),
        ],
    )
    def test_an_exchange_on_loopback_is_told_from_one_that_is_not(
        self, urls: object, loopback: bool
    ) -> None:
        assert ExchangeSection.model_validate({"urls": urls}).on_loopback is loopback

    def test_simulated_time_needs_every_exchange_on_loopback(self, file: Path) -> None:
        clock = "[clock]\norigin = 1\nwall_origin = 1\nspeed = 60\n"
        file.write_text(clock + '[exchanges.binance]\nurls = "http://127.0.0.1:1"\n')
        assert load_settings(OwnSettings, file, environ={}).clock.simulated
        file.write_text(clock + '[exchanges.binance]\nurls = "https://api.example.org"\n')
        (problem,) = refused(file)
        assert problem.startswith(str(file))
        assert "binance" in problem

    def test_sasl_needs_its_credentials(self) -> None:
        with pytest.raises(ValidationError, match="needs sasl_username and sasl_password"):
            KafkaSection(security_protocol="SASL_SSL")
        with pytest.raises(ValidationError, match="given together"):
            KafkaSection(ssl_cert_file=Path("x"))

    def test_more_replicas_in_sync_than_there_are_is_refused(self) -> None:
        with pytest.raises(ValidationError, match="must not exceed replication_factor"):
            KafkaSection.model_validate({"topics": {"min_insync_replicas": 2}})

    def test_a_database_is_a_postgresql_url(self) -> None:
        with pytest.raises(ValidationError, match="must start with postgresql://"):
            PostgresSection(url=SecretStr("http://x"))


class TestKeyLines:
    def test_sections_keys_and_dotted_keys_have_their_lines(self) -> None:
        text = '[a]\nx = 1\n"q r" = 2\n[a.b]\n  y.z = """\n[not.a.section]\nkey = 1\n"""\nlast = 3\n[[c]]\nd = 1\n'
        assert key_lines(text) == {
            ("a",): 1,
            ("a", "x"): 2,
            ("a", "q r"): 3,
            ("a", "b"): 4,
            ("a", "b", "y", "z"): 5,
            ("a", "b", "last"): 9,
            ("c",): 10,
            ("c", "d"): 11,
        }
