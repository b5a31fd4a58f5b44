"""Kubernetes' API, as far as the gateway needs it: a few plain HTTP calls, no client library."""

from adapters.kubernetes.cluster import Cluster
from adapters.kubernetes.kserve import KServe

__all__ = ["Cluster", "KServe"]
