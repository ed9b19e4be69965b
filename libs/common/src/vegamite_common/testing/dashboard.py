"""A Grafana dashboard as its file says it: panels, expressions, variables, and what Grafana makes of them before it asks.

The form is that of Grafana 11 and 12 with a Prometheus data source.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_LABEL_VALUES = re.compile(r"label_values\((?:(?P<match>.+), )?(?P<label>\w+)\)")
_QUOTED = re.compile(r'"(?:[^"\\]|\\.)*"')
_NOT_METRICS = re.compile(
    r"\{[^}]*\}|\[[^\]]*\]|\b(?:by|without|on|ignoring|group_left|group_right)\s*\([^)]*\)"
)
_WORD = re.compile(r"(?<![a-zA-Z0-9_:.])[a-zA-Z_:][a-zA-Z0-9_:]*(?!\s*\(|[a-zA-Z0-9_:])")
_OPERATORS = frozenset(("and", "or", "unless", "bool", "offset", "inf", "nan"))
_ALL = "$__all"


@dataclass(frozen=True)
class Target:
    """One expression of a panel, and how its series are named in the legend."""

    panel: str
    expression: str
    legend: str

    @property
    def legend_labels(self) -> tuple[str, ...]:
        """The labels that the legend shows."""
        return tuple(re.findall(r"\{\{\s*(\w+)\s*\}\}", self.legend))


@dataclass(frozen=True)
class Variable:
    """A variable whose values are those of a label in the series that a selector finds."""

    name: str
    label: str
    match: str
    all_value: str


class Dashboard:
    """One dashboard's file."""

    def __init__(self, path: Path) -> None:
        self.body: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))

    @property
    def panels(self) -> list[dict[str, Any]]:
        """All panels, rows among them, also those inside a collapsed row."""
        found: list[dict[str, Any]] = []
        for panel in self.body["panels"]:
            found += [panel, *panel.get("panels", ())]
        return found

    @property
    def targets(self) -> Iterator[Target]:
        """Every expression of every panel."""
        for panel in self.panels:
            for target in panel.get("targets", ()):
                yield Target(panel["title"], target["expr"], target.get("legendFormat", ""))

    def target(self, panel: str) -> Target:
        """The only expression of the panel with this title."""
        [found] = [target for target in self.targets if target.panel == panel]
        return found

    @property
    def variables(self) -> list[Variable]:
        """The variables that ask Prometheus, in their order; raises ValueError for one that asks in another way."""
        found = []
        for each in self.body["templating"]["list"]:
            if each["type"] == "query":
                asked = _LABEL_VALUES.fullmatch(each["query"]["query"])
                if asked is None:
                    raise ValueError(f"{each['name']} asks {each['query']['query']}")
                all_value = each["allValue"]
                found.append(Variable(each["name"], asked["label"], asked["match"], all_value))
        return found

    def substitute(
        self,
        text: str,
        *,
        chosen: Mapping[str, Sequence[str]] | None = None,
        rate_interval: str = "20s",
    ) -> str:
        """Return the expression as Grafana sends it: `chosen` are values by variable, all others stand at All."""
        for variable in self.variables:
            values = (chosen or {}).get(variable.name, (_ALL,))
            text = re.sub(rf"\$(?:{variable.name}\b|\{{{variable.name}\}})", lambda _: "\0", text)
            text = text.replace("\0", _as_regex(values, variable.all_value))
        text = text.replace("$__rate_interval", rate_interval)
        if "$" in _QUOTED.sub(lambda quoted: quoted[0].replace("\\$", ""), text):
            raise ValueError(f"an unknown variable is left in {text}")
        return text


def _as_regex(values: Sequence[str], all_value: str) -> str:
    if _ALL in values:
        return all_value
    # What matches literally is escaped for the regular expression, and its backslashes for the quoted text.
    escaped = [re.sub(r"([\\$^*{}\[\]'+?.()|])", r"\\\\\1", value) for value in values]
    return escaped[0] if len(escaped) == 1 else f"({'|'.join(escaped)})"


def metric_names(expression: str) -> set[str]:
    """Return the names of the metrics that an expression reads."""
    bare = _NOT_METRICS.sub(" ", _QUOTED.sub('""', expression))
    return {word for word in _WORD.findall(bare) if word.lower() not in _OPERATORS}
