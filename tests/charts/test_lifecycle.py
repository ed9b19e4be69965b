"""How pods start, are probed, end, are replaced and multiplied.

Each law is a function that yields what is wrong in a release. `BREAKAGES` shows of every law that it can fail.
"""

import copy
import tomllib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest

from vegamite_common.testing.charts.manifest import Manifest, selects, title
from vegamite_common.testing.charts.release import Program, Release

Law = Callable[[Release], Iterator[str]]

# Kafka, PostgreSQL and the schema are each waited for 60 s before the probes' server listens.
LONGEST_START_S = 180
# A service that is told to stop ends within this.
LONGEST_STOP_S = 25


def _port_number(container: Mapping[str, Any], port: object) -> object:
    named = {each.get("name"): each["containerPort"] for each in container.get("ports") or []}
    return named.get(port, port)


def probes_ask_the_management_server(release: Release) -> Iterator[str]:
    expected = {
        "startupProbe": "/healthz",
        "livenessProbe": "/healthz",
        "readinessProbe": "/readyz",
    }
    for program in release.services:
        configuration = release.configuration(program) or {}
        section = configuration.get(program.service, {})
        for name, path in expected.items():
            get = (program.container.get(name) or {}).get("httpGet")
            if get is None:
                yield f"{program.title} has no {name} by HTTP"
                continue
            if get["path"] != path:
                yield f"{program.title}: {name} asks {get['path']}, not {path}"
            listens = section.get("management_port", 8001)
            if _port_number(program.container, get["port"]) != listens:
                yield f"{program.title}: {name} asks port {get['port']}, the server has {listens}"
        if section.get("management_host") not in {"0.0.0.0", "::"}:
            yield f"{program.title}: nothing outside the container reaches the probes' server"


def a_slow_start_is_no_failure(release: Release) -> Iterator[str]:
    for program in release.services:
        probe = program.container.get("startupProbe") or {}
        patience = probe.get("periodSeconds", 10) * probe.get("failureThreshold", 3)
        if patience + probe.get("initialDelaySeconds", 0) < LONGEST_START_S:
            yield f"{program.title} is killed after {patience} s of starting"


def _pre_stop_seconds(container: Mapping[str, Any]) -> int:
    hook = (container.get("lifecycle") or {}).get("preStop") or {}
    if "sleep" in hook:
        return int(hook["sleep"]["seconds"])
    command = (hook.get("exec") or {}).get("command") or []
    return int(command[-1].split()[-1]) if command else 0


def there_is_time_to_stop(release: Release) -> Iterator[str]:
    for program in release.services:
        grace = program.pod.spec.get("terminationGracePeriodSeconds", 30)
        needed = _pre_stop_seconds(program.container) + LONGEST_STOP_S
        if grace < needed:
            yield f"{program.title}: {grace} s to stop are less than the {needed} s that it may take"
        drain_ms = (release.configuration(program) or {}).get("api", {}).get("drain_ms", 5000)
        if drain_ms / 1000 >= LONGEST_STOP_S:
            yield f"{program.title}: draining alone takes {drain_ms} ms"


def only_the_api_waits_before_it_stops(release: Release) -> Iterator[str]:
    for program in release.services:
        seconds = _pre_stop_seconds(program.container)
        if program.service == "api" and seconds < 1:
            yield f"{program.title} stops while clients are still sent to it"
        if program.service != "api" and (program.container.get("lifecycle") or {}).get("preStop"):
            yield f"{program.title} holds its partitions {seconds} s longer than it works"


def commands_are_lists_of_words(release: Release) -> Iterator[str]:
    for program in release.programs:
        if program.arguments[:1] and program.arguments[0].rpartition("/")[2] in {"sh", "bash"}:
            yield f"{program.title} is the child of a shell, which passes no signal on"


def rollouts_suit_the_service(release: Release) -> Iterator[str]:
    for program in release.services:
        if program.pod.owner["kind"] != "Deployment":
            yield f"{program.title} is of no Deployment"
            continue
        spec = program.pod.owner["spec"]
        rolling = (spec.get("strategy") or {}).get("rollingUpdate") or {}
        found = (rolling.get("maxSurge"), rolling.get("maxUnavailable"))
        if program.service == "api":
            if found[1] not in {0, "0%"} or found[0] in {0, "0%", None}:
                yield f"{program.title}: surge, unavailable are {found}: capacity is missing meanwhile"
        elif found != (0, 1):
            yield f"{program.title}: surge, unavailable are {found}: partitions move more than once"
        elif not spec.get("minReadySeconds"):
            yield f"{program.title}: no minReadySeconds, so one rebalance overtakes the other"


