"""Every value that a chart documents changes something: none is left over, none is misspelt, none is forgotten in a template."""

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import yaml

from vegamite_common.testing.charts.helm import Helm, HelmError
from vegamite_common.testing.charts.scenario import Renders, Scenario
from vegamite_common.testing.charts.values import (
    documented_values,
    leaves,
    merged,
    nested,
    value_at,
)

Values = dict[str, Any]
Leaf = tuple[str, tuple[str, ...], Any]

ON = {"enabled": True}
KAFKA_TLS = {
    "securityProtocol": "SSL",
    "tls": {
        "existingSecret": "ca",
        "clientSecret": "client",
        "certKey": "user.crt",
        "keyKey": "user.key",
    },
}
KAFKA_SASL = {
    "securityProtocol": "SASL_SSL",
    "sasl": {"username": "candles", "existingSecret": "kafka", "mechanism": "SCRAM-SHA-512"},
}
SINK = {**ON, "url": "https://influxdb", "existingSecret": "influxdb"}
REPLICATED = {"replicationFactor": 3, "minInsyncReplicas": 1}
HOST = {"host": "candles.example.org", "path": "/"}

# What has to be so for a value to matter: the first pattern that fits its path.
CIRCUMSTANCES: list[tuple[str, Values]] = [
    (
        r"kafka\.topics\.partitions",
        {"replicas": 1, "autoscaling": {"type": "hpa", "minReplicas": 1, "maxReplicas": 50}},
    ),
    (
        r"exchangeSecrets\.",
        {
            "exchangeSecrets": {
                "kraken": {
                    "existingSecret": "kraken",
                    "apiKeyKey": "a",
                    "apiSecretKey": "b",
                    "apiPasswordKey": "c",
                }
            }
        },
    ),
    (r"global\.kafka\.sasl", {"global": {"kafka": KAFKA_SASL}}),
    (r"global\.kafka\.tls", {"global": {"kafka": {"securityProtocol": "SSL"}}}),
    (r"global\.kafka\.topics\.minInsync", {"global": {"kafka": {"topics": REPLICATED}}}),
    (r"quickstart\.", {"global": {"quickstart": True}}),
    (r"dashboards\.", {"dashboards": ON}),
    (r"autoscaling\.keda\.", {"autoscaling": {"type": "keda"}}),
    (r"autoscaling\.", {"autoscaling": {"type": "hpa"}}),
    (r"serviceMonitor\.", {"serviceMonitor": ON}),
    (r"podMonitor\.", {"podMonitor": ON}),
    (r"ingress\.", {"ingress": {**ON, "hosts": [HOST]}}),
    (
        r"httpRoute\.",
        {"httpRoute": {**ON, "parentRefs": [{"name": "a"}], "hostnames": ["a.example.org"]}},
    ),
    (r"service\.nodePort", {"service": {"type": "NodePort"}}),
    (r"service\.loadBalancer", {"service": {"type": "LoadBalancer"}}),
    (r"pdb\.", {"replicas": 2}),
    (r"kafka\.sasl\.", {"kafka": KAFKA_SASL}),
    (r"kafka\.tls\.", {"kafka": KAFKA_TLS}),
    (r"kafka\.topics\.minInsync", {"kafka": {"topics": REPLICATED}}),
    (r"postgres\.passwordKey", {"postgres": {"existingSecret": "database"}}),
    (r"postgres\.urlKey", {"postgres": {"urlSecret": "database"}}),
    (
        r"postgres\.tls\.",
        {"postgres": {"sslMode": "verify-full", "tls": {"existingSecret": "ca"}}},
    ),
    (r"migration\.postgres\.passwordKey", {"migration": {"postgres": {"existingSecret": "a"}}}),
    (r"migration\.postgres\.urlKey", {"migration": {"postgres": {"urlSecret": "a"}}}),
    (r"maintenance\.archive\.path", {"maintenance": {"archive": {"existingClaim": "trades"}}}),
    (r"sink\.tls\.", {"sink": {**SINK, "tls": {"existingSecret": "ca"}}}),
    (
        r"sink\.kafka\.sasl\.",
        {
            "kafka": KAFKA_SASL,
            "sink": {**SINK, "kafka": {"sasl": {"username": "a", "existingSecret": "b"}}},
        },
    ),
    (r"sink\.kafka\.tls\.", {"kafka": KAFKA_TLS, "sink": SINK}),
    (
        r"sink\.postgres\.url",
        {"sink": {**SINK, "readRevised": True, "postgres": {"urlSecret": "a"}}},
    ),
    (
        r"sink\.postgres\.",
        {"sink": {**SINK, "readRevised": True, "postgres": {"existingSecret": "a"}}},
    ),
    (r"(sink|networkPolicy\.influxdb|config\.influxdb)\.", {"sink": SINK}),
    (r"tests\.apiKey\.", {"tests": {"apiKey": {"existingSecret": "a", "key": "b"}}}),
    (r"strategy\.rollingUpdate", {}),
]

