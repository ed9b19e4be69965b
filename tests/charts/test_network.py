"""NetworkPolicies deny by default, and let each pod reach what its configuration names."""

import copy
import re
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest

from vegamite_common.testing.charts.manifest import Pod, selects
from vegamite_common.testing.charts.network import (
    Elsewhere,
    Place,
    may_enter,
    may_leave,
    policies_of,
)
from vegamite_common.testing.charts.release import Program, Release

Law = Callable[[Release], Iterator[str]]


def _place(release: Release, host: str) -> Place:
    """The pod behind a host name of the release's own, or somewhere else."""
    service = release.find("Service", host.partition(".")[0])
    if service is not None:
        for pod in release.pods:
            if pod.runs_on and selects({"matchLabels": service["spec"]["selector"]}, pod.labels):
                return pod
    return Elsewhere()


def _target_port(release: Release, host: str, number: int) -> int | str | None:
    """The pods' port behind that port of a Service of the release's own."""
    service = release.find("Service", host.partition(".")[0])
    for port in service["spec"]["ports"] if service else []:
        if port["port"] == number:
            target = port.get("targetPort", number)
            return target if isinstance(target, str) else int(target)
    return None


def _needed(release: Release, program: Program) -> Iterator[tuple[str, Place, int]]:
    """What a program of vegamite connects to, by its configuration."""
    configuration = release.configuration(program)
    if configuration is None:
        return
    url = urlsplit(configuration.get("postgres", {}).get("url", "postgresql://secret"))
    if program.is_sink:
        influxdb = urlsplit(configuration["influxdb"]["url"])
        port = influxdb.port or {"http": 80, "https": 443}[influxdb.scheme]
        yield "InfluxDB", _place(release, influxdb.hostname or ""), port
    if url.hostname and not _reads_no_postgres(release, program):
        yield "PostgreSQL", _place(release, url.hostname), url.port or 5432
    if not {"track", "keys"} & set(program.arguments):
        for server in configuration["kafka"]["bootstrap_servers"].split(","):
            host, _, port = server.strip().rpartition(":")
            yield f"Kafka {host}", _place(release, host), int(port)


def _reads_no_postgres(release: Release, program: Program) -> bool:
    configuration = release.configuration(program) if program.is_sink else None
    return configuration is not None and not configuration["influxdb"]["read_revised"]


def pods_reach_what_they_are_configured_for(release: Release) -> Iterator[str]:
    for program in release.programs:
        for name, place, port in _needed(release, program):
            if not may_leave(release, program.pod, place, port):
                yield f"{program.title} may not connect to {name}, port {port}"
            if isinstance(place, Pod) and not may_enter(release, place, program.pod, port):
                yield f"{place.title} takes no connection of {program.title}, port {port}"


def names_can_be_resolved(release: Release) -> Iterator[str]:
    for pod in [program.pod for program in release.programs]:
        for protocol in ("UDP", "TCP"):
            if not may_leave(release, pod, Elsewhere(), 53, protocol):
                yield f"{pod.title} may not ask for names by {protocol}"


def nobody_but_the_collector_reaches_the_internet(release: Release) -> Iterator[str]:
    collectors = [each.pod.title for each in release.services if each.service == "collector"]
    for pod in release.pods:
        restricted = policies_of(release, pod, "Egress")
        if restricted and pod.title not in collectors:
            for port in (80, 443):
                if may_leave(release, pod, Elsewhere(public=True), port):
                    yield f"{pod.title} may connect to the internet, port {port}"


def each_store_is_reached_by_those_alone_that_use_it(release: Release) -> Iterator[str]:
    for program in release.programs:
        strangers = [5432] if _reads_no_postgres(release, program) else []
        strangers += [] if program.is_sink else [8086]
        for port in strangers if policies_of(release, program.pod, "Egress") else ():
            if may_leave(release, program.pod, Elsewhere(), port):
                yield f"{program.title} may connect to port {port}"


def everything_else_is_denied(release: Release) -> Iterator[str]:
    if not any(policies_of(release, each.pod, "Ingress") for each in release.services):
        return
    for pod in release.pods:
        for direction in ("Ingress", "Egress"):
            if not policies_of(release, pod, direction):
                yield f"{pod.title} has no policy of {direction}"
        if may_leave(release, pod, Elsewhere(public=True), 22):
            yield f"{pod.title} may connect to anything"
        if may_enter(release, pod, Elsewhere(public=True), 22):
            yield f"{pod.title} takes any connection"


def the_api_is_reached_and_metrics_are_scraped(release: Release) -> Iterator[str]:
    for program in release.services:
        section = (release.configuration(program) or {}).get(program.service, {})
        if program.service == "api" and not may_enter(
            release, program.pod, Elsewhere(), section.get("port", 8000)
        ):
            yield f"{program.title}: nobody may call the API"
        if release.of("ServiceMonitor", "PodMonitor") and not may_enter(
            release, program.pod, Elsewhere(), section.get("management_port", 8001)
        ):
            yield f"{program.title}: its metrics can't be scraped"


