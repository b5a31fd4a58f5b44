"""Kubernetes' API, as far as the gateway needs it: a few plain HTTP calls, no client library."""

from adapters.kubernetes.cluster import Cluster

__all__ = ["Cluster"]
