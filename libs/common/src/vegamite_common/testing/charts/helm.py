"""Charts rendered by a real Helm, without a cluster and without the user's own configuration of Helm."""

import functools
import json
import os
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vegamite_common.testing.charts.manifest import Manifest, read_manifests

RELEASE = "candles"
NAMESPACE = "market-data"
OPTIONAL_APIS = (
    "monitoring.coreos.com/v1",
    "monitoring.coreos.com/v1/ServiceMonitor",
    "monitoring.coreos.com/v1/PodMonitor",
    "monitoring.coreos.com/v1/PrometheusRule",
    "keda.sh/v1alpha1",
    "keda.sh/v1alpha1/ScaledObject",
    "gateway.networking.k8s.io/v1",
    "gateway.networking.k8s.io/v1/HTTPRoute",
)
"""What a cluster may offer besides Kubernetes' own kinds, and the charts make use of."""


class HelmError(Exception):
    """Helm refused; the text is what it said."""


@dataclass(frozen=True)
class Rendering:
    """What `helm template` wrote: the manifests as text, hooks and tests among them."""

    text: str

    @functools.cached_property
    def manifests(self) -> tuple[Manifest, ...]:
        """The text's objects."""
        return read_manifests(self.text)


@dataclass(frozen=True)
class Plan:
    """What an installation would do: its manifests, and the NOTES that it prints."""

    notes: str
    rendering: Rendering


class Helm:
    """One Helm program. Everything it keeps is in a folder that goes with this object."""

    def __init__(self, program: Path) -> None:
        self.program = program
        self._home = tempfile.TemporaryDirectory(prefix="vegamite-helm-")
        homes = {f"HELM_{name}_HOME": f"{self._home.name}/{name}" for name in _HOMES}
        self._environment = {**os.environ, **homes, "KUBECONFIG": os.devnull}

    def version(self) -> str:
        """Return the program's version, as "v4.1.0"."""
        return self._run(["version", "--template", "{{.Version}}"]).strip()

    def template(
        self,
        chart: Path,
        *,
        files: Sequence[Path] = (),
        values: Mapping[str, Any] | None = None,
        kubernetes: str | None = None,
        apis: Sequence[str] = OPTIONAL_APIS,
        release: str = RELEASE,
    ) -> Rendering:
        """Render a chart with values files and values over them, as for a cluster of that version with those APIs; HelmError if refused."""
        command = ["template", release, str(chart), "--namespace", NAMESPACE]
        command += [f"--api-versions={each}" for each in apis]
        if kubernetes is not None:
            command.append(f"--kube-version={kubernetes}")
        return Rendering(self._with_values(command, files=files, values=values))

    def plan(
        self, chart: Path, *, files: Sequence[Path] = (), values: Mapping[str, Any] | None = None
    ) -> Plan:
        """Return what an installation would do and print. Helm 4 only: Helm 3 wants a cluster for this."""
        command = ["install", RELEASE, str(chart), "--namespace", NAMESPACE]
        command += ["--dry-run=client", "--output=json"]
        answer = json.loads(self._with_values(command, files=files, values=values))
        hooks = [each["manifest"] for each in answer.get("hooks") or []]
        text = "\n---\n".join([answer["manifest"], *hooks])
        return Plan(notes=str(answer["info"].get("notes", "")), rendering=Rendering(text))

    def lint(
        self, chart: Path, *, files: Sequence[Path] = (), values: Mapping[str, Any] | None = None
    ) -> str:
        """Return what `helm lint --strict` says of the chart; HelmError if it isn't content."""
        return self._with_values(["lint", "--strict", str(chart)], files=files, values=values)

    def package(self, chart: Path, folder: Path) -> Path:
        """Package a chart into the folder; returns the file."""
        self._run(["package", str(chart), "--destination", str(folder)])
        (made,) = folder.glob("*.tgz")
        return made

    def _with_values(
        self, command: list[str], *, files: Sequence[Path], values: Mapping[str, Any] | None
    ) -> str:
        for file in files:
            command += ["--values", str(file)]
        if values is None:
            return self._run(command)
        # JSON is YAML.
        return self._run([*command, "--values", "-"], stdin=json.dumps(values))

    def _run(self, arguments: Sequence[str], *, stdin: str = "") -> str:
        done = subprocess.run(
            [str(self.program), *arguments],
            input=stdin,
            env=self._environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        if done.returncode != 0:
            raise HelmError(f"{done.stdout}{done.stderr}".strip())
        return done.stdout


_HOMES = ("CACHE", "CONFIG", "DATA")
