"""A folder of the machine, for a gateway without an S3 server."""

from adapters.disk.store import DiskObjectStore

__all__ = ["DiskObjectStore"]
