"""Rows that are marked as deleted, and what still hangs on them."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct
from sqlalchemy import ColumnElement, delete, exists, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from gateway.database.engine import Database
from gateway.database.identifiers import now
from gateway.database.tables import (
    ChunkRow,
    FileRow,
    UploadPartRow,
    UploadRow,
    VectorStoreFileRow,
    VectorStoreRow,
)
from gateway.ingestion.repository import remove_chunks
from gateway.ports import JobQueue, StoreIndex
from gateway.vector_stores.repository import index_of

__all__ = ["DeletedFile", "ForgottenWork", "TombstoneRepository"]

_BATCH = 500


class DeletedFile(Struct, frozen=True, kw_only=True):
    """What is left of a file: its objects, and its places in vector stores."""

    keys: list[str]
    attachments: list[tuple[str, StoreIndex]]


class ForgottenWork(Struct, frozen=True, kw_only=True):
    """How many jobs were put anew for each kind of row."""

    ingestions: int
    deletions: int


class TombstoneRepository:
    """Removes rows for good, a bounded number in each transaction."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def attachment(self, project: str, attachment_id: str) -> StoreIndex | None:
        """Where the vectors of this deleted attachment are; ``None`` where there is none such."""
        async with self._database.read() as session:
            store = (
                await session.execute(
                    select(VectorStoreRow)
                    .join(VectorStoreFileRow, VectorStoreFileRow.store_id == VectorStoreRow.id)
                    .where(
                        VectorStoreFileRow.project == project,
                        VectorStoreFileRow.id == attachment_id,
                        VectorStoreFileRow.deleted_at.is_not(None),
                    )
                )
            ).scalar_one_or_none()
        return None if store is None else index_of(store)

    async def remove_attachment(self, project: str, attachment_id: str) -> None:
        """The row with its chunks and attributes. Its vectors are gone already."""
        await remove_chunks(
            self._database, ChunkRow.project == project, ChunkRow.attachment_id == attachment_id
        )
        async with self._database.begin() as session:
            await session.execute(
                delete(VectorStoreFileRow).where(
                    VectorStoreFileRow.project == project,
                    VectorStoreFileRow.id == attachment_id,
                    VectorStoreFileRow.deleted_at.is_not(None),
                )
            )

    async def is_empty_and_expired(self, project: str, store_id: str) -> bool:
        """Whether the store's time is over and its last file is gone."""
        async with self._database.read() as session:
            found = await session.execute(
                select(VectorStoreRow.id).where(
                    VectorStoreRow.project == project,
                    VectorStoreRow.id == store_id,
                    VectorStoreRow.expires_at <= now(),
                    ~exists().where(VectorStoreFileRow.store_id == VectorStoreRow.id),
                )
            )
            return found.first() is not None

    async def file(self, project: str, file_id: str) -> DeletedFile | None:
        """``None`` where there is no deleted file of this id."""
        async with self._database.begin() as session:
            row = (
                await session.execute(
                    select(FileRow).where(
                        FileRow.project == project,
                        FileRow.id == file_id,
                        FileRow.deleted_at.is_not(None),
                    )
                )
            ).scalar_one_or_none()
            if row is None:
                return None
            places = (
                VectorStoreFileRow.project == project,
                VectorStoreFileRow.file_id == file_id,
            )
            # All of them are marked already; one that came in between would never be found again.
            await session.execute(
                update(VectorStoreFileRow)
                .where(*places, VectorStoreFileRow.deleted_at.is_(None))
                .values(deleted_at=now())
            )
            found = await session.execute(
                select(VectorStoreFileRow.id, VectorStoreRow)
                .join(VectorStoreRow, VectorStoreRow.id == VectorStoreFileRow.store_id)
                .where(*places)
            )
            attachments = [(attachment_id, index_of(store)) for attachment_id, store in found]
            return DeletedFile(keys=[row.object_key, row.document_key], attachments=attachments)

    async def remove_file(self, project: str, file_id: str) -> None:
        async with self._database.begin() as session:
            await session.execute(
                delete(FileRow).where(
                    FileRow.project == project,
                    FileRow.id == file_id,
                    FileRow.deleted_at.is_not(None),
                )
            )

    async def store(self, project: str, store_id: str) -> StoreIndex | None:
        """``None`` where there is no deleted store of this id."""
        async with self._database.read() as session:
            row = (
                await session.execute(
                    select(VectorStoreRow).where(
                        VectorStoreRow.project == project,
                        VectorStoreRow.id == store_id,
                        VectorStoreRow.deleted_at.is_not(None),
                    )
                )
            ).scalar_one_or_none()
        return None if row is None else index_of(row)

    async def remove_store(self, project: str, store_id: str) -> None:
        """The row with all that is in it. Its vectors are gone already."""
        files = VectorStoreFileRow
        mine = (files.project == project, files.store_id == store_id)
        while True:
            async with self._database.read() as session:
                some = select(files.id).where(*mine).limit(_BATCH)
                ids = list((await session.execute(some)).scalars())
            if not ids:
                break
            await remove_chunks(self._database, ChunkRow.attachment_id.in_(ids))
            async with self._database.begin() as session:
                await session.execute(delete(files).where(*mine, files.id.in_(ids)))
        async with self._database.begin() as session:
            await session.execute(
                delete(VectorStoreRow).where(
                    VectorStoreRow.project == project,
                    VectorStoreRow.id == store_id,
                    VectorStoreRow.deleted_at.is_not(None),
                )
            )

    async def upload_is_over(self, project: str, upload_id: str) -> bool:
        """Whether no more parts are taken, and those that came are of no more use."""
        async with self._database.read() as session:
            found = await session.execute(
                select(UploadRow.status).where(
                    UploadRow.project == project, UploadRow.id == upload_id
                )
            )
            return found.scalar_one_or_none() != "pending"

    async def remove_parts(self, project: str, upload_id: str) -> None:
        async with self._database.begin() as session:
            await session.execute(
                delete(UploadPartRow).where(
                    UploadPartRow.project == project, UploadPartRow.upload_id == upload_id
                )
            )

    # For the reaper, which serves all projects.

    async def expire_stores(self, queue: JobQueue) -> int:
        """Take the files out of stores whose time is over; how many. The stores stay, empty."""
        async with self._database.begin() as session:
            found = await session.execute(
                select(VectorStoreFileRow.project, VectorStoreFileRow.id)
                .join(VectorStoreRow, VectorStoreRow.id == VectorStoreFileRow.store_id)
                .where(
                    VectorStoreRow.expires_at <= now(),
                    VectorStoreRow.deleted_at.is_(None),
                    VectorStoreFileRow.deleted_at.is_(None),
                )
                .limit(_BATCH)
            )
            due = [(project, id_) for project, id_ in found]
            for project, attachment_id in due:
                await _mark(session, VectorStoreFileRow.id == attachment_id)
                payload = {"project": project, "id": attachment_id}
                await queue.put(session, "delete_attachment", payload)
        return len(due)

    async def forget_uploads(self, older_than_seconds: float) -> int:
        """Remove the rows of uploads that ended this long ago; how many."""
        async with self._database.begin() as session:
            ids = await _ids(
                session,
                UploadRow,
                UploadRow.status != "pending",
                UploadRow.expires_at <= now() - int(older_than_seconds),
                ~exists().where(UploadPartRow.upload_id == UploadRow.id),
            )
            await session.execute(delete(UploadRow).where(UploadRow.id.in_(ids)))
        return len(ids)

    async def remind(
        self, queue: JobQueue, *, ingestion_seconds: int, deletion_seconds: int
    ) -> ForgottenWork:
        """Put the jobs of rows anew that nobody has touched for so long.

        A job is put with its row, so that one should never be missing; a queue that was restored
        from elsewhere, or cleared by hand, is no reason to wait for ever. A job too many does no
        harm.
        """
        files, time = VectorStoreFileRow, now()
        before = time - ingestion_seconds
        async with self._database.begin() as session:
            found = await session.execute(
                select(files.project, files.id)
                .where(
                    files.status == "in_progress",
                    files.deleted_at.is_(None),
                    files.file_id.is_not(None),
                    files.touched_at < before,
                    files.sequence < before * 1_000_000,
                )
                .limit(_BATCH)
            )
            waiting = [(project, id_) for project, id_ in found]
            for project, attachment_id in waiting:
                await session.execute(
                    update(files).where(files.id == attachment_id).values(touched_at=time)
                )
                payload = {"project": project, "id": attachment_id}
                await queue.put(session, "ingest_file", payload)
            deletions = 0
            for kind, table in (
                ("delete_attachment", VectorStoreFileRow),
                ("delete_store", VectorStoreRow),
                ("delete_file", FileRow),
            ):
                left = await session.execute(
                    select(table.project, table.id)
                    .where(table.deleted_at < time - deletion_seconds)
                    .limit(_BATCH)
                )
                for project, id_ in left.all():
                    await session.execute(
                        update(table).where(table.id == id_).values(deleted_at=time)
                    )
                    await queue.put(session, kind, {"project": project, "id": id_})
                    deletions += 1
        return ForgottenWork(ingestions=len(waiting), deletions=deletions)


async def _mark(session: AsyncSession, *where: ColumnElement[bool]) -> None:
    await session.execute(
        update(VectorStoreFileRow)
        .where(*where, VectorStoreFileRow.deleted_at.is_(None))
        .values(deleted_at=now())
    )


async def _ids(
    session: AsyncSession, table: type[UploadRow], *where: ColumnElement[bool]
) -> Sequence[str]:
    return list((await session.execute(select(table.id).where(*where).limit(_BATCH))).scalars())
