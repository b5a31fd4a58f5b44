"""Found chunks in the words of OpenAI and of LlamaStack."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gateway.profile import Profile
from gateway.vector_stores.hits import FoundChunk
from gateway.vector_stores.ranking import Ranked
from gateway.vector_stores.search_schemas import (
    ChunkMetadata,
    QueriedChunk,
    SearchContent,
    SearchResult,
)

__all__ = ["chunk_metadata", "metadata_of", "queried_chunk", "search_results"]


def search_results(
    profile: Profile, ranking: Sequence[Ranked], chunks: dict[str, FoundChunk]
) -> list[SearchResult]:
    """One result for each chunk, in the order of the ranking."""
    return [_result(profile, chunks[one.id], one.score) for one in ranking]


def queried_chunk(
    chunk: FoundChunk, embedding: Sequence[float], model: str, dimension: int
) -> QueriedChunk:
    return QueriedChunk(
        content=chunk.text,
        chunk_id=chunk.name,
        metadata=metadata_of(chunk),
        chunk_metadata=chunk_metadata(chunk),
        embedding=list(embedding),
        embedding_model=model,
        embedding_dimension=dimension,
    )


def chunk_metadata(chunk: FoundChunk) -> ChunkMetadata:
    return ChunkMetadata(
        chunk_id=chunk.name,
        document_id=chunk.document,
        source=chunk.filename or None,
        content_token_count=chunk.tokens,
        position=chunk.position,
        headings=chunk.headings,
        pages=chunk.pages,
        start=chunk.start,
        end=chunk.end,
        context=chunk.context,
    )


def metadata_of(chunk: FoundChunk) -> dict[str, Any]:
    """What LlamaStack hangs on a chunk: its origin, then the file's attributes, and last what the
    caller gave with the chunk itself.
    """
    origin = {
        "document_id": chunk.document,
        "filename": chunk.filename,
        "file_id": chunk.file_id,
        "chunk_id": chunk.name,
        "token_count": float(chunk.tokens),
    }
    known = {key: value for key, value in origin.items() if value is not None and value != ""}
    return known | chunk.attributes | chunk.metadata


def _result(profile: Profile, chunk: FoundChunk, score: float) -> SearchResult:
    return SearchResult(
        file_id=chunk.document,
        filename=chunk.filename,
        score=score,
        attributes=metadata_of(chunk) if profile.chunk_in_attributes else chunk.attributes,
        content=[SearchContent(text=chunk.text, chunk_metadata=chunk_metadata(chunk))],
    )
