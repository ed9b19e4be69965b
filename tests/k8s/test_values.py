"""The value files fit their charts and what the kustomizations make: every name, key, user and number in them."""

import base64
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from vegamite_aggregator.config import AggregatorSettings
from vegamite_aggregator.migrate import topic_specs
from vegamite_api.config import ApiSettings
from vegamite_collector.config import CollectorSettings
from vegamite_common.runtime.config import SharedSettings, load_settings
from vegamite_common.testing.charts.helm import Helm
from vegamite_common.testing.charts.kubernetes_schemas import (
    KUBERNETES_VERSIONS,
    CustomSchemas,
    built_in_problems,
)
from vegamite_common.testing.charts.manifest import Manifest, Pod, pods, selects, title
from vegamite_common.testing.services.kubernetes_tools import KubernetesTools

Build = Callable[[str], tuple[Manifest, ...]]

ROOT = Path(__file__).resolve().parents[2]
K8S = ROOT / "k8s"
SERVICES = ("collector", "aggregator", "api")
SETTINGS: dict[str, type[SharedSettings]] = {
    "collector": CollectorSettings,
    "aggregator": AggregatorSettings,
    "api": ApiSettings,
}


@dataclass(frozen=True)
class Release:
    """A chart in an environment, and the value files in the order of the command line."""

    environment: str
    chart: str
    files: tuple[str, ...]

    @property
    def services(self) -> tuple[str, ...]:
        """Which services are in it."""
        return SERVICES if self.chart == "vegamite" else (self.chart,)


RELEASES = [
    Release(name, "vegamite", ("values/global", "values/vegamite", f"overlays/{name}/values"))
    for name in ("dev", "staging")
] + [
    Release("prod", name, ("values/global", f"values/{name}", f"overlays/prod/values/{name}"))
    for name in SERVICES
]
each_release = pytest.mark.parametrize(
    "release", RELEASES, ids=lambda each: f"{each.environment}-{each.chart}"
)

Render = Callable[[Release, str], tuple[Manifest, ...]]


@pytest.fixture(scope="session")
def render(tools: KubernetesTools) -> Render:
    """Render a release with one of the two Helms."""
    helms = {"3": Helm(tools.helm3), "4": Helm(tools.helm4)}
    made: dict[tuple[Release, str], tuple[Manifest, ...]] = {}

    def rendered(release: Release, generation: str) -> tuple[Manifest, ...]:
        key = (release, generation)
        if key not in made:
            files = [K8S / f"{name}.yaml" for name in release.files]
            chart = ROOT / "helm" / release.chart
            rendering = helms[generation].template(chart, files=files)
            made[key] = rendering.manifests
        return made[key]

    return rendered


def _by_title(manifests: tuple[Manifest, ...]) -> dict[str, Manifest]:
    return {title(each): each for each in manifests}


def _of(manifests: tuple[Manifest, ...], kind: str) -> list[Manifest]:
    return [each for each in manifests if each["kind"] == kind]


@dataclass(frozen=True)
class Made:
    """What the operators make of an environment's objects, by the names that they give it."""

    secrets: dict[str, frozenset[str]]
    log_address: str
    database_host: str
    log_users: frozenset[str]
    logins: frozenset[str]


@pytest.fixture(scope="session")
def operators(build: Build) -> Callable[[str], Made]:
    def made(environment: str) -> Made:
        manifests = build(f"overlays/{environment}")
        (kafka,) = _of(manifests, "Kafka")
        (cluster,) = _of(manifests, "Cluster")
        log, database = kafka["metadata"]["name"], cluster["metadata"]["name"]
        users = {each["metadata"]["name"] for each in _of(manifests, "KafkaUser")}
        roles = cluster["spec"]["managed"]["roles"]
        (listener,) = kafka["spec"]["kafka"]["listeners"]
        return Made(
            secrets={
                **dict.fromkeys(users, frozenset({"password", "sasl.jaas.config"})),
                f"{log}-cluster-ca-cert": frozenset({"ca.crt", "ca.p12", "ca.password"}),
                f"{database}-ca": frozenset({"ca.crt", "ca.key"}),
                f"{database}-app": frozenset({"username", "password", "dbname", "uri"}),
                **{
                    role["passwordSecret"]["name"]: frozenset({"username", "password"})
                    for role in roles
                },
                # Not an operator, but InfluxDB's first start takes it; k8s/README.md says how it is made.
                **{
                    volume["secret"]["secretName"]: frozenset(
                        item["key"] for item in volume["secret"]["items"]
                    )
                    for pod in pods(manifests)
                    for volume in pod.volumes.values()
                    if "secret" in volume
                },
            },
            log_address=f"{log}-kafka-bootstrap:{listener['port']}",
            database_host=f"{database}-rw",
            log_users=frozenset(users),
            logins=frozenset(
                {
                    cluster["spec"]["bootstrap"]["initdb"]["owner"],
                    *(role["name"] for role in roles),
                }
            ),
        )

    return made


