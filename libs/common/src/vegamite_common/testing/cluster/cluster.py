"""A cluster and its namespaces, through kubectl and Helm: the same programs that operators use."""

import contextlib
import json
import os
import re
import subprocess
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vegamite_common.testing.services.process import end_process

_FORWARDED = re.compile(r"Forwarding from 127\.0\.0\.1:(\d+)")


class ClusterError(Exception):
    """A command against the cluster failed, or there is no cluster; the text has what was said."""


@dataclass(frozen=True)
class Cluster:
    """A cluster that `kubeconfig` names, and the programs to speak to it; every call blocks."""

    kubeconfig: Path
    kubectl_program: Path
    helm_programs: Mapping[int, Path]
    load_command: Sequence[str] = ()

    def run(
        self, command: Sequence[str], *, stdin: str | None = None, timeout_s: float = 300
    ) -> subprocess.CompletedProcess[str]:
        """Run a program with this cluster as its own; gives its exit code and what it said."""
        environment = {**os.environ, "KUBECONFIG": str(self.kubeconfig)}
        return subprocess.run(
            command,
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
            timeout=timeout_s,
            env=environment,
        )

    def kubectl(self, *arguments: str, stdin: str | None = None, timeout_s: float = 300) -> str:
        """Run kubectl and return what it printed; `ClusterError` where it fails."""
        done = self.run([str(self.kubectl_program), *arguments], stdin=stdin, timeout_s=timeout_s)
        if done.returncode != 0:
            raise ClusterError(f"kubectl {' '.join(arguments)}: {done.stderr.strip()}")
        return done.stdout

    def load_images(self, images: Sequence[str]) -> None:
        """Put images of the local Docker daemon into the cluster, where it can't pull them."""
        if self.load_command:
            done = self.run([*self.load_command, *images], timeout_s=600)
            if done.returncode != 0:
                raise ClusterError(f"loading images: {done.stdout}{done.stderr}")

    @contextlib.contextmanager
    def namespace(self, prefix: str, *, security: str = "restricted") -> Iterator["Namespace"]:
        """Make a namespace that enforces a Pod Security level, and remove it with all in it."""
        name = f"{prefix}-{uuid.uuid4().hex[:6]}"
        self.kubectl("create", "namespace", name)
        try:
            self.kubectl(
                "label",
                "namespace",
                name,
                f"pod-security.kubernetes.io/enforce={security}",
                f"pod-security.kubernetes.io/warn={security}",
            )
            yield Namespace(self, name)
        finally:
            self.kubectl("delete", "namespace", name, "--wait=false")


@dataclass(frozen=True)
class Namespace:
    """A namespace of a cluster; every call blocks."""

    cluster: Cluster
    name: str

    def kubectl(self, *arguments: str, stdin: str | None = None, timeout_s: float = 300) -> str:
        """Run kubectl in this namespace and return what it printed."""
        return self.cluster.kubectl("-n", self.name, *arguments, stdin=stdin, timeout_s=timeout_s)

    def helm(
        self, *arguments: str, version: int = 4, timeout_s: float = 400
    ) -> subprocess.CompletedProcess[str]:
        """Run Helm 3 or 4 in this namespace; gives its exit code and what it said."""
        program = str(self.cluster.helm_programs[version])
        return self.cluster.run([program, "-n", self.name, *arguments], timeout_s=timeout_s)

    def apply(self, manifests: str) -> None:
        """Apply manifests (YAML, one or several documents)."""
        self.kubectl("apply", "-f", "-", stdin=manifests)

    def objects(self, kinds: str, selector: str = "") -> list[dict[str, Any]]:
        """Return the objects of some kinds (`pods`, `deployments,services`), those that labels select."""
        chosen = ["-l", selector] if selector else []
        found = json.loads(self.kubectl("get", kinds, *chosen, "-o", "json"))
        items: list[dict[str, Any]] = found["items"]
        return items

    def pod_uids(self, selector: str) -> set[str]:
        """Return the uids of the pods that labels select and that aren't going."""
        return {
            pod["metadata"]["uid"]
            for pod in self.objects("pods", selector)
            if "deletionTimestamp" not in pod["metadata"]
        }

    def add_secret(self, name: str, values: Mapping[str, str]) -> None:
        """Make a secret of texts."""
        secret = {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": name},
            "stringData": dict(values),
        }
        self.apply(json.dumps(secret))

    def describe_troubles(self) -> str:
        """Say how pods stand, what happened to them and what they said last: for a failure's message."""
        said = [self.kubectl("get", "pods,jobs", "-o", "wide")]
        said.append(self.kubectl("get", "events", "--sort-by=.lastTimestamp"))
        for pod in self.objects("pods"):
            name = pod["metadata"]["name"]
            with contextlib.suppress(ClusterError):
                said.append(f"{name}:\n{self.kubectl('logs', name, '--tail=15')}")
        return "\n".join(said)

    @contextlib.contextmanager
    def forwarded(self, target: str, port: int | str, *, log: Path) -> Iterator[int]:
        """Forward a free port of loopback to `target` (`service/api`, `pod/x`); gives the local port."""
        command = [str(self.cluster.kubectl_program), "-n", self.name, "port-forward", target]
        environment = {**os.environ, "KUBECONFIG": str(self.cluster.kubeconfig)}
        with log.open("wb") as output:
            process = subprocess.Popen(
                [*command, f":{port}", "--address=127.0.0.1"],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=output,
                env=environment,
            )
        try:
            assert process.stdout is not None
            line = process.stdout.readline().decode()
            found = _FORWARDED.search(line)
            if found is None:
                raise ClusterError(f"port-forward to {target}: {line}{log.read_text()}")
            yield int(found[1])
        finally:
            end_process(process)
