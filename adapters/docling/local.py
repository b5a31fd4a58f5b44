"""The ``DocumentConverter`` port on this machine: the light layout, or docling with its models."""

from __future__ import annotations

from pathlib import Path

from adapters.docling.pool import ProcessPool
from adapters.docling.protocol import ChunkJob, ConvertJob
from gateway.ports import Chunk, ChunkSizes
from gateway.settings import DocumentSettings, IngestionSettings

__all__ = ["DoclingConverter"]


class DoclingConverter:
    """Everything happens in the processes of a ``ProcessPool``, which it owns."""

    def __init__(self, documents: DocumentSettings, ingestion: IngestionSettings) -> None:
        self.pool = ProcessPool(documents, ingestion)

    async def convert(self, source: Path, filename: str, into: Path) -> None:
        try:
            await self.pool.run(ConvertJob(str(source), filename, str(into)))
        finally:
            into.with_name(f"{into.name}.part").unlink(missing_ok=True)

    async def chunk(self, document: Path, sizes: ChunkSizes) -> list[Chunk]:
        return await self.pool.run(ChunkJob(str(document), sizes))

    async def aclose(self) -> None:
        await self.pool.aclose()
