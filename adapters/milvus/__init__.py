"""Milvus: a server of any size, or Milvus Lite in a process beside the gateway."""

from adapters.milvus.index import MilvusIndex
from adapters.milvus.lite import is_taken

__all__ = ["MilvusIndex", "is_taken"]
