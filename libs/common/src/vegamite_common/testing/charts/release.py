"""A rendered release as what it makes on a cluster: workloads, the pods of vegamite, the files that a container sees."""

import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from vegamite_common.testing.charts.manifest import Manifest, Pod, is_hook, pods

_OUR_IMAGE = re.compile(r"(?:^|/)vegamite/(collector|aggregator|api)(?::|@|$)")


@dataclass(frozen=True)
class File:
    """A file that a container sees by a mount: which ConfigMap or Secret it comes from, by which key."""

    kind: str
    source: str
    key: str
    path: str
    optional: bool


@dataclass(frozen=True)
class Program:
    """A container of vegamite: its pod, the container, and which service's image it runs."""

    pod: Pod
    container: dict[str, Any]
    service: str

    @property
    def title(self) -> str:
        """Kind/name of what describes the pod, and the container's name."""
        return f"{self.pod.title} {self.container['name']}"

    @property
    def arguments(self) -> list[str]:
        """Command and arguments, as far as the image's own entrypoint isn't used."""
        return [*(self.container.get("command") or []), *(self.container.get("args") or [])]

    @property
    def is_sink(self) -> bool:
        """Whether it is the aggregator's image in the role that writes to InfluxDB."""
        return "influx" in self.arguments

    @property
    def config_path(self) -> str | None:
        """What `--config` names."""
        for index, argument in enumerate(self.arguments):
            if argument == "--config" and index + 1 < len(self.arguments):
                return self.arguments[index + 1]
            if argument.startswith("--config="):
                return argument.removeprefix("--config=")
        return None

    @property
    def environment(self) -> dict[str, str]:
        """The variables that have a value in the manifest itself."""
        return {
            each["name"]: each["value"]
            for each in self.container.get("env") or []
            if "value" in each
        }


@dataclass(frozen=True)
class Release:
    """What one chart with some values makes."""

    manifests: tuple[Manifest, ...]

    def of(self, *kinds: str) -> list[Manifest]:
        """Return the objects of these kinds."""
        return [each for each in self.manifests if each["kind"] in kinds]

    def find(self, kind: str, name: str) -> Manifest | None:
        """Return the one object of that kind and name, or None."""
        for each in self.manifests:
            if (each["kind"], each["metadata"]["name"]) == (kind, name):
                return each
        return None

    @property
    def pods(self) -> list[Pod]:
        """Every pod, of hooks and tests too."""
        return list(pods(self.manifests))

    @property
    def programs(self) -> list[Program]:
        """Every container that runs an image of vegamite."""
        return [
            Program(pod, container, found[1])
            for pod in self.pods
            for container in pod.containers
            if (found := _OUR_IMAGE.search(container["image"]))
        ]

    @property
    def services(self) -> list[Program]:
        """The containers of vegamite that run on, as the service itself: no job, no test."""
        return [each for each in self.programs if each.pod.runs_on]

    def config_map(self, name: str, *, of: Pod) -> Manifest | None:
        """Return the ConfigMap that a pod refers to; a hook's pod sees those of hooks alone, for it runs before the release is there."""
        for each in self.of("ConfigMap"):
            if each["metadata"]["name"] == name and (
                is_hook(each) or not _runs_before_release(of.owner)
            ):
                return each
        return None

    def configuration(self, program: Program) -> dict[str, Any] | None:
        """Return the TOML that `--config` names, parsed; None where the container is given none."""
        text = self.configuration_text(program)
        return None if text is None else tomllib.loads(text)

    def configuration_text(self, program: Program) -> str | None:
        """Return the file that `--config` names, from the ConfigMap that is mounted there; LookupError where nothing is."""
        path = program.config_path
        if path is None:
            return None
        for file in files(program.pod, program.container):
            if file.kind == "ConfigMap" and path in (file.path, f"{file.path}/{path_end(path)}"):
                config_map = self.config_map(file.source, of=program.pod)
                content = ((config_map or {}).get("data") or {}).get(file.key or path_end(path))
                if content is not None:
                    return str(content)
        raise LookupError(f"{program.title}: nothing is mounted at {path}")


def _runs_before_release(manifest: Manifest) -> bool:
    hooks = str((manifest["metadata"].get("annotations") or {}).get("helm.sh/hook", ""))
    return "pre-install" in hooks or "pre-upgrade" in hooks


def path_end(path: str) -> str:
    """Return the last part of a path."""
    return path.rstrip("/").rpartition("/")[2]


def files(pod: Pod, container: Mapping[str, Any]) -> Iterator[File]:
    """Yield what the container sees of ConfigMaps and Secrets; a whole one, whose keys the pod doesn't list, has key "" and the folder's path."""
    volumes = pod.volumes
    for mount in container.get("volumeMounts") or []:
        volume = volumes.get(mount["name"], {})
        for kind, source in _sources(volume):
            name = source.get("secretName") or source.get("name") or ""
            optional = bool(source.get("optional"))
            items = [(each["key"], each["path"]) for each in source.get("items") or []]
            if mount.get("subPath"):
                keys = {path: key for key, path in items}
                key = keys.get(mount["subPath"], mount["subPath"])
                yield File(kind, name, key, mount["mountPath"], optional)
                continue
            for key, path in items:
                yield File(kind, name, key, f"{mount['mountPath'].rstrip('/')}/{path}", optional)
            if not items:
                yield File(kind, name, "", mount["mountPath"].rstrip("/"), optional)


def _sources(volume: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for source in [volume, *((volume.get("projected") or {}).get("sources") or [])]:
        if "configMap" in source:
            yield "ConfigMap", source["configMap"]
        if "secret" in source:
            yield "Secret", source["secret"]


_REFERENCES = {
    "configMapRef": "ConfigMap",
    "secretRef": "Secret",
    "configMapKeyRef": "ConfigMap",
    "secretKeyRef": "Secret",
}


def references(pod: Pod) -> Iterator[tuple[str, str, bool]]:
    """Yield (kind, name, optional) of every ConfigMap and Secret that the pod can't start without, or may use."""
    for volume in pod.volumes.values():
        for kind, source in _sources(volume):
            name = source.get("secretName") or source.get("name") or ""
            yield kind, name, bool(source.get("optional"))
    for container in pod.containers:
        origins = [each.get("valueFrom") or {} for each in container.get("env") or []]
        for each in [*origins, *(container.get("envFrom") or [])]:
            for word, kind in _REFERENCES.items():
                if word in each:
                    yield kind, each[word]["name"], bool(each[word].get("optional"))
    for each in pod.spec.get("imagePullSecrets") or []:
        yield "Secret", each["name"], False
