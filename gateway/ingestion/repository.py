"""The state of files in vector stores while workers are at them, and their chunks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from msgspec import Struct
from sqlalchemy import ColumnElement, Select, and_, delete, exists, func, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncSession

from gateway.database.engine import Database
from gateway.database.identifiers import now
from gateway.database.tables import ChunkRow, FileRow, VectorStoreFileRow, VectorStoreRow
from gateway.ports import FailureCode, StoreIndex
from gateway.vector_stores.repository import index_of

__all__ = [
    "Claim",
    "EarlierChunk",
    "IngestionRepository",
    "KnownChunk",
    "NotWanted",
    "remove_chunks",
]

_DELETE_BATCH = 1000
"""Rows in one transaction, so that others get a turn in between."""

_QUERY_BATCH = 400
"""Values in one ``IN``; SQLite once had a limit of 999 variables."""


class NotWanted(Exception):
    """The file was removed, cancelled or finished, or another worker has taken it up."""


class Claim(Struct, frozen=True, kw_only=True):
    """A worker's right to bring a file into a store, and what it needs to know for that.

    It holds until the row's ``attempt`` is another one.
    """

    attachment_id: str
    project: str
    attempt: int
    tries: int
    """How many attempts count so far, this one included."""
    attached_at: float
    """In seconds."""
    traceparent: str | None
    chunking: dict[str, Any]
    embedding_model: str
    index: StoreIndex
    file_id: str
    filename: str
    bytes: int
    object_key: str
    document_key: str


class EarlierChunk(Struct, frozen=True, kw_only=True):
    """A chunk of this file that an earlier attempt has indexed."""

    digest: str
    context: str | None


class KnownChunk(Struct, frozen=True, kw_only=True):
    """A chunk that has been indexed before."""

    id: str
    digest: str
    index: StoreIndex


class IngestionRepository:
    """Every change of a row in work is guarded by the worker's claim."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._insert = sqlite.insert if database.is_sqlite else postgresql.insert

    # -- the life of a claim --------------------------------------------------------------------

    async def claim(self, project: str, attachment_id: str) -> Claim | None:
        """Take a file up; ``None`` where there is nothing to do any more.

        Whoever had it before has lost it with this.
        """
        async with self._database.begin() as session:
            taken = await session.execute(
                update(VectorStoreFileRow)
                .where(*_open(project, attachment_id))
                .values(
                    attempt=VectorStoreFileRow.attempt + 1,
                    tries=VectorStoreFileRow.tries + 1,
                    touched_at=now(),
                )
                .execution_options(synchronize_session=False)
            )
            if not _changed(taken):
                return None
            found = (await session.execute(_claimed(project, attachment_id))).one_or_none()
            if found is None:
                await _settle_without_file(session, attachment_id)
                return None
            row, store, file = found
            return Claim(
                attachment_id=row.id,
                project=project,
                attempt=row.attempt,
                tries=row.tries,
                attached_at=row.sequence / 1_000_000,
                traceparent=row.traceparent,
                chunking=row.chunking,
                embedding_model=store.embedding_model,
                index=index_of(store),
                file_id=file.id,
                filename=file.filename,
                bytes=file.bytes,
                object_key=file.object_key,
                document_key=file.document_key,
            )

    async def check(self, claim: Claim) -> None:
        """Raises ``NotWanted`` where the claim holds no more."""
        async with self._database.read() as session:
            await _check(session, claim)

    async def complete(self, claim: Claim, usage_bytes: int) -> None:
        """From now on the file is found. Raises ``NotWanted``."""
        await self._finish(claim, status="completed", usage_bytes=usage_bytes)

    async def fail(self, claim: Claim, code: FailureCode, message: str) -> None:
        """Raises ``NotWanted``."""
        await self._finish(claim, status="failed", error_code=code, error_message=message)

    async def _finish(self, claim: Claim, **values: Any) -> None:
        async with self._database.begin() as session:
            done = await session.execute(
                update(VectorStoreFileRow)
                .where(*_held(claim))
                .values(finished_at=now(), touched_at=now(), **values)
                .execution_options(synchronize_session=False)
            )
            if not _changed(done):
                raise NotWanted

    async def give_back(self, claim: Claim) -> None:
        """The worker shuts down: this attempt doesn't count."""
        async with self._database.begin() as session:
            await session.execute(
                update(VectorStoreFileRow)
                .where(*_held(claim))
                .values(tries=VectorStoreFileRow.tries - 1)
                .execution_options(synchronize_session=False)
            )

    async def is_abandoned(self, project: str, attachment_id: str) -> StoreIndex | None:
        """The index that may hold vectors of a file that will never be completed; ``None`` where
        it still may be, or is, or where its removal is another job's.
        """
        async with self._database.read() as session:
            found = (
                await session.execute(
                    select(VectorStoreRow)
                    .join(VectorStoreFileRow, VectorStoreFileRow.store_id == VectorStoreRow.id)
                    .where(
                        VectorStoreFileRow.project == project,
                        VectorStoreFileRow.id == attachment_id,
                        VectorStoreFileRow.status.in_(("failed", "cancelled")),
                        VectorStoreFileRow.attempt > 0,
                        VectorStoreFileRow.deleted_at.is_(None),
                        VectorStoreRow.deleted_at.is_(None),
                    )
                )
            ).scalar_one_or_none()
            return index_of(found) if found is not None else None

    async def is_taken_over(self, claim: Claim) -> bool:
        """Whether another worker goes on with the file or has completed it, so that its vectors
        must stay.
        """
        async with self._database.read() as session:
            found = await session.execute(
                select(VectorStoreFileRow.id)
                .join(VectorStoreRow, VectorStoreRow.id == VectorStoreFileRow.store_id)
                .where(
                    VectorStoreFileRow.project == claim.project,
                    VectorStoreFileRow.id == claim.attachment_id,
                    VectorStoreFileRow.status.in_(("in_progress", "completed")),
                    VectorStoreFileRow.deleted_at.is_(None),
                    VectorStoreRow.deleted_at.is_(None),
                )
            )
            return found.first() is not None

    async def is_store_there(self, claim: Claim) -> bool:
        """Whether the store has not been deleted."""
        async with self._database.read() as session:
            found = await session.execute(
                select(VectorStoreRow.id).where(
                    VectorStoreRow.project == claim.project,
                    VectorStoreRow.id == claim.index.store_id,
                    VectorStoreRow.deleted_at.is_(None),
                )
            )
            return found.first() is not None

    async def is_file_there(self, claim: Claim) -> bool:
        """Whether the file has not been deleted."""
        async with self._database.read() as session:
            found = await session.execute(
                select(FileRow.id).where(
                    FileRow.project == claim.project,
                    FileRow.id == claim.file_id,
                    FileRow.deleted_at.is_(None),
                )
            )
            return found.first() is not None

    # -- chunks ---------------------------------------------------------------------------------

    async def earlier_chunks(self, claim: Claim) -> dict[int, EarlierChunk]:
        """What earlier attempts have written, by position."""
        async with self._database.read() as session:
            rows = await session.execute(
                select(ChunkRow.position, ChunkRow.digest, ChunkRow.context).where(
                    ChunkRow.project == claim.project,
                    ChunkRow.attachment_id == claim.attachment_id,
                )
            )
            return {
                position: EarlierChunk(digest=digest, context=context)
                for position, digest, context in rows
            }

    async def known_chunks(self, claim: Claim, digests: Sequence[str]) -> list[KnownChunk]:
        """For each digest at most one chunk with a vector: of this file's earlier attempts, or of
        a file that is completed in any store of the project.
        """
        known: list[KnownChunk] = []
        async with self._database.read() as session:
            for part in _parts(sorted(set(digests)), _QUERY_BATCH):
                counts = and_(
                    VectorStoreFileRow.deleted_at.is_(None),
                    VectorStoreRow.deleted_at.is_(None),
                    VectorStoreRow.dimension == claim.index.dimension,
                    (VectorStoreFileRow.status == "completed")
                    | (VectorStoreFileRow.id == claim.attachment_id),
                )
                one_each = (
                    select(func.min(ChunkRow.id))
                    .join(VectorStoreFileRow, VectorStoreFileRow.id == ChunkRow.attachment_id)
                    .join(VectorStoreRow, VectorStoreRow.id == ChunkRow.store_id)
                    .where(ChunkRow.project == claim.project, ChunkRow.digest.in_(part), counts)
                    .group_by(ChunkRow.digest)
                )
                rows = await session.execute(
                    select(ChunkRow.id, ChunkRow.digest, VectorStoreRow)
                    .join(VectorStoreRow, VectorStoreRow.id == ChunkRow.store_id)
                    .where(ChunkRow.id.in_(one_each))
                )
                known += [
                    KnownChunk(id=id_, digest=digest, index=index_of(store))
                    for id_, digest, store in rows
                ]
        return known

    async def write_chunks(self, claim: Claim, rows: Sequence[dict[str, Any]]) -> None:
        """Put these rows in place of those with the same id. Raises ``NotWanted``."""
        async with self._database.begin() as session:
            await _check(session, claim, touch=True)
            statement = self._insert(ChunkRow)
            columns = {
                name: statement.excluded[name]
                for name in ("text", "digest", "tokens", "headings", "pages", "start", "end")
            }
            columns["context"] = statement.excluded["context"]
            await session.execute(
                statement.on_conflict_do_update(index_elements=["id"], set_=columns), list(rows)
            )

    async def remove_chunks(self, project: str, attachment_id: str) -> None:
        """All of this file's chunks in this store."""
        await remove_chunks(
            self._database, ChunkRow.project == project, ChunkRow.attachment_id == attachment_id
        )