def _scalers(release: Release) -> Iterator[tuple[Manifest, str, int, int]]:
    """Every scaler, the title of what it scales, and its least and greatest number."""
    for each in release.of("HorizontalPodAutoscaler"):
        spec = each["spec"]
        reference = spec["scaleTargetRef"]
        target = f"{reference['kind']}/{reference['name']}"
        yield each, target, spec.get("minReplicas", 1), spec["maxReplicas"]
    for each in release.of("ScaledObject"):
        spec = each["spec"]
        reference = spec["scaleTargetRef"]
        target = f"{reference.get('kind', 'Deployment')}/{reference['name']}"
        yield each, target, spec.get("minReplicaCount", 0), spec.get("maxReplicaCount", 100)


def one_owner_sets_the_number(release: Release) -> Iterator[str]:
    workloads = {title(each): each for each in release.of("Deployment", "StatefulSet")}
    scaled = [target for _, target, _, _ in _scalers(release)]
    for target in scaled:
        if target not in workloads:
            yield f"a scaler scales {target}, which isn't there"
        elif "replicas" in workloads[target]["spec"]:
            yield f"{target} states replicas though a scaler owns them"
        if scaled.count(target) > 1:
            yield f"two scalers scale {target}"
    for name, workload in workloads.items():
        if name not in scaled and "replicas" not in workload["spec"]:
            yield f"{name} states no replicas and nothing scales it"


def consumers_are_no_more_than_partitions(release: Release) -> Iterator[str]:
    most = {target: greatest for _, target, _, greatest in _scalers(release)}
    for program in release.services:
        if program.service == "api":
            continue
        topics = (release.configuration(program) or {}).get("kafka", {}).get("topics", {})
        partitions = topics.get("partitions", 12)
        count = most.get(program.pod.title, program.pod.owner["spec"].get("replicas", 1))
        if count > partitions:
            yield f"{program.title}: {count} pods share {partitions} partitions"


def scalers_are_slow_to_go_down(release: Release) -> Iterator[str]:
    for scaler, target, least, greatest in _scalers(release):
        behavior: Any = scaler["spec"].get("behavior")
        if scaler["kind"] == "ScaledObject":
            advanced = scaler["spec"].get("advanced") or {}
            behavior = (advanced.get("horizontalPodAutoscalerConfig") or {}).get("behavior")
        window = ((behavior or {}).get("scaleDown") or {}).get("stabilizationWindowSeconds", 0)
        if window < 300:
            yield f"{title(scaler)} takes {target} down after {window} s"
        if not 1 <= least <= greatest:
            yield f"{title(scaler)}: from {least} to {greatest}"


def each_is_scaled_by_what_tells_of_its_load(release: Release) -> Iterator[str]:
    by_target = {target: scaler for scaler, target, _, _ in _scalers(release)}
    for program in release.services:
        scaler = by_target.get(program.pod.title)
        if scaler is None:
            continue
        configuration = release.configuration(program) or {}
        if scaler["kind"] == "ScaledObject":
            for trigger in scaler["spec"]["triggers"]:
                yield from _wrong_trigger(program, trigger, configuration)
        else:
            metrics = [each["resource"]["name"] for each in scaler["spec"]["metrics"]]
            if metrics != ["cpu"]:
                yield f"{program.title} is scaled by {metrics}"


def _wrong_trigger(
    program: Program, trigger: Mapping[str, Any], configuration: Mapping[str, Any]
) -> Iterator[str]:
    if program.service == "collector" and trigger["type"] == "kafka":
        yield f"{program.title} never commits, so it has no lag to be scaled by"
    if trigger["type"] != "kafka":
        return
    metadata = trigger["metadata"]
    group = configuration.get(program.service, {}).get("group", f"vegamite-{program.service}")
    servers = configuration["kafka"]["bootstrap_servers"]
    if metadata["bootstrapServers"] not in {servers, _whole_names(servers)}:
        yield f"{program.title}: the scaler asks {metadata['bootstrapServers']}, not {servers}"
    expected = {"consumerGroup": group, "topic": "market.trades.v1"}
    for key, value in expected.items():
        if metadata.get(key) != value:
            yield f"{program.title}: the scaler's {key} is {metadata.get(key)!r}, not {value!r}"


def _whole_names(servers: str) -> str:
    """The same addresses, with names that lead there from any namespace: the scaler runs in another."""
    whole = []
    for server in servers.split(","):
        host, _, port = server.strip().rpartition(":")
        suffix = "" if "." in host else ".market-data.svc.cluster.local"
        whole.append(f"{host}{suffix}:{port}")
    return ",".join(whole)


