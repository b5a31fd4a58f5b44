"""The ingestion, put together by hand around a database: real objects on disk, a real relay to a
fake vLLM, an index in memory, and a converter that takes text as it is."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

from sqlalchemy import func, select

from adapters.disk import DiskObjectStore
from gateway.database.engine import Database
from gateway.database.identifiers import new_id, now, sequence
from gateway.database.tables import (
    ChunkRow,
    FileRow,
    VectorStoreFileRow,
    VectorStoreRow,
)
from gateway.ingestion.cleanup import CleanupService
from gateway.ingestion.repository import IngestionRepository
from gateway.ingestion.service import IngestionService
from gateway.ingestion.tombstones import TombstoneRepository
from gateway.ingestion.workspace import Workspace
from gateway.ports import Chunk, ChunkSizes, ConversionFailed, Job, StoreIndex
from gateway.settings import EmbeddingSettings, IngestionSettings
from gateway.vector_stores.repository import index_of
from tests.support.inprocess import InProcessGateway
from tests.support.memory import MemoryVectorIndex

PROJECT = "default"
MODEL = "fake-embedding"
DIMENSION = 384


class TextConverter:
    """Paragraphs are chunks; a line that begins with `# ` is the heading of what follows.

    `failure` is raised by the next conversions; `conversions` counts them.
    """

    def __init__(self) -> None:
        self.failure: Exception | None = None
        self.conversions = 0

    async def convert(self, source: Path, filename: str, into: Path) -> None:
        self.conversions += 1
        if self.failure is not None:
            raise self.failure
        await asyncio.to_thread(_convert, source, into)

    async def chunk(self, document: Path, sizes: ChunkSizes) -> list[Chunk]:
        headings: list[str] = []
        chunks = []
        text = await asyncio.to_thread(document.read_text)
        for part in json.loads(text)["text"].split("\n\n"):
            if part.startswith("# "):
                headings = [part[2:]]
            elif part.strip():
                chunks.append(Chunk(text=part, tokens=len(part.split()), headings=headings))
        return chunks

    async def aclose(self) -> None:
        """Nothing runs."""


def _convert(source: Path, into: Path) -> None:
    into.write_text(json.dumps({"schema_name": "PlainText", "text": source.read_text()}))


class ListedJobs:
    """A queue that only keeps what is put."""

    def __init__(self) -> None:
        self.jobs: list[tuple[str, str]] = []

    async def put(
        self, session: Any, kind: str, payload: Mapping[str, Any], *, delay: float = 0
    ) -> str:
        self.jobs.append((kind, payload["id"]))
        return new_id("job_")

    def wake(self) -> None: ...


class Ingestion:
    """Everything that a worker has, and rows to work on."""

    def __init__(
        self,
        database: Database,
        folder: Path,
        gateway: InProcessGateway,
        index: Any = None,
        **settings: Any,
    ) -> None:
        application = gateway.application
        self.database = database
        self.objects = DiskObjectStore(folder / "objects")
        self.index = index or MemoryVectorIndex()
        self.converter = TextConverter()
        self.workspace = Workspace(folder)
        self.repository = IngestionRepository(database)
        self.tombstones = TombstoneRepository(database)
        self.service = IngestionService(
            self.repository,
            objects=self.objects,
            converter=self.converter,
            index=self.index,
            embedder=application.embedder,
            catalog=application.catalog,
            client=application.client,
            telemetry=application.telemetry,
            workspace=self.workspace,
            settings=IngestionSettings(**settings),
            embedding=EmbeddingSettings(batch_size=4),
        )
        self.cleanup = CleanupService(self.tombstones, self.objects, self.index)

    # -- rows -----------------------------------------------------------------------------------

    async def make_store(self, **values: Any) -> StoreIndex:
        row = VectorStoreRow(
            id=new_id("vs_"),
            project=PROJECT,
            sequence=sequence(),
            name=None,
            embedding_model=MODEL,
            dimension=DIMENSION,
            keyword=True,
            provider_id="milvus",
            last_active_at=now(),
            **values,
        )
        async with self.database.begin() as session:
            session.add(row)
        await self.index.create(index_of(row))
        return index_of(row)

    async def make_file(self, text: str, filename: str = "notes.txt") -> FileRow:
        row = FileRow(
            id=new_id("file-"),
            project=PROJECT,
            sequence=sequence(),
            filename=filename,
            purpose="assistants",
            bytes=len(text),
            sha256="",
        )
        await self.objects.start()
        await self.objects.put(row.object_key, _once(text.encode()))
        async with self.database.begin() as session:
            session.add(row)
        return row

    async def attach(self, store: StoreIndex, file: FileRow, **values: Any) -> str:
        row = VectorStoreFileRow(
            id=new_id("vsf_"),
            project=PROJECT,
            store_id=store.store_id,
            file_id=file.id,
            filename=file.filename,
            **{
                "sequence": sequence(),
                "chunking": {"type": "static", "static": {}},
                **values,
            },
        )
        async with self.database.begin() as session:
            session.add(row)
        return row.id

    async def change(self, table: Any, id_: str, **values: Any) -> None:
        async with self.database.begin() as session:
            row = await session.get(table, id_)
            for name, value in values.items():
                setattr(row, name, value)

    async def row(self, attachment_id: str) -> VectorStoreFileRow:
        async with self.database.read() as session:
            row = await session.get(VectorStoreFileRow, attachment_id)
            assert row is not None
            return row

    async def chunks(self, attachment_id: str) -> list[ChunkRow]:
        async with self.database.read() as session:
            found = await session.execute(
                select(ChunkRow)
                .where(ChunkRow.attachment_id == attachment_id)
                .order_by(ChunkRow.position)
            )
            return list(found.scalars())

    async def count(self, table: Any) -> int:
        async with self.database.read() as session:
            found = await session.execute(select(func.count()).select_from(table))
            return int(found.scalar_one())

    # -- work -----------------------------------------------------------------------------------

    async def ingest(self, attachment_id: str) -> VectorStoreFileRow:
        """One attempt; what has become of the row."""
        await self.service.ingest(job("ingest_file", attachment_id))
        return await self.row(attachment_id)

    async def clean(self, kind: str, id_: str) -> None:
        await self.cleanup.handlers()[kind](job(kind, id_))

    def indexed(self, store: StoreIndex) -> dict[str, str]:
        """By the id of the chunk, what is searched in."""
        return {id_: one.text for id_, one in self.index.chunks.get(store.store_id, {}).items()}


def job(kind: str, id_: str, attempt: int = 1) -> Job:
    payload = {"project": PROJECT, "id": id_}
    return Job(id=new_id("job_"), kind=kind, payload=payload, attempt=attempt)


def transient(message: str = "The converter died.") -> ConversionFailed:
    return ConversionFailed("server_error", message, transient=True)


async def _once(block: bytes) -> AsyncIterator[bytes]:
    yield block
