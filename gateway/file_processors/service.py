"""Converting and chunking one file for the one who asks; nothing is kept."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import msgspec

from gateway.errors import InvalidRequest, RateLimited, UpstreamError
from gateway.file_processors.schemas import (
    ProcessedChunk,
    ProcessedChunkMetadata,
    ProcessedFile,
)
from gateway.files.service import FileService
from gateway.http.filename import harmless
from gateway.http.multipart import FileLimit, FormReader
from gateway.http.validation import NOT_JSON, explain
from gateway.identity.principal import Principal
from gateway.ingestion.workspace import Workspace
from gateway.observability.activity import Activity
from gateway.ports import Chunk, ChunkSizes, ConversionFailed, DocumentConverter
from gateway.settings import IngestionSettings
from gateway.vector_stores.chunking import ChunkingResolver
from gateway.vector_stores.schemas import ChunkingStrategy

__all__ = ["FileProcessor"]

_WHOLE = ChunkSizes(max_chunk_size_tokens=2**31, chunk_overlap_tokens=0)
_AT_ONCE = 8
"""Beyond that callers get ``RateLimited``: each has its file on the disk while it waits."""


class FileProcessor:
    def __init__(
        self,
        files: FileService,
        converter: DocumentConverter,
        chunking: ChunkingResolver,
        workspace: Workspace,
        settings: IngestionSettings,
    ) -> None:
        self._files = files
        self._converter = converter
        self._chunking = chunking
        self._workspace = workspace
        self._taken = 0
        self.limit = FileLimit("file", settings.max_file_bytes, "ingestion.max_file_bytes")

    async def process(
        self,
        principal: Principal,
        activity: Activity,
        reader: FormReader,
        presence: AbstractContextManager[object],
    ) -> ProcessedFile:
        """The chunks of the form's ``file``, or of the stored one that ``file_id`` names.

        Without a ``chunking_strategy`` the whole text is one chunk. Raises ``InvalidRequest`` for
        a document that can't be read, too. ``presence`` surrounds the work after the form has
        been read, and may cancel it when the caller leaves.
        """
        if self._taken >= _AT_ONCE:
            raise RateLimited(f"{_AT_ONCE} files are being processed already. Try again.")
        self._taken += 1
        try:
            async with self._workspace.folder() as folder:
                return await self._process(principal, activity, reader, folder, presence)
        finally:
            self._taken -= 1

    async def _process(
        self,
        principal: Principal,
        activity: Activity,
        reader: FormReader,
        folder: Path,
        presence: AbstractContextManager[object],
    ) -> ProcessedFile:
        started = time.monotonic()
        source, document = folder / "content", folder / "document.json"
        filename, fields = await _take(reader, source)
        strategy = _strategy(fields.get("chunking_strategy"))
        sizes = _WHOLE
        if strategy is not None:
            sizes = _sizes(self._chunking.resolve(strategy, allowed=principal.models))
        file_id = fields.get("file_id") or None
        if (filename is None) == (file_id is None):
            raise InvalidRequest(
                "Send either 'file' or 'file_id'.", param="file", code="missing_required_parameter"
            )
        if file_id is not None:
            stored = await self._files.content(principal, file_id)
            filename = stored.filename
            await _write(source, stored.read(0, stored.size))
        assert filename is not None  # the one or the other
        try:
            with presence:
                with activity.step("convert"):
                    await self._converter.convert(source, filename, document)
                with activity.step("chunk"):
                    chunks = await self._converter.chunk(document, sizes)
        except ConversionFailed as error:
            raise _refusal(error) from None
        if strategy is None:
            chunks = _joined(chunks)
        name = file_id or filename
        return ProcessedFile(
            chunks=[_shown(name, filename, place, chunk) for place, chunk in enumerate(chunks)],
            metadata={
                "processor": "docling",
                "processing_time_ms": round((time.monotonic() - started) * 1000),
                "page_count": max((page for chunk in chunks for page in chunk.pages), default=None),
            },
        )


async def _take(reader: FormReader, to: Path) -> tuple[str | None, dict[str, str]]:
    """Write the form's file to ``to``; its name, if there is one, and the other fields."""
    filename: str | None = None
    fields: dict[str, str] = {}
    while (part := await reader.next_part()) is not None:
        if part.name == reader.limit.part:
            filename = harmless(part.filename)
            await _write(to, part.blocks())
        else:
            fields[part.name] = await part.text()
    return filename, fields


async def _write(to: Path, blocks: AsyncIterator[bytes]) -> None:
    file = await asyncio.to_thread(to.open, "wb")
    try:
        async for block in blocks:
            await asyncio.to_thread(file.write, block)
    finally:
        await asyncio.to_thread(file.close)


def _strategy(given: str | None) -> ChunkingStrategy | None:
    if given is None or given.strip() in ("", "null"):
        return None
    try:
        return msgspec.json.decode(given, type=ChunkingStrategy)  # type: ignore[no-any-return]
    except msgspec.ValidationError as error:
        found = explain(error)
        param = "chunking_strategy" + (f".{found.param}" if found.param else "")
        raise InvalidRequest(found.message, param=param, code=found.code) from None
    except NOT_JSON:
        raise InvalidRequest(
            "Invalid value for 'chunking_strategy': it is not a JSON object.",
            param="chunking_strategy",
            code="invalid_value",
        ) from None


def _sizes(strategy: dict[str, Any] | None) -> ChunkSizes:
    """Contextual chunks are cut like others; what a model would say of them is not asked here."""
    if strategy is None:
        return ChunkSizes()
    sizes = strategy[strategy["type"]]
    return ChunkSizes(
        max_chunk_size_tokens=sizes["max_chunk_size_tokens"],
        chunk_overlap_tokens=sizes["chunk_overlap_tokens"],
    )


def _refusal(error: ConversionFailed) -> InvalidRequest | UpstreamError:
    if error.code == "server_error":
        return UpstreamError(error.message, code="conversion_failed")
    return InvalidRequest(error.message, param="file", code=error.code)


def _joined(chunks: Sequence[Chunk]) -> list[Chunk]:
    """All of a document as one chunk."""
    if not chunks:
        return []
    return [
        Chunk(
            text="\n\n".join(chunk.text for chunk in chunks),
            tokens=sum(chunk.tokens for chunk in chunks),
            pages=sorted({page for chunk in chunks for page in chunk.pages}),
            start=chunks[0].start,
            end=chunks[-1].end,
        )
    ]


def _shown(document: str, filename: str, place: int, chunk: Chunk) -> ProcessedChunk:
    content = f"{document}:{place}:{chunk.text}".encode()
    chunk_id = hashlib.sha256(content).hexdigest()[:32]
    return ProcessedChunk(
        content=chunk.text,
        chunk_id=chunk_id,
        metadata={"document_id": document, "filename": filename},
        chunk_metadata=ProcessedChunkMetadata(
            chunk_id=chunk_id,
            document_id=document,
            source=filename,
            content_token_count=chunk.tokens,
            headings=chunk.headings,
            pages=chunk.pages,
            start=chunk.start,
            end=chunk.end,
        ),
    )
