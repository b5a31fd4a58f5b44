"""Milvus: a server of any size, or Milvus Lite in a process beside the gateway."""

from adapters.milvus.index import MilvusIndex

__all__ = ["MilvusIndex"]
