"""Values that make no sense are refused by both Helms, before anything is rendered, with a sentence that says which and why."""

import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from vegamite_common.testing.charts.helm import Helm, HelmError

Values = dict[str, Any]

KAFKA = {"bootstrapServers": "kafka.example.org:9092"}
SASL = {**KAFKA, "securityProtocol": "SASL_SSL"}
QUICKSTART = {"quickstart": True}
SINK = {"enabled": True, "url": "http://influxdb:8086", "existingSecret": "influxdb"}

# Chart, values, and what the refusal must say, in any order.
REFUSED: list[tuple[str, Values, list[str]]] = [
    # Two values that don't go together.
    ("collector", {"replicas": 13}, ["replicas 13", "12 partitions", "kafka.topics.partitions"]),
    ("aggregator", {"replicas": 13}, ["replicas 13", "12 partitions", "kafka.topics.partitions"]),
    (
        "aggregator",
        {"replicas": 4, "kafka": {"topics": {"partitions": 3}}},
        ["replicas 4", "3 partitions"],
    ),
    (
        "vegamite",
        {"global": {"kafka": {"topics": {"partitions": 3}}}, "aggregator": {"replicas": 4}},
        ["aggregator", "replicas 4", "3 partitions"],
    ),
    (
        "aggregator",
        {"autoscaling": {"type": "keda", "minReplicas": 13, "maxReplicas": 20}},
        ["autoscaling.minReplicas 13", "12 partitions"],
    ),
    (
        "api",
        {"autoscaling": {"type": "hpa", "minReplicas": 5, "maxReplicas": 4}},
        ["autoscaling.minReplicas 5 is more than autoscaling.maxReplicas 4"],
    ),
    ("aggregator", {"maintenance": {"schedule": "hourly"}}, ["maintenance", "schedule"]),
    ("aggregator", {"maintenance": {"schedule": ""}}, ["maintenance", "schedule"]),
    ("aggregator", {"maintenance": {"archive": {"path": "archive"}}}, ["archive", "path"]),
    ("collector", {"autoscaling": {"type": "keda"}}, ["autoscaling"]),
    ("api", {"autoscaling": {"type": "keda"}}, ["autoscaling"]),
    (
        "vegamite",
        {"global": {**QUICKSTART, "kafka": KAFKA}},
        ["global.quickstart brings its own Kafka", "global.kafka.bootstrapServers"],
    ),
    (
        "vegamite",
        {"global": {**QUICKSTART, "postgres": {"host": "db"}}},
        ["global.quickstart brings its own PostgreSQL", "global.postgres.host"],
    ),
    (
        "vegamite",
        {"global": QUICKSTART, "collector": {"kafka": KAFKA}},
        ["global.quickstart brings its own Kafka", "collector.kafka.bootstrapServers"],
    ),
    ("api", {"global": QUICKSTART}, ["global.quickstart belongs to the chart vegamite"]),
    ("collector", {"kafka": {"bootstrapServers": ""}}, ["kafka.bootstrapServers is empty", "set"]),
    ("api", {"postgres": {"host": ""}}, ["postgres.host is empty", "set"]),
    ("api", {"kafka": SASL}, ["kafka.sasl.username", "kafka.sasl.existingSecret"]),
    (
        "api",
        {"kafka": {"sasl": {"username": "a", "existingSecret": "b"}}},
        ["sends no password", "SASL_SSL"],
    ),
    ("api", {"kafka": {"tls": {"existingSecret": "ca"}}}, ["uses no TLS", "SASL_SSL"]),
    (
        "collector",
        {
            "kafka": {
                "securityProtocol": "SSL",
                "tls": {"existingSecret": "ca", "certKey": "user.crt"},
            }
        },
        ["kafka.tls.certKey and kafka.tls.keyKey go together"],
    ),
    (
        "aggregator",
        {"kafka": {"topics": {"minInsyncReplicas": 2}}},
        ["kafka.topics.minInsyncReplicas 2", "kafka.topics.replicationFactor 1"],
    ),
    (
        "api",
        {"postgres": {"sslMode": "verify-full"}},
        ["postgres.sslMode verify-full", "postgres.tls.existingSecret"],
    ),
    (
        "api",
        {"terminationGracePeriodSeconds": 20},
        ["terminationGracePeriodSeconds 20 is too short", "30 s"],
    ),
    (
        "api",
        {"serviceMonitor": {"enabled": True}, "podMonitor": {"enabled": True}},
        ["serviceMonitor.enabled and podMonitor.enabled", "choose one"],
    ),
    (
        "aggregator",
        {"sink": {"enabled": True}},
        ["sink.enabled needs sink.url", "sink.enabled needs sink.existingSecret"],
    ),
    (
        "vegamite",
        {"aggregator": {"sink": {**SINK, "replicas": 13}}},
        ["sink.replicas 13", "12 partitions"],
    ),
    (
        "aggregator",
        {"sink": {**SINK, "bucket": "a", "downsampledBucket": "a"}},
        ["sink.bucket and sink.downsampledBucket are both a"],
    ),
    (
        "aggregator",
        {"sink": {**SINK, "tls": {"existingSecret": "ca"}}},
        ["sink.tls.existingSecret is set", "https://"],
    ),
    (
        "aggregator",
        {"sink": {**SINK, "kafka": {"sasl": {"username": "a"}}}},
        ["sink.kafka.sasl.username and sink.kafka.sasl.existingSecret go together"],
    ),
    (
        "aggregator",
        {"sink": {**SINK, "kafka": {"sasl": {"username": "a", "existingSecret": "b"}}}},
        ["sink.kafka.sasl.existingSecret", "sends no password"],
    ),
    ("aggregator", {"sink": {"url": "http://a:b@influxdb:8086"}}, ["sink.url"]),
    ("aggregator", {"sink": {"url": "influxdb:8086"}}, ["sink.url"]),
    ("aggregator", {"sink": {"org": ""}}, ["sink.org"]),
    ("aggregator", {"sink": {"token": "x"}}, ["sink", "unknown key token"]),
    # Secrets, which would be readable.
    (
        "aggregator",
        {"config": {"influxdb": {"token": "x"}}},
        ["config.influxdb.token is a secret", "sink.existingSecret"],
    ),
    (
        "aggregator",
        {"env": {"VEGAMITE_INFLUXDB__TOKEN": "x"}},
        ["env.VEGAMITE_INFLUXDB__TOKEN is a secret"],
    ),
    (
        "aggregator",
        {"config": {"influxdb": {"url": "http://a"}}},
        ["config.influxdb.url isn't for config", "sink.url"],
    ),
    (
        "api",
        {"config": {"postgres": {"password": "x"}}},
        ["config.postgres.password is a secret", "postgres.existingSecret"],
    ),
    (
        "api",
        {"config": {"postgres": {"url": "postgresql://a:b@c/d"}}},
        ["config.postgres.url isn't for config", "postgres.urlSecret"],
    ),
    (
        "aggregator",
        {"env": {"VEGAMITE_POSTGRES__PASSWORD": "x"}},
        ["env.VEGAMITE_POSTGRES__PASSWORD is a secret", "extraEnv"],
    ),
    (
        "collector",
        {"extraEnv": [{"name": "VEGAMITE_EXCHANGES__KRAKEN__API_SECRET", "value": "x"}]},
        ["VEGAMITE_EXCHANGES__KRAKEN__API_SECRET is a secret", "secretKeyRef"],
    ),
    # Configuration that the rest of the chart stands on.
    ("api", {"config": {"api": {"port": 9999}}}, ["config.api.port", "service.port"]),
    ("collector", {"config": {"collector": {"management_port": 9}}}, ["management_port", "8001"]),
    (
        "aggregator",
        {"config": {"kafka": {"bootstrap_servers": "x:1"}}},
        ["config.kafka.bootstrap_servers", "kafka.bootstrapServers"],
    ),
    # Switched on by half.
    ("api", {"ingress": {"enabled": True}}, ["ingress.enabled needs ingress.hosts"]),
    (
        "api",
        {"httpRoute": {"enabled": True, "hostnames": ["vegamite.example.org"]}},
        ["httpRoute.enabled needs httpRoute.parentRefs"],
    ),
    (
        "api",
        {"tests": {"apiKey": {"existingSecret": "key"}}},
        ["tests.apiKey.existingSecret needs tests.apiKey.key"],
    ),
    (
        "vegamite",
        {"global": QUICKSTART, "aggregator": {"enabled": False}},
        ["global.quickstart needs aggregator.enabled"],
    ),
    (
        "vegamite",
        {"global": {**QUICKSTART, "kafka": {"topics": {"replicationFactor": 3}}}},
        ["global.kafka.topics.replicationFactor", "one broker"],
    ),
    (
        "collector",
        {"config": {"exchanges": {"kraken": {"api_key": "x"}}}},
        ["config.exchanges.kraken.api_key is a secret", "exchangeSecrets.kraken"],
    ),
    # Keys that nobody knows, at every depth.
    ("api", {"replica": 2}, ["unknown key replica"]),
    ("collector", {"image": {"version": "1"}}, ["image", "unknown key version"]),
    ("aggregator", {"kafka": {"bootstrap": "a:1"}}, ["kafka", "unknown key bootstrap"]),
    ("api", {"kafka": {"sasl": {"password": "x"}}}, ["kafka.sasl", "unknown key password"]),
    (
        "aggregator",
        {"kafka": {"topics": {"partition": 12}}},
        ["kafka.topics", "unknown key partition"],
    ),
    ("api", {"probes": {"startup": {"period": 1}}}, ["probes.startup", "unknown key period"]),
    ("api", {"resources": {"limit": {}}}, ["resources", "unknown key limit"]),
    ("vegamite", {"colector": {}}, ["unknown key colector"]),
    ("vegamite", {"global": {"quickStart": True}}, ["global", "unknown key quickStart"]),
    ("vegamite", {"api": {"replica": 2}}, ["unknown key replica"]),
    (
        "vegamite",
        {"quickstart": {"kafka": {"heapSize": "1g"}}},
        ["quickstart.kafka", "unknown key heapSize"],
    ),
    # Values of another type, or out of range.
    ("api", {"replicas": "two"}, ["replicas", "integer"]),
    ("api", {"replicas": -1}, ["replicas", "0"]),
    ("collector", {"enabled": "yes"}, ["enabled", "boolean"]),
    ("api", {"service": {"type": "External"}}, ["service.type", "ClusterIP"]),
    ("api", {"image": {"digest": "sha256:1"}}, ["image.digest", "pattern"]),
    (
        "aggregator",
        {"kafka": {"bootstrapServers": "kafka"}},
        ["kafka.bootstrapServers", "pattern"],
    ),
    ("aggregator", {"kafka": {"securityProtocol": "TLS"}}, ["securityProtocol", "SASL_SSL"]),
    ("aggregator", {"autoscaling": {"type": "vpa"}}, ["autoscaling.type", "keda"]),
    ("api", {"resources": {"limits": {"memory": 1000}}}, ["resources.limits.memory", "string"]),
    ("api", {"tmpSize": "big"}, ["tmpSize", "pattern"]),
    ("api", {"env": {"A": 1}}, ["env.A", "string"]),
    ("api", {"ingress": {"hosts": ["a.example.org"]}}, ["ingress.hosts.0", "object"]),
]