Operators = Callable[[str], Made]


@each_release
def test_both_helms_write_the_same(render: Render, release: Release) -> None:
    assert _by_title(render(release, "3")) == _by_title(render(release, "4"))


@pytest.fixture(scope="session")
def custom() -> CustomSchemas:
    """The definitions of KEDA and of the Prometheus operator, where they are beside the recorded data."""
    return CustomSchemas(Path(os.environ.get("VEGAMITE_TEST_DATA", "none")).parent / "crds")


@each_release
def test_kubernetes_and_the_operators_take_it(
    render: Render, custom: CustomSchemas, release: Release
) -> None:
    for manifest in render(release, "4"):
        if (manifest["apiVersion"], manifest["kind"]) in custom.kinds:
            assert custom.problems(manifest) == []
        elif not manifest["apiVersion"].startswith(("keda.sh/", "monitoring.coreos.com/")):
            for version in KUBERNETES_VERSIONS:
                assert built_in_problems(manifest, version) == []


def _needed_secrets(pod: Pod) -> Iterator[tuple[str, str]]:
    """(Secret, key) of everything that a pod takes from Secrets, in volumes and in its environment."""
    for volume in pod.volumes.values():
        sources = [volume, *volume.get("projected", {}).get("sources", [])]
        for source in (each["secret"] for each in sources if "secret" in each):
            name = source.get("secretName", source.get("name"))
            assert source.get("items"), f"{pod.title} mounts all of {name}"
            yield from ((name, item["key"]) for item in source["items"])
    for container in pod.containers:
        for variable in container.get("env") or []:
            reference = variable.get("valueFrom", {}).get("secretKeyRef")
            if reference:
                yield reference["name"], reference["key"]


@each_release
def test_every_secret_that_a_pod_needs_is_one_that_is_made(
    render: Render, operators: Operators, release: Release
) -> None:
    made = operators(release.environment).secrets
    needed = {each for pod in pods(render(release, "4")) for each in _needed_secrets(pod)}

    assert {name for name, _ in needed} >= {
        *(f"kafka-{name}" for name in release.services),
        *(f"postgres-{name}" for name in release.services),
    }
    assert {(name, key) for name, key in needed if key not in made.get(name, ())} == set()


@each_release
def test_the_scaler_s_secrets_are_made_too(
    render: Render, operators: Operators, release: Release
) -> None:
    made = operators(release.environment).secrets
    authentications = _of(render(release, "4"), "TriggerAuthentication")
    needed = [
        (each["name"], each["key"])
        for authentication in authentications
        for each in authentication["spec"]["secretTargetRef"]
    ]

    assert bool(needed) == (release == Release("prod", "aggregator", release.files))
    assert [(name, key) for name, key in needed if key not in made.get(name, ())] == []


