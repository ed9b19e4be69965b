"""What refers to something refers to what is there: selectors, ports, files, secrets, accounts, backends.

Each law is a function that yields what is wrong in a release. `BREAKAGES` shows of every law that it can fail.
"""

import copy
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest

from vegamite_common.testing.charts.manifest import Manifest, Pod, is_hook, selects, title
from vegamite_common.testing.charts.release import Release, files, references

Law = Callable[[Release], Iterator[str]]

# Labels that an upgrade changes: a selector with one of them couldn't be upgraded.
CHANGING_LABELS = {"helm.sh/chart", "app.kubernetes.io/version"}
RECOMMENDED_LABELS = {
    "app.kubernetes.io/name",
    "app.kubernetes.io/instance",
    "app.kubernetes.io/version",
    "app.kubernetes.io/managed-by",
    "helm.sh/chart",
}


def workloads_select_their_own_pods(release: Release) -> Iterator[str]:
    for owner in release.of("Deployment", "StatefulSet"):
        selector = owner["spec"]["selector"]
        taken = [pod.title for pod in release.pods if selects(selector, pod.labels)]
        if taken != [title(owner)]:
            yield f"{title(owner)} selects the pods of {taken}"
        if changing := CHANGING_LABELS & set(selector.get("matchLabels") or {}):
            yield f"{title(owner)} selects by {sorted(changing)}, which an upgrade changes"


def _behind(release: Release, service: Manifest) -> list[Pod]:
    selector = {"matchLabels": service["spec"].get("selector") or {}}
    return [pod for pod in release.pods if selects(selector, pod.labels)]


def _ports(pod: Pod) -> set[object]:
    """The names and numbers of its containers' ports."""
    ports = [port for container in pod.containers for port in container.get("ports") or []]
    return {port[key] for port in ports for key in ("name", "containerPort") if key in port}


def services_lead_to_pods_that_listen(release: Release) -> Iterator[str]:
    for service in release.of("Service"):
        behind = _behind(release, service)
        if len(behind) != 1 or not behind[0].runs_on:
            yield f"{title(service)} leads to {[pod.title for pod in behind]}"
            continue
        for port in service["spec"]["ports"]:
            target = port.get("targetPort", port["port"])
            if target not in _ports(behind[0]):
                yield f"{title(service)} leads to port {target}, which {behind[0].title} hasn't"


def what_is_listened_on_is_declared(release: Release) -> Iterator[str]:
    for program in release.services:
        section = (release.configuration(program) or {}).get(program.service, {})
        listens = {section.get("management_port", 8001)}
        if program.service == "api":
            listens.add(section.get("port", 8000))
            if section.get("host") not in {"0.0.0.0", "::"}:
                yield f"{program.title}: nothing outside the container reaches the API"
        numbers = {port["containerPort"] for port in program.container.get("ports") or []}
        if numbers != listens:
            yield f"{program.title} declares ports {numbers}, and listens on {listens}"


def monitors_find_what_they_scrape(release: Release) -> Iterator[str]:
    for monitor in release.of("ServiceMonitor"):
        spec = monitor["spec"]
        taken = [
            service
            for service in release.of("Service")
            if selects(spec["selector"], service["metadata"].get("labels") or {})
        ]
        if len(taken) != 1:
            yield f"{title(monitor)} selects {[title(each) for each in taken]}"
            continue
        names = {port.get("name") for port in taken[0]["spec"]["ports"]}
        yield from _wrong_endpoints(monitor, spec["endpoints"], names)
    for monitor in release.of("PodMonitor"):
        spec = monitor["spec"]
        pods = [pod for pod in release.pods if selects(spec["selector"], pod.labels)]
        if not pods or not all(pod.runs_on for pod in pods):
            yield f"{title(monitor)} selects {[pod.title for pod in pods]}"
        for pod in pods:
            yield from _wrong_endpoints(monitor, spec["podMetricsEndpoints"], _ports(pod))


def _wrong_endpoints(
    monitor: Manifest, endpoints: list[dict[str, Any]], names: set[Any]
) -> Iterator[str]:
    for endpoint in endpoints:
        if endpoint["port"] not in names:
            yield f"{title(monitor)} scrapes port {endpoint['port']}, there are {names}"
        if endpoint.get("path", "/metrics") != "/metrics":
            yield f"{title(monitor)} scrapes {endpoint['path']}"


def _backends(manifest: Manifest) -> Iterator[tuple[str, object]]:
    """The name and port of every Service that an Ingress or HTTPRoute sends requests to."""
    for rule in manifest["spec"].get("rules") or []:
        for path in (rule.get("http") or {}).get("paths") or []:
            service = path["backend"]["service"]
            yield service["name"], service["port"].get("name", service["port"].get("number"))
        for backend in rule.get("backendRefs") or []:
            yield backend["name"], backend["port"]


