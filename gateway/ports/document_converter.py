"""What makes structured text of documents, and chunks of structured text."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Protocol

from msgspec import Struct

__all__ = ["Chunk", "ChunkSizes", "ConversionFailed", "DocumentConverter", "FailureCode"]

FailureCode = Literal["unsupported_file", "invalid_file", "server_error"]
"""OpenAI's ``last_error.code`` of a file in a vector store."""


class ConversionFailed(Exception):
    """A document can't be converted or cut into chunks.

    ``message`` goes to the caller as ``last_error.message``: it says what is wrong with the file
    and what helps. ``transient`` is True where the same file may work later (the converter died
    or can't be reached), so that it is worth another attempt.
    """

    def __init__(self, code: FailureCode, message: str, *, transient: bool = False) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.transient = transient


class ChunkSizes(Struct, frozen=True, kw_only=True):
    """How large chunks may be, in tokens of cl100k_base as OpenAI counts them.

    ``max_chunk_size_tokens`` holds for the text of a chunk with its overlap, without the headings.
    """

    max_chunk_size_tokens: int = 800
    chunk_overlap_tokens: int = 400


class Chunk(Struct, frozen=True, kw_only=True):
    """A piece of a document, in reading order."""

    text: str
    tokens: int
    headings: list[str] = []
    """The path of headings above it, outermost first."""
    pages: list[int] = []
    """The pages it is on, from 1; empty where the format has none."""
    start: int | None = None
    """Where it begins in the document's plain text, in characters; ``None`` where not known."""
    end: int | None = None


class DocumentConverter(Protocol):
    """Converts and chunks in processes that can be killed, never in the event loop's own.

    Both methods raise :class:`ConversionFailed`, also when time, pages, bytes or unzipped bytes
    run over their limits. Cancelling either kills the work within a second.
    """

    async def convert(self, source: Path, filename: str, into: Path) -> None:
        """Make structured JSON of ``source`` and write it to ``into``.

        ``filename`` is the caller's, and tells the format together with the first bytes. The JSON
        is docling's DoclingDocument, or, for what is text already (plain text, source code, JSON,
        logs), ``{"schema_name": "PlainText", "text": …}``.
        """

    async def chunk(self, document: Path, sizes: ChunkSizes) -> list[Chunk]:
        """Cut the JSON that :meth:`convert` wrote, now or earlier, into chunks.

        Deterministic: the same document and sizes give the same chunks. An empty list where the
        document holds no text.
        """

    async def aclose(self) -> None:
        """End all processes."""
