"""Chunks that a caller has cut itself, and perhaps embedded: LlamaStack's ``vector-io/insert``.

Chunks of one ``document_id`` are one attachment, so that what holds for files in searches holds
for them. Where it is the id of an uploaded file, the attachment is that file's place in the store:
it is listed, has attributes, can be read and detached like any other. Otherwise it is a file in the
store without a file. An attachment counts from the first insert that succeeds; one that breaks off
leaves what nobody finds, and the same insert again replaces it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy import func, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncSession

from gateway.database.engine import Database
from gateway.database.identifiers import new_id, now, sequence
from gateway.database.tables import ChunkRow, VectorStoreFileRow, VectorStoreRow
from gateway.embeddings.embedder import Embedder
from gateway.errors import InvalidRequest
from gateway.identity.principal import Principal
from gateway.observability.activity import Activity
from gateway.ports import IndexedChunk, VectorIndex
from gateway.vector_stores.attachments import AttachmentRepository
from gateway.vector_stores.file_service import StoreFileService
from gateway.vector_stores.insert_checks import ReadyChunk, check_chunks, sha256
from gateway.vector_stores.insert_schemas import InsertChunks
from gateway.vector_stores.properties import MAX_KEY, MAX_PROPERTIES, MAX_VALUE, AttributeValue
from gateway.vector_stores.repository import index_of

__all__ = ["ChunkInsertion"]

_FILE_ID = "file-"
_CUT_ELSEWHERE = {"type": "other"}
"""OpenAI's ``chunking_strategy`` of a file for which it is not known."""
_UPSERTED_AT_ONCE = 200
_ROWS_AT_ONCE = 50
"""In one statement; SQLite once had a limit of 999 variables."""


