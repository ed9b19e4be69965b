import json
from pathlib import Path
from typing import Any

import pytest

from vegamite_common.testing.dashboard import Dashboard, metric_names


def made(folder: Path, expression: str, query: str = "label_values(up, instance)") -> Dashboard:
    body: dict[str, Any] = {
        "panels": [
            {"type": "row", "title": "Row", "panels": []},
            {"title": "One", "targets": [{"expr": expression, "legendFormat": "{{job}} of {{ it }}"}]},
        ],
        "templating": {
            "list": [
                {"type": "datasource", "name": "datasource"},
                {"type": "query", "name": "instance", "query": {"query": query}, "allValue": ".*"},
            ]
        },
    }  # fmt: skip
    path = folder / "dashboard.json"
    path.write_text(json.dumps(body))
    return Dashboard(path)


def test_an_expression_is_sent_with_all_where_nothing_is_chosen(tmp_path: Path) -> None:
    dashboard = made(tmp_path, 'rate(up{instance=~"$instance"}[$__rate_interval])')
    target = dashboard.target("One")
    assert target.legend_labels == ("job", "it")
    assert dashboard.substitute(target.expression) == 'rate(up{instance=~".*"}[20s])'


def test_chosen_values_are_matched_literally(tmp_path: Path) -> None:
    dashboard = made(tmp_path, 'up{instance=~"$instance"}')
    one = dashboard.substitute(
        dashboard.target("One").expression, chosen={"instance": ["10.0.0.1:8001"]}
    )
    two = dashboard.substitute(
        dashboard.target("One").expression, chosen={"instance": ["a+b", "c"]}
    )
    assert one == r'up{instance=~"10\\.0\\.0\\.1:8001"}'
    assert two == r'up{instance=~"(a\\+b|c)"}'


def test_a_variable_that_nobody_defines_is_refused(tmp_path: Path) -> None:
    dashboard = made(tmp_path, 'up{instance=~"$instances"}')
    with pytest.raises(ValueError, match="unknown variable"):
        dashboard.substitute(dashboard.target("One").expression)


def test_variables_are_the_values_of_labels(tmp_path: Path) -> None:
    [variable] = made(tmp_path, "up", 'label_values(up{job="a, b"}, instance)').variables
    assert (variable.match, variable.label) == ('up{job="a, b"}', "instance")
    with pytest.raises(ValueError, match="instance asks"):
        assert made(tmp_path, "up", "metrics(up)").variables


@pytest.mark.parametrize(
    ("expression", "names"),
    [
        ("up", {"up"}),
        ('sum by (job) (rate(a_total{x="b_total{y}"}[5m])) / 2', {"a_total"}),
        ("(sum(a) or vector(0)) - max without (x, y) (b_seconds offset 5m)", {"a", "b_seconds"}),
        ("a * on (job, instance) group_left (version) (time() - b)", {"a", "b"}),
        ("histogram_quantile(0.9, sum by (le) (rate(c_bucket[1h])))", {"c_bucket"}),
    ],
)
def test_the_metrics_of_an_expression_are_found(expression: str, names: set[str]) -> None:
    assert metric_names(expression) == names
