"""Every pod passes the `restricted` Pod Security level, and what we ask beyond it; hook and test pods too.

Each law is a function that yields what is wrong. `BREAKAGES` shows of every law that it can fail.
"""

import copy
import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from vegamite_common.testing.charts.manifest import Pod
from vegamite_common.testing.charts.release import Release

Law = Callable[[Pod], Iterator[str]]

OUR_UID = 10001
THIRD_PARTY_UIDS = {"apache/kafka": 1000, "postgres": 999}
ALLOWED_VOLUMES = {
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "persistentVolumeClaim",
    "projected",
    "secret",
}
QUANTITY = re.compile(r"^[0-9]+(\.[0-9]+)?(m|k|M|G|T|Ki|Mi|Gi|Ti)?$")


def shares_nothing_with_its_host(pod: Pod) -> Iterator[str]:
    for key in ("hostNetwork", "hostPID", "hostIPC"):
        if pod.spec.get(key):
            yield f"{key} is set"
    for container in pod.containers:
        for port in container.get("ports") or []:
            if port.get("hostPort"):
                yield f"{container['name']}: hostPort {port['hostPort']}"
        for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
            if (container.get(probe) or {}).get("httpGet", {}).get("host"):
                yield f"{container['name']}: {probe} names a host"


def mounts_allowed_volumes_only(pod: Pod) -> Iterator[str]:
    for name, volume in pod.volumes.items():
        kinds = set(volume) & ALLOWED_VOLUMES
        others = set(volume) - ALLOWED_VOLUMES - {"name", "apiVersion", "kind", "metadata", "spec"}
        if not kinds or others:
            yield f"volume {name} is of {sorted(others)}"


def escalates_nothing(pod: Pod) -> Iterator[str]:
    for container in pod.containers:
        context = container.get("securityContext") or {}
        capabilities = context.get("capabilities") or {}
        name = container["name"]
        if context.get("privileged"):
            yield f"{name} is privileged"
        if context.get("allowPrivilegeEscalation") is not False:
            yield f"{name}: allowPrivilegeEscalation isn't false"
        if capabilities.get("drop") != ["ALL"]:
            yield f"{name} doesn't drop ALL capabilities"
        if capabilities.get("add"):
            yield f"{name} adds capabilities {capabilities['add']}"
        if context.get("procMount", "Default") != "Default":
            yield f"{name}: procMount is {context['procMount']}"


def is_confined(pod: Pod) -> Iterator[str]:
    ours = pod.spec.get("securityContext") or {}
    if ours.get("sysctls"):
        yield "sets sysctls"
    for container in pod.containers:
        context = {**ours, **(container.get("securityContext") or {})}
        if (context.get("seccompProfile") or {}).get("type") != "RuntimeDefault":
            yield f"{container['name']}: seccompProfile isn't RuntimeDefault"
        if (context.get("appArmorProfile") or {}).get("type") == "Unconfined":
            yield f"{container['name']}: AppArmor is off"
        if context.get("seLinuxOptions") or context.get("windowsOptions"):
            yield f"{container['name']}: SELinux or Windows options"


def _uid(image: str) -> int | None:
    name = re.sub(r"[:@].*$", "", image.rpartition("/")[2]) if "/" in image else image
    for known, uid in THIRD_PARTY_UIDS.items():
        if re.search(rf"(^|/){re.escape(known)}([:@]|$)", image):
            return uid
    return OUR_UID if re.search(r"(^|/)vegamite/", image) or name == "vegamite" else None


def is_its_images_user(pod: Pod) -> Iterator[str]:
    ours = pod.spec.get("securityContext") or {}
    for container in pod.containers:
        context = {**ours, **(container.get("securityContext") or {})}
        if context.get("runAsNonRoot") is not True:
            yield f"{container['name']}: runAsNonRoot isn't true"
        expected = _uid(container["image"])
        if expected is None:
            yield f"{container['name']}: no uid is known for {container['image']}"
        elif context.get("runAsUser") != expected:
            yield f"{container['name']} runs as {context.get('runAsUser')}, not {expected}"
        if context.get("runAsGroup") == 0:
            yield f"{container['name']}: runs in group 0"


