"""The services of vector stores on a database, with what stands below them in memory.

stores = Stores(database)
store = await stores.make()
file = await stores.upload("a.txt")
await stores.files.attach(stores.principal, stores.activity, store.id, AttachFile(file_id=file))
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any, cast

from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import AsyncSession

from gateway.database.engine import Database
from gateway.database.identifiers import new_id, sequence
from gateway.database.tables import FileRow, JobRow, VectorStoreFileRow
from gateway.embeddings.embedder import Embedder
from gateway.identity.principal import Principal
from gateway.observability.activity import Activity
from gateway.profile import profile_of
from gateway.routing.catalog import Backend, Catalog, Model
from gateway.settings import EmbeddingSettings, IngestionSettings
from gateway.vector_stores.batch_service import FileBatchService
from gateway.vector_stores.chunking import ChunkingResolver
from gateway.vector_stores.file_service import StoreFileService
from gateway.vector_stores.insertion import ChunkInsertion
from gateway.vector_stores.last_active import LastActive
from gateway.vector_stores.schemas import (
    AttachFile,
    CreateVectorStore,
    VectorStoreFileObject,
    VectorStoreObject,
)
from gateway.vector_stores.service import VectorStoreService
from gateway.vector_stores.shapes import Shapes
from tests.support.memory import MemoryVectorIndex

DIMENSION = 3


class TableQueue:
    """Puts jobs into the table and leaves them there; `broken` makes `put` fail."""

    def __init__(self) -> None:
        self.wakes = 0
        self.broken = False

    async def put(
        self, session: AsyncSession, kind: str, payload: Mapping[str, Any], *, delay: float = 0
    ) -> str:
        if self.broken:
            raise RuntimeError("no queue")
        job = JobRow(id=new_id("job_"), kind=kind, payload=dict(payload), due_at=time.time())
        session.add(job)
        return job.id

    def wake(self) -> None:
        self.wakes += 1


def _model(name: str, kind: Any, dimension: int | None = None) -> Model:
    nowhere = Backend(server=cast("Any", None), model=name)
    return Model(id=name, backends=[nowhere], kind=kind, dimension=dimension, providers=["vllm"])


class Stores:
    """`default_model` is the one for stores that name none; there are `embed` and `embed-5`."""

    def __init__(
        self,
        database: Database,
        *,
        profile: Any = "openai",
        wait: float = 0.0,
        default_model: str | None = "embed",
    ) -> None:
        self.database = database
        self.principal = Principal(project="ours")
        self.stranger = Principal(project="theirs")
        self.activity = Activity(cast("Any", None), None, 0, 0)
        self.queue = TableQueue()
        self.index = MemoryVectorIndex()
        catalog = Catalog(
            [
                _model("embed", "embedding", DIMENSION),
                _model("embed-5", "embedding", 5),
                _model("chat", "chat"),
            ]
        )
        chosen = profile_of(profile)
        settings = IngestionSettings(attach_wait_seconds=wait, timeout_seconds=wait or 0.01)
        embedder = Embedder(
            catalog, cast("Any", None), EmbeddingSettings(default_model=default_model)
        )
        shapes = Shapes(catalog, chosen)
        self.active = LastActive(database)
        queue, index = cast("Any", self.queue), cast("Any", self.index)
        self.files = StoreFileService(
            database, queue, self.active, ChunkingResolver(catalog), shapes, chosen, settings
        )
        self.stores = VectorStoreService(
            database, index, queue, embedder, self.files, shapes, chosen
        )
        self.batches = FileBatchService(database, queue, self.active, self.files, shapes, chosen)
        self.insertion = ChunkInsertion(database, index, embedder, self.files)

    async def make(self, **fields: Any) -> VectorStoreObject:
        """A vector store with these fields."""
        return await self.stores.create(self.principal, self.activity, CreateVectorStore(**fields))

    async def upload(self, filename: str = "a.txt", project: str = "ours", **fields: Any) -> str:
        """The id of a file that is there for the database, without its bytes."""
        [file_id] = await self.upload_many([filename], project, **fields)
        return file_id

    async def upload_many(
        self, filenames: Sequence[str], project: str = "ours", **fields: Any
    ) -> list[str]:
        rows = [
            FileRow(
                id=new_id("file-"),
                project=project,
                sequence=sequence(),
                filename=filename,
                purpose="assistants",
                bytes=5,
                sha256="0" * 64,
                **fields,
            )
            for filename in filenames
        ]
        async with self.database.begin() as session:
            session.add_all(rows)
        return [row.id for row in rows]

    async def attach(self, store_id: str, file_id: str, **fields: Any) -> VectorStoreFileObject:
        """A file in a store, as the answer to the request shows it."""
        wanted = AttachFile(file_id=file_id, **fields)
        attachment_id = await self.files.attach(self.principal, self.activity, store_id, wanted)
        return await self.files.settled(self.principal, store_id, file_id, attachment_id)

    async def finish(self, file_id: str, status: str = "completed", **fields: Any) -> None:
        """What a worker does at the end of its work."""
        row = VectorStoreFileRow
        async with self.database.begin() as session:
            await session.execute(
                update(row)
                .where(row.file_id == file_id, row.deleted_at.is_(None))
                .values(status=status, **fields)
            )

    async def jobs(self, kind: str) -> list[str]:
        """The ids that jobs of this kind are about, oldest first."""
        async with self.database.read() as session:
            statement = select(JobRow).where(JobRow.kind == kind).order_by(JobRow.due_at)
            return [job.payload["id"] for job in (await session.execute(statement)).scalars()]

    async def rows(self, table: Any) -> list[Any]:
        """All rows of a table."""
        async with self.database.read() as session:
            return list((await session.execute(select(table))).scalars())
