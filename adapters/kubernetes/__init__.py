"""Kubernetes' API, as far as the gateway needs it: a few plain HTTP calls and no client of its own."""

from adapters.kubernetes.cluster import Cluster

__all__ = ["Cluster"]
