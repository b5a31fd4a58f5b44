"""What is checked of chunks that a caller brings ready-made."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import Any

from msgspec import Struct

from gateway.errors import InvalidRequest
from gateway.vector_stores.insert_schemas import InsertedChunk, InsertedMetadata

__all__ = ["ReadyChunk", "check_chunks", "sha256"]

_LONGEST_TEXT = 1_000_000
_LONGEST_DOCUMENT_ID = 2048
"""In bytes; PostgreSQL takes 2,704 for all columns of an index together."""
_LARGEST_NUMBER = 3.4e38
_BYTES_A_TOKEN = 4
"""Where the caller doesn't say how many tokens a chunk has."""


class ReadyChunk(Struct, frozen=True, kw_only=True):
    """A chunk of the request, checked."""

    document_id: str
    chunk_id: str
    """The caller's, or made from document and text as LlamaStack does."""
    text: str
    tokens: int
    source: str
    metadata: dict[str, Any]
    embedding: Sequence[float] | None
    headings: list[str] = []
    pages: list[int] = []
    start: int | None = None
    end: int | None = None

    @property
    def passage(self) -> str:
        """What is embedded where there is no vector, and what words are searched in: the path of
        headings and the text, each a paragraph, as for files that the gateway cuts itself.
        """
        return "\n\n".join(part for part in ("\n".join(self.headings), self.text) if part)

    def row_id(self, attachment_id: str) -> str:
        return f"{attachment_id}-{sha256(self.chunk_id)[:24]}"


def check_chunks(given: Sequence[InsertedChunk], dimension: int) -> list[ReadyChunk]:
    """Raises ``InvalidRequest`` that names the chunk at fault. Takes long where there are many."""
    return _unique(_ready(one, number, dimension) for number, one in enumerate(given))


def _ready(given: InsertedChunk, number: int, dimension: int) -> ReadyChunk:
    param = f"chunks[{number}]"
    about = given.chunk_metadata or InsertedMetadata()
    metadata = given.metadata or {}
    text = _text(given.content, f"{param}.content")
    document_id = metadata.get("document_id") or about.document_id or ""
    if not isinstance(document_id, str) or "\x00" in document_id or _is_long(document_id):
        raise InvalidRequest(
            f"Invalid '{param}.metadata.document_id': expected a string of up to "
            f"{_LONGEST_DOCUMENT_ID} bytes.",
            param=f"{param}.metadata.document_id",
            code="invalid_type",
        )
    if given.embedding is not None and len(given.embedding) != dimension:
        raise InvalidRequest(
            f"Invalid '{param}.embedding': the vector store holds vectors of dimension "
            f"{dimension}, but got one of {len(given.embedding)} instead.",
            param=f"{param}.embedding",
            code="invalid_value",
        )
    if given.embedding is not None and not _fits(given.embedding):
        raise InvalidRequest(
            f"Invalid '{param}.embedding': a number is out of the range of 32-bit floating point.",
            param=f"{param}.embedding",
            code="invalid_value",
        )
    named = given.chunk_id or given.stored_chunk_id or about.chunk_id
    return ReadyChunk(
        document_id=document_id,
        chunk_id=named or sha256(f"{document_id}\n{text}")[:32],
        text=text,
        tokens=about.content_token_count or -(-len(text.encode()) // _BYTES_A_TOKEN),
        source=about.source or document_id,
        metadata=metadata,
        embedding=given.embedding,
        headings=about.headings,
        pages=about.pages,
        start=about.start,
        end=about.end,
    )


def _fits(vector: Sequence[float]) -> bool:
    """Whether the index can keep it, which keeps single precision: more would be infinite."""
    return min(vector) >= -_LARGEST_NUMBER and max(vector) <= _LARGEST_NUMBER


def _is_long(document_id: str) -> bool:
    return len(document_id.encode()) > _LONGEST_DOCUMENT_ID


def _text(content: str | dict[str, Any] | list[Any], param: str) -> str:
    """What is text of it. Raises ``InvalidRequest`` where anything else is there, or nothing."""
    parts = content if isinstance(content, list) else [content]
    texts = [part.get("text") if isinstance(part, dict) else part for part in parts]
    text = "\n".join(one for one in texts if isinstance(one, str))
    if not all(isinstance(one, str) for one in texts) or not text.strip() or "\x00" in text:
        raise InvalidRequest(
            f"Invalid '{param}': expected text that isn't empty and has no U+0000.",
            param=param,
            code="invalid_value",
        )
    if len(text) > _LONGEST_TEXT:
        raise InvalidRequest(
            f"Invalid '{param}': expected at most {_LONGEST_TEXT} characters, but got {len(text)} "
            "instead.",
            param=param,
            code="string_above_max_length",
        )
    return text


def _unique(chunks: Iterable[ReadyChunk]) -> list[ReadyChunk]:
    """Of chunks with the same document and id, the last one."""
    return list({(one.document_id, one.chunk_id): one for one in chunks}.values())


def sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
