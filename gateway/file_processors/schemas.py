"""LlamaStack's shapes of a processed file."""

from __future__ import annotations

from typing import Any

from msgspec import Struct

__all__ = ["PROCESS_FORM", "ProcessedChunk", "ProcessedChunkMetadata", "ProcessedFile"]

PROCESS_FORM = {
    "type": "object",
    "properties": {
        "file": {"type": "string", "format": "binary"},
        "file_id": {"type": "string"},
        "chunking_strategy": {"type": "string", "contentMediaType": "application/json"},
    },
    "oneOf": [{"required": ["file"]}, {"required": ["file_id"]}],
}
"""The form of a file to process as the OpenAPI document has it."""


class ProcessedChunkMetadata(Struct, frozen=True, kw_only=True):
    """Where a chunk is in its document; LlamaStack's fields first."""

    chunk_id: str
    document_id: str
    source: str
    content_token_count: int
    headings: list[str]
    pages: list[int]
    start: int | None
    end: int | None


class ProcessedChunk(Struct, frozen=True, kw_only=True):
    content: str
    chunk_id: str
    metadata: dict[str, Any]
    chunk_metadata: ProcessedChunkMetadata


class ProcessedFile(Struct, frozen=True, kw_only=True):
    """``metadata`` tells of the work: who did it, how long it took, how many pages there were."""

    chunks: list[ProcessedChunk]
    metadata: dict[str, Any]