class ChunkInsertion:
    """Idempotent: a chunk whose document and id are in the store already is replaced."""

    def __init__(
        self,
        database: Database,
        index: VectorIndex,
        embedder: Embedder,
        files: StoreFileService,
    ) -> None:
        self._database = database
        self._index = index
        self._embedder = embedder
        self._files = files
        self._attachments = AttachmentRepository()
        self._insert = sqlite.insert if database.is_sqlite else postgresql.insert

    async def insert(self, principal: Principal, activity: Activity, wanted: InsertChunks) -> None:
        """Searches find the chunks once this returns.

        Raises ``InvalidRequest`` that names the chunk at fault, the profile's error for an unknown
        store, and ``UpstreamError``.
        """
        if wanted.ttl_seconds is not None:
            raise InvalidRequest(
                "ttl_seconds is not supported: chunks stay until their vector store goes, which "
                "may have expires_after.",
                param="ttl_seconds",
                code="unsupported_parameter",
            )
        store_id = wanted.vector_store_id or wanted.vector_db_id
        if store_id is None:
            raise InvalidRequest(
                "Missing required parameter: 'vector_store_id'.",
                param="vector_store_id",
                code="missing_required_parameter",
            )
        async with self._database.read() as session:
            store = await self._files.live_store(session, principal, store_id)
        # Tens of megabytes may have to be read and hashed.
        chunks = await asyncio.to_thread(check_chunks, wanted.chunks, store.dimension)
        if not chunks:
            return
        vectors = await self._vectors(activity, store, chunks)
        attachments = await self._attach(principal, store_id, chunks)
        await self._index_all(store, attachments, chunks, vectors)
        await self._write(principal, store_id, attachments, chunks)

    async def _vectors(
        self, activity: Activity, store: VectorStoreRow, chunks: Sequence[ReadyChunk]
    ) -> list[Sequence[float]]:
        """The caller's, and the store's model's for chunks without one."""
        missing = [one.passage for one in chunks if one.embedding is None]
        made = iter(await self._embedder.embed(activity, store.embedding_model, missing))
        return [next(made) if one.embedding is None else one.embedding for one in chunks]

    async def _attach(
        self, principal: Principal, store_id: str, chunks: Sequence[ReadyChunk]
    ) -> dict[str, str]:
        """The attachments of these chunks' documents, made where there are none.

        Chunks are indexed under their ids, so they come first. Until a new one's chunks are
        written it is ``cancelled``: no search sees it, and no worker waits for it.
        """
        sources = {one.document_id: one.source for one in chunks}
        async with self._database.begin() as session:
            await self._files.live_store(session, principal, store_id, lock=True)
            there = await self._documents(session, principal, store_id, list(sources))
            missing = [one for one in sources if one not in there]
            uploaded = await self._uploaded(session, principal, store_id, missing)
            new = [
                VectorStoreFileRow(
                    id=new_id("vsf_"),
                    project=principal.project,
                    store_id=store_id,
                    sequence=sequence(),
                    file_id=document_id if document_id in uploaded else None,
                    document_id=document_id,
                    filename=uploaded.get(document_id, sources[document_id]),
                    status="cancelled",
                    chunking=_CUT_ELSEWHERE if document_id in uploaded else {},
                )
                for document_id in missing
            ]
            await self._attachments.add(session, new)
        return {row.document_id or "": row.id for row in (*there.values(), *new)}

    async def _uploaded(
        self, session: AsyncSession, principal: Principal, store_id: str, names: Sequence[str]
    ) -> dict[str, str]:
        """The file names of those documents that are uploaded files, which stay until the commit.

        Raises ``InvalidRequest`` where such a file is in the store already and the gateway has
        cut it: what is whose would not be known any more.
        """
        ids = [one for one in names if one.startswith(_FILE_ID)]
        found = await self._attachments.uploaded(session, principal.project, ids)
        there = await self._attachments.of_files(session, principal.project, store_id, list(found))
        if there:
            file_id = min(there)
            raise InvalidRequest(
                f"The file '{file_id}' is in the vector store '{store_id}' already. Take it out "
                "before you insert chunks of its own.",
                param="chunks",
                code="file_already_attached",
            )
        return {row.id: row.filename for row in found.values()}

    async def _index_all(
        self,
        store: VectorStoreRow,
        attachments: Mapping[str, str],
        chunks: Sequence[ReadyChunk],
        vectors: Sequence[Sequence[float]],
    ) -> None:
        place = index_of(store)
        indexed = [
            IndexedChunk(
                id=one.row_id(attachments[one.document_id]),
                attachment_id=attachments[one.document_id],
                text=one.passage,
                vector=vector,
            )
            for one, vector in zip(chunks, vectors, strict=True)
        ]
        for at in range(0, len(indexed), _UPSERTED_AT_ONCE):
            await self._index.upsert(place, indexed[at : at + _UPSERTED_AT_ONCE])
        await self._index.settle(place)

    async def _write(
        self,
        principal: Principal,
        store_id: str,
        attachments: Mapping[str, str],
        chunks: Sequence[ReadyChunk],
    ) -> None:
        """The chunks' rows, and with them the attachments, are there for searches."""
        by_document: dict[str, list[ReadyChunk]] = {}
        for one in chunks:
            by_document.setdefault(one.document_id, []).append(one)
        async with self._database.begin() as session:
            await self._files.live_store(session, principal, store_id, lock=True)
            there = await self._documents(session, principal, store_id, list(by_document))
            written: list[tuple[VectorStoreFileRow, list[ReadyChunk]]] = []
            for document_id, some in by_document.items():
                row = there.get(document_id)
                if row is None or row.id != attachments[document_id]:
                    raise self._files.no_store(store_id)  # emptied while this was at work
                written.append((row, some))
            await self._write_chunks(session, written)
            await self._attachments.set_attributes_of_many(
                session, [(row, _in_common(row, some)) for row, some in written]
            )
            for row, _ in written:
                row.status, row.finished_at = "completed", now()
            await session.flush()
            for some_ids in _portions([row.id for row, _ in written]):
                await session.execute(
                    update(VectorStoreFileRow)
                    .where(
                        VectorStoreFileRow.project == principal.project,
                        VectorStoreFileRow.id.in_(some_ids),
                    )
                    .values(usage_bytes=_stored_bytes())
                    .execution_options(synchronize_session=False)
                )

    async def _write_chunks(
        self, session: AsyncSession, written: Sequence[tuple[VectorStoreFileRow, list[ReadyChunk]]]
    ) -> None:
        """Put these in place of those with the same id; new ones follow what is there."""
        highest: dict[str, int] = {}
        for some_ids in _portions([row.id for row, _ in written]):
            found = await session.execute(
                select(ChunkRow.attachment_id, func.max(ChunkRow.position))
                .where(ChunkRow.attachment_id.in_(some_ids))
                .group_by(ChunkRow.attachment_id)
            )
            highest |= {attachment_id: position for attachment_id, position in found}  # noqa: C416
        values = [
            _values(row, one, position)
            for row, some in written
            for position, one in enumerate(some, highest.get(row.id, -1) + 1)
        ]
        for at in range(0, len(values), _ROWS_AT_ONCE):
            statement = self._insert(ChunkRow).values(values[at : at + _ROWS_AT_ONCE])
            replaced = {
                "text": statement.excluded.text,
                "tokens": statement.excluded.tokens,
                "headings": statement.excluded.headings,
                "pages": statement.excluded.pages,
                "start": statement.excluded.start,
                "end": statement.excluded.end,
                ChunkRow.metadata_: statement.excluded["metadata"],
            }
            await session.execute(
                statement.on_conflict_do_update(index_elements=["id"], set_=replaced)
            )

    async def _documents(
        self, session: AsyncSession, principal: Principal, store_id: str, names: Sequence[str]
    ) -> dict[str, VectorStoreFileRow]:
        """The attachments of these documents that are in the store."""
        files = VectorStoreFileRow
        found: dict[str, VectorStoreFileRow] = {}
        for at in range(0, len(names), _UPSERTED_AT_ONCE):
            statement = select(files).where(
                files.project == principal.project,
                files.store_id == store_id,
                files.document_id.in_(names[at : at + _UPSERTED_AT_ONCE]),
                files.deleted_at.is_(None),
            )
            rows = (await session.execute(statement)).scalars()
            found |= {row.document_id or "": row for row in rows}
        return found


