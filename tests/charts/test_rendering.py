"""Both Helms like the charts, and make the same of them; packages too; and releases don't meet."""

import re
import tarfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import yaml

from vegamite_common.testing.charts.helm import Helm, HelmError
from vegamite_common.testing.charts.manifest import Manifest, title
from vegamite_common.testing.charts.release import Release
from vegamite_common.testing.charts.scenario import Renders, Scenario

HELMS = ["helm3", "helm4"]
MONITORING = "monitoring.coreos.com/"
# Helm takes no longer one.
LONG_NAME = "a-release-with-a-name-as-long-as-helm-takes-which-is5"


@pytest.mark.parametrize("name", HELMS)
def test_helm_lints_it_strictly(helms: dict[str, Helm], scenario: Scenario, name: str) -> None:
    said = helms[name].lint(scenario.folder, files=scenario.files)

    assert "0 chart(s) failed" in said
    assert "[WARNING]" not in said
    assert "[ERROR]" not in said


def test_the_helms_are_two_generations(helms: dict[str, Helm]) -> None:
    assert {name: helm.version().split(".")[0] for name, helm in helms.items()} == {
        "helm3": "v3",
        "helm4": "v4",
    }


def _without_chance(manifest: Manifest) -> Manifest:
    """The manifest, the values of a Secret left out: they are drawn anew in every rendering."""
    if manifest["kind"] != "Secret":
        return manifest
    return {
        **manifest,
        **{key: dict.fromkeys(manifest[key]) for key in ("data", "stringData") if key in manifest},
    }


def _comparable(manifests: tuple[Manifest, ...]) -> dict[tuple[str, str], Manifest]:
    return {(each["kind"], each["metadata"]["name"]): _without_chance(each) for each in manifests}


def _lines(text: str) -> list[str]:
    """The text's lines without comments, blank ones, and the values of secrets."""
    documents = [each for each in text.split("\n---") if "\nkind: Secret" not in each]
    lines = [line.rstrip() for document in documents for line in document.splitlines()]
    return sorted(line for line in lines if line and not line.lstrip().startswith(("#", "---")))


def test_both_helms_render_the_same(renders: Renders, scenario: Scenario) -> None:
    older, newer = (renders.get(scenario, helm=name) for name in HELMS)

    assert _comparable(older.manifests) == _comparable(newer.manifests)
    assert _lines(older.text) == _lines(newer.text)


def _nulls(value: Any, path: str = "") -> list[str]:
    if value is None:
        return [path]
    if isinstance(value, dict):
        return [each for key, inner in value.items() for each in _nulls(inner, f"{path}.{key}")]
    if isinstance(value, list):
        return [each for at, inner in enumerate(value) for each in _nulls(inner, f"{path}.{at}")]
    return []


def test_nothing_is_left_empty_by_mistake(release: Release) -> None:
    assert [f"{title(each)}{path}" for each in release.manifests for path in _nulls(each)] == []
    assert [
        title(each)
        for each in release.manifests
        if re.search(r"<no value>|%!|map\[", yaml.safe_dump(each))
    ] == []


def test_monitors_are_left_out_where_nothing_knows_them(
    renders: Renders, scenario: Scenario
) -> None:
    made = renders.get(scenario)
    monitors = [each for each in made.manifests if each["apiVersion"].startswith(MONITORING)]
    without = renders.get(scenario, apis=()).manifests if monitors else made.manifests

    assert _comparable(without) == _comparable(
        tuple(each for each in made.manifests if each not in monitors)
    )


def test_the_scenarios_use_every_kind_of_others(releases: dict[str, Release]) -> None:
    kinds = {
        (each["apiVersion"].partition("/")[0], each["kind"])
        for release in releases.values()
        for each in release.manifests
    }

    assert kinds >= {
        ("monitoring.coreos.com", "ServiceMonitor"),
        ("monitoring.coreos.com", "PodMonitor"),
        ("keda.sh", "ScaledObject"),
        ("gateway.networking.k8s.io", "HTTPRoute"),
        ("networking.k8s.io", "Ingress"),
        ("autoscaling", "HorizontalPodAutoscaler"),
        ("policy", "PodDisruptionBudget"),
    }