def _in_one_voice(refusal: str) -> str:
    """What a Helm says about a schema, in the same words for both."""
    refusal = refusal.partition("Error: ")[2] or refusal
    refusal = re.sub(r"at '/([^']*)'", lambda found: found[1].replace("/", "."), refusal)
    refusal = re.sub(r"additional properties '(\w+)' not allowed", r"unknown key \1", refusal)
    return re.sub(r"Additional property (\w+) is not allowed", r"unknown key \1", refusal)


def _refusal(helm: Helm, chart: Path, values: Values) -> str:
    try:
        helm.template(chart, values=values)
    except HelmError as error:
        return _in_one_voice(str(error))
    return "rendered as if nothing were wrong"


@pytest.mark.parametrize(("chart_name", "values", "said"), REFUSED, ids=str)
def test_nonsense_is_refused_with_a_sentence_that_helps(
    helms: dict[str, Helm],
    repository: Path,
    pool: ThreadPoolExecutor,
    chart_name: str,
    values: Values,
    said: list[str],
) -> None:
    folder = repository / "helm" / chart_name
    refusals = list(pool.map(lambda helm: _refusal(helm, folder, values), helms.values()))

    for refusal in refusals:
        assert [each for each in said if each not in refusal] == [], refusal


def test_every_problem_is_told_at_once(helm: Helm, repository: Path) -> None:
    values = {"replicas": 13, "terminationGracePeriodSeconds": 1, "postgres": {"host": ""}}
    refusal = _refusal(helm, repository / "helm" / "aggregator", values)

    assert all(
        each in refusal
        for each in ("replicas 13", "terminationGracePeriodSeconds", "postgres.host")
    )


def test_replicas_beside_a_scaler_are_the_scalers_affair(helm: Helm, repository: Path) -> None:
    """The values always have a number; where a scaler is asked for, the manifest states none."""
    made = helm.template(
        repository / "helm" / "api", values={"replicas": 3, "autoscaling": {"type": "hpa"}}
    )
    (deployment,) = [each for each in made.manifests if each["kind"] == "Deployment"]

    assert "replicas" not in deployment["spec"]
