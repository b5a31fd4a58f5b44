"""Where the bytes of files are kept."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Protocol

from msgspec import Struct

__all__ = ["ObjectMissing", "ObjectStore", "StoredObject"]


class ObjectMissing(LookupError):
    """There is no object under this key."""


class StoredObject(Struct, frozen=True, kw_only=True):
    """An object as a listing shows it. ``modified`` is in seconds since the epoch."""

    key: str
    size: int
    modified: float


class ObjectStore(Protocol):
    """Objects under keys such as ``default/files/file-ab12/content``.

    Keys are the gateway's own: ASCII letters, digits, ``-``, ``_``, ``.`` and ``/`` as separator,
    never a caller's file name, and no key is the folder of another. Every method raises
    :class:`~gateway.errors.UpstreamUnavailable` (or another ``UpstreamError``) when the store
    can't be reached or refuses; the message holds no credentials. None of them blocks the event
    loop, and cancelling any of them is safe.
    """

    async def start(self) -> None:
        """Make ready: the folder, or the bucket where it is missing and may be made. Idempotent;
        raises ``UpstreamError`` with a message that says what to do. Safe on several replicas at
        once.
        """

    async def put(self, key: str, blocks: AsyncIterator[bytes]) -> int:
        """Store what ``blocks`` yields, as it comes, and return its size in bytes.

        Atomic: the object is there whole once this returns, and an object that was there before
        stays readable until then. When the source raises or the task is cancelled, nothing is
        stored and no part is left behind; the source's exception is raised unchanged. Memory is
        bounded whatever the size.
        """

    def read(self, key: str, start: int = 0, end: int | None = None) -> AsyncIterator[bytes]:
        """The bytes from ``start`` up to, not including, ``end``, in blocks of up to 1 MiB.

        Raises ``ObjectMissing`` with the first block. Closing the iterator early frees its
        connection.
        """

    async def size(self, key: str) -> int:
        """In bytes. Raises ``ObjectMissing``."""

    async def delete(self, keys: Sequence[str]) -> None:
        """Remove these; a key that isn't there is no error."""

    def list(self, prefix: str) -> AsyncIterator[StoredObject]:
        """Every object whose key begins with ``prefix``, a whole path such as ``default/files/``,
        in no particular order.
        """

    async def sweep(self, older_than_seconds: float) -> int:
        """Remove what writers that died left behind (temporary files, unfinished multipart
        uploads) once it is this old. Returns how many.
        """

    async def aclose(self) -> None:
        """Free threads and connections."""
