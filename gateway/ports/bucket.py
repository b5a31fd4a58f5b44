"""A bucket of somebody else's documents, which are read and never changed."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Protocol

from msgspec import Struct

__all__ = ["Bucket", "BucketFailed", "BucketObject", "BucketObjectChanged"]


class BucketFailed(Exception):
    """The bucket can't be read. The message is for people, and has no secret in it."""


class BucketObjectChanged(BucketFailed):
    """The object is gone, or is another one than was listed."""


class BucketObject(Struct, frozen=True, kw_only=True):
    key: str
    etag: str
    """Changes with the content."""
    size: int
    """In bytes."""


class Bucket(Protocol):
    """Both methods raise :class:`BucketFailed`."""

    def list(self, prefix: str) -> AsyncIterator[BucketObject]:
        """All objects whose key begins so, by key; folders and what is empty are left out."""

    async def download(self, wanted: BucketObject, to: Path) -> None:
        """The content, as a file. Raises :class:`BucketObjectChanged`."""

    async def aclose(self) -> None:
        """Close its connections."""
