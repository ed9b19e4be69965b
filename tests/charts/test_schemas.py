"""Kubernetes, in every version that is promised, knows each object and each key in it."""

import pytest

from vegamite_common.testing.charts.kubernetes_schemas import (
    KUBERNETES_VERSIONS,
    CustomSchemas,
    SchemaMissingError,
    built_in_problems,
)
from vegamite_common.testing.charts.manifest import Manifest, ManifestError, read_manifests
from vegamite_common.testing.charts.release import Release

# Kinds of others whose definitions may be at hand.
DEFINED = {
    ("monitoring.coreos.com/v1", "ServiceMonitor"),
    ("monitoring.coreos.com/v1", "PodMonitor"),
    ("monitoring.coreos.com/v1", "PrometheusRule"),
    ("keda.sh/v1alpha1", "ScaledObject"),
    ("keda.sh/v1alpha1", "TriggerAuthentication"),
}
# Kinds that no definition is at hand for: only `KEYS` below looks at them.
UNDEFINED = {("gateway.networking.k8s.io/v1", "HTTPRoute")}
KEYS = {"HTTPRoute": {"parentRefs", "hostnames", "rules"}}


def _kind(manifest: Manifest) -> tuple[str, str]:
    return manifest["apiVersion"], manifest["kind"]


def test_every_version_of_kubernetes_knows_every_object_of_its_own(release: Release) -> None:
    own = [each for each in release.manifests if _kind(each) not in DEFINED | UNDEFINED]

    assert own
    assert [
        f"Kubernetes {version}: {wrong}"
        for version in KUBERNETES_VERSIONS
        for each in own
        for wrong in built_in_problems(each, version)
    ] == []


def test_the_promised_versions_are_these() -> None:
    assert tuple(f"1.{minor}" for minor in range(30, 38)) == KUBERNETES_VERSIONS


def test_kinds_of_others_are_as_they_define_them(
    release: Release, custom_schemas: CustomSchemas | None
) -> None:
    for each in release.manifests:
        if _kind(each) in DEFINED and custom_schemas is not None:
            assert custom_schemas.problems(each) == []
        if _kind(each) in UNDEFINED:
            assert set(each["spec"]) <= KEYS[each["kind"]]


def test_every_definition_is_at_hand(custom_schemas: CustomSchemas | None) -> None:
    assert custom_schemas is None or custom_schemas.kinds >= DEFINED


def test_an_unknown_key_and_a_wrong_type_are_seen(releases: dict[str, Release]) -> None:
    (deployment,) = releases["api-default"].of("Deployment")
    spec = deployment["spec"]["template"]["spec"]
    changes = [{"nodeSelektor": "a"}, {"terminationGracePeriodSeconds": "30"}]
    for change in changes:
        template = {**deployment["spec"]["template"], "spec": {**spec, **change}}
        broken = {**deployment, "spec": {**deployment["spec"], "template": template}}
        for version in KUBERNETES_VERSIONS:
            assert len(built_in_problems(broken, version)) == 1


def test_an_unknown_key_of_another_kind_is_seen(custom_schemas: CustomSchemas | None) -> None:
    monitor = {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "ServiceMonitor",
        "metadata": {"name": "api"},
        "spec": {"selector": {}, "endpoints": [{"port": "management", "intervall": "30s"}]},
    }
    if custom_schemas is not None:
        (problem,) = custom_schemas.problems(monitor)
        assert "intervall" in problem


def test_an_unknown_kind_is_no_valid_one() -> None:
    for api_version, kind in (("apps/v1", "Deploiment"), ("apps/v9", "Deployment")):
        manifest = {"apiVersion": api_version, "kind": kind, "metadata": {"name": "x"}}
        with pytest.raises(SchemaMissingError, match=kind):
            built_in_problems(manifest, "1.30")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("kind: A\nmetadata: {name: a}\nspec:\n  b: 1\n  b: 2\n", "'b' is given twice"),
        ("kind: A\nspec: {}\n", "without kind or name"),
        ("just a sentence\n", "no object"),
        ("a: [\n", "not YAML"),
    ],
)
def test_a_text_that_kubernetes_would_refuse_is_refused(text: str, told: str) -> None:
    with pytest.raises(ManifestError, match=told):
        read_manifests(text)