def disruptions_are_budgeted_where_they_can_be(release: Release) -> Iterator[str]:
    least = {target: count for _, target, count, _ in _scalers(release)}
    running = [pod for pod in release.pods if pod.runs_on]
    for budget in release.of("PodDisruptionBudget"):
        spec = budget["spec"]
        taken = [pod for pod in running if selects(spec.get("selector"), pod.labels)]
        if len(taken) != 1:
            yield f"{title(budget)} is of {[pod.title for pod in taken]}"
            continue
        count = least.get(taken[0].title, taken[0].owner["spec"].get("replicas", 1))
        if count < 2:
            yield f"{title(budget)}: {taken[0].title} has {count} pod, which could never be moved"
        if spec.get("maxUnavailable") in {0, "0%"} or spec.get("minAvailable") in {count, "100%"}:
            yield f"{title(budget)} lets no pod be moved"


def pods_spread_by_their_own_labels(release: Release) -> Iterator[str]:
    for pod in release.pods:
        for constraint in pod.spec.get("topologySpreadConstraints") or []:
            if not selects(constraint.get("labelSelector"), pod.labels):
                yield f"{pod.title}: spread over {constraint['topologyKey']} takes other pods"
            if constraint["whenUnsatisfiable"] != "ScheduleAnyway" and pod.owner["kind"] == "Job":
                yield f"{pod.title}: a job waits for room in {constraint['topologyKey']}"


def jobs_end(release: Release) -> Iterator[str]:
    for pod in release.pods:
        if pod.runs_on:
            continue
        if pod.spec.get("restartPolicy") not in {"Never", "OnFailure"}:
            yield f"{pod.title} is started again for ever"
        spec = pod.owner["spec"]
        if pod.owner["kind"] == "Job" and not spec.get("activeDeadlineSeconds"):
            yield f"{pod.title} may take for ever"
        if pod.owner["kind"] == "Job" and spec.get("backoffLimit", 6) > 10:
            yield f"{pod.title} is tried {spec['backoffLimit']} times"


LAWS: list[Law] = [
    probes_ask_the_management_server,
    a_slow_start_is_no_failure,
    there_is_time_to_stop,
    only_the_api_waits_before_it_stops,
    commands_are_lists_of_words,
    rollouts_suit_the_service,
    one_owner_sets_the_number,
    consumers_are_no_more_than_partitions,
    scalers_are_slow_to_go_down,
    each_is_scaled_by_what_tells_of_its_load,
    disruptions_are_budgeted_where_they_can_be,
    pods_spread_by_their_own_labels,
    jobs_end,
]


@pytest.mark.parametrize("law", LAWS)
def test_every_release(release: Release, law: Law) -> None:
    assert list(law(release)) == []


def _service(release: Release, service: str) -> Program:
    return next(each for each in release.services if each.service == service)


def _container(service: str, change: Callable[[Any], Any]) -> Callable[[Release], Any]:
    return lambda release: change(_service(release, service).container)


def _workload(service: str, change: Callable[[Any], Any]) -> Callable[[Release], Any]:
    return lambda release: change(_service(release, service).pod.owner["spec"])


def _rolling(**change: Any) -> Callable[[Any], Any]:
    return lambda spec: spec["strategy"]["rollingUpdate"].update(change)


def _first(kind: str, change: Callable[[Any], Any]) -> Callable[[Release], Any]:
    return lambda release: change(release.of(kind)[0]["spec"])


def _state_replicas(release: Release) -> None:
    target = release.of("ScaledObject")[0]["spec"]["scaleTargetRef"]["name"]
    workload = release.find("Deployment", target)
    assert workload is not None
    workload["spec"]["replicas"] = 2


def _slow_down(spec: Any) -> None:
    config = spec.setdefault("advanced", {}).setdefault("horizontalPodAutoscalerConfig", {})
    config["behavior"] = {"scaleDown": {"stabilizationWindowSeconds": 10}}


