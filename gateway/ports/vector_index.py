"""Where vectors and words are searched."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from msgspec import Struct

__all__ = ["Hit", "IndexFeatures", "IndexedChunk", "StoreIndex", "VectorIndex"]


class IndexFeatures(Struct, frozen=True, kw_only=True):
    """What this server can do, found out by asking it."""

    engine: str
    """For people, e.g. ``Milvus 2.3.5`` or ``Milvus Lite 3.2.2``."""
    keyword: bool
    """Full-text search by BM25 (Milvus 2.5 or newer, and Milvus Lite 3)."""


class StoreIndex(Struct, frozen=True, kw_only=True):
    """The part of the index that belongs to one vector store.

    Everything about where it lies is derived from this value, so that it can be found again from
    the database alone.
    """

    project: str
    store_id: str
    """``vs_…``"""
    dimension: int
    keyword: bool
    """Whether it was made with full-text search."""


class IndexedChunk(Struct, frozen=True, kw_only=True):
    """A chunk as it is indexed. The database holds it too and is what counts."""

    id: str
    """Of the chunk; at most 64 ASCII characters."""
    attachment_id: str
    """What brought it into the store, the unit of deleting and of filters; as long at most."""
    text: str
    """What full-text search reads; at most 60,000 bytes of UTF-8 are indexed."""
    vector: Sequence[float]


class Hit(Struct, frozen=True, kw_only=True):
    """A chunk that matched; ``score`` is the higher the better."""

    id: str
    score: float


class VectorIndex(Protocol):
    """Nearest vectors and matching words within one store.

    Writes to one store are serialised by the adapter where the engine needs it. Every method
    raises :class:`~gateway.errors.UpstreamUnavailable` (or another ``UpstreamError``) when the
    server can't be reached or fails; :class:`~gateway.errors.InvalidRequest` for what this
    server's version can't do, naming the version that can. None blocks the event loop; cancelling
    is safe, though a write may have happened.
    """

    async def features(self) -> IndexFeatures:
        """What the server can do; asked once and remembered until the connection is lost."""

    async def create(self, store: StoreIndex) -> None:
        """Make room for this store. Idempotent, and safe on several replicas at once."""

    async def drop(self, store: StoreIndex) -> None:
        """Remove all of this store's vectors. Idempotent: one that isn't there is no error."""

    async def upsert(self, store: StoreIndex, chunks: Sequence[IndexedChunk]) -> None:
        """Write these; a chunk whose id is there already is replaced. At most a few hundred."""

    async def delete(self, store: StoreIndex, attachment_id: str) -> None:
        """Remove an attachment's chunks. Idempotent."""

    async def settle(self, store: StoreIndex) -> None:
        """A file's chunks are all written: make them durable and quick to search (a flush where
        the engine wants one), and visible to every search that begins after this returns.
        """

    async def search(
        self,
        store: StoreIndex,
        vector: Sequence[float],
        limit: int,
        within: Sequence[str] | None = None,
    ) -> list[Hit]:
        """The nearest chunks, best first; ``score`` is the cosine, -1 to 1.

        ``within`` keeps only chunks of these attachments (an empty list finds nothing); any number
        of them, whatever the server's limits on one filter. ``limit`` is at most 16,384.
        """

    async def search_text(
        self,
        store: StoreIndex,
        query: str,
        limit: int,
        within: Sequence[str] | None = None,
    ) -> list[Hit]:
        """The chunks whose words match best by BM25, best first; ``score`` is above 0.

        Raises ``InvalidRequest`` where the store or the server has no full-text search.
        """

    async def vectors(self, store: StoreIndex, ids: Sequence[str]) -> dict[str, list[float]]:
        """The vectors of these chunks as they were written, without those that aren't there."""

    async def attachments(self, store: StoreIndex) -> set[str]:
        """The ids of all attachments that have chunks here, for finding orphans."""

    async def stores(self) -> set[str]:
        """The ids of all stores that have room here, for finding orphans."""

    async def aclose(self) -> None:
        """Close the connection, and the engine where this process owns it."""