@pytest.mark.parametrize("kubernetes", ["1.30.0", "1.37.0"])
def test_old_and_new_clusters_get_the_same(
    helm: Helm, renders: Renders, chart: Path, kubernetes: str
) -> None:
    made = helm.template(chart, kubernetes=kubernetes)

    assert _comparable(made.manifests) == _comparable(
        renders.get(Scenario(chart, "default")).manifests
    )


def test_a_cluster_older_than_promised_is_refused(helm: Helm, chart: Path) -> None:
    with pytest.raises(HelmError, match=r"kubeVersion.*1\.29"):
        helm.template(chart, kubernetes="1.29.0")


def test_no_template_asks_for_the_version_of_the_cluster(repository: Path) -> None:
    """Every scenario's manifests are then good for all versions; one that asks must be rendered for each of them."""
    templates = [*repository.glob("helm/*/templates/**/*"), *repository.glob("helm/*/files/**/*")]
    assert templates
    asking = [path for path in templates if path.is_file() and "KubeVersion" in path.read_text()]

    assert asking == []


def test_a_release_with_a_long_name_is_one_of_its_own(
    helm: Helm, renders: Renders, scenario: Scenario
) -> None:
    made = helm.template(scenario.folder, files=scenario.files, release=LONG_NAME)
    # A pod of a StatefulSet gets the set's name and a hash of 10 in a label.
    limits = {"StatefulSet": 52, "CronJob": 52}
    objects = {(each["kind"], each["metadata"]["name"]) for each in made.manifests}
    labels = {
        ("label", str(value))
        for each in made.manifests
        for value in (each["metadata"].get("labels") or {}).values()
    }
    names = objects | labels

    assert [each for each in names if len(each[1]) > limits.get(each[0], 63)] == []
    assert [
        each
        for each in names
        if not re.fullmatch(r"[A-Za-z0-9]([-A-Za-z0-9._]*[A-Za-z0-9])?", each[1])
    ] == []
    # What the values themselves name is shared because they say so.
    texts = "".join(path.read_text() for path in scenario.files)
    shared = objects & _comparable(renders.get(scenario).manifests).keys()
    assert [each for each in shared if each[1] not in texts] == []


@pytest.fixture(scope="session", params=HELMS)
def packages(
    request: pytest.FixtureRequest,
    helms: dict[str, Helm],
    repository: Path,
    pool: ThreadPoolExecutor,
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[str, Path]:
    """Every chart as one Helm packages it, the library too."""
    folders = sorted(path.parent for path in (repository / "helm").glob("*/Chart.yaml"))
    targets = {each: tmp_path_factory.mktemp(f"{request.param}-{each.name}") for each in folders}
    made = pool.map(lambda each: helms[request.param].package(each, targets[each]), folders)
    return {folder.name: package for folder, package in zip(folders, made, strict=True)}


def test_a_package_has_everything_and_no_more(packages: dict[str, Path], version: str) -> None:
    assert set(packages) == {"vegamite-common", "collector", "aggregator", "api", "vegamite"}
    semver = re.sub(r"(a|b|rc)(\d+)$", r"-\1.\2", version)
    for name, package in packages.items():
        assert package.name == f"{name}-{semver}.tgz"
        with tarfile.open(package) as archive:
            members = {each.name: each for each in archive.getmembers()}
        assert f"{name}/Chart.yaml" in members
        assert [each for each, info in members.items() if not info.isfile()] == []
        assert [each for each in members if "/ci/" in each or each.endswith(".orig")] == []
        if name != "vegamite-common":
            assert any(
                each.endswith("charts/vegamite-common/templates/_pod.tpl") for each in members
            )


def test_a_package_renders_alone(
    packages: dict[str, Path], helms: dict[str, Helm], chart: Path, tmp_path: Path, renders: Renders
) -> None:
    package = tmp_path / "chart.tgz"
    package.write_bytes(packages[chart.name].read_bytes())
    for scenario in {Scenario(chart, "default"), _richest(chart)}:
        made = helms["helm3"].template(package, files=scenario.files)

        assert _comparable(made.manifests) == _comparable(renders.get(scenario).manifests)


def _richest(chart: Path) -> Scenario:
    """The scenario with the longest values."""
    path = max((chart / "ci").glob("*-values.yaml"), key=lambda each: each.stat().st_size)
    return Scenario(chart, path.name.removesuffix("-values.yaml"))
