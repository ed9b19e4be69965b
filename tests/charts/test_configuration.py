"""What the charts write into files and variables is what the services read; secrets are in neither.

Each law is a function that yields what is wrong in a release. `BREAKAGES` shows of every law that it can fail.
"""

import base64
import copy
import re
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import yaml

from vegamite_aggregator.config import AggregatorSettings
from vegamite_api.config import ApiSettings
from vegamite_collector.config import CollectorSettings
from vegamite_common.runtime.config import ConfigError, SharedSettings, load_settings
from vegamite_common.testing.charts.helm import Helm
from vegamite_common.testing.charts.manifest import Manifest, Pod, is_hook, title
from vegamite_common.testing.charts.release import Program, Release, files, references
from vegamite_common.testing.charts.scenario import Scenario

Law = Callable[[Release], Iterator[str]]

SETTINGS: dict[str, type[SharedSettings]] = {
    "collector": CollectorSettings,
    "aggregator": AggregatorSettings,
    "api": ApiSettings,
}
CONFIG_FILE = "/etc/vegamite/vegamite.toml"
SECRETS_DIR = "VEGAMITE_SECRETS_DIR"
SECRET_KEYS = {"password", "sasl_password", "ssl_key_password"}
SECRET_KEYS |= {"api_key", "api_secret", "api_password", "token"}


def _is_test(pod: Pod) -> bool:
    hooks = (pod.owner["metadata"].get("annotations") or {}).get("helm.sh/hook", "")
    return "test" in hooks


def _configured(release: Release) -> list[Program]:
    return [each for each in release.programs if not _is_test(each.pod)]


def each_program_is_given_its_file(release: Release) -> Iterator[str]:
    for program in _configured(release):
        if program.config_path != CONFIG_FILE:
            yield f"{program.title} reads {program.config_path}"
            continue
        try:
            release.configuration(program)
        except (LookupError, ValueError) as error:
            yield f"{program.title}: {error}"


def _secret_value(path: str) -> str:
    """A value that a secret at that place may have."""
    return "postgresql://candles:secret@db:5432/candles" if path.lower().endswith("url") else "s"


def _loaded(release: Release, program: Program, folder: Path) -> SharedSettings:
    """The program's settings, from its own file, variables and (made up) secrets."""
    file = folder / "vegamite.toml"
    file.write_text(release.configuration_text(program) or "")
    variables = dict(program.environment)
    for each in program.container.get("env") or []:
        if "secretKeyRef" in (each.get("valueFrom") or {}):
            variables[each["name"]] = _secret_value(each["name"])
    if SECRETS_DIR in variables:
        secrets = folder / "secrets"
        secrets.mkdir()
        for mounted in files(program.pod, program.container):
            if mounted.kind == "Secret" and mounted.path.startswith(variables[SECRETS_DIR] + "/"):
                path = secrets / mounted.path[len(variables[SECRETS_DIR]) + 1 :]
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(_secret_value(path.name))
        variables[SECRETS_DIR] = str(secrets)
    return load_settings(SETTINGS[program.service], file, environ=variables)


def services_understand_what_they_are_given(release: Release) -> Iterator[str]:
    for program in _configured(release):
        with tempfile.TemporaryDirectory() as folder:
            try:
                _loaded(release, program, Path(folder))
            except ConfigError as error:
                yield f"{program.title}: {str(error).replace(folder, '')}"


def files_that_are_named_are_mounted(release: Release) -> Iterator[str]:
    for program in _configured(release):
        configuration = release.configuration(program) or {}
        kafka, postgres = configuration.get("kafka", {}), configuration.get("postgres", {})
        named = [kafka[key] for key in kafka if key.startswith("ssl_") and key.endswith("_file")]
        query = parse_qs(urlsplit(postgres.get("url", "")).query)
        named += [path for path in [configuration.get("influxdb", {}).get("ssl_ca_file")] if path]
        named += [
            path for key in ("sslrootcert", "sslcert", "sslkey") for path in query.get(key, [])
        ]
        there = [each.path for each in files(program.pod, program.container)]
        for path in named:
            if path not in there and path.rpartition("/")[0] not in there:
                yield f"{program.title} is told of {path}, where nothing is mounted"