async def remove_chunks(database: Database, *where: ColumnElement[bool]) -> None:
    """Remove chunks, a bounded number in each transaction."""
    while True:
        async with database.begin() as session:
            some = select(ChunkRow.id).where(*where).limit(_DELETE_BATCH)
            ids = list((await session.execute(some)).scalars())
            for part in _parts(ids, _QUERY_BATCH):
                await session.execute(
                    delete(ChunkRow)
                    .where(ChunkRow.id.in_(part))
                    .execution_options(synchronize_session=False)
                )
        if len(ids) < _DELETE_BATCH:
            return


def _open(project: str, attachment_id: str) -> tuple[ColumnElement[bool], ...]:
    return (
        VectorStoreFileRow.project == project,
        VectorStoreFileRow.id == attachment_id,
        VectorStoreFileRow.status == "in_progress",
        VectorStoreFileRow.deleted_at.is_(None),
        # Not where its store is on the way out: the update that completes asks for that as well.
        exists().where(
            VectorStoreRow.id == VectorStoreFileRow.store_id, VectorStoreRow.deleted_at.is_(None)
        ),
    )


def _held(claim: Claim) -> tuple[ColumnElement[bool], ...]:
    return (
        *_open(claim.project, claim.attachment_id),
        VectorStoreFileRow.attempt == claim.attempt,
    )