def writes_to_sized_volumes_only(pod: Pod) -> Iterator[str]:
    volumes = pod.volumes
    for container in pod.containers:
        name = container["name"]
        if (container.get("securityContext") or {}).get("readOnlyRootFilesystem") is not True:
            yield f"{name}: the root file system can be written to"
        mounts = {each["mountPath"]: each for each in container.get("volumeMounts") or []}
        if "emptyDir" not in volumes.get((mounts.get("/tmp") or {"name": ""})["name"], {}):
            yield f"{name}: no emptyDir at /tmp"
        for mount in mounts.values():
            volume = volumes.get(mount["name"])
            if volume is None:
                yield f"{name} mounts {mount['name']}, which is no volume of the pod"
            elif {"secret", "configMap", "projected"} & set(volume) and not mount.get("readOnly"):
                yield f"{name}: {mount['mountPath']} isn't mounted read-only"
    for volume_name, volume in volumes.items():
        if "emptyDir" in volume and not (volume["emptyDir"] or {}).get("sizeLimit"):
            yield f"volume {volume_name} has no sizeLimit"


def has_no_token(pod: Pod) -> Iterator[str]:
    if pod.spec.get("automountServiceAccountToken") is not False:
        yield "automountServiceAccountToken isn't false"
    for name, volume in pod.volumes.items():
        for source in (volume.get("projected") or {}).get("sources") or []:
            if "serviceAccountToken" in source:
                yield f"volume {name} holds a service account's token"


def is_told_nothing_of_other_services(pod: Pod) -> Iterator[str]:
    if pod.spec.get("enableServiceLinks") is not False:
        yield "enableServiceLinks isn't false"


def asks_for_what_it_needs(pod: Pod) -> Iterator[str]:
    for container in pod.containers:
        resources = container.get("resources") or {}
        requests, limits = resources.get("requests") or {}, resources.get("limits") or {}
        for key in ("cpu", "memory"):
            if key not in requests:
                yield f"{container['name']} requests no {key}"
        if "memory" not in limits:
            yield f"{container['name']} has no limit of memory"


