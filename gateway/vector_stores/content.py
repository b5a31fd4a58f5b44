"""The text of a file in a vector store, chunk by chunk, as it is searched."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import msgspec
from msgspec import UNSET
from sqlalchemy import select

from gateway.database.engine import Database
from gateway.database.tables import ChunkRow, VectorStoreFileRow, VectorStoreRow
from gateway.errors import InvalidRequest
from gateway.identity.principal import Principal
from gateway.ports import StoreIndex, VectorIndex
from gateway.profile import Profile
from gateway.vector_stores.hits import CHUNK_COLUMNS, FoundChunk
from gateway.vector_stores.search_answers import chunk_metadata, metadata_of
from gateway.vector_stores.search_schemas import FileContent

__all__ = ["ContentService"]

BATCH_CHUNKS = 200
"""A file may have a hundred thousand chunks: its answer is written while they are read."""

_HEAD = b'{"object":"vector_store.file_content.page","data":['
_TAIL = b'],"has_more":false,"next_page":null}'


class ContentService:
    def __init__(self, database: Database, index: VectorIndex, profile: Profile) -> None:
        self._database = database
        self._index = index
        self._profile = profile

    async def read(
        self,
        principal: Principal,
        store_id: str,
        file_id: str,
        *,
        include_embeddings: bool = False,
        include_metadata: bool = False,
    ) -> AsyncIterator[bytes]:
        """The answer's JSON (``FileContent`` in a page) in blocks; the first is read already.

        Raises the profile's error for a store or file that isn't there, and ``InvalidRequest``
        for one that isn't completed.
        """
        file, where = await self._file(principal, store_id, file_id)

        async def batch(position: int) -> list[FileContent]:
            chunks = await self._chunks(file, position)
            vectors = {}
            if include_embeddings and chunks:
                vectors = await self._index.vectors(where, [chunk.id for chunk in chunks])
            return [
                FileContent(
                    text=chunk.text,
                    embedding=list(vectors.get(chunk.id, ())) if include_embeddings else UNSET,
                    chunk_metadata=chunk_metadata(chunk) if include_metadata else UNSET,
                    metadata=metadata_of(chunk) if include_metadata else UNSET,
                )
                for chunk in chunks
            ]

        return _page(await batch(0), batch)

    async def _file(
        self, principal: Principal, store_id: str, file_id: str
    ) -> tuple[VectorStoreFileRow, StoreIndex]:
        # PostgreSQL can't even look for U+0000.
        store_id, file_id = store_id.replace("\x00", "\ufffd"), file_id.replace("\x00", "\ufffd")
        async with self._database.read() as session:
            store = (
                await session.execute(
                    select(VectorStoreRow).where(
                        VectorStoreRow.id == store_id,
                        VectorStoreRow.project == principal.project,
                        VectorStoreRow.deleted_at.is_(None),
                    )
                )
            ).scalar()
            file = (
                await session.execute(
                    select(VectorStoreFileRow).where(
                        VectorStoreFileRow.store_id == store_id,
                        VectorStoreFileRow.project == principal.project,
                        VectorStoreFileRow.file_id == file_id,
                        VectorStoreFileRow.deleted_at.is_(None),
                    )
                )
            ).scalar()
        if store is None:
            raise self._profile.unknown_in_stores(
                f"No vector store found with id '{store_id}'.", param="vector_store_id"
            )
        if file is None:
            raise self._profile.unknown_in_stores(
                f"No file found with id '{file_id}' in vector store '{store_id}'.",
                param="file_id",
            )
        if file.status != "completed":
            why = f": {file.error_message}" if file.error_message else "."
            raise InvalidRequest(
                f"The file '{file_id}' has no content in the vector store '{store_id}', because "
                f"its status is '{file.status}'{why}",
                param="file_id",
                code="file_not_completed",
            )
        where = StoreIndex(
            project=principal.project,
            store_id=store_id,
            dimension=store.dimension,
            keyword=store.keyword,
        )
        return file, where

    async def _chunks(self, file: VectorStoreFileRow, position: int) -> list[FoundChunk]:
        """The next chunks from this position on."""
        async with self._database.read() as session:
            rows = await session.execute(
                select(*CHUNK_COLUMNS)
                .where(ChunkRow.attachment_id == file.id, ChunkRow.position >= position)
                .order_by(ChunkRow.position)
                .limit(BATCH_CHUNKS)
            )
            origin = (file.file_id, file.document_id, file.filename, file.attributes)
            names = FoundChunk.__struct_fields__
            return [FoundChunk(**dict(zip(names, (*row, *origin), strict=True))) for row in rows]


async def _page(first: list[FileContent], batch: Any) -> AsyncIterator[bytes]:
    encoder = msgspec.json.Encoder()
    part, position, block = first, 0, _HEAD
    while part:
        items = b",".join(encoder.encode(one) for one in part)
        yield block + (b"," if position else b"") + items
        block = b""
        position += len(part)
        part = await batch(position) if len(part) == BATCH_CHUNKS else []
    yield block + _TAIL
