"""Whether a release's NetworkPolicies let a connection through, by the rules of networking.k8s.io/v1."""

import ipaddress
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from vegamite_common.testing.charts.manifest import Manifest, Pod, selects
from vegamite_common.testing.charts.release import Release

PUBLIC_ADDRESS = "203.0.113.10"
"""An address of the internet's that is in no private network."""


@dataclass(frozen=True)
class Elsewhere:
    """Where a connection goes to or comes from, outside the release: a public address, or some place in the cluster or near it."""

    public: bool = False


Place = Pod | Elsewhere


def policies_of(release: Release, pod: Pod, direction: str) -> list[Manifest]:
    """Return the policies that restrict the pod in that direction ("Ingress" or "Egress")."""
    return [
        each
        for each in release.of("NetworkPolicy")
        if direction in _types(each["spec"])
        and selects(each["spec"].get("podSelector") or {}, pod.labels)
    ]


def _types(spec: Mapping[str, Any]) -> Iterable[str]:
    return spec.get("policyTypes") or ["Ingress", *(["Egress"] if "egress" in spec else [])]


def may_leave(
    release: Release, pod: Pod, to: Place, port: int | str, protocol: str = "TCP"
) -> bool:
    """Say whether the pod's own policies let it connect there."""
    policies = policies_of(release, pod, "Egress")
    listener = to if isinstance(to, Pod) else None
    return not policies or any(
        _has_port(rule, port, protocol, listener) and _has_peer(rule.get("to"), to)
        for policy in policies
        for rule in policy["spec"].get("egress") or []
    )


def may_enter(
    release: Release, pod: Pod, whence: Place, port: int | str, protocol: str = "TCP"
) -> bool:
    """Say whether the pod's own policies let it be connected to from there."""
    policies = policies_of(release, pod, "Ingress")
    return not policies or any(
        _has_port(rule, port, protocol, pod) and _has_peer(rule.get("from"), whence)
        for policy in policies
        for rule in policy["spec"].get("ingress") or []
    )


def _numbers(port: int | str, listener: Pod | None) -> set[int | str]:
    """The port by name and by number, as far as the listening pod says so."""
    found: set[int | str] = {port}
    for container in listener.containers if listener else []:
        for each in container.get("ports") or []:
            if port in (each.get("name"), each["containerPort"]):
                found |= {each["containerPort"], each.get("name", port)}
    return found


def _has_port(
    rule: Mapping[str, Any], port: int | str, protocol: str, listener: Pod | None
) -> bool:
    if not rule.get("ports"):
        return True
    wanted = _numbers(port, listener)
    for each in rule["ports"]:
        if each.get("protocol", "TCP") != protocol:
            continue
        if "port" not in each or each["port"] in wanted:
            return True
        last = each.get("endPort")
        if last and any(isinstance(it, int) and each["port"] <= it <= last for it in wanted):
            return True
    return False


def _has_peer(peers: list[dict[str, Any]] | None, place: Place) -> bool:
    return not peers or any(_is_peer(each, place) for each in peers)


def _is_peer(peer: Mapping[str, Any], place: Place) -> bool:
    if isinstance(place, Pod):
        own_namespace = "namespaceSelector" not in peer or not peer["namespaceSelector"]
        return (
            "ipBlock" not in peer
            and own_namespace
            and selects(peer.get("podSelector") or {}, place.labels)
        )
    if "ipBlock" not in peer:
        # Pods of others, by labels that we can't know; never the internet.
        return not place.public and "namespaceSelector" in peer
    address = ipaddress.ip_address(PUBLIC_ADDRESS)
    block = peer["ipBlock"]
    inside = address in ipaddress.ip_network(block["cidr"]) and not any(
        address in ipaddress.ip_network(each) for each in block.get("except") or []
    )
    return inside if place.public else True
