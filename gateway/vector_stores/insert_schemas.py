"""LlamaStack's ``POST /v1/vector-io/insert``."""

from __future__ import annotations

from typing import Annotated, Any

from msgspec import Meta, Struct

__all__ = ["InsertChunks", "InsertedChunk", "InsertedMetadata"]

Name = Annotated[str, Meta(pattern=r"^[^\x00]{1,1024}$")]
Heading = Annotated[str, Meta(pattern=r"^[^\x00]{1,4096}$")]
Place = Annotated[int, Meta(ge=0, le=2_147_483_647)]
MAX_CHUNKS = 10_000


class InsertedMetadata(Struct, frozen=True, kw_only=True):
    """``chunk_metadata``, as far as the gateway reads it; the fields from ``headings`` on are those
    that ``file-processors/process`` answers with.
    """

    chunk_id: Name | None = None
    document_id: Name | None = None
    source: Name | None = None
    content_token_count: Annotated[int, Meta(ge=0, le=1_000_000_000)] | None = None
    headings: Annotated[list[Heading], Meta(max_length=32)] = []
    """The path of headings above it, which is searched and embedded with its text."""
    pages: Annotated[list[Place], Meta(max_length=10_000)] = []
    start: Place | None = None
    """Where it begins in its document's plain text, in characters."""
    end: Place | None = None


class InsertedChunk(Struct, frozen=True, kw_only=True):
    """A chunk that is cut already, with its vector or without one.

    ``content`` is a text, a part ``{"type": "text", "text": …}`` or a list of both. LlamaStack up
    to 0.3 had ``stored_chunk_id`` for ``chunk_id``.
    """

    content: str | dict[str, Any] | list[Any]
    chunk_id: Name | None = None
    stored_chunk_id: Name | None = None
    metadata: dict[str, Any] | None = None
    chunk_metadata: InsertedMetadata | None = None
    embedding: Annotated[list[float], Meta(min_length=1, max_length=65_536)] | None = None


class InsertChunks(Struct, frozen=True, kw_only=True):
    """``vector_db_id`` is what LlamaStack called the store up to 0.3."""

    chunks: Annotated[list[InsertedChunk], Meta(max_length=MAX_CHUNKS)]
    vector_store_id: str | None = None
    vector_db_id: str | None = None
    ttl_seconds: int | None = None