def requests_are_sent_to_a_service_that_is_there(release: Release) -> Iterator[str]:
    for manifest in release.of("Ingress", "HTTPRoute"):
        backends = list(_backends(manifest))
        if not backends:
            yield f"{title(manifest)} leads nowhere"
        for name, port in backends:
            service = release.find("Service", name)
            ports = service["spec"]["ports"] if service else []
            if port not in {each[key] for each in ports for key in ("name", "port") if key in each}:
                yield f"{title(manifest)} leads to {name}:{port}, which isn't there"


def hosts_of_requests_are_allowed(release: Release) -> Iterator[str]:
    for program in release.services:
        if program.service != "api":
            continue
        allowed = set(((release.configuration(program) or {}).get("api") or {})["allowed_hosts"])
        names = {"localhost", "127.0.0.1", "::1"}
        for manifest in release.of("Ingress", "HTTPRoute"):
            spec = manifest["spec"]
            names |= {rule["host"] for rule in spec.get("rules") or [] if rule.get("host")}
            names |= set(spec.get("hostnames") or [])
        for service in release.of("Service"):
            targets = {port.get("targetPort") for port in service["spec"]["ports"]}
            behind = [pod.title for pod in _behind(release, service)]
            if program.pod.title in behind and targets & {"http", 8000}:
                name = service["metadata"]["name"]
                names |= {name, f"{name}.market-data", f"{name}.market-data.svc"}
                if not any(each.startswith(f"{name}.market-data.svc.") for each in allowed):
                    yield f"{program.title} refuses calls by {name}'s whole name"
        if names - allowed:
            yield f"{program.title} refuses calls to {sorted(names - allowed)}"


def what_a_pod_needs_is_made_before_it(release: Release) -> Iterator[str]:
    for pod in release.pods:
        for kind, name, _ in references(pod):
            if kind == "ConfigMap" and release.config_map(name, of=pod) is None:
                yield f"{pod.title} needs ConfigMap {name}, which isn't there when it starts"
        account = pod.spec.get("serviceAccountName", "default")
        made = release.find("ServiceAccount", account)
        if made is None and account.startswith("candles"):
            yield f"{pod.title} runs as ServiceAccount {account}, which isn't there"
        if made is not None and is_hook(pod.owner) and not _is_test(pod) and not is_hook(made):
            yield f"{pod.title} runs as ServiceAccount {account}, which comes after it"


def _is_test(pod: Pod) -> bool:
    return "test" in (pod.owner["metadata"].get("annotations") or {}).get("helm.sh/hook", "")


def keys_that_are_mounted_are_there(release: Release) -> Iterator[str]:
    for pod in release.pods:
        for container in pod.containers:
            for file in files(pod, container):
                source = (
                    release.config_map(file.source, of=pod)
                    if file.kind == "ConfigMap"
                    else release.find("Secret", file.source)
                )
                if source is None or not file.key:
                    continue
                keys = {*(source.get("data") or {}), *(source.get("stringData") or {})}
                if file.key not in keys:
                    yield f"{pod.title} mounts {file.key} of {file.source}, which has {keys}"


def objects_say_what_they_belong_to(release: Release) -> Iterator[str]:
    for each in release.manifests:
        labels = each["metadata"].get("labels") or {}
        if missing := RECOMMENDED_LABELS - set(labels):
            yield f"{title(each)} lacks {sorted(missing)}"
        if labels.get("app.kubernetes.io/managed-by") != "Helm":
            yield f"{title(each)} isn't managed by Helm"
        if each["metadata"].get("namespace", "market-data") != "market-data":
            yield f"{title(each)} is in namespace {each['metadata']['namespace']}"


def names_are_given_once(release: Release) -> Iterator[str]:
    seen: set[tuple[str, str]] = set()
    for each in release.manifests:
        key = (each["apiVersion"].partition("/")[0] + each["kind"], each["metadata"]["name"])
        if key in seen:
            yield f"{title(each)} is there twice"
        seen.add(key)


LAWS: list[Law] = [
    workloads_select_their_own_pods,
    services_lead_to_pods_that_listen,
    what_is_listened_on_is_declared,
    monitors_find_what_they_scrape,
    requests_are_sent_to_a_service_that_is_there,
    hosts_of_requests_are_allowed,
    what_a_pod_needs_is_made_before_it,
    keys_that_are_mounted_are_there,
    objects_say_what_they_belong_to,
    names_are_given_once,
]