def passwords_that_are_needed_are_mounted(release: Release) -> Iterator[str]:
    for program in _configured(release):
        configuration = release.configuration(program) or {}
        there = {each.path for each in files(program.pod, program.container)}
        folder = program.environment.get(SECRETS_DIR)
        sasl = configuration["kafka"].get("security_protocol", "").startswith("SASL")
        if sasl and f"{folder}/kafka/sasl_password" not in there:
            yield f"{program.title} has no password for Kafka"
        if program.is_sink and f"{folder}/influxdb/token" not in there:
            yield f"{program.title} has no token for InfluxDB"
        if program.is_sink and not configuration["influxdb"]["read_revised"]:
            continue
        if not configuration.get("postgres") and f"{folder}/postgres/url" not in there:
            yield f"{program.title} has no address of PostgreSQL"


def a_program_is_given_nothing_that_it_does_not_use(release: Release) -> Iterator[str]:
    for program in _configured(release):
        configuration = release.configuration(program) or {}
        stranger = "postgres" if program.is_sink else "influxdb"
        if program.is_sink and configuration["influxdb"]["read_revised"]:
            continue
        if stranger in configuration:
            yield f"{program.title} is told of [{stranger}]"
        for mounted in files(program.pod, program.container):
            if f"/{stranger}/" in mounted.path:
                yield f"{program.title} is given {mounted.path}"


def no_file_says_a_secret(release: Release) -> Iterator[str]:
    for each in release.of("ConfigMap"):
        for key, text in (each.get("data") or {}).items():
            for line in text.splitlines():
                word = line.partition("=")[0].strip()
                if word in SECRET_KEYS or re.search(r"://[^/@\s]*:[^/@\s]+@", line):
                    yield f"{title(each)}: {key} says {word}"


def no_pod_says_a_secret(release: Release) -> Iterator[str]:
    for pod in release.pods:
        for container in pod.containers:
            for variable in container.get("env") or []:
                name = variable["name"].upper()
                secret = re.search(r"PASSWORD|SECRET|TOKEN|API_KEY|_URL$", name)
                if secret and "value" in variable and not name.endswith(("_FILE", "_DIR")):
                    yield f"{pod.title}: {name} is written in the pod"
            for argument in [*(container.get("command") or []), *(container.get("args") or [])]:
                if re.search(r"://[^/@\s]*:[^/@\s]+@|--password", argument):
                    yield f"{pod.title}: an argument holds a secret"


def generated_secrets_stay_in_their_secret(release: Release) -> Iterator[str]:
    others = yaml.safe_dump([each for each in release.manifests if each["kind"] != "Secret"])
    for secret in release.of("Secret"):
        for key, value in _values(secret).items():
            if value and value in others:
                yield f"{title(secret)}: {key} stands elsewhere too"


def _values(secret: Manifest) -> dict[str, str]:
    decoded = {
        key: base64.b64decode(value).decode() for key, value in (secret.get("data") or {}).items()
    }
    return {**decoded, **(secret.get("stringData") or {})}


def pods_are_replaced_when_their_files_change(release: Release) -> Iterator[str]:
    for pod in release.pods:
        # A Secret of the release is drawn once, and stays as it is.
        own = [name for kind, name, _ in references(pod) if kind == "ConfigMap"]
        sums = [key for key in pod.metadata.get("annotations") or {} if "checksum" in key]
        if pod.runs_on and own and not sums:
            yield f"{pod.title} uses {own}, and carries no checksum of it"


def hooks_bring_their_own_configuration(release: Release) -> Iterator[str]:
    for pod in release.pods:
        if "pre-" not in str((pod.owner["metadata"].get("annotations") or {}).get("helm.sh/hook")):
            continue
        for kind, name, _ in references(pod):
            source = release.find(kind, name)
            if source is not None and (
                not is_hook(source) or _weight(source) >= _weight(pod.owner)
            ):
                yield f"{pod.title} needs {title(source)}, which isn't there before it"


def _weight(manifest: Manifest) -> int:
    return int((manifest["metadata"].get("annotations") or {}).get("helm.sh/hook-weight", "0"))


LAWS: list[Law] = [
    each_program_is_given_its_file,
    services_understand_what_they_are_given,
    files_that_are_named_are_mounted,
    passwords_that_are_needed_are_mounted,
    a_program_is_given_nothing_that_it_does_not_use,
    no_file_says_a_secret,
    no_pod_says_a_secret,
    generated_secrets_stay_in_their_secret,
    pods_are_replaced_when_their_files_change,
    hooks_bring_their_own_configuration,
]


@pytest.mark.parametrize("law", LAWS)
def test_every_release(release: Release, law: Law) -> None:
    assert list(law(release)) == []


