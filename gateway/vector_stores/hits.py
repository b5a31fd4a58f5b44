"""What searches ask of the database: the store, the files that a filter leaves, and the chunks.

A chunk is visible while its file in the store is completed and neither it nor the store is
deleted. Whatever the index knows, nothing else is ever found.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from msgspec import Struct
from sqlalchemy import and_, bindparam, exists, func, select
from sqlalchemy.orm import aliased

from gateway.database.engine import Database
from gateway.database.tables import ChunkRow, FileRow, VectorStoreFileRow, VectorStoreRow
from gateway.ports import StoreIndex
from gateway.vector_stores.filters import Filter, compile_filter

__all__ = ["CHUNK_COLUMNS", "FoundChunk", "HitRepository", "SearchedStore"]


class SearchedStore(Struct, frozen=True, kw_only=True):
    """A vector store as far as a search needs it."""

    index: StoreIndex
    embedding_model: str
    expires_at: int | None
    has_files: bool
    """Whether any file in it is visible."""


class FoundChunk(Struct, frozen=True, kw_only=True):
    """A visible chunk with the file it is of.

    ``file_id`` is ``None`` for chunks that were inserted ready-made; those have a ``document_id``.
    """

    id: str
    attachment_id: str
    position: int
    text: str
    tokens: int
    headings: list[str]
    pages: list[int]
    start: int | None
    end: int | None
    context: str | None
    external_id: str | None
    metadata: dict[str, Any]
    file_id: str | None
    document_id: str | None
    filename: str
    attributes: dict[str, Any]

    @property
    def name(self) -> str:
        """The caller's own id of the chunk, where it gave one."""
        return self.external_id or self.id

    @property
    def document(self) -> str:
        """What callers know its document by."""
        return self.file_id or self.document_id or self.attachment_id

    @property
    def full_text(self) -> str:
        """With what stands above it, as it was embedded."""
        parts = (self.context, "\n".join(self.headings), self.text)
        return "\n\n".join(part for part in parts if part)


_VISIBLE = and_(
    VectorStoreFileRow.project == bindparam("project"),
    VectorStoreFileRow.store_id == bindparam("store_id"),
    VectorStoreFileRow.status == "completed",
    VectorStoreFileRow.deleted_at.is_(None),
)

# Made once: putting a statement together takes longer than SQLite needs to run it.
_STORE = select(
    VectorStoreRow.dimension,
    VectorStoreRow.keyword,
    VectorStoreRow.embedding_model,
    VectorStoreRow.expires_at,
    exists().where(_VISIBLE).label("has_files"),
).where(
    VectorStoreRow.id == bindparam("store_id"),
    VectorStoreRow.project == bindparam("project"),
    VectorStoreRow.deleted_at.is_(None),
)

_COUNTED = aliased(VectorStoreFileRow)
_TOTAL = (
    select(func.count())
    .select_from(_COUNTED)
    .where(
        _COUNTED.project == bindparam("project"),
        _COUNTED.store_id == bindparam("store_id"),
        _COUNTED.status == "completed",
        _COUNTED.deleted_at.is_(None),
    )
    .scalar_subquery()
)
"""How many files are visible, asked in the same statement as which of them match."""

CHUNK_COLUMNS = (
    ChunkRow.id,
    ChunkRow.attachment_id,
    ChunkRow.position,
    ChunkRow.text,
    ChunkRow.tokens,
    ChunkRow.headings,
    ChunkRow.pages,
    ChunkRow.start,
    ChunkRow.end,
    ChunkRow.context,
    ChunkRow.external_id,
    ChunkRow.metadata_,
)

_CHUNKS = (
    select(
        *CHUNK_COLUMNS,
        VectorStoreFileRow.file_id,
        VectorStoreFileRow.document_id,
        func.coalesce(FileRow.filename, VectorStoreFileRow.filename),
        VectorStoreFileRow.attributes,
    )
    .join(VectorStoreFileRow, VectorStoreFileRow.id == ChunkRow.attachment_id)
    .join(VectorStoreRow, VectorStoreRow.id == ChunkRow.store_id)
    .outerjoin(FileRow, FileRow.id == VectorStoreFileRow.file_id)
    .where(
        ChunkRow.id.in_(bindparam("ids", expanding=True)),
        # The store of the chunk, not that of the file: by the latter's index SQLite would go
        # through all chunks of the store to find eighty.
        ChunkRow.store_id == bindparam("store_id"),
        VectorStoreRow.deleted_at.is_(None),
        VectorStoreFileRow.project == bindparam("project"),
        VectorStoreFileRow.status == "completed",
        VectorStoreFileRow.deleted_at.is_(None),
    )
)


class HitRepository:
    """Reads only, each call in a transaction of its own."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def store(self, project: str, store_id: str) -> SearchedStore | None:
        if "\x00" in store_id:  # which PostgreSQL can't even look for
            return None
        async with self._database.read() as session:
            rows = await session.execute(_STORE, {"project": project, "store_id": store_id})
            row = rows.first()
        if row is None:
            return None
        index = StoreIndex(
            project=project, store_id=store_id, dimension=row.dimension, keyword=row.keyword
        )
        return SearchedStore(
            index=index,
            embedding_model=row.embedding_model,
            expires_at=row.expires_at,
            has_files=row.has_files,
        )

    async def attachments(
        self, project: str, store_id: str, given: Filter
    ) -> tuple[list[str], bool]:
        """The visible files that a filter matches, and whether these are all that are visible."""
        matching = select(VectorStoreFileRow.id, _TOTAL).where(_VISIBLE, compile_filter(given))
        async with self._database.read() as session:
            rows = (
                await session.execute(matching, {"project": project, "store_id": store_id})
            ).all()
        ids = [row[0] for row in rows]
        return ids, bool(rows) and len(ids) == rows[0][1]

    async def visible(self, project: str, store_id: str) -> list[str]:
        """All visible files."""
        async with self._database.read() as session:
            rows = await session.execute(
                select(VectorStoreFileRow.id).where(_VISIBLE),
                {"project": project, "store_id": store_id},
            )
            return list(rows.scalars())

    async def chunks(
        self, project: str, store_id: str, ids: Sequence[str]
    ) -> dict[str, FoundChunk]:
        """Those of these chunks that are visible, by id."""
        if not ids:
            return {}
        async with self._database.read() as session:
            rows = await session.execute(
                _CHUNKS, {"project": project, "store_id": store_id, "ids": list(ids)}
            )
            found = [_chunk(row) for row in rows]
        return {chunk.id: chunk for chunk in found}


def _chunk(row: Any) -> FoundChunk:
    return FoundChunk(**dict(zip(FoundChunk.__struct_fields__, row, strict=True)))
