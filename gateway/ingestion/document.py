"""A file's structured text: converted once, kept beside the file."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from pathlib import Path

from gateway.ingestion.repository import Claim, IngestionRepository, NotWanted
from gateway.ports import ConversionFailed, DocumentConverter, ObjectMissing, ObjectStore

__all__ = ["DocumentSource"]

_BLOCK_BYTES = 1024 * 1024


class DocumentSource:
    """Brings the structured JSON of a file to the local disk."""

    def __init__(
        self,
        repository: IngestionRepository,
        objects: ObjectStore,
        converter: DocumentConverter,
        *,
        transfer_seconds: float,
    ) -> None:
        self._repository = repository
        self._objects = objects
        self._converter = converter
        self._transfer_seconds = transfer_seconds

    async def fetch(self, claim: Claim, folder: Path) -> Path:
        """The file's ``document.json`` in ``folder``; made of the file where none is kept yet.

        Raises ``ConversionFailed``, ``UpstreamError``, ``TimeoutError`` and ``NotWanted``.
        """
        document = folder / "document.json"
        try:
            await self._download(claim.document_key, document)
        except ObjectMissing:
            await self._make(claim, folder, document)
        return document

    async def _make(self, claim: Claim, folder: Path, document: Path) -> None:
        source = folder / "content"
        try:
            await self._download(claim.object_key, source)
        except ObjectMissing:
            await self._repository.check(claim)
            raise ConversionFailed(
                "server_error",
                "The file's content is missing in the object store. Upload the file again.",
            ) from None
        await self._converter.convert(source, claim.filename, document)
        await asyncio.to_thread(source.unlink)
        async with asyncio.timeout(self._transfer_seconds):
            await self._objects.put(claim.document_key, _blocks(document))
        if not await self._repository.is_file_there(claim):
            # Deleted meanwhile, perhaps with all its objects: this one must not stay behind.
            await self._objects.delete([claim.document_key])
            raise NotWanted

    async def _download(self, key: str, to: Path) -> None:
        """Raises ``ObjectMissing``; ``TimeoutError`` where it takes for ever."""
        async with asyncio.timeout(self._transfer_seconds):
            blocks = self._objects.read(key)
            try:
                first = await anext(blocks, b"")
                file = await asyncio.to_thread(to.open, "wb")
                try:
                    await asyncio.to_thread(file.write, first)
                    async for block in blocks:
                        await asyncio.to_thread(file.write, block)
                finally:
                    await asyncio.to_thread(file.close)
            finally:
                if isinstance(blocks, AsyncGenerator):
                    await blocks.aclose()  # frees its connection where it wasn't read to its end


async def _blocks(path: Path) -> AsyncIterator[bytes]:
    file = await asyncio.to_thread(path.open, "rb")
    try:
        while block := await asyncio.to_thread(file.read, _BLOCK_BYTES):
            yield block
    finally:
        await asyncio.to_thread(file.close)