def _leaves(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for inner in value.values():
            yield from _leaves(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _leaves(inner)
    elif isinstance(value, str):
        yield value


def test_a_secret_comes_with_the_release_or_is_named_in_the_values(
    scenario: Scenario, release: Release
) -> None:
    paths = [*scenario.files, scenario.folder / "values.yaml"]
    named = {text for path in paths for text in _leaves(yaml.safe_load(path.read_text()))}
    strangers = [
        f"{pod.title}: {name}"
        for pod in release.pods
        for kind, name, _ in references(pod)
        if kind == "Secret" and release.find("Secret", name) is None and name not in named
    ]

    assert strangers == []


def test_images_are_of_this_version(scenario: Scenario, release: Release, version: str) -> None:
    texts = "".join(path.read_text() for path in scenario.files)
    for program in release.programs:
        assert program.container["image"].endswith(f"vegamite/{program.service}:{version}") or (
            re.search(r"^\s*(tag|digest):", texts, re.MULTILINE)
        ), program.container["image"]
    for pod in release.pods:
        for container in pod.containers:
            assert re.search(r"(:[^/]*\d[^/]*|@sha256:[0-9a-f]{64})$", container["image"]), (
                pod.title
            )
            assert not container["image"].endswith(":latest")


def test_notes_tell_no_secret_that_was_generated(helm: Helm, scenario: Scenario) -> None:
    plan = helm.plan(scenario.folder, files=scenario.files)
    secrets = [
        value
        for secret in Release(plan.rendering.manifests).of("Secret")
        for value in _values(secret).values()
        if value
    ]

    assert plan.notes.strip()
    assert [value for value in secrets if value in plan.notes] == []


def test_no_value_is_a_secret_by_default(chart: Path) -> None:
    text = (chart / "values.yaml").read_text()

    assert re.findall(r"^\s*(?:password|token|apiKey|apiSecret)\s*:\s*[^\s{]+", text, re.M) == []


CHANGES: list[tuple[str, str, dict[str, Any]]] = [
    ("collector", "candles-collector", {"config": {"log": {"level": "debug"}}}),
    ("aggregator", "candles-aggregator", {"config": {"log": {"level": "debug"}}}),
    ("api", "candles-api", {"config": {"log": {"level": "debug"}}}),
    ("api", "candles-api", {"config": {"api": {"max_connections": 7}}}),
    ("aggregator", "candles-aggregator", {"kafka": {"bootstrapServers": "elsewhere:9092"}}),
    ("vegamite", "candles-collector", {"collector": {"config": {"log": {"level": "debug"}}}}),
]


@pytest.mark.parametrize(("chart_name", "deployment", "values"), CHANGES)
def test_a_change_of_the_configuration_replaces_that_services_pods_alone(
    helm: Helm, repository: Path, chart_name: str, deployment: str, values: dict[str, Any]
) -> None:
    folder = repository / "helm" / chart_name
    files_of_values = [folder / "ci" / "quickstart-values.yaml"] if chart_name == "vegamite" else []

    assert _replaced(helm, folder, files_of_values, values) == [deployment]


def _replaced(helm: Helm, folder: Path, files: list[Path], values: dict[str, Any]) -> list[str]:
    """The names of the workloads whose pods these values replace."""
    before = Release(helm.template(folder, files=files).manifests)
    after = Release(helm.template(folder, files=files, values=values).manifests)
    return [
        pod.owner["metadata"]["name"]
        for pod in after.pods
        if pod.runs_on
        and (old := before.find(pod.owner["kind"], pod.owner["metadata"]["name"])) is not None
        and old["spec"]["template"] != pod.owner["spec"]["template"]
    ]


@pytest.mark.parametrize(
    ("values", "deployment"),
    [
        ({"sink": {"retentionDays": 7}}, "candles-aggregator-sink"),
        ({"config": {"influxdb": {"updates": True}}}, "candles-aggregator-sink"),
        ({"config": {"postgres": {"pool_size": 3}}}, "candles-aggregator"),
    ],
)
def test_what_the_sink_or_the_aggregator_alone_reads_replaces_its_pods_alone(
    helm: Helm, repository: Path, values: dict[str, Any], deployment: str
) -> None:
    folder = repository / "helm" / "aggregator"
    sink = [folder / "ci" / "sink-plain-values.yaml"]

    assert _replaced(helm, folder, sink, values) == [deployment]


def test_a_sink_that_reads_postgres_does_so_as_its_own_user(releases: dict[str, Release]) -> None:
    release = releases["aggregator-sink-revised"]
    (sink,) = [each for each in release.services if each.is_sink]
    configuration = release.configuration(sink) or {}
    sources = {each.source for each in files(sink.pod, sink.container) if "/postgres/" in each.path}

    assert configuration["postgres"]["url"].startswith("postgresql://reader@database.example.org")
    assert configuration["postgres"]["pool_size"] == 4
    assert sources == {"postgres-reader", "postgres-ca"}


def _in_configuration(text: str) -> Callable[[Release], Any]:
    def change(release: Release) -> None:
        data = release.of("ConfigMap")[0]["data"]
        data["vegamite.toml"] = data["vegamite.toml"] + text

    return change


def _replace(old: str, new: str) -> Callable[[Release], Any]:
    def change(release: Release) -> None:
        data = release.of("ConfigMap")[0]["data"]
        assert re.search(old, data["vegamite.toml"])
        data["vegamite.toml"] = re.sub(old, new, data["vegamite.toml"])

    return change


def _without_secrets(release: Release) -> None:
    for pod in release.pods:
        for volume in pod.spec["volumes"]:
            if "secret" in volume or "projected" in volume:
                volume.pop("secret", None)
                volume.pop("projected", None)
                volume["emptyDir"] = {"sizeLimit": "1Mi"}


def _tell_the_sink_of_postgres(release: Release) -> None:
    config_map = release.find("ConfigMap", "candles-aggregator-sink")
    assert config_map is not None
    config_map["data"]["vegamite.toml"] += "\n[postgres]\npool_size = 3\n"


def _no_checksum(release: Release) -> None:
    release.of("Deployment")[0]["spec"]["template"]["metadata"].pop("annotations")


def _env(**variable: str) -> Callable[[Release], Any]:
    return lambda release: release.programs[0].container.setdefault("env", []).append(variable)


def _leak(release: Release) -> None:
    (value, *_) = _values(release.of("Secret")[0]).values()
    release.of("ConfigMap")[0]["data"]["password"] = value


def _late(release: Release) -> None:
    for each in release.of("ConfigMap"):
        if is_hook(each):
            each["metadata"]["annotations"]["helm.sh/hook-weight"] = "5"


BREAKAGES: list[tuple[Law, str, Callable[[Release], Any]]] = [
    (
        each_program_is_given_its_file,
        "api",
        lambda release: release.programs[0].container.update(args=["--config", "/etc/other.toml"]),
    ),
    (
        each_program_is_given_its_file,
        "collector",
        lambda release: release.programs[0].container.update(volumeMounts=[]),
    ),
    (services_understand_what_they_are_given, "api", _in_configuration("\n[apj]\nport = 1\n")),
    (
        services_understand_what_they_are_given,
        "collector",
        _replace(r"management_port = \d+", 'management_port = "http"'),
    ),
    (
        services_understand_what_they_are_given,
        "aggregator",
        _env(name="VEGAMITE_AGGREGATOR__GRUP", value="x"),
    ),
    (files_that_are_named_are_mounted, "TLS", _without_secrets),
    (passwords_that_are_needed_are_mounted, "SASL", _without_secrets),
    (passwords_that_are_needed_are_mounted, "aggregator-sink", _without_secrets),
    (
        a_program_is_given_nothing_that_it_does_not_use,
        "aggregator",
        _in_configuration('\n[influxdb]\norg = "x"\n'),
    ),
    (
        a_program_is_given_nothing_that_it_does_not_use,
        "aggregator-sink",
        _tell_the_sink_of_postgres,
    ),
    (no_file_says_a_secret, "api", _in_configuration('\n[exchanges.kraken]\napi_key = "x"\n')),
    (no_pod_says_a_secret, "api", _env(name="VEGAMITE_POSTGRES__PASSWORD", value="x")),
    (generated_secrets_stay_in_their_secret, "Secret", _leak),
    (pods_are_replaced_when_their_files_change, "api", _no_checksum),
    (hooks_bring_their_own_configuration, "aggregator", _late),
]


def _example(releases: dict[str, Release], of: str) -> Release:
    """A release by name, of the service with its defaults, the first with that kind, or one that uses TLS or SASL."""
    words = {"TLS": "ssl_ca_file", "SASL": "sasl_username"}
    for name, each in releases.items():
        texts = "".join(str(it.get("data")) for it in each.of("ConfigMap"))
        if name in (of, f"{of}-default") or each.of(of) or (of in words and words[of] in texts):
            return copy.deepcopy(each)
    raise LookupError(of)


@pytest.mark.parametrize(("law", "of", "breakage"), BREAKAGES)
def test_a_release_that_breaks_a_law_is_seen(
    releases: dict[str, Release], law: Law, of: str, breakage: Callable[[Release], Any]
) -> None:
    release = _example(releases, of)
    assert list(law(release)) == []

    breakage(release)

    assert list(law(release)) != []


def test_every_law_has_a_breakage() -> None:
    assert {law for law, _, _ in BREAKAGES} == set(LAWS)