def the_releases_tests_reach_what_they_ask(release: Release) -> Iterator[str]:
    for pod in release.pods:
        if "test" not in str(pod.owner["metadata"].get("annotations", {}).get("helm.sh/hook")):
            continue
        asked = re.findall(r"(?:http|ws)://([\w.-]+):(\d+)", str(pod.containers))
        if not asked:
            yield f"{pod.title} asks nobody"
        for host, number in asked:
            place, port = _place(release, host), _target_port(release, host, int(number))
            if not isinstance(place, Pod) or port is None:
                yield f"{pod.title} asks {host}:{number}, which isn't there"
                continue
            if not may_leave(release, pod, place, port):
                yield f"{pod.title} may not call {place.title}, port {port}"
            if not may_enter(release, place, pod, port):
                yield f"{place.title} takes no call of {pod.title}, port {port}"


LAWS: list[Law] = [
    pods_reach_what_they_are_configured_for,
    names_can_be_resolved,
    nobody_but_the_collector_reaches_the_internet,
    each_store_is_reached_by_those_alone_that_use_it,
    everything_else_is_denied,
    the_api_is_reached_and_metrics_are_scraped,
    the_releases_tests_reach_what_they_ask,
]


@pytest.mark.parametrize("law", LAWS)
def test_every_release(release: Release, law: Law) -> None:
    assert list(law(release)) == []


@pytest.mark.parametrize("name", ["collector-default", "vegamite-default"])
def test_the_collector_reaches_exchanges(releases: dict[str, Release], name: str) -> None:
    release = releases[name]
    (collector,) = [each.pod for each in release.services if each.service == "collector"]

    assert policies_of(release, collector, "Egress")
    assert may_leave(release, collector, Elsewhere(public=True), 443)


def test_some_releases_have_policies(releases: dict[str, Release]) -> None:
    charts = {name.partition("-")[0] for name, each in releases.items() if each.of("NetworkPolicy")}

    assert charts == {"collector", "aggregator", "api", "vegamite"}


def _drop(section: str, port: object) -> Callable[[Any], None]:
    """Take every rule with that port out of every policy."""

    def change(policy: Any) -> None:
        policy["spec"][section] = [
            rule
            for rule in policy["spec"].get(section) or []
            if port not in [each.get("port") for each in rule.get("ports") or []]
        ]

    return change


def _add(section: str, rule: dict[str, Any]) -> Callable[[Any], None]:
    return lambda policy: policy["spec"].setdefault(section, []).append(rule)


BREAKAGES: list[tuple[Law, str, Callable[[Any], Any]]] = [
    (pods_reach_what_they_are_configured_for, "collector", _drop("egress", 9092)),
    (pods_reach_what_they_are_configured_for, "aggregator", _drop("egress", 5432)),
    (names_can_be_resolved, "api", _drop("egress", 53)),
    (
        nobody_but_the_collector_reaches_the_internet,
        "api",
        _add("egress", {"ports": [{"port": 443, "protocol": "TCP"}]}),
    ),
    (
        each_store_is_reached_by_those_alone_that_use_it,
        "api",
        _add("egress", {"ports": [{"port": 8086, "protocol": "TCP"}]}),
    ),
    (pods_reach_what_they_are_configured_for, "aggregator-sink", _drop("egress", 8086)),
    (
        each_store_is_reached_by_those_alone_that_use_it,
        "aggregator-sink",
        _add("egress", {"ports": [{"port": 5432, "protocol": "TCP"}]}),
    ),
    (
        the_releases_tests_reach_what_they_ask,
        "aggregator-sink",
        lambda policy: policy["spec"].update(ingress=[]),
    ),
    (everything_else_is_denied, "api", _add("egress", {})),
    (everything_else_is_denied, "collector", _add("ingress", {})),
    (
        everything_else_is_denied,
        "aggregator",
        lambda policy: policy["spec"].update(policyTypes=["Ingress"]),
    ),
    (
        the_api_is_reached_and_metrics_are_scraped,
        "api",
        lambda policy: policy["spec"].update(ingress=[]),
    ),
    (
        the_releases_tests_reach_what_they_ask,
        "api",
        lambda policy: policy["spec"].update(ingress=[]),
    ),
]


@pytest.mark.parametrize(("law", "chart", "breakage"), BREAKAGES)
def test_a_policy_that_breaks_a_law_is_seen(
    releases: dict[str, Release], law: Law, chart: str, breakage: Callable[[Any], Any]
) -> None:
    release = copy.deepcopy(
        next(
            each
            for name, each in releases.items()
            if f"{name}-".startswith(f"{chart}-") and each.of("NetworkPolicy")
        )
    )
    assert list(law(release)) == []

    for policy in release.of("NetworkPolicy"):
        breakage(policy)

    assert list(law(release)) != []


def test_every_law_has_a_breakage() -> None:
    assert {law for law, _, _ in BREAKAGES} == set(LAWS)