def _configurations(
    manifests: tuple[Manifest, ...], folder: Path
) -> Iterator[tuple[str, SharedSettings]]:
    """Every vegamite.toml of a release as its service reads it, by the name of the ConfigMap."""
    secrets = folder / "secrets"
    for section, key in (
        ("postgres", "password"), ("kafka", "sasl_password"), ("influxdb", "token")
    ):  # fmt: skip
        (secrets / section).mkdir(parents=True, exist_ok=True)
        (secrets / section / key).write_text("hush")
    for manifest in _of(manifests, "ConfigMap"):
        text = manifest["data"].get("vegamite.toml")
        if text is None:
            continue
        name = manifest["metadata"]["name"]
        path = folder / f"{name}.toml"
        path.write_text(text)
        service = next(each for each in SERVICES if f"[{each}]" in text)
        environment = {"VEGAMITE_SECRETS_DIR": str(secrets)}
        yield name, load_settings(SETTINGS[service], path, environ=environment)


@each_release
def test_the_services_are_told_names_and_users_that_exist(
    render: Render, operators: Operators, release: Release, tmp_path: Path
) -> None:
    made = operators(release.environment)
    found = dict(_configurations(render(release, "4"), tmp_path))

    assert len(found) >= len(release.services)
    for settings in found.values():
        assert settings.kafka.bootstrap_servers == made.log_address
        assert settings.kafka.security_protocol == "SASL_SSL"
        assert settings.kafka.sasl_username in made.log_users
        if _is_the_sink_s(settings):
            continue
        url = settings.postgres.url.get_secret_value()
        user, _, rest = url.removeprefix("postgresql://").partition("@")
        assert user in made.logins
        assert rest.startswith(f"{made.database_host}:5432/vegamite?sslmode=verify-full")


def _is_the_sink_s(settings: SharedSettings) -> bool:
    return isinstance(settings, AggregatorSettings) and settings.influxdb.url is not None


def test_dev_s_sink_writes_to_the_influxdb_that_is_there(
    render: Render, build: Build, tmp_path: Path
) -> None:
    manifests = build("overlays/dev")
    rendered = render(RELEASES[0], "4")
    (server,) = pods(manifests)
    (service,) = (each for each in _of(manifests, "Service") if _leads_to(each, server))
    found = dict(_configurations(rendered, tmp_path))
    (sink,) = (each for each in found.values() if _is_the_sink_s(each))
    (door,) = (
        each
        for each in _of(manifests, "NetworkPolicy")
        if selects(each["spec"]["podSelector"], server.labels)
    )
    (pod,) = (
        each
        for each in pods(rendered)
        if each.labels.get("app.kubernetes.io/component") == "sink" and each.runs_on
    )
    peers = [peer for rule in door["spec"]["ingress"] for peer in rule["from"]]
    variables = {each["name"]: each.get("value") for each in server.containers[0]["env"]}

    assert isinstance(sink, AggregatorSettings)
    port = service["spec"]["ports"][0]["port"]
    assert sink.influxdb.url == f"http://{service['metadata']['name']}:{port}"
    assert sink.influxdb.org == variables["DOCKER_INFLUXDB_INIT_ORG"]
    assert any(selects(peer.get("podSelector"), pod.labels) for peer in peers)


def _leads_to(service: Manifest, pod: Pod) -> bool:
    return selects({"matchLabels": service["spec"]["selector"]}, pod.labels)


@each_release
def test_the_migration_checks_the_topics_that_are_there_and_owns_the_schema(
    render: Render, build: Build, release: Release, tmp_path: Path
) -> None:
    topics = {
        each["metadata"]["name"]: each["spec"]
        for each in _of(build(f"overlays/{release.environment}"), "KafkaTopic")
    }
    found = dict(_configurations(render(release, "4"), tmp_path)).values()
    aggregators = [
        each for each in found if isinstance(each, AggregatorSettings) and not _is_the_sink_s(each)
    ]

    assert bool(aggregators) == ("aggregator" in release.services)
    for settings in aggregators:
        assert settings.kafka.topics.manage is False
        for spec in topic_specs(settings.kafka.topics):
            assert topics[spec.topic]["partitions"] == spec.partitions
            assert topics[spec.topic]["config"]["retention.ms"] >= spec.retention_ms
    owners = [
        each for each in aggregators if "vegamite_owner@" in each.postgres.url.get_secret_value()
    ]
    assert len(owners) == len(aggregators) / 2, "one configuration of two is the migration's"