PEERS = [{"ipBlock": {"cidr": "10.1.0.0/16"}}]
# Another value that is allowed there: the first pattern that fits the path.
OTHERS: list[tuple[str, Any]] = [
    (r"bootstrapServers$", "kafka.example.org:9093"),
    (r"securityProtocol$", "SSL"),
    (r"sasl\.mechanism$", "PLAIN"),
    (r"sslMode$", "require"),
    (r"pullPolicy$", "Always"),
    (r"image\.digest$", f"sha256:{'a' * 64}"),
    (r"service\.type$", "NodePort"),
    (r"nodePort$", 30077),
    (r"loadBalancerSourceRanges$", ["10.1.0.0/16"]),
    (r"autoscaling\.type$", "hpa"),
    (r"fsGroupChangePolicy$", "Always"),
    (r"terminationGracePeriodSeconds$", 77),
    (r"cpu$", "77m"),
    (r"(memory|tmpSize|[sS]ize|storage)$", "777Mi"),
    (r"heap$", "77m"),
    (r"seccompProfile\.type$", "Localhost"),
    (r"(interval|scrapeTimeout|timeouts\.\w+)$", "7s"),
    (r"sink\.url$", "https://influxdb.example.org:8087"),
    (r"lagThreshold$", "7777"),
    (r"kafkaVersion$", "3.0.0"),
    (r"(annotations|Annotations|labels|podLabels|nodeSelector)$", {"example.org/a": "b"}),
    (r"tolerations$", [{"key": "a", "operator": "Exists"}]),
    (
        r"affinity$",
        {
            "podAntiAffinity": {
                "preferredDuringSchedulingIgnoredDuringExecution": [
                    {"weight": 1, "podAffinityTerm": {"topologyKey": "kubernetes.io/hostname"}}
                ]
            }
        },
    ),
    (
        r"topologySpreadConstraints$",
        [{"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "ScheduleAnyway"}],
    ),
    (r"(^|\.)env$", {"LANG": "C"}),
    (r"extraEnv$", [{"name": "LANG", "value": "C"}]),
    (r"extraEnvFrom$", [{"configMapRef": {"name": "a"}}]),
    (r"extraVolumes$", [{"name": "a", "emptyDir": {"sizeLimit": "1Mi"}}]),
    (r"extraVolumeMounts$", [{"name": "tmp", "mountPath": "/b"}]),
    (r"lifecycle$", {"postStart": {"sleep": {"seconds": 7}}}),
    (r"imagePullSecrets$", ["a"]),
    (r"[rR]elabelings$", [{"action": "drop", "regex": "a", "sourceLabels": ["b"]}]),
    (r"(networkPolicy.*\.(to|from))$", PEERS),
    (r"networkPolicy.*\.ports$", [7777]),
    (r"extraIngress$", [{"ports": [{"port": 7, "protocol": "TCP"}]}]),
    (r"extraEgress$", [{"ports": [{"port": 7, "protocol": "TCP"}]}]),
    (r"(allowedHosts|hostnames)$", ["b.example.org"]),
    (r"ingress\.hosts$", [{**HOST, "path": "/candles"}]),
    (r"ingress\.tls$", [{"secretName": "tls", "hosts": ["candles.example.org"]}]),
    (r"parentRefs$", [{"name": "b"}]),
    (r"policies$", [{"type": "Pods", "value": 2, "periodSeconds": 60}]),
    (r"exchangeSecrets$", {"kraken": {"existingSecret": "kraken"}}),
]


# What the schema leaves no choice of: pods stay as secure as they are, and rollouts whole.
FIXED: dict[str, Any] = {
    "strategy.type": "Recreate",
    "podSecurityContext.runAsNonRoot": False,
    "securityContext.allowPrivilegeEscalation": True,
    "securityContext.readOnlyRootFilesystem": False,
    "securityContext.capabilities.drop": ["NET_RAW"],
}


def _circumstances(path: str) -> Values:
    return next((values for pattern, values in CIRCUMSTANCES if re.match(pattern, path)), {})


def _other(path: str, value: Any) -> Any:
    """Another value for that path."""
    for pattern, other in OTHERS:
        if re.search(pattern, path):
            return other
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return value + 1
    if isinstance(value, str):
        return f"{value}x"
    raise LookupError(f"what else may {path} be but {value!r}?")


def _candidates(path: str, value: Any, *, is_example: bool) -> Iterator[Any]:
    if is_example:
        yield value
    yield _other(path, value)


def _marked(path: str, value: Any, number: int) -> tuple[str, Any] | None:
    """A mark that stands nowhere else, and a value with it; None where the value leaves no room for one."""
    figures = str(7100 + number)
    for pattern, mark in ((r"cpu$", f"{figures}m"), (r"(memory|[sS]ize|storage)$", f"{figures}Mi")):
        if re.search(pattern, path):
            return mark, mark
    if any(re.search(pattern, path) for pattern, _ in OTHERS) or isinstance(value, bool):
        return None
    if isinstance(value, int):
        return figures, int(figures)
    return (f"mark{figures}", f"mark{figures}") if isinstance(value, str) else None


class _Walk:
    """Changes one value after the other and sees whether the manifests change."""

    def __init__(self, helm: Helm, chart: Path, pool: ThreadPoolExecutor) -> None:
        self._helm = helm
        self._chart = chart
        self._pool = pool
        text = (chart / "values.yaml").read_text()
        self._documented = documented_values(text)
        self._defaults: Values = yaml.safe_load(text) or {}
        self._before: dict[str, str] = {}

    def without_effect(self) -> list[str]:
        """The paths of documented values that change nothing, or that can't be changed."""
        paths = [(".".join(path), path, value) for path, value in leaves(self._documented)]
        paths = [each for each in paths if each[0] not in FIXED]
        seen = self._seen_together(paths)
        left = [each for each in paths if each[0] not in seen]
        effects = self._pool.map(lambda each: self._has_effect(*each), left)
        return [
            f"{name}: {said}"
            for (name, _, _), said in zip(left, effects, strict=True)
            if said is not None
        ]

    def _seen_together(self, leaves_: list[Leaf]) -> set[str]:
        """The values that show up in the manifests when many are changed at once, each to one that is nowhere else."""
        marks: dict[str, list[tuple[Leaf, str, Any]]] = {}
        for number, leaf in enumerate(leaves_):
            marked = _marked(leaf[0], leaf[2], number)
            if marked is not None and value_at(_circumstances(leaf[0]), leaf[1]) is None:
                around = repr(_circumstances(leaf[0]))
                marks.setdefault(around, []).append((leaf, *marked))
        return set().union(*self._pool.map(self._shown, marks.values()))

    def _shown(self, marks: list[tuple[Leaf, str, Any]]) -> set[str]:
        """The names of those that show up; where all together are refused, those of either half."""
        values = _circumstances(marks[0][0][0])
        for (_, path, _), _, value in marks:
            values = merged(values, nested(path, value))
        try:
            text = self._rendered(values)
        except HelmError:
            if len(marks) < 4:
                return set()
            half = len(marks) // 2
            return self._shown(marks[:half]) | self._shown(marks[half:])
        return {leaf[0] for leaf, mark, _ in marks if re.search(rf"\b{mark}\b", text)}

    def _has_effect(self, name: str, path: tuple[str, ...], value: Any) -> str | None:
        """None where a change has an effect, else what was seen instead."""
        around = _circumstances(name)
        is_example = value_at(self._defaults, path) is None
        said = "changes nothing"
        for candidate in _candidates(name, value, is_example=is_example):
            start = around
            if value_at(around, path) == candidate:
                # The circumstances are the change itself.
                start = merged(around, nested(path, value_at(self._defaults, path)))
            try:
                before = self._before.get(str(start)) or self._rendered(start)
                self._before[str(start)] = before
                after = self._rendered(merged(around, nested(path, candidate)))
            except HelmError as error:
                said = f"{candidate!r} is refused: {str(error)[-300:]}"
                continue
            if before != after:
                return None
            said = f"{candidate!r} changes nothing"
        return said

    def _rendered(self, values: Values) -> str:
        """The manifests as text, without what a Secret is given by chance."""
        text = self._helm.template(self._chart, values=values).text
        return re.sub(r"(?m)^(  [\w.-]+): \"?[A-Za-z0-9+/=]{24,}\"?$", r"\1:", text)


def test_every_documented_value_has_an_effect(
    helm: Helm, chart: Path, pool: ThreadPoolExecutor
) -> None:
    without_effect = _Walk(helm, chart, pool).without_effect()

    assert not without_effect, "\n".join(without_effect)


def test_a_value_that_no_template_uses_is_found(
    helm: Helm, repository: Path, pool: ThreadPoolExecutor, tmp_path: Path
) -> None:
    for name, text in {
        "Chart.yaml": "apiVersion: v2\nname: small\nversion: 0.1.0\n",
        "values.yaml": "used: 1\nunused: 2\ntable: {}\n  # example: a\n  # left: b\n",
        "templates/a.yaml": "kind: A\nmetadata: {name: '{{ .Values.used }}{{ .Values.table.example }}'}",
    }.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)

    assert _Walk(helm, tmp_path, pool).without_effect() == [
        "unused: 3 changes nothing",
        "table.left: 'bx' changes nothing",
    ]


@pytest.mark.parametrize("name", ["collector", "aggregator", "api"])
@pytest.mark.parametrize("path", FIXED)
def test_a_fixed_value_is_refused_by_its_name(
    helm: Helm, repository: Path, name: str, path: str
) -> None:
    with pytest.raises(HelmError, match=f"/{path.replace('.', '/')}'"):
        helm.template(
            repository / "helm" / name, values=nested(tuple(path.split(".")), FIXED[path])
        )


def test_every_scenario_differs_from_the_defaults(renders: Renders, scenario: Scenario) -> None:
    default = Scenario(scenario.folder, "default")

    assert scenario == default or renders.get(scenario).text != renders.get(default).text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a: 1\n", {"a": 1}),
        ("a: {}\n  # Prose, with a word: and more.\n  # b: 1 # why\n", {"a": {"b": 1}}),
        ("a: {}\n# b: 1\n", {"a": {}}),
        ("a: []\n  # - b: 1\n  #   c: 2\nd: 3\n", {"a": [{"b": 1, "c": 2}], "d": 3}),
        ("a:\n  b: {}\n    # c:\n    #   d: 1\n  e: 2\n", {"a": {"b": {"c": {"d": 1}}, "e": 2}}),
    ],
)
def test_examples_in_comments_are_read(text: str, expected: Values) -> None:
    assert documented_values(text) == expected
