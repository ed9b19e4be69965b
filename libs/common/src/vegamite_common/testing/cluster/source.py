"""The one place that decides where the tests' cluster comes from, and says which it took."""

import contextlib
import os
import shlex
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from vegamite_common.testing.cluster.cluster import Cluster, ClusterError
from vegamite_common.testing.services.kubernetes_tools import find_kubernetes_tools
from vegamite_common.testing.services.process import cache_directory

Say = Callable[[str], None]
NODE_TOOLS = "VEGAMITE_TEST_NODE_TOOLS"
LOAD_COMMAND = "VEGAMITE_TEST_LOAD_IMAGES"


@contextlib.contextmanager
def open_cluster(say: Say) -> Iterator[Cluster]:
    """Give the cluster of `KUBECONFIG`, else a node that the scripts of `VEGAMITE_TEST_NODE_TOOLS` bring up and end.

    Where that isn't set, `tools/kube` beside the folder that `VEGAMITE_TEST_DATA` names is looked for.
    `VEGAMITE_TEST_LOAD_IMAGES` is the command that puts local images into the former (`kind load docker-image`);
    without it the cluster has to find them by itself. Raises `ClusterError` where there is neither.
    """
    given = os.environ.get("KUBECONFIG")
    scripts = _find_scripts()
    if given:
        say(f"Kubernetes: the cluster of {given}")
        yield _cluster(Path(given), shlex.split(os.environ.get(LOAD_COMMAND, "")))
    elif scripts:
        with _node(scripts, say) as cluster:
            yield cluster
    else:
        raise ClusterError(
            f"no cluster: set KUBECONFIG (and {LOAD_COMMAND}, as 'kind load docker-image'), or {NODE_TOOLS}"
        )


def _find_scripts() -> Path | None:
    """The folder of the scripts that bring up a node, where there is one."""
    named, data = os.environ.get(NODE_TOOLS), os.environ.get("VEGAMITE_TEST_DATA")
    if named:
        return Path(named)
    beside = Path(data).absolute().parent / "tools" / "kube" if data else None
    return beside if beside is not None and (beside / "up.sh").exists() else None


def _cluster(kubeconfig: Path, load_command: list[str]) -> Cluster:
    tools = find_kubernetes_tools()
    return Cluster(
        kubeconfig=kubeconfig,
        kubectl_program=tools.kubectl,
        helm_programs={3: tools.helm3, 4: tools.helm4},
        load_command=load_command,
    )


@contextlib.contextmanager
def _node(scripts: Path, say: Say) -> Iterator[Cluster]:
    """Bring up a one-node cluster of this machine (as root) from compiled programs, and end it."""
    programs = cache_directory() / "kubernetes-node"
    if not (programs / "VERSION").exists():
        say("Kubernetes: compiling a node's programs, once (about 15 minutes)")
        _run([str(scripts / "build.sh"), str(programs)])
    with tempfile.TemporaryDirectory(prefix="vegamite-node-", dir="/tmp") as folder:
        directory = Path(folder)
        try:
            _run([str(scripts / "up.sh"), folder, str(programs)])
            version = (programs / "VERSION").read_text().strip()
            say(f"Kubernetes: a node of this machine, {version}")
            yield _cluster(directory / "kubeconfig", [str(scripts / "load-image.sh"), folder])
        finally:
            _run([str(scripts / "down.sh"), folder])


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise ClusterError(f"{' '.join(command)}: {done.stdout[-2000:]}{done.stderr[-2000:]}")
