"""Manifests as objects: read as strictly as Kubernetes reads them, and the pods that are in them."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import yaml

Manifest = dict[str, Any]

WORKLOADS = frozenset({"Deployment", "StatefulSet", "DaemonSet", "ReplicaSet", "Job"})


class ManifestError(ValueError):
    """A text that is no manifest: not YAML, a key given twice, or an object without kind or name."""


class _StrictLoader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """YAML as Kubernetes takes it in strict mode: no key twice in a mapping, no anchors that merge."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:  # noqa: FBT001, FBT002
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                raise ManifestError(f"key {key!r} is given twice{key_node.start_mark}")
            seen.add(key)
        return dict(super().construct_mapping(node, deep=deep))


def read_manifests(text: str) -> tuple[Manifest, ...]:
    """Return the objects of a stream of YAML documents, empty ones left out; ManifestError where it is none."""
    try:
        documents = [each for each in yaml.load_all(text, Loader=_StrictLoader) if each]
    except yaml.YAMLError as error:
        raise ManifestError(f"not YAML: {error}") from error
    for document in documents:
        if not isinstance(document, dict):
            raise ManifestError(f"no object: {str(document)[:80]!r}")
        if not document.get("kind") or not document.get("metadata", {}).get("name"):
            raise ManifestError(f"an object without kind or name: {str(document)[:200]}")
    return tuple(documents)


def title(manifest: Manifest) -> str:
    """Return kind/name, as messages call an object."""
    return f"{manifest['kind']}/{manifest['metadata']['name']}"


def is_hook(manifest: Manifest) -> bool:
    """Say whether Helm runs the object as a hook, tests among them."""
    return "helm.sh/hook" in (manifest["metadata"].get("annotations") or {})


@dataclass(frozen=True)
class Pod:
    """A pod as some object describes it: that object, the pod's metadata and its spec."""

    owner: Manifest
    metadata: Mapping[str, Any]
    spec: Mapping[str, Any]

    @property
    def title(self) -> str:
        """Kind/name of the object that describes it."""
        return title(self.owner)

    @property
    def labels(self) -> Mapping[str, str]:
        """The pod's own labels."""
        return self.metadata.get("labels") or {}

    @property
    def containers(self) -> list[dict[str, Any]]:
        """Every container, those that run first included."""
        return [*(self.spec.get("initContainers") or []), *self.spec["containers"]]

    @property
    def volumes(self) -> dict[str, dict[str, Any]]:
        """Its volumes by name, the claims of a StatefulSet among them."""
        found = {each["name"]: each for each in self.spec.get("volumes") or []}
        for claim in self.owner.get("spec", {}).get("volumeClaimTemplates") or []:
            found[claim["metadata"]["name"]] = {"persistentVolumeClaim": {}, **claim}
        return found

    @property
    def runs_on(self) -> bool:
        """Whether it is meant to run until it is told to stop: no job, no test."""
        return self.owner["kind"] in {"Deployment", "StatefulSet", "DaemonSet", "ReplicaSet"}


def pods(manifests: tuple[Manifest, ...]) -> Iterator[Pod]:
    """Yield every pod that the objects describe: workloads', jobs', cron jobs' and bare ones."""
    for manifest in manifests:
        kind = manifest["kind"]
        if kind == "Pod":
            yield Pod(manifest, manifest["metadata"], manifest["spec"])
        elif kind in WORKLOADS:
            template = manifest["spec"]["template"]
            yield Pod(manifest, template.get("metadata") or {}, template["spec"])
        elif kind == "CronJob":
            template = manifest["spec"]["jobTemplate"]["spec"]["template"]
            yield Pod(manifest, template.get("metadata") or {}, template["spec"])


def selects(selector: Mapping[str, Any] | None, labels: Mapping[str, str]) -> bool:
    """Say whether a label selector (matchLabels and matchExpressions) takes these labels; None takes nothing."""
    if selector is None:
        return False
    for key, value in (selector.get("matchLabels") or {}).items():
        if labels.get(key) != value:
            return False
    return all(_meets(each, labels) for each in selector.get("matchExpressions") or [])


def _meets(expression: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    key, operator = expression["key"], expression["operator"]
    values = expression.get("values") or []
    if operator == "In":
        return labels.get(key) in values
    if operator == "NotIn":
        return labels.get(key) not in values
    return bool((key in labels) == (operator == "Exists"))