BREAKAGES: list[tuple[Law, str, Callable[[Release], Any]]] = [
    (
        probes_ask_the_management_server,
        "api",
        _container("api", lambda it: it["livenessProbe"]["httpGet"].update(path="/readyz")),
    ),
    (
        probes_ask_the_management_server,
        "collector",
        _container("collector", lambda it: it["readinessProbe"]["httpGet"].update(port=8000)),
    ),
    (
        probes_ask_the_management_server,
        "aggregator",
        _container("aggregator", lambda it: it.pop("startupProbe")),
    ),
    (
        a_slow_start_is_no_failure,
        "api",
        _container("api", lambda it: it["startupProbe"].update(failureThreshold=3)),
    ),
    (
        there_is_time_to_stop,
        "collector",
        _workload(
            "collector",
            lambda spec: spec["template"]["spec"].update(terminationGracePeriodSeconds=20),
        ),
    ),
    (
        there_is_time_to_stop,
        "api",
        _workload(
            "api", lambda spec: spec["template"]["spec"].update(terminationGracePeriodSeconds=25)
        ),
    ),
    (only_the_api_waits_before_it_stops, "api", _container("api", lambda it: it.pop("lifecycle"))),
    (
        only_the_api_waits_before_it_stops,
        "aggregator",
        _container(
            "aggregator", lambda it: it.update(lifecycle={"preStop": {"sleep": {"seconds": 5}}})
        ),
    ),
    (
        commands_are_lists_of_words,
        "api",
        _container("api", lambda it: it.update(command=["/bin/sh", "-c", "vegamite-api"])),
    ),
    (rollouts_suit_the_service, "api", _workload("api", _rolling(maxUnavailable=1))),
    (rollouts_suit_the_service, "collector", _workload("collector", _rolling(maxSurge=1))),
    (
        rollouts_suit_the_service,
        "aggregator",
        _workload("aggregator", lambda spec: spec.pop("minReadySeconds")),
    ),
    (one_owner_sets_the_number, "ScaledObject", _state_replicas),
    (one_owner_sets_the_number, "api", _workload("api", lambda spec: spec.pop("replicas", None))),
    (
        consumers_are_no_more_than_partitions,
        "aggregator",
        _workload("aggregator", lambda spec: spec.update(replicas=13)),
    ),
    (
        consumers_are_no_more_than_partitions,
        "ScaledObject",
        _first("ScaledObject", lambda spec: spec.update(maxReplicaCount=13)),
    ),
    (scalers_are_slow_to_go_down, "ScaledObject", _first("ScaledObject", _slow_down)),
    (
        each_is_scaled_by_what_tells_of_its_load,
        "ScaledObject",
        _first(
            "ScaledObject",
            lambda spec: spec["triggers"][0]["metadata"].update(consumerGroup="others"),
        ),
    ),
    (
        each_is_scaled_by_what_tells_of_its_load,
        "ScaledObject",
        _first(
            "ScaledObject",
            lambda spec: spec["triggers"][0]["metadata"].update(bootstrapServers="kafka:1"),
        ),
    ),
    (
        each_is_scaled_by_what_tells_of_its_load,
        "HorizontalPodAutoscaler",
        _first(
            "HorizontalPodAutoscaler",
            lambda spec: spec["metrics"][0]["resource"].update(name="memory"),
        ),
    ),
    (
        disruptions_are_budgeted_where_they_can_be,
        "PodDisruptionBudget",
        _first("PodDisruptionBudget", lambda spec: spec.update(maxUnavailable=0)),
    ),
    (
        disruptions_are_budgeted_where_they_can_be,
        "PodDisruptionBudget",
        _first(
            "PodDisruptionBudget", lambda spec: spec.update(selector={"matchLabels": {"a": "b"}})
        ),
    ),
    (
        pods_spread_by_their_own_labels,
        "api",
        _workload(
            "api",
            lambda spec: spec["template"]["spec"].update(
                topologySpreadConstraints=[
                    {
                        "topologyKey": "zone",
                        "whenUnsatisfiable": "ScheduleAnyway",
                        "labelSelector": {"matchLabels": {"a": "b"}},
                    }
                ]
            ),
        ),
    ),
    (jobs_end, "Job", _first("Job", lambda spec: spec.pop("activeDeadlineSeconds"))),
    (
        jobs_end,
        "Job",
        _first("Job", lambda spec: spec["template"]["spec"].update(restartPolicy="Always")),
    ),
]


def _example(releases: dict[str, Release], of: str) -> Release:
    """A release of the service with its defaults, or the first one that has the kind."""
    found = releases.get(f"{of}-default") or next(each for each in releases.values() if each.of(of))
    return copy.deepcopy(found)


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


def test_maintenance_goes_by_a_schedule_never_twice_at_once_and_archives_where_the_volume_is(
    releases: dict[str, Release],
) -> None:
    [schedule] = releases["aggregator-maintenance"].of("CronJob")
    spec = schedule["spec"]
    job = spec["jobTemplate"]["spec"]
    pod = job["template"]["spec"]
    [container] = pod["containers"]
    [mount] = [each for each in container["volumeMounts"] if each["name"] == "archive"]
    [volume] = [each for each in pod["volumes"] if each["name"] == "archive"]
    [config] = [each for each in pod["volumes"] if each["name"] == "config"]
    file = releases["aggregator-maintenance"].find("ConfigMap", config["configMap"]["name"])

    assert spec["schedule"] == "@daily"
    assert spec["concurrencyPolicy"] == "Forbid"
    assert container["args"][0] == "maintain"
    assert volume["persistentVolumeClaim"] == {"claimName": "vegamite-archive"}
    assert file is not None
    archive = tomllib.loads(file["data"]["vegamite.toml"])["aggregator"]["archive"]
    assert archive == {"directory": mount["mountPath"]}
    assert not releases["aggregator-no-migration"].of("CronJob")
