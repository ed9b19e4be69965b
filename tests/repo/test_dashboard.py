"""Every dashboard of the chart is one that Grafana 11 and 12 show anywhere, and that helps whoever looks at it."""

import itertools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from vegamite_common.testing.dashboard import Dashboard, metric_names

PANEL_TYPES = {"row", "stat", "timeseries", "table", "bargauge", "gauge", "heatmap", "text"}
WIDTH = 24
# Labels that compose and every way of scraping on Kubernetes give, or that our own metrics have.
NOT_EVERYWHERE = {"job", "service", "pod", "container", "endpoint", "cluster", "node"}
ROOT = Path(__file__).resolve().parents[2]
FILES = sorted((ROOT / "helm/vegamite/dashboards").glob("*.json"))


@pytest.fixture(params=FILES, ids=lambda path: path.name)
def dashboard(request: pytest.FixtureRequest) -> Dashboard:
    return Dashboard(request.param)


def shown(dashboard: Dashboard) -> list[dict[str, Any]]:
    """Every panel that shows data."""
    return [panel for panel in dashboard.panels if panel["type"] not in ("row", "text")]


def test_there_are_the_overview_and_the_aggregator_in_detail() -> None:
    assert [path.name for path in FILES] == ["aggregator.json", "overview.json"]


def test_a_dashboard_has_one_identity_that_stays() -> None:
    identities = [Dashboard(path).body["uid"] for path in FILES]
    assert len(set(identities)) == len(identities)
    for path, identity in zip(FILES, identities, strict=True):
        assert identity == f"vegamite-{path.stem}"
        # Grafana gives these itself; in a file they clash with what it has.
        assert "id" not in Dashboard(path).body


def test_panels_have_identities_and_titles_of_their_own(dashboard: Dashboard) -> None:
    identities = [panel["id"] for panel in dashboard.panels]
    assert len(set(identities)) == len(identities)
    titles = [panel["title"] for panel in dashboard.panels]
    assert [title for title in titles if titles.count(title) > 1] == []


def test_no_panel_lies_over_another_or_beyond_the_edge(dashboard: Dashboard) -> None:
    places = [(panel["title"], panel["gridPos"]) for panel in dashboard.panels]
    for title, place in places:
        assert place["x"] >= 0, title
        assert place["x"] + place["w"] <= WIDTH, title
        assert place["w"] > 0 < place["h"], title
    for (one, a), (other, b) in itertools.combinations(places, 2):
        beside = a["x"] + a["w"] <= b["x"] or b["x"] + b["w"] <= a["x"]
        below = a["y"] + a["h"] <= b["y"] or b["y"] + b["h"] <= a["y"]
        assert beside or below, f"{one} lies over {other}"


def test_panels_are_of_kinds_that_grafana_still_has(dashboard: Dashboard) -> None:
    assert {panel["type"] for panel in dashboard.panels} <= PANEL_TYPES
    assert dashboard.body["schemaVersion"] >= 39


def test_every_panel_says_what_is_good_and_has_a_unit(dashboard: Dashboard) -> None:
    for panel in shown(dashboard):
        assert "Good: " in panel["description"], panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]
        assert panel["targets"], panel["title"]


def sources(value: Any) -> Iterator[Any]:
    """Yield every `datasource` anywhere in the file."""
    if isinstance(value, dict):
        for key, inner in value.items():
            if key == "datasource":
                yield inner
            else:
                yield from sources(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from sources(inner)


def test_data_comes_from_the_source_that_is_chosen(dashboard: Dashboard) -> None:
    found = list(sources(dashboard.body))
    assert found
    assert all(each == {"type": "prometheus", "uid": "${datasource}"} for each in found)
    for panel in shown(dashboard):
        assert "datasource" in panel, panel["title"]
        assert all("datasource" in target for target in panel["targets"]), panel["title"]


def test_expressions_select_by_metric_and_variables_alone(dashboard: Dashboard) -> None:
    for target in dashboard.targets:
        selectors = re.findall(r"(\w+)\s*(?:\{([^}]*)\})?", target.expression)
        labels = dict(selectors)
        for metric in metric_names(target.expression):
            assert 'instance=~"$instance"' in labels[metric], f"{target.panel}: {metric}"
            assert 'namespace=~"$namespace"' in labels[metric], f"{target.panel}: {metric}"
        matched = re.findall(r"(\w+)\s*(?:=~|!=|!~|=)\s*\"", target.expression)
        assert not NOT_EVERYWHERE & set(matched), target.panel
        assert not NOT_EVERYWHERE & set(target.legend_labels), target.panel
        dashboard.substitute(target.expression)


def test_expressions_read_our_own_metrics(dashboard: Dashboard) -> None:
    for target in dashboard.targets:
        for metric in metric_names(target.expression):
            assert metric.startswith(("vegamite_", "process_")), f"{target.panel}: {metric}"


def test_every_metric_that_is_told_of_is_on_a_panel() -> None:
    told = re.findall(
        r"^\| `(vegamite_\w+)` \|", (ROOT / "docs/metrics.md").read_text(), re.MULTILINE
    )
    assert len(told) > 70
    # A histogram is on a panel by one of its series.
    shown = {
        re.sub(r"_(bucket|sum|count)$", "", name)
        for path in FILES
        for target in Dashboard(path).targets
        for name in metric_names(target.expression)
    }
    assert set(told) - shown == set()


def test_rates_are_taken_over_as_many_scrapes_as_there_must_be(dashboard: Dashboard) -> None:
    for target in dashboard.targets:
        for window in re.findall(r"\brate\([^[]*\[([^\]]*)\]", target.expression):
            assert window == "$__rate_interval", target.panel


def test_all_matches_series_without_the_label_too(dashboard: Dashboard) -> None:
    names = [variable.name for variable in dashboard.variables]
    assert {"namespace", "instance"} <= set(names)
    for variable in dashboard.variables:
        assert variable.all_value == ".*", variable.name
    choice = dashboard.body["templating"]["list"][0]
    assert (choice["name"], choice["type"], choice["query"]) == (
        "datasource", "datasource", "prometheus",
    )  # fmt: skip