def _quantities(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Every quantity below: of requests and limits, of sizes, of what a claim asks for."""
    if isinstance(value, dict):
        for key, inner in value.items():
            if key in {"requests", "limits"} and isinstance(inner, dict):
                yield from ((f"{path}.{key}.{name}", each) for name, each in inner.items())
            elif key == "sizeLimit":
                yield f"{path}.{key}", inner
            else:
                yield from _quantities(inner, f"{path}.{key}")
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from _quantities(inner, f"{path}.{index}")


def has_quantities_as_strings(pod: Pod) -> Iterator[str]:
    for path, value in _quantities(pod.owner):
        if not isinstance(value, str) or not QUANTITY.match(value):
            yield f"{path} is {value!r}"


LAWS: list[Law] = [
    shares_nothing_with_its_host,
    mounts_allowed_volumes_only,
    escalates_nothing,
    is_confined,
    is_its_images_user,
    writes_to_sized_volumes_only,
    has_no_token,
    is_told_nothing_of_other_services,
    asks_for_what_it_needs,
    has_quantities_as_strings,
]


@pytest.mark.parametrize("law", LAWS)
def test_every_pod(release: Release, law: Law) -> None:
    assert [f"{pod.title}: {wrong}" for pod in release.pods for wrong in law(pod)] == []


def _container(**changes: Any) -> Callable[[Any], Any]:
    return lambda spec: spec["containers"][0].update(changes)


def _context(**changes: Any) -> Callable[[Any], Any]:
    return lambda spec: spec["containers"][0]["securityContext"].update(changes)


def _of_pod(**changes: Any) -> Callable[[Any], Any]:
    return lambda spec: spec.setdefault("securityContext", {}).update(changes)


def _unseccomped(spec: Any) -> None:
    spec.get("securityContext", {}).pop("seccompProfile", None)
    spec["containers"][0]["securityContext"].pop("seccompProfile", None)


def _uid_of(uid: int | None) -> Callable[[Any], Any]:
    def change(spec: Any) -> None:
        for holder in (spec, spec["containers"][0]):
            holder.setdefault("securityContext", {})["runAsUser"] = uid

    return change


def _first_empty_dir(spec: Any) -> Any:
    return next(each for each in spec["volumes"] if "emptyDir" in each)


BREAKAGES: list[tuple[Law, Callable[[Any], Any]]] = [
    (shares_nothing_with_its_host, lambda spec: spec.update(hostNetwork=True)),
    (shares_nothing_with_its_host, _container(ports=[{"containerPort": 1, "hostPort": 1}])),
    (
        mounts_allowed_volumes_only,
        lambda spec: spec["volumes"].append({"name": "host", "hostPath": {"path": "/"}}),
    ),
    (escalates_nothing, _context(privileged=True)),
    (escalates_nothing, _context(allowPrivilegeEscalation=True)),
    (escalates_nothing, _context(capabilities={"drop": ["NET_RAW"]})),
    (escalates_nothing, _context(capabilities={"drop": ["ALL"], "add": ["NET_BIND_SERVICE"]})),
    (escalates_nothing, lambda spec: spec["containers"][0].pop("securityContext")),
    (is_confined, _context(seccompProfile={"type": "Unconfined"})),
    (is_confined, _unseccomped),
    (is_confined, _of_pod(sysctls=[{"name": "kernel.msgmax", "value": "1"}])),
    (is_its_images_user, _uid_of(0)),
    (is_its_images_user, _uid_of(None)),
    (is_its_images_user, _context(runAsNonRoot=False)),
    (is_its_images_user, _container(image="busybox:1")),
    (writes_to_sized_volumes_only, _context(readOnlyRootFilesystem=False)),
    (writes_to_sized_volumes_only, _container(volumeMounts=[])),
    (writes_to_sized_volumes_only, lambda spec: _first_empty_dir(spec).update(emptyDir={})),
    (
        writes_to_sized_volumes_only,
        lambda spec: [each.pop("readOnly", None) for each in spec["containers"][0]["volumeMounts"]],
    ),
    (has_no_token, lambda spec: spec.pop("automountServiceAccountToken")),
    (
        has_no_token,
        lambda spec: spec["volumes"].append(
            {"name": "token", "projected": {"sources": [{"serviceAccountToken": {"path": "t"}}]}}
        ),
    ),
    (is_told_nothing_of_other_services, lambda spec: spec.pop("enableServiceLinks")),
    (asks_for_what_it_needs, _container(resources={"requests": {"cpu": "1", "memory": "1Gi"}})),
    (asks_for_what_it_needs, _container(resources={"limits": {"memory": "1Gi"}})),
    (has_quantities_as_strings, _container(resources={"requests": {"cpu": 1}})),
    (
        has_quantities_as_strings,
        lambda spec: _first_empty_dir(spec).update(emptyDir={"sizeLimit": 1000000}),
    ),
]


@pytest.mark.parametrize(("law", "breakage"), BREAKAGES)
def test_a_pod_that_breaks_a_law_is_seen(
    releases: dict[str, Release], law: Law, breakage: Callable[[Any], Any]
) -> None:
    (program, *_) = releases["api-default"].services
    pod = copy.deepcopy(program.pod)
    breakage(pod.spec)

    assert list(law(program.pod)) == []
    assert list(law(pod)) != []


def test_every_law_has_a_breakage() -> None:
    assert {law for law, _ in BREAKAGES} == set(LAWS)
