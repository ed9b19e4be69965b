"""Every chart with every set of values that it is tried with, rendered in threads and only once."""

from concurrent.futures import Executor, Future
from dataclasses import dataclass
from pathlib import Path

from vegamite_common.testing.charts.helm import OPTIONAL_APIS, Helm, Rendering


@dataclass(frozen=True)
class Scenario:
    """A chart with the values file of one scenario, or with its defaults alone (name "default")."""

    folder: Path
    name: str

    def __str__(self) -> str:
        return f"{self.chart}-{self.name}"

    @property
    def chart(self) -> str:
        """The chart's name."""
        return self.folder.name

    @property
    def files(self) -> tuple[Path, ...]:
        """The values files that Helm is given, besides the chart's own."""
        return () if self.name == "default" else (self.folder / "ci" / f"{self.name}-values.yaml",)


def find_charts(folder: Path) -> list[Path]:
    """Return the folders of all charts that render: every one but libraries."""
    return sorted(
        path.parent
        for path in folder.glob("*/Chart.yaml")
        if "type: library" not in path.read_text()
    )


def find_scenarios(folder: Path) -> list[Scenario]:
    """Return the scenarios of all charts: their defaults, and each `ci/<name>-values.yaml`."""
    return [
        Scenario(chart, name)
        for chart in find_charts(folder)
        for name in (
            "default",
            *sorted(
                path.name.removesuffix("-values.yaml")
                for path in (chart / "ci").glob("*-values.yaml")
            ),
        )
    ]


class Renders:
    """The renderings of scenarios by several Helms; what was asked for once is kept."""

    def __init__(self, helms: dict[str, Helm], pool: Executor) -> None:
        self._helms = helms
        self._pool = pool
        self._made: dict[tuple[Scenario, str, str | None, tuple[str, ...]], Future[Rendering]] = {}

    def start(
        self,
        scenario: Scenario,
        *,
        helm: str = "helm4",
        kubernetes: str | None = None,
        apis: tuple[str, ...] = OPTIONAL_APIS,
    ) -> Future[Rendering]:
        """Have it rendered meanwhile, as for a cluster of that version that offers these APIs."""
        key = (scenario, helm, kubernetes, apis)
        if key not in self._made:
            self._made[key] = self._pool.submit(
                self._helms[helm].template,
                scenario.folder,
                files=scenario.files,
                kubernetes=kubernetes,
                apis=apis,
            )
        return self._made[key]

    def get(
        self,
        scenario: Scenario,
        *,
        helm: str = "helm4",
        kubernetes: str | None = None,
        apis: tuple[str, ...] = OPTIONAL_APIS,
    ) -> Rendering:
        """Return the rendering; HelmError where Helm refuses the scenario."""
        return self.start(scenario, helm=helm, kubernetes=kubernetes, apis=apis).result()