@pytest.mark.parametrize("law", LAWS)
def test_every_release(release: Release, law: Law) -> None:
    assert list(law(release)) == []


Breakage = Callable[[Release], Any]


def _first(kind: str, change: Callable[[Any], Any]) -> Breakage:
    return lambda release: change(release.of(kind)[0])


def _relabel(manifest: Mapping[str, Any]) -> None:
    manifest["spec"]["template"]["metadata"]["labels"]["app.kubernetes.io/name"] = "other"


def _label_the_job_as_its_service(release: Release) -> None:
    job, deployment = release.of("Job")[0], release.of("Deployment")[0]
    job["spec"]["template"]["metadata"]["labels"] = deployment["spec"]["selector"]["matchLabels"]


def _remove(kind: str) -> Breakage:
    return lambda release: Release(
        tuple(each for each in release.manifests if each["kind"] != kind)
    )


def _no_hooks(release: Release) -> None:
    for each in release.of("ConfigMap"):
        each["metadata"].pop("annotations", None)


def _twice(release: Release) -> Release:
    return Release((*release.manifests, release.manifests[0]))


BREAKAGES: list[tuple[Law, str, Breakage]] = [
    (workloads_select_their_own_pods, "Deployment", _first("Deployment", _relabel)),
    (workloads_select_their_own_pods, "aggregator", _label_the_job_as_its_service),
    (
        workloads_select_their_own_pods,
        "Deployment",
        _first(
            "Deployment",
            lambda it: it["spec"]["selector"]["matchLabels"].update({"helm.sh/chart": "api-1"}),
        ),
    ),
    (
        services_lead_to_pods_that_listen,
        "Service",
        _first("Service", lambda it: it["spec"]["ports"][0].update(targetPort="htp")),
    ),
    (
        services_lead_to_pods_that_listen,
        "Service",
        _first("Service", lambda it: it["spec"].update(selector={"app": "other"})),
    ),
    (
        what_is_listened_on_is_declared,
        "api",
        _first(
            "Deployment",
            lambda it: it["spec"]["template"]["spec"]["containers"][0]["ports"].pop(),
        ),
    ),
    (
        monitors_find_what_they_scrape,
        "ServiceMonitor",
        _first("ServiceMonitor", lambda it: it["spec"]["endpoints"][0].update(port="metrics")),
    ),
    (
        monitors_find_what_they_scrape,
        "PodMonitor",
        _first(
            "PodMonitor", lambda it: it["spec"].update(selector={"matchLabels": {"app": "other"}})
        ),
    ),
    (requests_are_sent_to_a_service_that_is_there, "Ingress", _remove("Service")),
    (requests_are_sent_to_a_service_that_is_there, "HTTPRoute", _remove("Service")),
    (
        hosts_of_requests_are_allowed,
        "Ingress",
        _first("Ingress", lambda it: it["spec"]["rules"][0].update(host="other.example.org")),
    ),
    (
        hosts_of_requests_are_allowed,
        "api",
        lambda release: [
            each["metadata"].update(name=f"renamed-{at}")
            for at, each in enumerate(release.of("Service"))
        ],
    ),
    (what_a_pod_needs_is_made_before_it, "collector", _remove("ConfigMap")),
    (what_a_pod_needs_is_made_before_it, "collector", _remove("ServiceAccount")),
    (
        what_a_pod_needs_is_made_before_it,
        "aggregator",
        _no_hooks,
    ),
    (
        keys_that_are_mounted_are_there,
        "api",
        _first("ConfigMap", lambda it: it.update(data={"other.toml": ""})),
    ),
    (
        objects_say_what_they_belong_to,
        "api",
        _first("Service", lambda it: it["metadata"].pop("labels")),
    ),
    (
        objects_say_what_they_belong_to,
        "api",
        _first("Service", lambda it: it["metadata"].update(namespace="default")),
    ),
    (names_are_given_once, "api", _twice),
]


def _example(releases: dict[str, Release], of: str) -> Release:
    """A release of the service with its defaults, or the first one that has the kind."""
    found = releases.get(f"{of}-default") or next(each for each in releases.values() if each.of(of))
    return copy.deepcopy(found)


@pytest.mark.parametrize(("law", "of", "breakage"), BREAKAGES)
def test_a_release_that_breaks_a_law_is_seen(
    releases: dict[str, Release], law: Law, of: str, breakage: Breakage
) -> None:
    release = _example(releases, of)
    assert list(law(release)) == []

    changed = breakage(release)
    broken = changed if isinstance(changed, Release) else release

    assert list(law(broken)) != []


def test_every_law_has_a_breakage() -> None:
    assert {law for law, _, _ in BREAKAGES} == set(LAWS)
