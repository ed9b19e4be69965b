"""A real Kubernetes cluster for tests: what is installed into it, asked of it, and how it is had."""

from vegamite_common.testing.cluster.cluster import Cluster, ClusterError, Namespace
from vegamite_common.testing.cluster.source import open_cluster

__all__ = ["Cluster", "ClusterError", "Namespace", "open_cluster"]