def _common(properties: Iterable[Mapping[str, Any]]) -> dict[str, AttributeValue]:
    """What filters can find: the plain values that all of these have in common, 16 at most."""
    first, *others = properties
    shared = {
        key: value
        for key, value in first.items()
        if isinstance(value, str | int | float)
        and len(key) <= MAX_KEY
        and "\x00" not in key
        and not (isinstance(value, str) and (len(value) > MAX_VALUE or "\x00" in value))
        and not (isinstance(value, int) and abs(value) >= 1 << 63)
        and all(key in other and _alike(other[key], value) for other in others)
    }
    return dict(list(shared.items())[:MAX_PROPERTIES])


def _in_common(row: VectorStoreFileRow, chunks: Sequence[ReadyChunk]) -> dict[str, AttributeValue]:
    """Of all chunks of a document: these, and what is there already."""
    attributes = _common(one.metadata for one in chunks)
    return _common([attributes, row.attributes]) if row.status == "completed" else attributes


def _values(row: VectorStoreFileRow, chunk: ReadyChunk, position: int) -> dict[str, Any]:
    """The columns of a chunk's row."""
    return {
        "id": chunk.row_id(row.id),
        "project": row.project,
        "store_id": row.store_id,
        "attachment_id": row.id,
        "position": position,
        "text": chunk.text,
        # Nobody knows what made a caller's vector: it must not serve for another text.
        "digest": sha256(f"inserted\n{chunk.row_id(row.id)}"),
        "tokens": chunk.tokens,
        "headings": chunk.headings,
        "pages": chunk.pages,
        "start": chunk.start,
        "end": chunk.end,
        "external_id": chunk.chunk_id,
        "metadata_": chunk.metadata,
    }


def _alike(one: Any, other: Any) -> bool:
    return type(one) is type(other) and bool(one == other)


def _stored_bytes() -> Any:
    """Of an attachment's texts; SQL counts characters, near enough for a size to be shown."""
    return (
        select(func.coalesce(func.sum(func.length(ChunkRow.text)), 0))
        .where(ChunkRow.attachment_id == VectorStoreFileRow.id)
        .correlate(VectorStoreFileRow)
        .scalar_subquery()
    )


def _portions(ids: Sequence[str]) -> list[Sequence[str]]:
    return [ids[at : at + _UPSERTED_AT_ONCE] for at in range(0, len(ids), _UPSERTED_AT_ONCE)]
