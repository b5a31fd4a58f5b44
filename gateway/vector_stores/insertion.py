"""Chunks that a caller has cut itself, and perhaps embedded: LlamaStack's ``vector-io/insert``.

Chunks of one ``document_id`` are one attachment, a file in the store without a file, so that what
holds for files in searches holds for them. An attachment counts from the first insert that
succeeds; one that breaks off leaves what nobody finds, and the same insert again replaces it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from msgspec import Struct
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
from gateway.vector_stores.insert_schemas import InsertChunks, InsertedChunk, InsertedMetadata
from gateway.vector_stores.properties import MAX_KEY, MAX_PROPERTIES, MAX_VALUE, AttributeValue
from gateway.vector_stores.repository import index_of

__all__ = ["ChunkInsertion"]

_UPSERTED_AT_ONCE = 200
_ROWS_AT_ONCE = 50
"""In one statement; SQLite once had a limit of 999 variables."""
_LONGEST_TEXT = 1_000_000
_LONGEST_DOCUMENT_ID = 2048
"""In bytes; PostgreSQL takes 2,704 for all columns of an index together."""
_BYTES_A_TOKEN = 4
"""Where the caller doesn't say how many tokens a chunk has."""


class _Ready(Struct, frozen=True, kw_only=True):
    """A chunk of the request, checked."""

    document_id: str
    chunk_id: str
    """The caller's, or made from document and text as LlamaStack does."""
    text: str
    tokens: int
    source: str
    metadata: dict[str, Any]
    embedding: Sequence[float] | None

    def row_id(self, attachment_id: str) -> str:
        return f"{attachment_id}-{_sha256(self.chunk_id)[:24]}"


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
        chunks = _unique(
            _ready(one, number, store.dimension) for number, one in enumerate(wanted.chunks)
        )
        if not chunks:
            return
        vectors = await self._vectors(activity, store, chunks)
        attachments = await self._attach(principal, store_id, chunks)
        await self._index_all(store, attachments, chunks, vectors)
        await self._write(principal, store_id, attachments, chunks)

    async def _vectors(
        self, activity: Activity, store: VectorStoreRow, chunks: Sequence[_Ready]
    ) -> list[Sequence[float]]:
        """The caller's, and the store's model's for chunks without one."""
        missing = [one.text for one in chunks if one.embedding is None]
        made = iter(await self._embedder.embed(activity, store.embedding_model, missing))
        return [next(made) if one.embedding is None else one.embedding for one in chunks]

    async def _attach(
        self, principal: Principal, store_id: str, chunks: Sequence[_Ready]
    ) -> dict[str, str]:
        """The attachments of these chunks' documents, made where there are none.

        Chunks are indexed under their ids, so they come first. Until a new one's chunks are
        written it is ``cancelled``: no search sees it, and no worker waits for it.
        """
        sources = {one.document_id: one.source for one in chunks}
        async with self._database.begin() as session:
            await self._files.live_store(session, principal, store_id, lock=True)
            there = await self._documents(session, principal, store_id, list(sources))
            new = [
                VectorStoreFileRow(
                    id=new_id("vsf_"),
                    project=principal.project,
                    store_id=store_id,
                    sequence=sequence(),
                    file_id=None,
                    document_id=document_id,
                    filename=source,
                    status="cancelled",
                )
                for document_id, source in sources.items()
                if document_id not in there
            ]
            await self._attachments.add(session, new)
        return {row.document_id or "": row.id for row in (*there.values(), *new)}

    async def _index_all(
        self,
        store: VectorStoreRow,
        attachments: Mapping[str, str],
        chunks: Sequence[_Ready],
        vectors: Sequence[Sequence[float]],
    ) -> None:
        place = index_of(store)
        indexed = [
            IndexedChunk(
                id=one.row_id(attachments[one.document_id]),
                attachment_id=attachments[one.document_id],
                text=one.text,
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
        chunks: Sequence[_Ready],
    ) -> None:
        """The chunks' rows, and with them the attachments, are there for searches."""
        by_document: dict[str, list[_Ready]] = {}
        for one in chunks:
            by_document.setdefault(one.document_id, []).append(one)
        async with self._database.begin() as session:
            await self._files.live_store(session, principal, store_id, lock=True)
            there = await self._documents(session, principal, store_id, list(by_document))
            for document_id, some in by_document.items():
                row = there.get(document_id)
                if row is None or row.id != attachments[document_id]:
                    raise self._files.no_store(store_id)  # emptied while this was at work
                await self._write_chunks(session, row, some)
                attributes = _common(one.metadata for one in some)
                if row.status == "completed":  # what all of its chunks have in common
                    attributes = _common([attributes, row.attributes])
                await self._attachments.set_attributes(session, row, attributes)
                row.status, row.finished_at = "completed", now()
                await session.flush()
                await session.execute(
                    update(VectorStoreFileRow)
                    .where(VectorStoreFileRow.id == row.id)
                    .values(usage_bytes=_stored_bytes(row.id))
                    .execution_options(synchronize_session=False)
                )

    async def _write_chunks(
        self, session: AsyncSession, row: VectorStoreFileRow, chunks: Sequence[_Ready]
    ) -> None:
        """Put these in place of those with the same id; new ones follow what is there."""
        last = await session.execute(
            select(func.max(ChunkRow.position)).where(ChunkRow.attachment_id == row.id)
        )
        highest = last.scalar_one_or_none()
        start = 0 if highest is None else highest + 1
        values = [
            {
                "id": one.row_id(row.id),
                "project": row.project,
                "store_id": row.store_id,
                "attachment_id": row.id,
                "position": start + number,
                "text": one.text,
                # Nobody knows what made a caller's vector: it must not serve for another text.
                "digest": _sha256(f"inserted\n{one.row_id(row.id)}"),
                "tokens": one.tokens,
                "headings": [],
                "pages": [],
                "external_id": one.chunk_id,
                "metadata_": one.metadata,
            }
            for number, one in enumerate(chunks)
        ]
        for at in range(0, len(values), _ROWS_AT_ONCE):
            statement = self._insert(ChunkRow).values(values[at : at + _ROWS_AT_ONCE])
            replaced = {
                "text": statement.excluded.text,
                "tokens": statement.excluded.tokens,
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


def _ready(given: InsertedChunk, number: int, dimension: int) -> _Ready:
    param = f"chunks[{number}]"
    about = given.chunk_metadata or InsertedMetadata()
    metadata = given.metadata or {}
    text = _text(given.content, f"{param}.content")
    document_id = metadata.get("document_id") or about.document_id or ""
    if not isinstance(document_id, str) or "\x00" in document_id or _is_long(document_id):
        raise InvalidRequest(
            f"Invalid '{param}.metadata.document_id': expected a string of up to "
            f"{_LONGEST_DOCUMENT_ID} bytes.",
            param=f"{param}.metadata.document_id",
            code="invalid_type",
        )
    if given.embedding is not None and len(given.embedding) != dimension:
        raise InvalidRequest(
            f"Invalid '{param}.embedding': the vector store holds vectors of dimension "
            f"{dimension}, but got one of {len(given.embedding)} instead.",
            param=f"{param}.embedding",
            code="invalid_value",
        )
    named = given.chunk_id or given.stored_chunk_id or about.chunk_id
    return _Ready(
        document_id=document_id,
        chunk_id=named or _sha256(f"{document_id}\n{text}")[:32],
        text=text,
        tokens=about.content_token_count or -(-len(text.encode()) // _BYTES_A_TOKEN),
        source=about.source or document_id,
        metadata=metadata,
        embedding=given.embedding,
    )


def _is_long(document_id: str) -> bool:
    return len(document_id.encode()) > _LONGEST_DOCUMENT_ID


def _text(content: str | dict[str, Any] | list[Any], param: str) -> str:
    """What is text of it. Raises ``InvalidRequest`` where anything else is there, or nothing."""
    parts = content if isinstance(content, list) else [content]
    texts = [part.get("text") if isinstance(part, dict) else part for part in parts]
    text = "\n".join(one for one in texts if isinstance(one, str))
    if not all(isinstance(one, str) for one in texts) or not text.strip() or "\x00" in text:
        raise InvalidRequest(
            f"Invalid '{param}': expected text that isn't empty and has no U+0000.",
            param=param,
            code="invalid_value",
        )
    if len(text) > _LONGEST_TEXT:
        raise InvalidRequest(
            f"Invalid '{param}': expected at most {_LONGEST_TEXT} characters, but got {len(text)} "
            "instead.",
            param=param,
            code="string_above_max_length",
        )
    return text


def _unique(chunks: Iterable[_Ready]) -> list[_Ready]:
    """Of chunks with the same document and id, the last one."""
    return list({(one.document_id, one.chunk_id): one for one in chunks}.values())


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


def _alike(one: Any, other: Any) -> bool:
    return type(one) is type(other) and bool(one == other)


def _stored_bytes(attachment_id: str) -> Any:
    """Of the texts; SQL counts characters, which is near enough for a size to be shown."""
    return (
        select(func.coalesce(func.sum(func.length(ChunkRow.text)), 0))
        .where(ChunkRow.attachment_id == attachment_id)
        .scalar_subquery()
    )


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
