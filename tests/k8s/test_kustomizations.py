"""Every kustomization builds into objects that Kubernetes takes, and holds nothing that is another's."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from vegamite_common.testing.charts.kubernetes_schemas import (
    KUBERNETES_VERSIONS,
    SchemaMissingError,
    built_in_problems,
)
from vegamite_common.testing.charts.manifest import Manifest, Pod, pods, title

Build = Callable[[str], tuple[Manifest, ...]]

K8S = Path(__file__).resolve().parents[2] / "k8s"
FOLDERS = sorted(
    str(path.parent.relative_to(K8S))
    for path in K8S.rglob("kustomization.yaml")
    if yaml.safe_load(path.read_text())["kind"] == "Kustomization"
)
ENVIRONMENTS = ("dev", "staging", "prod")
OPERATORS = {
    "kafka.strimzi.io/v1",
    "postgresql.cnpg.io/v1",
    "barmancloud.cnpg.io/v1",
    "monitoring.coreos.com/v1",
    "argoproj.io/v1alpha1",
}


def _own(manifests: tuple[Manifest, ...]) -> Iterator[Manifest]:
    """The objects of Kubernetes' own kinds; what the operators bring is told apart by its API."""
    return (each for each in manifests if each["apiVersion"] not in OPERATORS)


def _namespaces(manifests: tuple[Manifest, ...]) -> dict[str, dict[str, str]]:
    return {
        each["metadata"]["name"]: each["metadata"]["labels"]
        for each in manifests
        if each["kind"] == "Namespace"
    }


def test_these_are_the_environments() -> None:
    assert {f"overlays/{name}" for name in ENVIRONMENTS} < set(FOLDERS)


@pytest.mark.parametrize("folder", FOLDERS)
def test_a_kustomization_builds(build: Build, folder: str) -> None:
    names = [title(each) for each in build(folder)]

    assert names
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("version", KUBERNETES_VERSIONS)
@pytest.mark.parametrize("folder", FOLDERS)
def test_kubernetes_takes_what_is_built(build: Build, folder: str, version: str) -> None:
    assert [said for each in _own(build(folder)) for said in built_in_problems(each, version)] == []


def test_an_unknown_key_would_be_seen(build: Build) -> None:
    (service,) = (each for each in build("overlays/dev") if each["kind"] == "Service")
    wrong = {**service, "spec": {**service["spec"], "sessionAfinity": "None"}}

    assert built_in_problems(wrong, KUBERNETES_VERSIONS[0])
    with pytest.raises(SchemaMissingError):
        built_in_problems({**service, "apiVersion": "v2"}, KUBERNETES_VERSIONS[0])


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_an_environment_is_one_restricted_namespace(build: Build, environment: str) -> None:
    manifests = build(f"overlays/{environment}")
    (namespace, labels), *others = _namespaces(manifests).items()

    assert others == []
    assert namespace == f"vegamite-{environment}"
    assert {
        labels[f"pod-security.kubernetes.io/{mode}"] for mode in ("enforce", "audit", "warn")
    } == {"restricted"}
    assert {
        each["metadata"].get("namespace") for each in manifests if each["kind"] != "Namespace"
    } == {namespace}


def test_every_namespace_says_how_safe_its_pods_must_be(build: Build) -> None:
    levels = {
        name: labels["pod-security.kubernetes.io/enforce"]
        for name, labels in _namespaces(build("platform")).items()
    }

    assert {name for name, level in levels.items() if level != "restricted"} == {"monitoring"}
    assert levels["monitoring"] == "baseline"


@pytest.mark.parametrize("folder", FOLDERS)
def test_no_workload_of_ours_is_here(build: Build, folder: str) -> None:
    """Those are the charts'; the one here is a server that no chart of ours brings."""
    found = {pod.title for pod in pods(build(folder))}

    assert found <= {"StatefulSet/influxdb"}


@pytest.mark.parametrize("folder", FOLDERS)
def test_no_secret_and_no_password_is_here(build: Build, folder: str) -> None:
    assert [title(each) for each in build(folder) if each["kind"] == "Secret"] == []
    assert list(_values_called_like_secrets(list(build(folder)))) == []


def _values_called_like_secrets(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for key, inner in value.items():
            if isinstance(inner, str) and key in {"password", "token", "secretKey", "uri"}:
                yield f"{key}: {inner}"
            yield from _values_called_like_secrets(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _values_called_like_secrets(inner)


@pytest.fixture
def influxdb(build: Build) -> Pod:
    (pod,) = pods(build("overlays/dev"))
    return pod


def test_influxdb_may_do_what_the_restricted_level_allows(influxdb: Pod) -> None:
    (container,) = influxdb.containers
    context = container["securityContext"]

    assert influxdb.spec["securityContext"]["runAsNonRoot"] is True
    assert influxdb.spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert context["allowPrivilegeEscalation"] is False
    assert context["capabilities"] == {"drop": ["ALL"]}
    assert context["readOnlyRootFilesystem"] is True
    assert influxdb.spec["automountServiceAccountToken"] is False


def test_influxdb_reads_its_secrets_from_files_of_a_secret(influxdb: Pod) -> None:
    (container,) = influxdb.containers
    secret = influxdb.volumes["admin"]["secret"]
    (mount,) = (each for each in container["volumeMounts"] if each["name"] == "admin")
    read = {each["value"] for each in container["env"] if each["name"].endswith("_FILE")}

    assert read == {f"{mount['mountPath']}/{item['path']}" for item in secret["items"]}


def test_argo_cd_is_told_of_folders_and_files_that_are_there(build: Build) -> None:
    applications = [each for each in build("gitops/argocd") if each["kind"] == "Application"]
    told = []
    for source in (each["spec"]["source"] for each in applications):
        told.append(source["path"])
        told += [name.removeprefix("/") for name in source.get("helm", {}).get("valueFiles", [])]

    assert {"k8s/overlays/staging", "helm/vegamite"} < set(told)
    assert [name for name in told if not (K8S.parent / name).exists()] == []