@each_release
def test_no_more_pods_share_the_work_than_there_are_partitions(
    render: Render, build: Build, release: Release
) -> None:
    (partitions,) = {
        each["spec"]["partitions"]
        for each in _of(build(f"overlays/{release.environment}"), "KafkaTopic")
    }
    for manifest in render(release, "4"):
        spec = manifest.get("spec") or {}
        most = spec.get("maxReplicas", spec.get("maxReplicaCount", spec.get("replicas", 1)))
        assert most <= partitions, title(manifest)


@each_release
def test_the_policies_lead_to_the_log_and_the_database(render: Render, release: Release) -> None:
    """By the labels that the operators give to their pods."""
    log = {"strimzi.io/cluster": "vegamite", "strimzi.io/name": "vegamite-kafka"}
    influxdb = {"app.kubernetes.io/name": "influxdb"}
    database = {"cnpg.io/cluster": "vegamite-postgres", "cnpg.io/instanceRole": "primary"}
    policies = [
        each
        for each in _of(render(release, "4"), "NetworkPolicy")
        if not each["metadata"]["name"].endswith("-test")
    ]

    assert policies
    for policy in policies:
        component = policy["spec"]["podSelector"]["matchLabels"]["app.kubernetes.io/component"]
        store = (8086, influxdb) if component == "sink" else (5432, database)
        for port, labels in ((9093, log), store):
            (rule,) = (
                each
                for each in policy["spec"]["egress"]
                if port in {item["port"] for item in each["ports"]}
            )
            assert [selects(peer["podSelector"], labels) for peer in rule["to"]] == [True]


@pytest.mark.parametrize("environment", ["dev", "staging", "prod"])
def test_the_log_and_the_database_let_our_pods_in(
    render: Render, build: Build, environment: str
) -> None:
    manifests = build(f"overlays/{environment}")
    (kafka,) = _of(manifests, "Kafka")
    (listener,) = kafka["spec"]["kafka"]["listeners"]
    (policy,) = (
        each
        for each in _of(manifests, "NetworkPolicy")
        if each["metadata"]["name"] == "vegamite-postgres"
    )
    doors = [
        listener["networkPolicyPeers"],
        next(
            rule["from"]
            for rule in policy["spec"]["ingress"]
            if {"protocol": "TCP", "port": 5432} in rule["ports"]
        ),
    ]

    ours = [
        pod
        for release in RELEASES
        if release.environment == environment
        for pod in pods(render(release, "4"))
        if pod.labels.get("app.kubernetes.io/component") != "test"
    ]
    assert len(ours) >= 4, "three services and the migration"
    for pod in ours:
        for peers in doors:
            assert any(selects(peer.get("podSelector"), pod.labels) for peer in peers), pod.title


def test_the_umbrella_s_values_are_those_of_the_three_charts() -> None:
    def read(name: str) -> Any:
        return yaml.safe_load((K8S / f"values/{name}.yaml").read_text())

    assert read("vegamite") == {name: read(name) for name in SERVICES}


def test_production_s_dashboards_come_without_a_service(tools: KubernetesTools) -> None:
    file = K8S / "overlays/prod/values/dashboards.yaml"
    manifests = Helm(tools.helm4).template(ROOT / "helm/vegamite", files=[file]).manifests

    assert manifests
    assert {each["kind"] for each in manifests} == {"ConfigMap"}


def test_no_value_file_holds_a_secret() -> None:
    """A password would be a text under a key called so, or a long text of letters and digits."""
    for path in sorted(K8S.rglob("values*/**/*.yaml")) + sorted(K8S.rglob("values.yaml")):
        for key, value in _texts(yaml.safe_load(path.read_text())):
            assert key not in {"password", "token"}, f"{path}: {key}"
            assert not _looks_random(value), f"{path}: {key}"


def _texts(value: Any, key: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from _texts(inner, name)
    elif isinstance(value, list):
        for inner in value:
            yield from _texts(inner, key)
    elif isinstance(value, str):
        yield key, value


def _looks_random(text: str) -> bool:
    if len(text) < 20 or not text.isascii():
        return False
    try:
        return bool(base64.b64decode(text, validate=True))
    except ValueError:
        return False