def _claimed(
    project: str, attachment_id: str
) -> Select[VectorStoreFileRow, VectorStoreRow, FileRow]:
    return (
        select(VectorStoreFileRow, VectorStoreRow, FileRow)
        .join(VectorStoreRow, VectorStoreRow.id == VectorStoreFileRow.store_id)
        .join(FileRow, FileRow.id == VectorStoreFileRow.file_id)
        .where(
            VectorStoreFileRow.project == project,
            VectorStoreFileRow.id == attachment_id,
            FileRow.deleted_at.is_(None),
        )
    )


async def _check(session: AsyncSession, claim: Claim, *, touch: bool = False) -> None:
    if touch:
        done = await session.execute(
            update(VectorStoreFileRow)
            .where(*_held(claim))
            .values(touched_at=now())
            .execution_options(synchronize_session=False)
        )
        if not _changed(done):
            raise NotWanted
        return
    found = await session.execute(select(VectorStoreFileRow.id).where(*_held(claim)))
    if found.first() is None:
        raise NotWanted


async def _settle_without_file(session: AsyncSession, attachment_id: str) -> None:
    await session.execute(
        update(VectorStoreFileRow)
        .where(VectorStoreFileRow.id == attachment_id)
        .values(
            status="failed",
            error_code="invalid_file",
            error_message="The file was deleted before it was ingested.",
            finished_at=now(),
        )
        .execution_options(synchronize_session=False)
    )


def _changed(result: Any) -> bool:
    return bool(result.rowcount)


def _parts(values: Sequence[Any], size: int) -> Iterable[Sequence[Any]]:
    return (values[at : at + size] for at in range(0, len(values), size))
