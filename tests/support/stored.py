"""Vector stores with files in them, written straight into the database and the index.

    store = Shelf(database, index)
    await store.open()
    await store.put("file-1", ["a lamp", "a boat"], attributes={"language": "en"})

What the ingestion of files would leave there; for tests of what reads it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from gateway.database.engine import Database
from gateway.database.identifiers import now, sequence
from gateway.database.tables import (
    AttributeRow,
    ChunkRow,
    FileRow,
    VectorStoreFileRow,
    VectorStoreRow,
)
from gateway.ports import IndexedChunk, StoreIndex, VectorIndex
from tests.support.upstream.embeddings import vector

DIMENSION = 384


class Shelf:
    """One vector store. Vectors are those of the fake embedding model."""

    def __init__(
        self,
        database: Database,
        index: VectorIndex,
        *,
        store_id: str = "vs_1",
        project: str = "default",
        keyword: bool = True,
    ) -> None:
        self.database = database
        self.index = index
        self.where = StoreIndex(
            project=project, store_id=store_id, dimension=DIMENSION, keyword=keyword
        )

    async def open(self, **columns: Any) -> None:
        """Make the store, with these columns in place of the usual ones."""
        usual = {"name": "shelf", "embedding_model": "fake-embedding", "last_active_at": now()}
        async with self.database.begin() as session:
            session.add(
                VectorStoreRow(
                    id=self.where.store_id,
                    project=self.where.project,
                    sequence=sequence(),
                    dimension=DIMENSION,
                    keyword=self.where.keyword,
                    provider_id="milvus",
                    **{**usual, **columns},
                )
            )
        await self.index.create(self.where)

    async def put(
        self,
        file_id: str,
        texts: Sequence[str],
        *,
        attributes: Mapping[str, Any] | None = None,
        chunk: Mapping[str, Any] | None = None,
        **columns: Any,
    ) -> str:
        """Make a file with these chunks; ``chunk`` are columns of each. Returns the attachment."""
        where = self.where
        attachment_id = f"vsf_{where.store_id}_{file_id}"
        place = {"project": where.project, "store_id": where.store_id}
        usual = {"status": "completed", "filename": f"{file_id}.txt", "file_id": file_id}
        file = {**usual, **columns}
        async with self.database.begin() as session:
            if file["file_id"] is not None and await session.get(FileRow, file_id) is None:
                session.add(_file(file_id, where.project))
                await session.flush()
            session.add(
                VectorStoreFileRow(
                    **place,
                    **file,
                    id=attachment_id,
                    sequence=sequence(),
                    attributes=dict(attributes or {}),
                )
            )
            await session.flush()
            session.add_all(
                AttributeRow(
                    attachment_id=attachment_id, store_id=where.store_id, key=key, **_typed(value)
                )
                for key, value in (attributes or {}).items()
            )
            session.add_all(
                ChunkRow(
                    **place,
                    id=f"{attachment_id}-{position}",
                    attachment_id=attachment_id,
                    position=position,
                    text=text,
                    digest="0" * 64,
                    tokens=len(text.split()),
                    **(chunk or {}),
                )
                for position, text in enumerate(texts)
            )
        await self.index.upsert(
            where,
            [
                IndexedChunk(
                    id=f"{attachment_id}-{position}",
                    attachment_id=attachment_id,
                    text=text,
                    vector=vector(text, DIMENSION),
                )
                for position, text in enumerate(texts)
            ],
        )
        await self.index.settle(where)
        return attachment_id


def _file(file_id: str, project: str) -> FileRow:
    return FileRow(
        id=file_id,
        project=project,
        sequence=sequence(),
        filename=f"{file_id}.txt",
        purpose="assistants",
        bytes=1,
        sha256="0" * 64,
    )


def _typed(value: Any) -> dict[str, Any]:
    if isinstance(value, bool):
        return {"boolean": value}
    return {"text": value} if isinstance(value, str) else {"number": float(value)}
